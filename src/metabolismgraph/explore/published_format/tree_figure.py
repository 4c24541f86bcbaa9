"""Figure of an exploration: the tree of nodes, block by block, and the reward over its iterations."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import Mutation, shown
from metabolismgraph.explore.proposers.rules_memory import what_trains
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, best, candidate, leader, nodes, standard_error
from metabolismgraph.figures.style import FAINT, OKABE_ITO, TRUTH, applied, save
from metabolismgraph.text import visible

# All lengths in inches. Printed at the width of a page the figure is about two thirds of this.
_WIDTH, _MARGIN, _LEFT = 10.5, 0.25, 0.85
_HEAD, _STATUS, _REWARD, _XLABEL, _LINE = 0.7, 0.75, 3.1, 0.55, 0.24
_TALLEST = 10.0  # of the tree, unless leaves would be too close
_TITLE, _GAP = 0.4, 0.2  # of a block: above it, and to the next
_ROW, _STEP = 0.52, 2.6  # at most, between leaves and between generations
_LEAST_ROW = 0.1
_DIAMETER = 0.36  # of a node, at most
_NAMED = 0.2  # smallest diameter with room for an id
_TEXT, _MORE_TEXT = 0.3, 0.5  # smallest distance of leaves with room for one line above a branch, for two
_TITLE_SIZE, _LARGE, _SMALL = 12.0, 11.0, 9.0  # points
_FEWEST = 10  # letters of a mutation that are worth showing

_CMAP = "viridis"
_TRUNK = "0.4"
_MARKERS = {"converged": "o", "partial": "s", "failed": "D", "in flight": "o"}
_RELATIVE = {"o": 1.0, "s": 0.88, "D": 0.78}  # of equal width, these look equally large
_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 1)  # of a reward
_CLOSE = 0.02  # 1 - reward, below which a logarithmic scale of it ends
_MOST_SETS = 6  # strategy sets with a colour of their own
_OTHERS = "0.6"


def draw_tree(state: State, folder: Path) -> Path:
    """Draw the tree and the rewards of an exploration into tree.png of a folder.

    a: one tree per block, generations from left to right; colour: mean reward, shape: status, branch and letter:
    strategy set, text: mutations (above) and mean ± standard error (number of replicates, below), as far as there is
    room. b: reward of every iteration, replicates joined, and the leading node at the time.
    """
    with applied():
        figure = _drawn(state)
        return save(figure, folder / "tree.png", state.config.plotting.dpi)


def _drawn(state: State) -> Figure:
    sets = _Sets.of(state)
    plan = _Plan.of(state)
    rows = _legend_rows(sets)
    below = _XLABEL + _LINE * len(rows) + _MARGIN
    height = _HEAD + plan.height + _STATUS + _REWARD + below
    figure = Figure(figsize=(_WIDTH, height))
    figure.set_layout_engine("none")

    def axes(left: float, bottom: float, width: float, tall: float) -> Axes:
        return figure.add_axes((left / _WIDTH, bottom / height, width / _WIDTH, tall / height))

    tree = axes(0.0, below + _REWARD + _STATUS, _WIDTH, plan.height)
    tree.set(xlim=(0, _WIDTH), ylim=(-plan.height, 0))
    tree.set_axis_off()
    for place in plan.places:
        _block(tree, state, plan, place, sets)
    if not plan.places:
        tree.text(_WIDTH / 2, -plan.height / 2, "nothing has been proposed yet", ha="center", va="center")
    _head(figure, axes, state, height)
    _explained(figure, height, below + _REWARD)
    _rewards(axes(_LEFT, below, _WIDTH - _LEFT - _MARGIN, _REWARD), state, sets)
    for number, row in enumerate(rows):
        y = (_MARGIN / 2 + _LINE * (len(rows) - 1 - number)) / height
        _legend(figure, row, (_LEFT / _WIDTH, y))
    return figure


def _head(figure: Figure, axes: Any, state: State, height: float) -> None:
    opened = state.opened
    basis = "oracle: uses the truth" if opened.oracle else "held-out rollouts, no truth"
    figure.text(_MARGIN / _WIDTH, 1 - 0.28 / height, "a", fontweight="bold", va="baseline", fontsize=_TITLE_SIZE)
    look: dict[str, Any] = {"va": "baseline", "parse_math": False}
    width = _WIDTH - 5.5
    figure.text(0.5 / _WIDTH, 1 - 0.28 / height, _cut(opened.name, width, _TITLE_SIZE), fontsize=_TITLE_SIZE, **look)
    figure.text(0.5 / _WIDTH, 1 - 0.5 / height, f"scored by {opened.primary} ({basis})", fontsize=_SMALL, **look)
    bar = axes(_WIDTH - 3.5, height - 0.36, 3.1, 0.13)
    figure.colorbar(ScalarMappable(_norm(), _CMAP), cax=bar, orientation="horizontal", ticks=_TICKS)
    bar.set_xticklabels([f"{tick:g}" for tick in _TICKS])
    bar.minorticks_off()
    bar.tick_params(labelsize=_SMALL, pad=2, length=2)
    figure.text((_WIDTH - 3.65) / _WIDTH, 1 - 0.28 / height, "mean reward", ha="right", fontsize=_LARGE)


def _norm() -> FuncNorm:
    return FuncNorm((_spread, _gathered), 0, 1)


def _spread(reward: np.ndarray) -> np.ndarray:
    """A scale for rewards on which 0.98 and 0.99 still differ: that of -log(1 - reward), with an end at 1."""
    return np.asarray(-np.log10(1 + _CLOSE - np.minimum(reward, 1.0)))


def _gathered(y: np.ndarray) -> np.ndarray:
    return np.asarray(1 + _CLOSE - 10 ** -np.asarray(y))


# Strategy sets


@dataclasses.dataclass(frozen=True)
class _Sets:
    """Strategy sets of the nodes, each with a letter and a colour; the rarest share one.

    Attributes:
        of_node: set of a node, by its id.
        letters: of the sets that have their own, the most frequent first.
        number: of sets in all.
    """

    of_node: Mapping[int, str]
    letters: Mapping[str, str]
    number: int

    @classmethod
    def of(cls, state: State) -> _Sets:
        every = nodes(state)
        found = {node.id: what_trains(state, node) for node in every}
        runs = Counter(found[node.id] for node in every for _ in node.runs)
        own = [name for name, _ in runs.most_common(_MOST_SETS)]
        return cls(found, dict(zip(own, "ABCDEF", strict=False)), len(runs))

    def letter(self, node: int) -> str:
        return self.letters.get(self.of_node[node], "*")

    def colour(self, node: int) -> str:
        return self.colour_of(self.of_node[node])

    def colour_of(self, name: str) -> str:
        return OKABE_ITO[list(self.letters).index(name)] if name in self.letters else _OTHERS

    def handles(self) -> list[Line2D]:
        entries = [(f"{letter}: {name}", self.colour_of(name)) for name, letter in self.letters.items()]
        if self.number > len(self.letters):
            entries.append((f"*: {self.number - len(self.letters)} other sets", _OTHERS))
        return [Line2D([], [], color=colour, linewidth=2.5, label=_cut(text, 5.0, _SMALL)) for text, colour in entries]


def _legend_rows(sets: _Sets) -> list[list[Line2D]]:
    """Entries in rows that fit the width."""
    rows: list[list[Line2D]] = []
    used = _WIDTH
    for handle in sets.handles():
        needed = _length(str(handle.get_label()), _SMALL) + 0.6
        if used + needed > _WIDTH - _LEFT - _MARGIN:
            rows, used = [*rows, []], 0.0
        rows[-1].append(handle)
        used += needed
    return rows


# Layout


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of a block.

    Attributes:
        left, top: corner of its frame.
        at: of the root (None) and its nodes, by id: generation and row, from 0.
    """

    block: int
    left: float
    top: float
    nodes: tuple[Node, ...]
    at: Mapping[int | None, tuple[int, float]]
    leaves: int

    @property
    def depth(self) -> int:
        return max(generation for generation, _ in self.at.values())


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Blocks in a grid, with the distances for the largest nodes.

    Attributes:
        width: of a block.
        row, step: between leaves, and between generations.
    """

    places: tuple[_Place, ...]
    width: float
    row: float
    step: float
    height: float

    @property
    def diameter(self) -> float:
        return min(_DIAMETER, 0.8 * self.row, 0.75 * self.step)

    @property
    def bend(self) -> float:
        """Distance from a node to the fork of the branches to its children."""
        return self.diameter / 2 + min(0.12, 0.1 * self.step)

    @property
    def numbered(self) -> bool:
        return self.diameter >= _NAMED

    @classmethod
    def of(cls, state: State) -> _Plan:
        by_block: dict[int, list[Node]] = {}
        for node in nodes(state):
            by_block.setdefault(state.block_of(node.id), []).append(node)
        blocks = [_laid_out(block, found) for block, found in sorted(by_block.items())]
        if not blocks:
            return cls((), _WIDTH, _ROW, _STEP, 1.0)
        tried = [_grid(blocks, columns) for columns in range(1, min(len(blocks), 5) + 1)]
        # For equally large nodes, the widest steps have most room for text; two short blocks stand side by side.
        largest = max(plan.diameter for plan in tried)
        good = [plan for plan in tried if plan.diameter >= 0.95 * largest]
        low = min(plan.height for plan in good)
        return next(plan for plan in good if plan.height <= max(1.5 * low, _TALLEST / 2))


def _laid_out(block: int, members: Sequence[Node]) -> _Place:
    """Rows and generations of a block: leaves below each other, parents in the middle of their children."""
    children: dict[int | None, list[int]] = {}
    generation: dict[int | None, int] = {None: 0}
    for node in members:  # a parent has a smaller id than its children
        parent = node.parent if node.parent in generation else None
        children.setdefault(parent, []).append(node.id)
        generation[node.id] = generation[parent] + 1
    row: dict[int | None, float] = {}
    free = itertools.count()
    waiting: list[int | None] = [None]
    while waiting:
        at = waiting[-1]
        below = [child for child in children.get(at, []) if child not in row]
        if below:
            waiting.append(below[0])
            continue
        rows = [row[child] for child in children.get(at, [])]
        row[at] = (rows[0] + rows[-1]) / 2 if rows else float(next(free))
        waiting.pop()
    return _Place(block, 0.0, 0.0, tuple(members), {id_: (generation[id_], row[id_]) for id_ in generation}, next(free))


def _grid(blocks: Sequence[_Place], columns: int) -> _Plan:
    """Blocks row by row in a number of columns."""
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
    lines = [blocks[i : i + columns] for i in range(0, len(blocks), columns)]
    leaves = [max(block.leaves for block in each) for each in lines]
    row = min(_ROW, max(_LEAST_ROW, (_TALLEST - (_TITLE + _GAP) * len(lines)) / sum(leaves)))
    step = min(_STEP, (width - 0.35) / max(block.depth for block in blocks))
    places, top = [], 0.0
    for each, most in zip(lines, leaves, strict=True):
        places += [
            dataclasses.replace(block, left=_MARGIN + i * (width + _GAP), top=top) for i, block in enumerate(each)
        ]
        top -= _TITLE + row * most + _GAP
    return _Plan(tuple(places), width, row, step, -top)


# The tree


def _block(ax: Axes, state: State, plan: _Plan, place: _Place, sets: _Sets) -> None:
    every = nodes(state)
    winner, leading = best(state), leader(state)
    first, last = state.first_of(place.block), state.in_block(place.block)[-1].number
    ax.plot([place.left, place.left + plan.width], [place.top - 0.3] * 2, color=FAINT, linewidth=0.8)
    titles = [f"block {place.block}, iterations {first}-{last}", f"block {place.block}, {first}-{last}"]
    title = next((each for each in titles if _length(each, _LARGE) <= plan.width), f"{place.block}")
    ax.text(place.left, place.top - 0.24, title, va="bottom", fontsize=_LARGE)

    def xy(node: int | None) -> tuple[float, float]:
        generation, row = place.at[node]
        return place.left + 0.08 + generation * plan.step, place.top - _TITLE - plan.row * (row + 0.5)

    ax.plot(*xy(None), marker="o", color=TRUTH, markersize=5)
    parents = {node.id: node.parent if node.parent in place.at else None for node in place.nodes}
    for parent in set(parents.values()):
        start, rows = xy(parent), [xy(child)[1] for child, above in parents.items() if above == parent]
        bend = start[0] + plan.bend
        ax.plot([start[0], bend], [start[1]] * 2, color=_TRUNK, linewidth=1.5, zorder=1)
        ax.plot([bend] * 2, [min(rows), max(rows)], color=_TRUNK, linewidth=1.5, zorder=1, solid_capstyle="projecting")
    for node in place.nodes:
        left, (right, y) = xy(parents[node.id])[0] + plan.bend, xy(node.id)
        ax.plot([left, right], [y, y], color=sets.colour(node.id), linewidth=2.2, linestyle=_dashes(node), zorder=2)
        mark = "best" if node == winner else "leading" if node == leading else ""
        ends = left + 0.05, right - plan.diameter / 2 - (0.14 if mark else 0.06)
        _branch_text(ax, (*ends, y), plan, _what_changed(state, node, parents[node.id]), _values(node, every, sets))
        _marker(ax, (right, y), plan, node, mark)


def _dashes(node: Node) -> str:
    return {"in flight": "--", "failed": ":"}.get(node.status, "-")


def _marker(ax: Axes, at: tuple[float, float], plan: _Plan, node: Node, mark: str) -> None:
    fill = "white" if node.mean is None else mpl.colormaps[_CMAP](float(_norm()(node.mean)))
    marker = _MARKERS[node.status]
    size = 72 * plan.diameter * _RELATIVE[marker]
    if mark:
        ring = 3.0 if mark == "best" else 2.0
        look: dict[str, Any] = {"color": "none", "markeredgecolor": TRUTH, "markeredgewidth": ring, "zorder": 3}
        ax.plot(*at, marker=marker, markersize=size + 7, **look)
    dashes = "dashed" if node.status == "in flight" else "solid"
    edge: dict[str, Any] = {"edgecolors": TRUTH, "linewidths": 0.8, "linestyles": dashes, "zorder": 4}
    ax.scatter(*at, s=size**2, facecolors=[fill], marker=marker, **edge)
    if plan.numbered:
        dark = float(np.dot(to_rgb(fill), (0.299, 0.587, 0.114))) < 0.5
        name: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": _SMALL, "zorder": 5}
        ax.text(*at, str(node.id), color="white" if dark else "black", **name)


def _what_changed(state: State, node: Node, parent: int | None) -> list[str]:
    """The changes that made a node, in short.

    Args:
        parent: its parent in the figure; None: the root of its block.
    """
    first = node.first
    steps = None if parent is None else state.iterations[parent - 1].proposed.time_step
    parts = [f"T={first.time_step}"] if TIME_STEP in first.changes and first.time_step != steps else []
    if parent is None and node.parent is not None:
        parts.append(f"from node {node.parent}")
    return parts + [short_mutation(mutation) for mutation in first.mutations]


def _values(node: Node, every: Sequence[Node], sets: _Sets) -> list[str]:
    """Strategy set, mean ± standard error (replicates); shorter and shorter."""
    letter = sets.letter(node.id)
    if node.mean is None:
        return [f"{letter}  {'in flight' if node.in_flight else 'no result'}", letter]
    number, error = len(node.rewards), standard_error(node, every)
    if number > 1 and error is not None:
        long, short = f"{node.mean:.3f} ± {error:.3f} ({number})", f"{node.mean:.2f}±{error:.2f} ({number})"
        return [f"{letter}  {long}", long, short, f"{letter} ×{number}", f"×{number}", letter]
    return [f"{letter}  {node.mean:.3f}", f"{letter} {node.mean:.2f}", letter]


def _branch_text(
    ax: Axes, span: tuple[float, float, float], plan: _Plan, changed: Sequence[str], values: Sequence[str]
) -> None:
    """Draw changes above the branch to a node, and the reward below it, each if there is room.

    Args:
        span: left and right end, and height.
        values: texts for the reward; the first that fits is shown.
    """
    left, right, y = span
    if plan.row < _TEXT:
        return
    look: dict[str, Any] = {"fontsize": _SMALL, "parse_math": False, "zorder": 4}
    text = _wrapped(changed, right - left, 2 if plan.row >= _MORE_TEXT else 1)
    if len(text) >= min(_FEWEST, len(", ".join(changed))):
        ax.text(left, y + 0.03, text, va="bottom", color="0.15", linespacing=1.0, **look)
    value = next((each for each in values if _length(each, _SMALL) <= right - left), "")
    ax.text(left, y - 0.04, value, va="top", color="0.3", **look)


def short_mutation(mutation: Mutation) -> str:
    """A change for a branch: a factor for numbers, additions and removals for strategies."""
    name = visible(mutation.param).removeprefix("training.").removesuffix("_homeo")
    old, new = mutation.old, mutation.new
    if name == STRATEGY.removeprefix("training."):
        before, after = _entries(old), _entries(new)
        added = [f"+{each}" for each in after if each not in before]
        removed = [f"−{each}" for each in before if each not in after]
        return visible(" ".join(added + removed), "strategy options")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in (old, new)):
        return f"{name} ×{new / old:.3g}"
    return visible(f"{name} → {shown(new)}")


def _entries(value: object) -> list[str]:
    entries = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry) for entry in entries]


# The rewards


def _rewards(ax: Axes, state: State, sets: _Sets) -> None:
    size = state.settings.n_iter_block
    number = max(len(state.iterations), size)
    for first in range(size + 1, number + 1, size):
        ax.axvline(first - 0.5, color=FAINT, linewidth=0.8, zorder=0)
    markersize = 5 if len(state.iterations) > 40 else 7
    every = nodes(state)
    for node in every:
        colour = sets.colour(node.id)
        judged = [run for run in node.runs if run.has_reward]
        if len(judged) > 1:
            x, y = [run.number for run in judged], [run.scored.reward for run in judged if run.scored]
            ax.plot(x, y, color=colour, linewidth=1.0, zorder=2)
            error = standard_error(node, every) or 0.0
            ax.errorbar(
                x[-1] + 0.25, sum(y) / len(y), error, color=colour, fmt="_", capsize=2.5, elinewidth=1.0, zorder=3
            )
        for run in node.runs:
            if run.scored is not None and run.counts:
                marker = _MARKERS[run.scored.status] if run.has_reward else "x"
                width = markersize * _RELATIVE.get(marker, 1.0)
                edge = 1.5 if marker == "x" else 0
                look: dict[str, Any] = {"marker": marker, "markersize": width, "markeredgewidth": edge, "zorder": 4}
                ax.plot(run.number, run.scored.reward, color=colour, clip_on=False, **look)
    _leading(ax, state)
    ax.set_yscale("function", functions=(_spread, _gathered))
    ax.set(xlim=(0.5, number + max(0.5, 0.01 * number)), ylim=(0, 1.0), xlabel="iteration", ylabel="reward")
    ax.yaxis.set(major_locator=FixedLocator(_TICKS), major_formatter=FixedFormatter([f"{t:g}" for t in _TICKS]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=17, min_n_ticks=1))


def _leading(ax: Axes, state: State) -> None:
    """Draw the best node after every iteration, and the leading node with any number of replicates."""
    numbers = range(len(state.iterations) + 1)
    x = [number + 0.5 for number in numbers]
    states = [dataclasses.replace(state, iterations=state.iterations[:number]) for number in numbers]
    called, led = (
        [math.nan if (node := found(then)) is None or node.mean is None else node.mean for then in states]
        for found in (best, candidate)
    )
    ax.step(x, led, color="0.45", linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    ax.step(x, called, color=TRUTH, linewidth=2.0, zorder=1)


# Legends and text


def _explained(figure: Figure, height: float, bottom: float) -> None:
    """Legends of shapes and lines, in the space between the panels.

    Args:
        height: of the figure.
        bottom: of that space.
    """

    def entry(label: str, **look: Any) -> Line2D:
        known: dict[str, Any] = {"linestyle": "none", "color": "0.8", "markeredgecolor": TRUTH, "markersize": 9}
        return Line2D([], [], label=label, **(known | look))

    ring: dict[str, Any] = {"marker": "o", "color": "white", "markersize": 10}
    shapes = [
        entry("converged", marker=_MARKERS["converged"]),
        entry("partial", marker=_MARKERS["partial"], markersize=8),
        entry("failed", marker=_MARKERS["failed"], markersize=7),
        entry("no result yet", linestyle="--", color=TRUTH, linewidth=1.2),
        entry("best", **ring, markeredgewidth=3.0),
        entry("leading, too few replicates", **ring, markeredgewidth=1.5),
    ]
    lines = [
        entry("failed, or NaN", marker="x", markeredgewidth=1.5, markersize=7),
        entry("mean ± standard error", marker="_", color="0.3", markeredgecolor="0.3"),
        entry("best so far", linestyle="-", color=TRUTH, linewidth=2.0),
        entry("leading, any number of replicates", linestyle="--", color="0.45", linewidth=1.0),
    ]
    left = _LEFT / _WIDTH
    _legend(figure, shapes, (left, (bottom + 0.5) / height))
    _legend(figure, lines, (left, (bottom + 0.12) / height))
    figure.text(_MARGIN / _WIDTH, (bottom + 0.14) / height, "b", fontweight="bold", fontsize=_TITLE_SIZE)


def _legend(figure: Figure, handles: Sequence[Line2D], at: tuple[float, float]) -> None:
    look: dict[str, Any] = {"ncols": max(len(handles), 1), "columnspacing": 1.4, "handletextpad": 0.5}
    look |= {"borderpad": 0, "borderaxespad": 0, "fontsize": _SMALL}
    for text in figure.legend(handles=list(handles), loc="lower left", bbox_to_anchor=at, **look).get_texts():
        text.set_parse_math(False)


@functools.cache
def _advance(sign: str) -> float | None:
    """Width of a character as a share of the font size; None if the font lacks it."""
    font = get_font(findfont("DejaVu Sans"))
    if not font.get_char_index(ord(sign)):
        return None
    font.set_size(100, 72)
    return float(font.load_char(ord(sign)).linearHoriAdvance) / 65536 / 100


def _drawable(text: str) -> str:
    """Text of unknown origin, without characters that the font lacks."""
    return "".join("?" if _advance(sign) is None else sign for sign in visible(text, ""))


def _length(text: str, points: float) -> float:
    """Length of a drawn text [inches]."""
    return sum(_advance(sign) or 0.0 for sign in text) * points / 72


def _wrapped(parts: Sequence[str], width: float, rows: int) -> str:
    """Parts of a text in a maximum number of rows, cut to a width."""
    left = [_drawable(part) for part in parts]
    found: list[str] = []
    while left:
        fitting = 1
        while fitting < len(left) and _length(", ".join(left[: fitting + 1]), _SMALL) <= width:
            fitting += 1
        fitting = len(left) if len(found) == rows - 1 else fitting
        found.append(_cut(", ".join(left[:fitting]), width, _SMALL))
        left = left[fitting:]
    return "\n".join(found)


def _cut(text: str, width: float, points: float) -> str:
    """Text cut to a width."""
    text = _drawable(text)
    if _length(text, points) <= width:
        return text
    ends = itertools.accumulate(_length(sign, points) for sign in text)
    fitting = sum(end <= width - _length("…", points) for end in ends)
    return f"{text[:fitting]}…" if fitting else ""
