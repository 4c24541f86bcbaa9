"""report.html of an exploration: the best node and what that rests on, the tree, and all that was tried, in one page.

The page is a view of the journal. While the exploration goes on it is written after every batch, and loads itself
again.
"""

from __future__ import annotations

import functools
import json
import math
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metabolismgraph.errors import InputError
from metabolismgraph.explore.comparison import compare_explorations
from metabolismgraph.explore.cost import by_kind, of_iteration
from metabolismgraph.explore.events import Changes, Event, Failed, Reviewed
from metabolismgraph.explore.evidence import Effect, control, effects
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.planning import RefusedError, settings_of
from metabolismgraph.explore.proposal import StrategyFile, difference, shown
from metabolismgraph.explore.proposers.rules_memory import what_trains
from metabolismgraph.explore.published_format.lines import basis, mutation, replicate_name, suggestion
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, leader, nodes, settled, standard_error
from metabolismgraph.metrics import find
from metabolismgraph.reports import words
from metabolismgraph.reports.page import D3, TABULATOR, picture, plain, render
from metabolismgraph.text import counted

_RELOAD = 10  # seconds after which the page of a living exploration loads itself again
_DIGITS = 6  # decimals of a reward, at most
# Why runs that ended have a reward of zero, see `reward.score`.
_NO_REWARD = {
    "negative": "no reward: the metric is below zero, or the loss of training is not below that without homeostasis",
    "nan": "no reward: a metric is not a number",
}
_LABEL = 40  # characters beside a node of the tree
_PRIVATE = {"exploration.command", "exploration.hooks"}  # their arguments may be private, and pages are sent to others


def render_report(folder: Path, events: Sequence[Event], *, live: bool = False) -> str:
    """The page of an exploration after these events.

    Args:
        folder: of the exploration, for figures of its runs.
        live: whether the exploration goes on.

    Raises:
        InputError: the events do not begin with `opened`.
    """
    state = State.of(events)
    every = nodes(state)
    leading = best(state) or leader(state)
    doubts = _why_not(folder, leading)
    content = {
        "title": state.opened.name,
        "facts_line": _facts(state),
        "now": _now(state, events, live=live),
        "verdict": [*_verdict(state, every), *doubts],
        "has_best": best(state) is not None,
        "good": best(state) is not None and not doubts,
        "figures": _figures(folder, leading),
        "figures_of": leading.id if leading else None,
        "blocks": [_block(state, block) for block in range(state.block_of(max(len(state.iterations), 1)) + 1)],
        "budget": _budget(state),
        "memory": state.memory,
        "waiting": [f"suggested by {each.by}: {suggestion(each)}" for each in state.suggested],
        "refused": [(r.iteration, r.kind, r.by, r.reason) for r in state.refused],
        "origin": _origin(state),
        "changed": [row for row in words.changed(state.config) if row[0] not in _PRIVATE],
    }
    data = {
        "reload": _RELOAD if live else 0,
        "best": leading.id if leading else None,
        "nodes": [_node(state, node, every, folder) for node in every],
        "iterations": [_point(iteration) for iteration in state.iterations],
        "table": _table(state, every),
        "effects": _effects(state),
        "validations": _validations(state),
    }
    return render("exploration.html", content, data, libraries=(TABULATOR, D3), scripts=("report.js", "exploration.js"))


def _facts(state: State) -> str:
    done = sum(iteration.scored is not None for iteration in state.iterations)
    made = f"{counted(done, 'run')} of {counted(len(nodes(state)), 'configuration')}"
    scored = basis(state.opened)
    return f"{made}, proposed by {state.opened.proposer}. {scored[:1].upper()}{scored[1:]}."


