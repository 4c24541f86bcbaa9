"""The style of all figures: fonts, sizes, colours, axes and files.

Figures use the object interface of Matplotlib, not pyplot. The style applies only inside the context `applied`.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import PIL.TiffImagePlugin  # noqa: F401 - otherwise Pillow imports all its formats to write a TIFF file
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter
from PIL import Image

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes

# Okabe & Ito (2008): distinguishable with all kinds of colour blindness. Black is reserved for the truth.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#F0E442")
BLUE, ORANGE, GREEN, VERMILLION = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2], OKABE_ITO[4]
TRUTH, FAINT = "black", "0.75"

CONCENTRATION = "concentration"
RATE = "concentration/time"
LOG_K = "log₁₀ k"

_QUALITATIVE = 20  # colour maps with at most this number of colours are qualitative, others continuous
_CONTINUOUS = "viridis"  # replaces a qualitative colour map with too few colours
_MAX_ENTRIES = 20  # of a legend
_ENTRY_WIDTH = 1.6  # of a legend, in inches
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_MANY = 4  # decades; a longer logarithmic axis has no minor ticks
_LETTER = -0.12  # place of the letter of a panel, in widths of the panel
_TIFF: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
_PNG: dict[str, Any] = {"compress_level": 3}  # three quarters of the time of the usual 6, and 16 % more bytes
_SETTINGS: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    # Text of vector graphics stays text, and the same figure gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "metabolismgraph",
    "pdf.fonttype": 42,
    "font.size": 12,
    "figure.labelsize": 12,
    "axes.titlesize": 12,
    "axes.titley": 1.0,  # without it, Matplotlib looks for a place above the labels of all ticks, which takes long
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.title_fontsize": 11,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
    "lines.linewidth": 1.5,
}


@contextmanager
def applied() -> Iterator[None]:
    """Apply the defaults of Matplotlib and the settings of this package; restore those of the user at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


class Picture(Figure):
    """A figure in the style of this package, which a notebook shows as the value of a cell.

    Without pyplot, a notebook would show the size of a figure. Ticks are made when they are drawn, with the settings of
    that moment: those of the user may be white on white.
    """

    def draw(self, renderer: Any) -> None:
        with applied():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def panels(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches, and its axes as an array of rows x columns."""
    figure = Picture(figsize=(width, height))
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **options))


class _Numbers(ScalarFormatter):
    """Numbers on a linear axis, with their common power of ten beside it.

    The default writes both in the markup of Matplotlib, whose parser takes a quarter of the time of a figure.
    """

    def get_offset(self) -> str:
        written = super().get_offset().replace("\N{MINUS SIGN}", "-")  # such as 1e-6
        return f"×{power_of_ten(int(written.removeprefix('1e')))}" if written else ""


def save(figure: Figure, path: Path, dpi: int, formats: Iterable[str] = ()) -> Path:
    """Write a PNG or TIFF file, completely or not at all; returns its path.

    Args:
        formats: svg or pdf, for further files of the same name.
    """
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if type(axis.get_major_formatter()) is ScalarFormatter:
            axis.set_major_formatter(_Numbers())
    for spine in (spine for ax in figure.axes for spine in ax.spines.values()):
        spine.set_in_layout(False)  # the labels of an axis reach further, and each spine would make all ticks again
    if (layout := figure.get_layout_engine()) is not None:
        # Matplotlib itself would draw the whole figure twice, the first time for the layout only.
        figure.set_dpi(dpi)
        layout.execute(figure)
        with mpl.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _pixels(figure, path.suffix, dpi))
    for name in formats:
        vector = io.BytesIO()
        # Without the time, the same data give the same file.
        figure.savefig(vector, format=name, metadata={"Date" if name == "svg" else "CreationDate": None})
        write_bytes(path.with_suffix(f".{name}"), vector.getvalue())
    return path


def _pixels(figure: Figure, suffix: str, dpi: int) -> bytes:
    """The content of a PNG or TIFF file."""
    # `savefig` takes half as long again: it copies the pixels, with an opacity that is the same everywhere.
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    kind, options = ("TIFF", _TIFF) if suffix == ".tif" else ("PNG", _PNG)
    buffer = io.BytesIO()
    image.save(buffer, kind, dpi=(dpi, dpi), **options)
    return buffer.getvalue()


def check_colormap(name: str) -> None:
    """Check that a colour map exists.

    Raises:
        InputError: it is neither okabe_ito nor a colour map of Matplotlib.
    """
    known = ["okabe_ito", *mpl.colormaps]
    if name in known:
        return
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lower, 1, 0.0)
    raise InputError(f"plotting.colormap is {name!r}, which is not a colour map; did you mean {lower[near[0]]}?")


def palette(n: int, colormap: str) -> list[str]:
    """n different colours; of a continuous colour map if the given one has too few colours.

    Raises:
        InputError: there is no such colour map.
    """
    check_colormap(colormap)
    own: list[str] = []
    if colormap == "okabe_ito":
        own, colormap = list(OKABE_ITO), _CONTINUOUS
    else:
        chosen = mpl.colormaps[colormap]
        if isinstance(chosen, ListedColormap) and chosen.N <= _QUALITATIVE:
            own, colormap = [to_hex(chosen(i)) for i in range(chosen.N)], _CONTINUOUS
    if n <= len(own):
        return own[:n]
    # The ends of a continuous colour map are often close to white or black.
    return [to_hex(mpl.colormaps[colormap](x)) for x in np.linspace(0.03, 0.93, n)]


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add a legend below all panels, with at most 20 entries."""
    if len(handles) > _MAX_ENTRIES:
        rest = Line2D([], [], linestyle="none", label=f"and {len(handles) - _MAX_ENTRIES + 1} more")
        handles = [*handles[: _MAX_ENTRIES - 1], rest]
    rows = -(-len(handles) // int(figure.get_figwidth() / _ENTRY_WIDTH))
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows), columnspacing=1.2)


