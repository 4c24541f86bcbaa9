"""Pages: one HTML file with its data, scripts, styles and pictures, which asks nothing of a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

ASSETS = Path(__file__).with_name("assets")
_TABULATOR = "tabulator.min.js", "tabulator.min.css", "tabulator.LICENSE.txt"  # 6.5.3, from npm


def render(template: str, content: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Fill a template with content, all of which is escaped, and data for the scripts of the page.

    Args:
        template: file in the folder of assets.
        content: values of the template.
        data: JSON-compatible.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    script, style, licence = (_asset(name) for name in _TABULATOR)
    scripts = [script, _asset("report.js")]
    return environment.get_template(template).render(
        **content,
        data=data,
        scripts=scripts,
        allowed=[_fingerprint(script) for script in scripts],
        styles=[style, _asset("report.css")],
        licence=licence,
    )


def picture(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _fingerprint(script: str) -> str:
    """What a browser compares a script with before it executes it (Content Security Policy, W3C)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _asset(name: str) -> Markup:
    return Markup((ASSETS / name).read_text(encoding="utf-8"))  # noqa: S704 (a file of this package)