def _now(state: State, events: Sequence[Event], *, live: bool) -> str:
    """Whether the exploration goes on, and of which time the page is."""
    time = next((event.time for event in reversed(events) if event.time), "")
    as_of = f", as of {time[:19].replace('T', ' ')} UTC" if time else ""
    if state.paused is not None:
        return f"Paused by {state.paused.by}{as_of}."
    if live:
        flying = sum(iteration.scored is None for iteration in state.iterations)
        runs = counted(flying, "run")
        return f"The exploration goes on{as_of}, with {runs} without a verdict yet. This page loads itself again."
    return f"The exploration is not running{as_of}; `metabolismgraph explore resume` continues it."


def _verdict(state: State, every: Sequence[Node]) -> list[str]:
    """Which node is the best, and what that rests on."""
    found, leading, wanted = best(state), leader(state), state.settings.replicates
    sentences = []
    if found is not None:
        those = f"those with at least {counted(wanted, 'replicate')}"
        sentences.append(f"Node {found.id} is the best of {those}: reward {_reward(found, every)}.")
        sentences.append(f"It trains {_how(state, found)}.")
    else:
        sentences.append(f"No node is called the best yet, since that takes {wanted} replicates.")
    if leading is not None:
        sentences.append(f"Node {leading.id} leads with {_reward(leading, every)}, and is not proven yet.")
    for node in (found, leading):
        runs = [run for run in state.validations if node is not None and run.node == node.id and run.state != "lost"]
        if runs and node is not None:
            rewards = ", ".join(f"{run.reward:.3f}" for run in runs)
            sentences.append(f"Node {node.id} on seeds that the search has not seen: {rewards}.")
    if settled(state) is not None:
        sentences.append("No reward can exceed it by more than its error, so the search has nothing left to find.")
    if state.opened.oracle:
        sentences.append("Rewards use the true values, which training does not see. Real data have no such reward.")
    return sentences


def _why_not(folder: Path, node: Node | None) -> list[str]:
    """Why the last fit of a node is not to be trusted as a whole, although its reward may be high."""
    run = _last_run(node)
    place = None if run is None else _within(folder, run)
    try:
        found = json.loads((place / "metrics.json").read_bytes()) if place is not None else {}
    except (OSError, ValueError, RecursionError):
        return []
    reasons = words.listed(found, "why_not") if isinstance(found, dict) else []
    if not reasons or node is None:
        return []
    return [f"The fits of node {node.id} are not to be trusted as a whole: {'; '.join(reasons)}."]


def _how(state: State, node: Node) -> str:
    changes = ", ".join(f"{key} = {shown(value)}" for key, value in node.first.changes.items())
    return f"with {what_trains(state, node)}; changed from the beginning: {changes or 'nothing'}"


def _reward_in_words(state: State) -> list[tuple[str, str]]:
    """What a reward is made of; nothing for an imported log, which has its own."""
    if state.opened.metric is not None:
        return []
    terms = state.space.rewards[state.opened.primary].terms
    listed = ", ".join(f"{term.metric.replace('_{t}', '')} (weight {term.weight:g})" for term in terms)
    ratios = any(metric.better == "one" for term in terms if (metric := find(term.metric.replace("{t}", "0"))))
    how = " A ratio to the true value counts as min(ratio, 1/ratio), and the mean over types." if ratios else ""
    return [("reward, from 0 to 1", f"weighted mean of {listed}.{how}")]


def _reward(node: Node, every: Sequence[Node]) -> str:
    number = len(node.rewards)
    if node.mean is None:
        return "none"
    error = standard_error(node, every)
    how = ", error unknown" if error is None else f" ± {error:.1g}"
    digits = 3 if not error else min(max(3, math.ceil(-math.log10(error))), _DIGITS)
    return f"{node.mean:.{digits}f}{how} ({counted(number, 'replicate')})"