def letter(axes: Iterable[Axes]) -> None:
    """Label panels a, b, c, ... to their left, clear of the power of ten above an axis."""
    for name, ax in zip("abcdefghijkl", axes, strict=False):
        ax.set_title(name, loc="left", fontweight="bold", x=_LETTER)


def positive(values: np.ndarray) -> np.ndarray:
    """Positive finite values, which a logarithmic axis can show; others become NaN."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below; NaN where the result is not finite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.asarray(above / below)
    return np.where(np.isfinite(found), found, np.nan)


def log_axis(ax: Axes, which: str, values: np.ndarray) -> None:
    """Make an axis logarithmic around `values`, with at least two powers of ten; no change if none is positive."""
    shown = positive(values)
    if not np.isfinite(shown).any():
        return
    low, high = np.log10(np.nanmin(shown)), np.log10(np.nanmax(shown))
    if np.floor(high) - np.ceil(low) < 1:
        low, high = np.floor(low), max(np.ceil(high), np.floor(low) + 1)
    margin = 0.04 * (high - low)
    ax.set(**{f"{which}scale": "log", f"{which}lim": (10 ** (low - margin), 10 ** (high + margin))})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(FuncFormatter(lambda x, _: power_of_ten(round(np.log10(x))) if x > 0 else ""))
    axis.set_minor_formatter(NullFormatter())
    if high - low > _MANY:
        axis.set_minor_locator(NullLocator())


def count_axis(ax: Axes) -> None:
    """Ticks of the horizontal axis at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def robust_limits(values: np.ndarray, always: np.ndarray) -> tuple[float, float] | None:
    """Limits of an axis for all of `always` and for `values` without far outliers; None: there are no values."""
    values, always = values[np.isfinite(values)], always[np.isfinite(always)]
    if values.size + always.size == 0:
        return None
    both = np.concatenate([values, always])
    center = np.quantile(both, [0.1, 0.9])
    reach = 3 * np.ptp(center)
    near = both[(both >= center[0] - reach) & (both <= center[1] + reach)]
    shown = np.concatenate([near, always])
    low, high = shown.min(), shown.max()
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def power_of_ten(exponent: int) -> str:
    """A power of ten as text, such as 10⁻⁸."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def subscript(number: int) -> str:
    """A number as subscript, such as ₁₂."""
    return str(number).translate(_SUBSCRIPTS)


def scientific(value: float) -> str:
    """A number as 7.2·10⁻⁸; without power of ten if that is as short."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}·{power_of_ten(int(power))}"


def r2_text(value: object) -> str:
    """R² as text; 0.99999 is not rounded to 1."""
    if not isinstance(value, int | float) or not np.isfinite(value):
        return "R² undefined"
    return "R² > 0.9999" if 0.9999 < value < 1 else f"R² = {value:.4g}"
