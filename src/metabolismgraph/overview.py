"""What results show of themselves in a console and in a notebook, instead of all their arrays."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from metabolismgraph.text import visible

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 10  # of a data frame
_number = "{:.5g}".format
Rows = Iterable[tuple[str, object]]


class Overview:
    """Base of classes that show a title, names with values and a data frame.

    A dataclass needs `repr=False`, and names with values are `_overview`.

    Example:
        >>> class Fit(Overview):
        ...     def _overview(self):
        ...         return "a fit", [("k < 0", 3), ("trusted", "no")]
        >>> Fit()
        a fit
          k < 0    3
          trusted  no
        >>> Fit()._repr_html_()[:64]
        '<table><caption>a fit</caption><tr><th>k &lt; 0</th><td>3</td></'
    """

    def _overview(self) -> tuple[str, Rows]:
        """The title, and names with values."""
        raise NotImplementedError

    def _frame(self) -> pd.DataFrame | None:
        """The data frame below; None: none."""
        return None

    def __repr__(self) -> str:
        title, rows = self._overview()
        pairs = [(visible(name), visible(value)) for name, value in rows]
        width = max((len(name) for name, _ in pairs), default=0)
        lines = [visible(title), *(f"  {name:{width}}  {value}" for name, value in pairs)]
        frame = self._frame()
        return "\n".join(
            lines if frame is None else [*lines, frame.to_string(max_rows=_ROWS, index=False, float_format=_number)]
        )

    def _repr_html_(self) -> str:
        title, rows = self._overview()
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
        frame = self._frame()
        below = "" if frame is None else str(frame.to_html(max_rows=_ROWS, index=False, float_format=_number))
        return f"<table><caption>{html.escape(title)}</caption>{''.join(cells)}</table>{below}"
