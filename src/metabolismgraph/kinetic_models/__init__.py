"""Models as their files state them: every quantity with its own rate law or rule."""
