"""Engines, which run the jobs of an exploration, one file each."""
