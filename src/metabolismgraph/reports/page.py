"""Pages: one HTML file with its data, scripts, styles and pictures, which asks nothing of a network."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

_LARGEST_PICTURE = 600_000  # bytes; larger ones stay beside the page
_DIGITS = 6  # significant ones of numbers in tables
ASSETS = Path(__file__).with_name("assets")


class Library(NamedTuple):
    """A library that pages contain, from npm.

    Attributes:
        name: with its version.
        script, style, licence: files in the folder of assets; without a style, an empty name.
        use: what pages use it for.
    """

    name: str
    script: str
    style: str
    licence: str
    use: str


TABULATOR = Library(
    "Tabulator 6.5.3", "tabulator.min.js", "tabulator.min.css", "tabulator.LICENSE.txt", "shows the tables"
)
D3 = Library("D3 7.9.0", "d3.min.js", "", "d3.LICENSE.txt", "draws the tree and the points")


def render(
    template: str,
    content: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    libraries: Sequence[Library] = (TABULATOR,),
    scripts: Sequence[str] = ("report.js",),
) -> str:
    """Fill a template with content, all of which is escaped, and data for the scripts of the page.

    Args:
        template: file in the folder of assets.
        content: values of the template.
        data: JSON-compatible.
        libraries: those that the scripts need.
        scripts: files in the folder of assets, in order.
    """
    sources = [_asset(name) for name in (*(library.script for library in libraries), *scripts)]
    styles = [library.style for library in libraries if library.style]
    return (
        _environment()
        .get_template(template)
        .render(
            **content,
            data=data,
            scripts=sources,
            allowed=[_fingerprint(script) for script in sources],
            styles=[_asset(name) for name in (*styles, "report.css")],
            licences=[(library.name, library.use, _asset(library.licence)) for library in libraries],
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def plain(value: object) -> bool | float | str | None:
    """A value for the scripts of a page: numbers with the digits that a table shows; None for one that is no number."""
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, int | float | np.number):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return str(value)


def picture(path: Path) -> str:
    """A PNG file as a data URI; empty for one that is missing, or too large for a page."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_PICTURE else b""
    except OSError:
        content = b""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if content else ""


def _fingerprint(script: str) -> str:
    """What a browser compares a script with before it executes it (Content Security Policy, W3C)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


@functools.cache
def _asset(name: str) -> Markup:
    return Markup((ASSETS / name).read_text(encoding="utf-8"))  # noqa: S704 (a file of this package)
