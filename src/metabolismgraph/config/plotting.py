"""Section `plotting`: appearance of the figures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metabolismgraph.config.section import Section


class Plotting(Section):
    """Appearance of the figures."""

    colormap: str = Field(
        "okabe_ito",
        description="colours of the types: okabe_ito (colour-blind safe) or the name of a Matplotlib colour map",
    )
    formats: tuple[Literal["svg", "pdf"], ...] = Field(
        (), description="vector graphics of every figure, beside the usual file: svg, pdf"
    )
    dpi: int = Field(150, ge=30, le=1200, description="resolution of the figures [dots per inch]")
