"""`python -m metabolismgraph` is the command line."""

from metabolismgraph.cli import main

main()
