"""Two nodes or explorations side by side on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from metabolismgraph.cli.explore_tables import coloured_difference
from metabolismgraph.explore.comparison import Comparison
from metabolismgraph.text import visible


def comparison_page(found: Comparison) -> RenderableType:
    """A table of what differs, the difference seed by seed, evidence and strategy files."""
    columns = (Column(Text(visible(name)), overflow="fold") for name in found.names)
    # Names of settings are long, and unreadable when they are broken.
    table = Table(Column("", no_wrap=True), *columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for row in found.rows:
        style = "" if row.first != row.second else "dim"
        table.add_row(Text(visible(row.what)), *(Text(visible(side), style) for side in (row.first, row.second)))
    parts: list[RenderableType] = [table, Text(visible(found.difference), "bold")]
    parts += [Text(visible(line)) for line in found.evidence]
    for difference in found.differences:
        parts += ["", coloured_difference(difference)]
    return Group(*parts)
