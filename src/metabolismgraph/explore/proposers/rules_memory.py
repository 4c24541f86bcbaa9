"""Texts of the rules: visual summaries from metrics, observations, and the working memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from metabolismgraph.explore.events import Failed
from metabolismgraph.explore.evidence import PAIRS, Effect, Evidence, control
from metabolismgraph.explore.planning import settings_of
from metabolismgraph.explore.proposal import MEMORY_LINES
from metabolismgraph.explore.published_format.lines import set_name
from metabolismgraph.explore.reliability import reliability
from metabolismgraph.explore.reward import SKILL, slope_ratios
from metabolismgraph.explore.settings import strategies_of_settings
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, nodes, settled, standard_error
from metabolismgraph.metrics import by_index, types_separated

_ACTIVE = 0.05  # of the true slope, or of skill
_AGREES = 0.9  # R2 of a rate law or of rate constants that agree with the truth


def strategies_of(state: State, node: Node) -> tuple[str, ...]:
    """Names of the strategies of a node; for an imported node as in its log."""
    if state.imported:
        return (node.first.strategy,)
    return strategies_of_settings(settings_of(node.first, state))


def what_trains(state: State, node: Node) -> str:
    """What a node trains with: its strategies, or gradient descent where the search space has none."""
    return set_name(strategies_of(state, node)) if state.space.strategies else "gradient descent"


def visual(iteration: Iteration, state: State) -> str:
    """The Visual line, from the metrics behind the figures."""
    failed = isinstance(iteration.outcome, Failed)
    parts = {name: _NO_RESULT[name] if failed else _SEEN[name](iteration.metrics) for name in state.space.log.visual}
    return ", ".join(f"{name}={text}" for name, text in parts.items())


def _law_seen(metrics: dict[str, Any]) -> str:
    return _agreement(metrics.get("MLP_sub_R2"), "of log f")


def _rate_constants_seen(metrics: dict[str, Any]) -> str:
    outliers = metrics.get("n_outliers")
    more = f", {outliers} outliers" if outliers is not None else ""
    return _agreement(metrics.get("rate_constants_R2"), "of log10 k") + more


def _agreement(r2: object, of: str) -> str:
    if not isinstance(r2, float):
        return "unknown: no truth"
    return f"{'good' if r2 > _AGREES else 'bad'}: R2={r2:.3f} {of}"


def _node_seen(metrics: dict[str, Any]) -> str:
    if not slope_ratios(metrics):
        skill = metrics.get(SKILL)
        slopes = list(by_index(metrics, "MLP_node_slope_cluster_{t}").values())
        active = isinstance(skill, float) and skill > _ACTIVE
        return f"{'active' if active else 'inactive'}: slopes {_listed(slopes)} by cluster"
    types = slope_ratios(metrics)
    active = any(r is not None and math.isfinite(r) and abs(r) > _ACTIVE for r in types.values())
    return f"{'active' if active else 'inactive'}: slopes {_listed(list(types.values()))} of the true ones"


def _embeddings_seen(metrics: dict[str, Any]) -> str:
    number, silhouette = metrics.get("embedding_n_clusters"), metrics.get("embedding_silhouette")
    if number is None or number < 2:
        return "collapsed: single cluster"
    outliers = metrics.get("embedding_n_unassigned")
    shown = f" and {outliers} outliers" if outliers else ""
    shown += f", silhouette={silhouette:.2f}" if isinstance(silhouette, float) else ""
    return f"{'separated' if types_separated(metrics) else 'clustered'}: {number - bool(outliers)} clusters{shown}"


_SEEN: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "MLP_sub": _law_seen,
    "MLP_node": _node_seen,
    "Embeddings": _embeddings_seen,
    "k": _rate_constants_seen,
}
_NO_RESULT = {
    "MLP_sub": "unknown: no result",
    "MLP_node": "inactive: no result",
    "Embeddings": "collapsed: no result",
    "k": "unknown: no result",
}


def _listed(values: Sequence[float | None]) -> str:
    return "/".join("nan" if value is None else f"{value:.6f}" for value in values) or "none"


def observation(state: State, iteration: Iteration, found: Sequence[Effect]) -> str:
    """One line: the reward, the node's replicates, and the comparison with its control.

    Args:
        found: all effects.
    """
    if isinstance(iteration.outcome, Failed):
        return f"failed: {iteration.outcome.reason}"
    if iteration.scored is None:
        return "no verdict"
    every = nodes(state)
    node = next(node for node in every if node.id == iteration.node)
    text = f"reward {iteration.scored.reward:.3f}"
    if len(node.rewards) > 1:
        error = standard_error(node, every) or 0.0
        text += f"; node {node.id} has {node.mean:.3f} ± {error:.3f} over {len(node.rewards)} replicates"
    if not iteration.proposed.proposal.mutations:
        return text
    without = control(node, state)
    mine = [e for e in found if e.treated.id == node.id and e.change == iteration.proposed.proposal.mutations]
    if not mine:
        missing = "was not run" if without is None else f"is node {without.id}, and has no result with this seed"
        return f"{text}; no control: the parent's settings at T = {iteration.proposed.time_step} {missing}"
    return f"{text}; {mine[0].evidence}: {mine[0]}"


def memory(state: State, found: Sequence[Effect]) -> str:
    """The working memory: principles, outcomes by strategy, hypotheses with their evidence, the current block.

    Args:
        found: all effects.
    """
    lines = [
        "# Working memory",
        "",
        "## Established principles",
        *_principles(state, found),
        "",
        *(["## Strategy outcomes", *_outcomes(state), ""] if state.space.strategies else []),
        "## Falsified hypotheses",
        *(_claims(found, "contradicted") or ["- none yet"]),
        "",
        "## Open hypotheses",
        *(_claims(found, "tentative") or ["- none"]),
        "",
        "## Current block",
        *_current(state),
    ]
    return "\n".join(lines[:MEMORY_LINES]) + "\n"


def _principles(state: State, effects_: Sequence[Effect]) -> Iterator[str]:
    found = best(state)
    if found is not None and found.mean is not None:
        error = standard_error(found, nodes(state)) or 0.0
        yield (
            f"- best: node {found.id}, {what_trains(state, found)}, reward "
            f"{found.mean:.3f} ± {error:.3f} over {len(found.rewards)} replicates (iterations "
            f"{', '.join(str(run.number) for run in found.runs)})"
        )
        if (tested := reliability(state, found.id)) is not None:
            yield f"- validation of node {found.id}: {tested}"
        if settled(state):
            yield "- nothing is left to find: no reward can exceed it by more than its error"
    yield from _claims(effects_, "established") or [
        f"- no effect of a change is established: that takes {PAIRS} pairs of runs, and an interval without zero"
    ]


def _claims(found: Sequence[Effect], evidence: Evidence) -> list[str]:
    """The effects of a class of evidence, the best supported first."""
    of_class = [effect for effect in found if effect.evidence == evidence]
    return [f"- {effect}" for effect in sorted(of_class, key=lambda effect: -len(effect.differences))]


def _outcomes(state: State) -> Iterator[str]:
    by_set: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes(state):
        by_set.setdefault(strategies_of(state, node), []).append(node)
    for chosen_set, members in by_set.items():
        rewards = [reward for node in members for reward in node.rewards]
        runs = sum(len(node.runs) for node in members)
        failed = sum(run.counts and not run.has_reward for node in members for run in node.runs)
        outcome = f"mean reward {sum(rewards) / len(rewards):.3f}, best {max(rewards):.3f}" if rewards else "no reward"
        without = f", {failed} failed" if failed else ""
        yield f"- {set_name(chosen_set)}: {runs} runs, {outcome}{without}"


def _current(state: State) -> Iterator[str]:
    block = state.block_of(len(state.iterations)) if state.iterations else 0
    yield f"Block {block}, iterations {state.first_of(block)} and on:"
    for iteration in state.in_block(block):
        verdict = iteration.scored
        result = "running" if verdict is None else f"{verdict.classification}, reward {verdict.reward:.3f}"
        changes = ", ".join(map(str, iteration.proposed.mutations)) or iteration.proposed.proposal.mode
        yield f"- iteration {iteration.number} (node {iteration.node}): {changes}: {result}"
