"""The figures of runs that a proposer is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from metabolismgraph.explore.proposers.loss_curves import draw
from metabolismgraph.explore.proposers.standing import needs_no_truth
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.text import one_line

MOST = 13  # one of losses, and those of four slots
_MOST_BYTES = 2_000_000  # of a figure
_PNG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")
_FIGURES = {
    "MLP_node": "tmp_training/function/rate_func/MLP_node_p2_*.png",
    "embedding": "tmp_training/embedding/*.png",
    "rate constants": "tmp_training/rate_constants/*.png",
}


def figures(state: State, iterations: Sequence[Iteration], folder: Path, questions: Path) -> list[tuple[str, Path]]:
    """The latest figures with captions, at most `MOST`: the losses of all runs, MLP_node, embeddings, rate constants.

    Figures of a run that was compared with the truth show the truth. Without an oracle none of them is shown, and with
    one all but MLP_node, see `standing`.

    Args:
        folder: of the exploration.
        questions: folder for the figure of the losses.
    """
    found = []
    with contextlib.suppress(OSError):
        path = questions / f"{iterations[0].number:04d}-loss.png"
        if draw(iterations, folder, state.config.graph_model, path) is not None:
            found.append(("loss curves of the batch", path))
    for what, pattern in _FIGURES.items():
        for iteration in iterations:
            compared = not all(map(needs_no_truth, iteration.metrics))
            may_be_shown = what != "MLP_node" if state.opened.oracle else not compared
            if iteration.started is None or not may_be_shown:
                continue
            latest = max((folder / iteration.started.folder).glob(pattern), key=lambda p: p.name, default=None)
            if latest is not None and _is_whole(latest):
                found.append((f"iteration {iteration.number}, {what}, {one_line(latest.name, 80)}", latest))
    return found[:MOST]


def _is_whole(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(_PNG[0]) and content.endswith(_PNG[1])
