"""The command line."""

from metabolismgraph.cli.app import main

__all__ = ["main"]
