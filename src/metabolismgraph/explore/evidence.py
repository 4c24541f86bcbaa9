"""What an exploration shows about changes of the configuration: effects on the reward, with intervals.

A run is compared with its control: the settings of its parent at the same rollout length, on the same data, paired by
seed. One run proves nothing, since the same settings scatter from seed to seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from metabolismgraph.explore.keys import TIME_STEP
from metabolismgraph.explore.planning import control_of, settings_of
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import NEGLIGIBLE, Node, nodes
from metabolismgraph.text import counted

Evidence = Literal["established", "tentative", "contradicted"]

PAIRS = 3  # of runs with the same seeds, from which an effect can be established
_LEVEL = 0.05  # probability of any false effect among all effects of an exploration


@dataclasses.dataclass(frozen=True)
class Effect:
    """The effect of a change on the reward.

    Attributes:
        change: all differences between the two nodes.
        treated, control: the nodes with and without the change.
        differences: of their rewards, one for each seed that both ran.
        interval: of the mean difference; None for fewer than `PAIRS` pairs. Its level is that of a family: all effects
            of the exploration that have an interval hold together with a probability of 95 %.
    """

    change: tuple[Mutation, ...]
    treated: Node
    control: Node
    differences: tuple[float, ...]
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        """Mean difference."""
        return sum(self.differences) / len(self.differences)

    @property
    def pairs(self) -> str:
        """The number of pairs of runs, in words."""
        return counted(len(self.differences), "pair")

    @property
    def evidence(self) -> Evidence:
        """On the claim that the change raises the reward.

        `established`, the interval lies above zero; `contradicted`, it excludes an increase that would matter;
        otherwise `tentative`.
        """
        if self.interval is None:
            return "tentative"
        low, high = self.interval
        if low > 0:
            return "established"
        return "contradicted" if high < NEGLIGIBLE else "tentative"

    def __str__(self) -> str:
        interval = f", {self.interval[0]:+.3f} to {self.interval[1]:+.3f}" if self.interval else ""
        change = ", ".join(map(str, self.change))
        return (
            f"{change}: {self.mean:+.3f}{interval} ({self.pairs} of runs: node {self.treated.id} against its control, "
            f"node {self.control.id})"
        )


def effects(state: State) -> tuple[Effect, ...]:
    """The effects of all changes that have a control and a common seed with it, in order of nodes.

    Intervals are of Student's t for paired differences. Their standard deviation is that of the effect itself, but not
    less than the pooled one of all effects: three differences may agree by chance. The level is divided by the number
    of intervals (Bonferroni).
    """
    every = nodes(state)
    found = [effect for node in every for effect in _effects_of(node, state, every)]
    tested = sum(len(effect.differences) >= PAIRS for effect in found)
    squares = sum(len(e.differences) * float(np.var(e.differences)) for e in found)
    freedom = sum(len(e.differences) - 1 for e in found)
    if not tested:
        return tuple(found)
    pooled = math.sqrt(squares / freedom)
    return tuple(_with_interval(effect, pooled, freedom, _LEVEL / tested) for effect in found)


def control(node: Node, state: State) -> Node | None:
    """The node with the settings of the parent at the rollout length of this node; None: it was not run."""
    if state.imported or not node.first.proposal.mutations:
        return None
    return _find(control_of(node.first, state), node, state, nodes(state))


def paired(treated: Node, other: Node) -> Effect | None:
    """The difference of two nodes, which may be of two explorations; None without a common seed.

    Its interval is that of a single comparison, with a probability of 95 %.
    """
    differences = _differences(treated, other)
    if not differences:
        return None
    return _with_interval(Effect((), treated, other, differences), 0.0, len(differences) - 1, _LEVEL)


def _effects_of(node: Node, state: State, every: Sequence[Node]) -> Iterator[Effect]:
    """The effect of the change that made a node, and that of its rollout length."""
    if state.imported:
        return
    own = node.first.proposal.mutations
    if own:
        yield from _compared(own, node, _find(control_of(node.first, state), node, state, every))
    settings = settings_of(node.first, state)
    if TIME_STEP not in settings:
        return
    shorter = [
        other
        for other in every
        if (there := settings_of(other.first, state)).get(TIME_STEP, settings[TIME_STEP]) < settings[TIME_STEP]
        and {**there, TIME_STEP: settings[TIME_STEP]} == settings
        and _same_code(other, node)
    ]
    if shorter:
        nearest = max(shorter, key=lambda other: settings_of(other.first, state)[TIME_STEP])
        old = settings_of(nearest.first, state)[TIME_STEP]
        change = Mutation(param=TIME_STEP.partition(".")[2], old=old, new=settings[TIME_STEP])
        yield from _compared((change,), node, nearest)


def _compared(change: tuple[Mutation, ...], treated: Node, without: Node | None) -> Iterator[Effect]:
    if without is None or without.id == treated.id:
        return
    differences = _differences(treated, without)
    if differences:
        yield Effect(change, treated, without, differences)


def _differences(treated: Node, other: Node) -> tuple[float, ...]:
    """Differences of rewards, one for each replicate that both ran."""
    ours, theirs = _by_replicate(treated), _by_replicate(other)
    return tuple(ours[each] - theirs[each] for each in ours if each in theirs)


def _by_replicate(node: Node) -> dict[tuple[object, ...], float]:
    """Rewards by seed, and by what else differs between replicates."""
    return {
        (run.proposed.seed, *sorted(run.proposed.variation.items())): run.scored.reward
        for run in node.runs
        if run.scored is not None and run.counts
    }


def _find(settings: Mapping[str, object], node: Node, state: State, every: Sequence[Node]) -> Node | None:
    """The node with these settings, whose strategy files are those of another node."""
    same = (o for o in every if settings_of(o.first, state) == settings and _same_code(o, node))
    return next(same, None)


def _same_code(one: Node, other: Node) -> bool:
    """Whether strategy files that both use are the same; with equal files, the version of the package as well."""
    ours, theirs = one.first.files, other.first.files
    if ours == theirs:
        return one.first.code == other.first.code
    return all(theirs.get(name, digest) == digest for name, digest in ours.items())


def _with_interval(effect: Effect, pooled: float, freedom: int, level: float) -> Effect:
    number = len(effect.differences)
    if number < PAIRS:
        return effect
    deviation = max(float(np.std(effect.differences, ddof=1)), pooled)
    half = float(stats.t.ppf(1 - level / 2, freedom)) * deviation / math.sqrt(number)
    return dataclasses.replace(effect, interval=(effect.mean - half, effect.mean + half))
