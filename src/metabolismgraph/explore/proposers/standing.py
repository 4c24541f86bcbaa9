"""The standing of an exploration as text for prompts.

Where the primary metric does not use the truth, metrics and lines of text that do are left out. Where it does, sizes of
learned homeostasis are: beside the ratios to true slopes they would tell these, and a strategy file could contain them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metabolismgraph.explore.events import Changes, Failed, Kind
from metabolismgraph.explore.evidence import effects
from metabolismgraph.explore.failing_files import failing_files
from metabolismgraph.explore.inbox import MOST_TEXT
from metabolismgraph.explore.planning import configuration, own_strategies, settings_of
from metabolismgraph.explore.proposal import shown
from metabolismgraph.explore.proposers.loss_curves import in_numbers, read_curve
from metabolismgraph.explore.published_format.lines import parent_of
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, leader, nodes, scores, standard_error
from metabolismgraph.metrics import find
from metabolismgraph.text import one_line, visible

MOST_MEMORY = 40_000  # characters of the working memory
_MOST_REASON = 2000  # characters of a refusal; that of a strategy file may have many reasons
_MOST_RUNS = 64  # that are listed in full
_MOST_METRICS = 80

# Names in running text that show a comparison with the truth.
_OF_TRUTH = re.compile(
    r"slope_ratio|offset_ratio|gt_slope|gt_offset|_gt_|cluster_acc|rate_constants_R2|MLP_sub_(R2|corr)|trimmed_R2"
    r"|n_outliers|log_k_\w*error|\b[Gg]round.truth|\bGT\b"
)


def standing(state: State, block: int) -> dict[str, str]:
    """Memory, scores and nodes, which every question needs, by placeholder of a template."""
    listed = [
        f"node {s.node.id}: UCB {s.ucb:.3f}, parent {parent_of(s.parent)}, visits {s.visits}, {_reward(state, s.node)}"
        for s in scores(state, block)
    ]
    found = (f"{one_line(e.evidence)}: {one_line(e, 600)}" for e in effects(state)[-_MOST_RUNS:])
    own = (f"{name}: {_options(review.declaration)}" for name, review in own_strategies(state).items())
    notes = (f"- {without_truth(state, one_line(visible(note.text), MOST_TEXT))}" for note in state.notes)
    return {
        "notes": "\n".join(notes) or "none",
        "memory": without_truth(state, state.memory[:MOST_MEMORY]) or "empty",
        "root": _values(state, state.root(block)),
        "scores": "\n".join(listed) or "none yet: parent is null",
        "best": _best(state),
        "effects": "\n".join(found) or "none yet",
        "own": "\n".join(own) or "none",
        "same": _in_words(same_metrics(state)) or "none",
    }


def _best(state: State) -> str:
    needed = state.settings.replicates
    found, promising = best(state), leader(state)
    lines = [f"best with {needed} runs or more: {_whole(state, found)}" if found else f"none with {needed} runs yet"]
    if promising is not None:
        lines.append(f"most promising so far, not proven: {_whole(state, promising)}")
    return "\n".join(lines)


def _whole(state: State, node: Node) -> str:
    return f"node {node.id}, {_reward(state, node)}; {_values(state, node.first.changes)}"


def _reward(state: State, node: Node) -> str:
    if node.mean is None:
        return "no reward yet"
    error = standard_error(node, nodes(state))
    known = f" +- {error:.4f}" if error is not None else ", error unknown"
    return f"reward {node.mean:.4f}{known}, runs {len(node.rewards)}"


def _values(state: State, changes: Changes) -> str:
    """Every parameter that may be changed, as JSON: the values for `old` of a mutation."""
    config = configuration(state, changes)
    return "; ".join(f"{p.name}={json.dumps(config.value(p.key))}" for p in state.space.parameters)


def refused(state: State, kind: Kind, iteration: int, refusals: Sequence[str]) -> dict[str, str]:
    """Why answers to a question were refused, and the last of them, by placeholder of a template."""
    reasons = (without_truth(state, one_line(reason, _MOST_REASON)) for reason in refusals)
    given = [a.answer for a in state.answered if (a.kind, a.iteration) == (kind, iteration) and a.answer]
    return {
        "reasons": "\n".join(f"{i}. {reason}" for i, reason in enumerate(reasons, 1)),
        "last_answer": without_truth(state, given[-1]) if given else "none",
    }


# Runs


def runs(state: State, iterations: Sequence[Iteration], folder: Path | None) -> str:
    """The latest of these iterations, a few lines each.

    Args:
        folder: of the exploration, for loss curves; None to leave them out.
    """
    same = same_metrics(state)
    latest = iterations[-_MOST_RUNS:]
    return "\n".join(line for iteration in latest for line in _run(state, iteration, same, folder)) or "none"


def same_metrics(state: State) -> dict[str, Any]:
    """Metrics with the same value, as it is shown, in all of two or more runs."""
    found = [known_metrics(state, iteration) for iteration in state.iterations if iteration.metrics]
    if len(found) < 2:
        return {}
    return {n: v for n, v in found[0].items() if all(n in other and shown(other[n]) == shown(v) for other in found)}


def known_metrics(state: State, iteration: Iteration) -> dict[str, Any]:
    """The metrics of a run that the exploration may know."""
    may_be_known = tells_no_size if state.opened.oracle else needs_no_truth
    return {name: value for name, value in iteration.metrics.items() if may_be_known(name)}


def tells_no_size(name: str) -> bool:
    """Whether a metric tells no concentration, rate or strength of homeostasis."""
    metric = find(name)
    return metric is None or metric.unit in {"", "minutes"}


def needs_no_truth(name: str) -> bool:
    """Whether a metric is known to be computed from observations and model alone."""
    metric = find(name)
    return metric is not None and not metric.uses_truth


def without_truth(state: State, text: str) -> str:
    """Text of unknown origin; without the truth, lines that name a metric computed with it are left out."""
    if state.opened.oracle:
        return text
    return "\n".join(
        "(left out: it named a metric that uses the truth)" if _OF_TRUTH.search(line) else line
        for line in text.split("\n")
    )


def _run(state: State, iteration: Iteration, same: Mapping[str, Any], folder: Path | None) -> Iterable[str]:
    proposed = iteration.proposed
    proposal = proposed.proposal
    yield (
        f"iteration {proposed.iteration}: node {proposed.node}, parent {parent_of(proposed.parent)}, "
        f"slot {proposed.slot}, time step {proposed.time_step}, seed {proposed.seed}"
    )
    yield f"  configuration: {_values(state, proposed.changes)}"
    settings = settings_of(proposed, state)
    unread = [short for key, short in state.space.names.items() if settings and key not in settings]
    if unread:
        yield f"  without effect there: {', '.join(unread)}"
    changes = "; ".join(map(str, proposed.mutations)) or "none"
    yield f"  mode {proposal.mode}; mutations: {one_line(changes, 1000)}"
    yield f"  strategy: {without_truth(state, proposed.strategy)}"
    yield f"  hypothesis: {without_truth(state, proposal.hypothesis)}"
    if iteration.scored is None:
        yield "  result: not finished yet"
        return
    verdict = iteration.scored
    parts = ", ".join(f"{part:.4f}" for part in verdict.parts)
    yield f"  result: {verdict.state}, {verdict.classification}, reward {verdict.reward:.4f}, parts {parts or 'none'}"
    if isinstance(iteration.outcome, Failed):
        yield f"  reason: {without_truth(state, one_line(iteration.outcome.reason))}"
    different = {name: value for name, value in known_metrics(state, iteration).items() if name not in same}
    yield f"  metrics: {_in_words(different) or 'none'}"
    if folder is not None and iteration.started is not None:
        curve = read_curve(folder / iteration.started.folder, state.config.graph_model)
        yield from (f"  {without_truth(state, line)}" for line in (in_numbers(curve) if curve else ()))
    if iteration.reading is not None:
        yield f"  visual: {without_truth(state, iteration.reading.visual)}"
        yield f"  observation: {without_truth(state, iteration.reading.observation)}"


def _in_words(metrics: Mapping[str, Any]) -> str:
    found = [f"{one_line(name, 60)}={one_line(shown(value), 60)}" for name, value in metrics.items()]
    return ", ".join(found[:_MOST_METRICS])


# Strategy files


def files(state: State) -> dict[str, str]:
    """The strategy files of an exploration before a review, by placeholder of a template."""
    failing = failing_files(state)
    gone = [f"{name}: {without_truth(state, one_line(why, 600))}" for name in failing for why in failing[name]]
    kept = {name: review.file for name, review in own_strategies(state).items() if name not in failing}
    sources = [f"{name}.py:\n{file.source}" for name, file in kept.items() if file is not None]
    return {
        "files": "\n".join(_reviews(state)) or "none",
        "rolled_back": "\n".join(gone) or "none",
        "sources": "\n\n".join(sources) or "none",
    }


def _reviews(state: State) -> Iterable[str]:
    for review in state.reviews:
        yield from (f"before block {review.block}: {name} rolled back" for name in review.rolled_back)
        if review.file is None:
            continue
        yield f"before block {review.block}: {review.file.name}, {review.verdict}: {one_line(review.file.rationale)}"
        yield from (f"  {without_truth(state, one_line(reason))}" for reason in review.reasons)


def _options(declaration: Mapping[str, Any] | None) -> str:
    declared = ((declaration or {}).get("options") or {}).get("properties", {})
    return one_line("options " + (", ".join(f"{k} = {v.get('default')}" for k, v in declared.items()) or "none"), 500)
