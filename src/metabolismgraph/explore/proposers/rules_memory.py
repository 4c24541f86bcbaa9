"""Texts of the rules: visual summaries from metrics, observations, and the working memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from metabolismgraph.explore.events import Failed, Primary
from metabolismgraph.explore.proposal import MEMORY_LINES
from metabolismgraph.explore.published_format.lines import set_name
from metabolismgraph.explore.reward import SKILL, slope_ratios
from metabolismgraph.explore.search_space import configuration
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, differ, nodes, standard_error
from metabolismgraph.homeostasis.strategies import names
from metabolismgraph.metrics import by_index

_ACTIVE = 0.05  # of the true slope, or of skill
_SEPARATED = 0.5  # silhouette


def strategies_of(state: State, node: Node) -> tuple[str, ...]:
    """Names of the strategies of a node; for an imported node as in its log."""
    if state.imported:
        return (node.runs[0].proposed.proposal.strategy,)
    return names(configuration(state, node.runs[0].proposed.changes).training)


def clusters(node: Node) -> int | None:
    """Clusters of the embeddings in the last run of a node."""
    found = [None, *(run.metrics.get("embedding_n_clusters") for run in node.runs if run.metrics)][-1]
    return None if found is None else int(found)


def visual(iteration: Iteration, primary: Primary) -> str:
    """The Visual line, from the metrics behind the figures."""
    if isinstance(iteration.outcome, Failed):
        return "MLP_node=inactive: no result, Embeddings=collapsed: no result"
    metrics = iteration.metrics
    return f"MLP_node={_node_seen(metrics, primary)}, Embeddings={_embeddings_seen(metrics)}"


def _node_seen(metrics: dict[str, Any], primary: Primary) -> str:
    if primary == "validation":
        skill = metrics.get(SKILL)
        slopes = list(by_index(metrics, "MLP_node_slope_cluster_{t}").values())
        active = isinstance(skill, float) and skill > _ACTIVE
        return f"{'active' if active else 'inactive'}: slopes {_listed(slopes)} by cluster"
    types = slope_ratios(metrics)
    active = any(r is not None and math.isfinite(r) and abs(r) > _ACTIVE for r in types.values())
    learned, true = (
        _listed([by_index(metrics, f"MLP_node_{name}_{{t}}").get(t) for t in types]) for name in ("slope", "gt_slope")
    )
    return f"{'active' if active else 'inactive'}: slopes {learned} vs GT {true}"


def _embeddings_seen(metrics: dict[str, Any]) -> str:
    number, silhouette = metrics.get("embedding_n_clusters"), metrics.get("embedding_silhouette")
    if number is None or number < 2:
        return "collapsed: single cluster"
    apart = isinstance(silhouette, float) and silhouette > _SEPARATED
    shown = f", silhouette={silhouette:.2f}" if isinstance(silhouette, float) else ""
    return f"{'separated' if apart else 'clustered'}: {number} clusters{shown}"


def _listed(values: Sequence[float | None]) -> str:
    return "/".join("nan" if value is None else f"{value:.6f}" for value in values) or "none"


def observation(state: State, iteration: Iteration) -> str:
    """One line: comparison with the parent, or with the other runs of the node."""
    if isinstance(iteration.outcome, Failed):
        return f"failed: {iteration.outcome.reason}"
    if iteration.scored is None:
        return "no verdict"
    reward = iteration.scored.reward
    by_id: dict[int | None, Node] = {node.id: node for node in nodes(state)}
    node = by_id[iteration.node]
    if len(node.rewards) > 1:
        error, number = standard_error(node, by_id.values()) or 0.0, len(node.rewards)
        return f"reward {reward:.3f}; node {node.id} has {node.mean:.3f} ± {error:.3f} over {number} replicates"
    parent = by_id.get(node.parent)
    if parent is None or parent.mean is None:
        return f"reward {reward:.3f}, from the root of the block"
    if not differ(node, parent, tuple(by_id.values())):
        return f"reward {reward:.3f}, no different from {parent.mean:.3f} in node {parent.id}"
    way = "up" if reward > parent.mean else "down"
    return f"reward {reward:.3f}, {way} from {parent.mean:.3f} in node {parent.id}"


def memory(state: State) -> str:
    """The working memory: principles, outcomes by strategy, falsified hypotheses, the current block."""
    lines = [
        "# Working memory",
        "",
        "## Established principles",
        *_principles(state),
        "",
        "## Strategy outcomes",
        *_outcomes(state),
        "",
        "## Falsified hypotheses",
        *_falsified(state),
        "",
        "## Current block",
        *_current(state),
    ]
    return "\n".join(lines[:MEMORY_LINES]) + "\n"


def _principles(state: State) -> Iterator[str]:
    found = best(state)
    if found is None or found.mean is None:
        wanted = state.settings.replicates
        yield f"- nothing is established yet: no node has {wanted} replicates and a reward above zero"
        return
    error = standard_error(found, nodes(state)) or 0.0
    yield (
        f"- best: node {found.id}, {set_name(strategies_of(state, found))}, reward "
        f"{found.mean:.3f} ± {error:.3f} over {len(found.rewards)} replicates (iterations "
        f"{', '.join(str(run.number) for run in found.runs)})"
    )


def _outcomes(state: State) -> Iterator[str]:
    by_set: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes(state):
        by_set.setdefault(strategies_of(state, node), []).append(node)
    for chosen_set, members in by_set.items():
        rewards = [reward for node in members for reward in node.rewards]
        runs = sum(len(node.runs) for node in members)
        failed = runs - len(rewards) - sum(node.in_flight for node in members)
        outcome = f"mean reward {sum(rewards) / len(rewards):.3f}, best {max(rewards):.3f}" if rewards else "no reward"
        without = f", {failed} failed" if failed else ""
        yield f"- {set_name(chosen_set)}: {runs} runs, {outcome}{without}"


def _falsified(state: State) -> Iterator[str]:
    by_id: dict[int | None, Node] = {node.id: node for node in nodes(state)}
    found = False
    for node in by_id.values():
        parent = by_id.get(node.parent)
        first = node.runs[0].proposed.proposal
        if parent is None or parent.mean is None or node.mean is None or not first.mutations:
            continue
        if node.mean < parent.mean and differ(node, parent, tuple(by_id.values())):
            found = True
            changes = ", ".join(map(str, first.mutations))
            yield f"- iteration {node.id}: {changes} ({node.mean:.3f} after {parent.mean:.3f} in node {parent.id})"
    if not found:
        yield "- none yet"


def _current(state: State) -> Iterator[str]:
    block = state.block_of(len(state.iterations)) if state.iterations else 0
    yield f"Block {block}, iterations {state.first_of(block)} and on:"
    for iteration in state.in_block(block):
        verdict = iteration.scored
        result = "running" if verdict is None else f"{verdict.classification}, reward {verdict.reward:.3f}"
        changes = ", ".join(map(str, iteration.proposed.proposal.mutations)) or iteration.proposed.proposal.mode
        yield f"- iteration {iteration.number} (node {iteration.node}): {changes}: {result}"
