"""Section `plotting`: appearance of the figures."""

from __future__ import annotations

from pydantic import Field

from metabolismgraph.config.section import Section


class Plotting(Section):
    """Appearance of the figures."""

    colormap: str = Field(
        "okabe_ito",
        description="colours of the types: okabe_ito (colour-blind safe) or the name of a Matplotlib colour map",
    )
    dpi: int = Field(150, ge=30, le=1200, description="resolution of the figures [dots per inch]")
