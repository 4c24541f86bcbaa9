"""Views of an exploration in the published format, and the import of logs in it."""