def _node(state: State, node: Node, every: Sequence[Node], folder: Path) -> dict[str, Any]:
    """A node for the tree, and what its panel shows."""
    first = node.first
    what = mutation(first) if first.mutations else what_trains(state, node)
    return {
        "id": node.id,
        "parent": node.parent,
        "block": state.block_of(node.id),
        "label": what if len(what) <= _LABEL else f"{what[: _LABEL - 1]}…",
        "status": node.status,
        "reward": plain(node.mean),
        "facts": list(_facts_of(state, node, every)),
        "runs": [_run(run) for run in node.runs],
        "readings": [_reading(run) for run in node.runs if run.reading is not None],
        "files": _files(state, node),
        "figures": [link for run in node.runs for link in _links(folder, run)],
    }


def _facts_of(state: State, node: Node, every: Sequence[Node]) -> Iterator[tuple[str, str]]:
    first = node.first
    origin = f"the root of block {state.block_of(node.id)}" if node.parent is None else f"node {node.parent}"
    yield "reward", _reward(node, every)
    yield "class", node.classification
    yield "parent", origin
    yield "changed against it", _changes(state, node)
    if (other := _control(state, node)) is not None:
        yield "compared with", f"node {other.id}: the same rollout length without the change"
    yield "trains with", what_trains(state, node)
    yield "why: move", first.proposal.mode
    yield "why: hypothesis", first.proposal.hypothesis
    yield "proposed by", first.by + (f" ({first.note})" if first.note else "")
    if first.suggestion is not None:
        yield "follows", "a suggestion of a researcher"
    for key, value in first.changes.items():
        yield "differs from the beginning", f"{key}: {shown(_opened(state, key))}, here {shown(value)}"
    seconds = [run.outcome.seconds for run in node.runs if run.outcome is not None]
    yield "time", f"{math.fsum(seconds):.1f} s in {counted(len(seconds), 'run')}"
    if state.answered:
        yield "cost", f"{math.fsum(cost for run in node.runs for cost in of_iteration(state, run)):.4g} US$"
    if first.code:
        yield "code", first.code


def _changes(state: State, node: Node) -> str:
    """All differences of a node from its parent, also those by its slot."""
    if state.imported:
        return mutation(node.first)
    before, after = state.node_changes(node.parent, state.block_of(node.id)), node.first.changes
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, ...) != after.get(key, ...)]
    pairs = [(key, *(side.get(key, _opened(state, key)) for side in (before, after))) for key in keys]
    changes = [f"{key.removeprefix('training.')}: {shown(old)} -> {shown(new)}" for key, old, new in pairs]
    return "; ".join(changes) or "nothing"


def _opened(state: State, key: str) -> object:
    """A setting at the beginning; of a key that this version does not know, a remark."""
    try:
        return state.config.value(key)
    except InputError:
        return "unknown"


def _control(state: State, node: Node) -> Node | None:
    try:
        found = control(node, state)
    except RefusedError:
        return None
    return None if found is None or found.id == node.id else found


def _run(run: Iteration) -> list[Any]:
    """A replicate: iteration, seed, reward, verdict, seconds, remark."""
    outcome = run.outcome
    remarks = [f"lost ({loss.kind or 'machine'}) and run again: {loss.reason}" for loss in run.losses]
    if isinstance(outcome, Failed):
        remarks.append(outcome.reason)
    if run.scored is not None and run.scored.state in _NO_REWARD:
        remarks.append(_NO_REWARD[run.scored.state])
    verdict = run.scored.classification if run.scored is not None else "in flight"
    reward = plain(run.scored.reward) if run.scored is not None and run.counts else None
    name = replicate_name(run.proposed.seed, run.proposed.variation)
    return [run.number, name, reward, verdict, outcome and plain(outcome.seconds), "; ".join(remarks)]


def _reading(run: Iteration) -> str:
    assert run.reading is not None
    return f"{run.number}: {run.reading.visual}. {run.reading.observation}"


def _files(state: State, node: Node) -> list[tuple[str, str]]:
    """The strategy files of a node: name and source."""
    known = {review.landed: review.file for review in state.reviews if review.landed and review.file}
    found = [(name, known.get(digest)) for name, digest in node.first.files.items()]
    return [(name, file.source) for name, file in found if file is not None]


