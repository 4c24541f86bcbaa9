"""The UCB scores of the current block, in the published format; empty at a block boundary."""

from __future__ import annotations

from metabolismgraph.explore import tree
from metabolismgraph.explore.published_format import legacy_scores
from metabolismgraph.explore.published_format.lines import basis, mean, mutation, parent_of
from metabolismgraph.explore.state import State


def render(state: State, log: str) -> str:
    """The scores of `tree.scores`; with `exploration.ucb: legacy` those of the published program for `log`.

    By default R2 is the node's mean reward and Pearson the correlation of the rate law (0 if it was not computed).
    Both, and Time, are means over its replicates. N is the number of runs. Empty before any node of the block has a
    score, when parent=root is to be taken. The last line gives the basis of scores, but for an imported log.
    """
    block = current_block(state)
    if not state.in_block(block):
        return ""
    text = _published(state, log, block) if state.settings.ucb == "legacy" else _default(state, block)
    # The scores of an imported log are those of the program that wrote it, to the letter.
    return f"{text}{basis(state.opened)}\n" if text and not state.imported else text


def current_block(state: State) -> int:
    """The block of the next iteration after its review, before that the block of the last iteration."""
    done = len(state.iterations)
    block = state.block_of(done + 1)
    at_boundary = done > 0 and done % state.settings.n_iter_block == 0
    passed = any(review.block == block for review in state.reviews)
    return block - 1 if at_boundary and not passed else block


def _default(state: State, block: int) -> str:
    runs, c = len(state.in_block(block)), state.settings.ucb_c
    iterations = f"{state.first_of(block)}-{state.first_of(block + 1) - 1}"
    title = f"=== UCB Scores (Simulation block {block}, iters {iterations}, N={runs}, c={c}) ===\n\n"
    lines = "".join(_line(score) for score in tree.scores(state, block))
    return title + lines if lines else ""


def _line(score: tree.Score) -> str:
    node = score.node
    text = (
        f"Node {node.id}: UCB={score.ucb:.3f}, parent={parent_of(score.parent)}, visits={score.visits}, "
        f"R2={node.mean or 0.0:.3f}, Pearson={_mean(node, 'MLP_sub_corr') or 0.0:.3f}"
    )
    time = _mean(node, "training_time_min")
    text += "" if time is None else f", Time={time:.1f}"
    return f"{text}, Mutation={mutation(node.first)}\n"


def _mean(node: tree.Node, metric: str) -> float | None:
    return mean(run.metrics.get(metric) for run in node.runs)


def _published(state: State, log: str, block: int) -> str:
    size, c = state.settings.n_iter_block, state.settings.ucb_c
    metric = state.opened.metric or state.space.rewards[state.opened.primary].metric or state.opened.primary
    return legacy_scores.ucb_file(log, metric=metric, c=c, block_size=size, iteration=state.first_of(block))