def _point(iteration: Iteration) -> list[Any]:
    """An iteration in the course of the rewards: number, node, reward, state."""
    scored = iteration.scored
    state = "in flight" if scored is None else "lost" if not iteration.counts else scored.status
    return [iteration.number, iteration.node, plain(scored.reward) if scored and iteration.counts else None, state]


def _links(folder: Path, run: Iteration) -> list[tuple[str, str]]:
    """The figures of a run: name, and address from the page."""
    if run.started is None or run.outcome is None:
        return []
    return [
        (f"{run.number}: {path.name}", f"./{urllib.parse.quote(path.relative_to(folder).as_posix())}")
        for path in _pictures(folder, run.started.folder)
    ]


@functools.lru_cache(maxsize=4096)  # figures of a run that has ended do not change
def _pictures(folder: Path, run: str) -> tuple[Path, ...]:
    place = _within(folder, run)
    return () if place is None else tuple(sorted(place.glob("tmp_training/**/*.png")))


def _figures(folder: Path, node: Node | None) -> list[tuple[str, str]]:
    """The figures of the last finished run of a node, within the page."""
    run = _last_run(node)
    paths = () if run is None else _pictures(folder, run)
    return [(path.stem, shown) for path in paths if (shown := picture(path))]


def _last_run(node: Node | None) -> str | None:
    """The folder of the last finished run of a node, as the journal has it."""
    runs = () if node is None else node.runs
    return next((run.started.folder for run in reversed(runs) if run.metrics and run.started), None)


def _within(folder: Path, run: str) -> Path | None:
    """The folder of a run, if it lies in that of the exploration: a journal may name any."""
    place = folder / run
    try:
        return place if place.is_dir() and folder.resolve() in place.resolve().parents else None
    except (OSError, ValueError):
        return None


def _table(state: State, every: Sequence[Node]) -> dict[str, Any]:
    """Settings against reward: those that differ between nodes."""
    settings = [_settings_of(node, state) for node in every]
    keys = [
        key
        for key in dict.fromkeys(key for each in settings for key in each)
        if len({shown(each.get(key)) for each in settings}) > 1
    ]
    columns = ["node", "reward", "standard error", "replicates", "class", "parent", "proposed by", "trains with"]
    rows = [
        [
            node.id,
            plain(node.mean),
            plain(standard_error(node, every)),
            len(node.rewards),
            node.classification,
            node.parent,
            node.first.by,
            what_trains(state, node),
            *(_setting(found.get(key)) for key in keys),
        ]
        for node, found in zip(every, settings, strict=True)
    ]
    return {"columns": [*columns, *(key.removeprefix("training.") for key in keys)], "rows": rows}


def _settings_of(node: Node, state: State) -> Changes:
    """The settings of a node; of a journal whose keys this version does not know, the changes that it names."""
    try:
        return settings_of(node.first, state)
    except RefusedError:
        return node.first.changes


def _setting(value: object) -> bool | float | str | None:
    return plain(value if isinstance(value, int | float) or value is None else shown(value))


def _effects(state: State) -> dict[str, Any]:
    """Changes of settings with their effects on the reward; none where this version does not know the settings."""
    try:
        rows = [_effect(effect) for effect in effects(state)]
    except RefusedError:
        rows = []
    columns = ["evidence", "change", "effect on the reward", "from", "to", "pairs", "node", "control"]
    return {"columns": columns, "rows": rows}


def _effect(effect: Effect) -> list[Any]:
    low, high = effect.interval or (None, None)
    change = ", ".join(map(str, effect.change))
    ends = (plain(effect.mean), plain(low), plain(high))
    return [effect.evidence, change, *ends, len(effect.differences), effect.treated.id, effect.control.id]


def _validations(state: State) -> dict[str, Any]:
    rows = [
        [run.node, replicate_name(run.seed, run.variation), plain(run.reward), run.classification, run.reason or ""]
        for run in state.validations
    ]
    return {"columns": ["node", "seed", "reward", "verdict", "reason"], "rows": rows}


def _block(state: State, block: int) -> dict[str, Any]:
    """A block: its root, and the reviews before it with the differences of strategy files."""
    iterations = state.in_block(block)
    root = ", ".join(f"{key} = {shown(value)}" for key, value in state.root(block).items())
    return {
        "number": block,
        "iterations": f"{iterations[0].number} to {iterations[-1].number}" if iterations else "none yet",
        "root": root or "as at the beginning",
        "reviews": [_review(state, number) for number, each in enumerate(state.reviews) if each.block == block],
    }


def _review(state: State, number: int) -> dict[str, Any]:
    review = state.reviews[number]
    file = review.file
    rolled_back = [f"{name} was rolled back" for name in review.rolled_back]
    return {
        "by": review.by + (f" ({review.note})" if review.note else ""),
        "rationale": review.submission.rationale,
        "file": file.name if file else "",
        "verdict": review.verdict if file else "",
        "reasons": [*rolled_back, *review.reasons],
        "difference": difference(_former(state.reviews[:number], file.name), file) if file else "",
    }


def _former(reviews: Sequence[Reviewed], name: str) -> StrategyFile | None:
    """The version of a strategy file that was accepted last."""
    found = [review.file for review in reviews if review.landed and review.file and review.file.name == name]
    return found[-1] if found else None


def _budget(state: State) -> list[tuple[str, str]]:
    settings = state.settings
    hours = "" if settings.max_hours is None else f" of {settings.max_hours:g}"
    found = [("iterations", f"{len(state.iterations)}"), ("time", f"{state.hours:.2f}{hours} h")]
    if state.busy is not None:
        found.append(("workers", f"{state.workers}, busy {state.busy:.0%} of the time"))
    if state.answered or settings.max_cost is not None:
        most = "" if settings.max_cost is None else f" of {settings.max_cost:g}"
        tokens = sum(event.input_tokens + event.output_tokens for event in state.answered)
        found.append(("cost", f"{state.cost:.2f}{most} US$; {tokens} tokens in {len(state.answered)} answers"))
        found += [(f"cost: {kind}", f"{cost:.4g} US$ in {n} answers") for kind, (n, cost) in by_kind(state).items()]
    else:
        found.append(("cost", "none: no language model was asked"))
    lost = ", ".join(f"{kind} {number}" for kind, number in state.losses.most_common())
    return [*found, ("runs that were lost and made again", lost or "none")]


def _origin(state: State) -> list[tuple[str, str]]:
    opened = state.opened
    return [
        ("begun", opened.time or "unknown"),
        ("made by", f"metabolismgraph {opened.version}"),
        ("data", opened.data),
        ("proposer", opened.proposer),
        ("scored by", basis(opened)),
        *_reward_in_words(state),
        ("held out from training", f"{state.config.training.held_out_fraction:.0%} of the frames"),
    ]


def render_comparison(first: Path, second: Path) -> str:
    """The page of a comparison of two explorations.

    Raises:
        InputError: one of the folders holds no exploration.
    """
    found = compare_explorations(first, second)
    content = {
        "title": "Comparison of two explorations",
        "sides": [(letter, name, _summary(name)) for letter, name in zip("AB", found.names, strict=True)],
        "remark": f"Rewards of the best nodes: {found.difference}",
        "headings": ["what", "A", "B"],
        "settings": [(row.what, row.first, row.second) for row in found.rows if row.first != row.second],
        "tables": [],
        "evidence": found.evidence,
        "differences": found.differences,
    }
    return render("comparison.html", content, {})


def _summary(name: str) -> str:
    state = State.of(Journal(Path(name) / JOURNAL).read())
    return " ".join(_verdict(state, nodes(state)))
