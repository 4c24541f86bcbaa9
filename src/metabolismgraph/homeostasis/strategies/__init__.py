"""The strategies of Phase 2, one file each, and the plan that results from those of a configuration.

To add a strategy, add a file with a subclass of `Strategy` here, and a line in `STRATEGIES`. Strategies of an
exploration are loaded from its files (`custom.py`) and found by name like the others.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from metabolismgraph.config import Training, nearest_name, parse_options
from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import custom
from metabolismgraph.homeostasis.strategies.accumulation import Accumulation
from metabolismgraph.homeostasis.strategies.amplification import Amplification
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.strategies.contrastive import Contrastive
from metabolismgraph.homeostasis.strategies.curriculum import Curriculum
from metabolismgraph.homeostasis.strategies.multi_scale import MultiScale
from metabolismgraph.homeostasis.strategies.orthogonalised import Orthogonalised
from metabolismgraph.homeostasis.strategies.residual import Residual
from metabolismgraph.homeostasis.strategies.separate import Separate
from metabolismgraph.homeostasis.strategies.shooting import Shooting
from metabolismgraph.homeostasis.strategies.warmup import Warmup
from metabolismgraph.homeostasis.strategies.weak_form import WeakForm
from metabolismgraph.homeostasis.training_plan import Plan, Starts
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent

STRATEGIES: Mapping[str, type[Strategy]] = {
    "residual": Residual,
    "amplification": Amplification,
    "contrastive": Contrastive,
    "curriculum": Curriculum,
    "warmup": Warmup,
    "multi_scale": MultiScale,
    "accumulation": Accumulation,
    "separate": Separate,
    "orthogonalised": Orthogonalised,
    "weak_form": WeakForm,
    "shooting": Shooting,
}
# The strategy that suits a method of Phase 1. With auto, it depends on the method that was chosen, see `make_plan`.
_DEFAULT = {
    "auto": "residual",
    "projection": "residual",
    "shooting": "shooting",
    "gradient": "orthogonalised",
    "implicit": "residual",
}
_WHERE = "training.strategies"
_REPLACED = ("steps", "schedule")  # parts of the plan with a note if a later strategy replaces them
# Order of application: the strategy that sets the residuals, then the one that sets the objective, then all others in
# the order of the configuration.
_FIRST = ("residuals", "objective")


def chosen(training: Training) -> dict[str, Strategy]:
    """The strategies of a configuration, with their options, in the order of application.

    Raises:
        InputError: unknown name or option, or incompatible strategies.
    """
    found: dict[str, Strategy] = {}
    for name, options in entries(training):
        kind = find(name)
        if name in found:
            raise InputError(f"{_WHERE}: {name} is named twice; keep one")
        found[name] = parse_options(kind, options, _WHERE, name)
    _check_combination(found)
    return dict(sorted(found.items(), key=lambda item: _rank(item[1])))


def find(name: str) -> type[Strategy]:
    """The strategy of the given name; those of the package take precedence over loaded ones.

    Raises:
        InputError: there is no such strategy.
    """
    every = {**custom.known(), **STRATEGIES}
    if name not in every:
        near = nearest_name(name, every)
        raise InputError(f"{_WHERE}: unknown strategy {name}; did you mean {near}? (all: {', '.join(every)})")
    return every[name]


def names(training: Training) -> tuple[str, ...]:
    """The names of strategies in a configuration, known or unknown, in its order.

    Raises:
        InputError: an entry has no name or several.
    """
    return tuple(name for name, _ in entries(training))


@runtime_checkable
class Declared(Protocol):
    """What a strategy, or the declaration of one, says about itself."""

    @property
    def sets(self) -> Collection[Part]: ...

    @property
    def draws_minibatches(self) -> bool: ...


def draw_minibatches(found: Mapping[str, Declared]) -> bool:
    """Whether training with these strategies draws minibatches of rollouts or windows of homeostasis_time_step frames.

    Otherwise every step uses all frames.
    """
    trained = _trained(found)
    return trained is None or found[trained].draws_minibatches


def depends_on_time_step(training: Training) -> bool:
    """Whether Phase 2 uses rollouts or windows of homeostasis_time_step frames.

    Raises:
        InputError: as for `chosen`.
    """
    return draw_minibatches(chosen(training))


def entries(training: Training) -> list[tuple[str, Any]]:
    """Names and options of the strategies in a configuration, those of the default included.

    Raises:
        InputError: an entry has no name or several.
    """
    if training.strategies is None:
        return [(_DEFAULT[training.phase1_method], {}), ("contrastive", {})]
    for entry in training.strategies:
        if not isinstance(entry, str) and len(entry) != 1:
            raise InputError(
                f"{_WHERE}: found {len(entry)} names in one entry, expected one: {{name: {{option: value}}}}"
            )
    return [(entry, {}) if isinstance(entry, str) else next(iter(entry.items())) for entry in training.strategies]


def _rank(strategy: Strategy) -> int:
    return min((_FIRST.index(part) for part in strategy.sets if part in _FIRST), default=len(_FIRST))


def _trained(found: Mapping[str, Declared]) -> str | None:
    """The name of the strategy on whose objective, or else residuals, the model is trained; None: on rollouts."""
    return next((name for part in reversed(_FIRST) for name, s in found.items() if part in s.sets), None)


def _check_combination(found: Mapping[str, Strategy]) -> None:
    for (a, one), (b, other) in itertools.combinations(found.items(), 2):
        both = sorted(one.sets & other.sets)
        if both:
            raise InputError(f"{_WHERE}: {a} and {b} both set the {both[0]}; keep one of them")
    trained = _trained(found)
    if trained is None:
        return  # the published objective, rollouts in minibatches, meets the conditions of all strategies
    for name, strategy in found.items():
        if strategy.needs == "rollouts" or (strategy.needs == "minibatches" and not found[trained].draws_minibatches):
            raise InputError(
                f"{_WHERE}: {name} works on {strategy.needs}, and {trained} does not use them; leave one of them out"
            )


def check_strategies(training: Training, observations: Observations) -> None:
    """Check what is known of the strategies of a configuration before Phase 1, which can take long.

    Args:
        training: section of the configuration; the default strategies suit all data.
        observations: the data to learn from.

    Raises:
        InputError: as for `make_plan`.
    """
    if training.strategies is None or not training.homeostasis_training or training.trains_jointly:
        return
    found = chosen(training)
    _check_gaps(found, observations)
    if draw_minibatches(found):
        Starts.of(observations, training.homeostasis_time_step)


def _check_gaps(found: Collection[str], observations: Observations) -> None:
    if "shooting" not in found and not observations.measured.all():
        raise InputError(
            f"{_WHERE}: dc/dt is not known where values are missing, so Phase 2 needs the strategy shooting, which "
            f"does not use it (found: {', '.join(found)})"
        )


def orthogonalised_in(training: Training) -> Orthogonalised | None:
    """The strategy `orthogonalised` of a configuration, with its options.

    Raises:
        InputError: an entry has no name or several, or an option is unknown.
    """
    for name, options in entries(training):
        if name == "orthogonalised":
            return parse_options(Orthogonalised, options, _WHERE, name)
    return None


def make_plan(data: Phase2Data, progress: Progress = silent, orthogonalised: Residuals | None = None) -> Plan:
    """The plan that results from the published training by applying the strategies of the configuration.

    Only the computation of residuals can take long; it is done once, before the plan is made.

    Args:
        data: observations and checkpoint.
        progress: see `system.progress`.
        orthogonalised: the residuals of the strategy of that name, if they are known.

    Raises:
        InputError: as for `chosen`; or a strategy is not applicable to these data, or two add the same loss term.
    """
    training = data.training
    if training.strategies is None and training.phase1_method == "auto" and data.phase1.trajectories is not None:
        training = training.model_copy(update={"phase1_method": "shooting"})
    strategies = chosen(training)
    _check_gaps(strategies, data.observations)
    data = _without_names(data)
    finder = next((s for s in strategies.values() if "residuals" in s.sets), None)
    if finder is None:
        residuals = data.checkpoint_residuals()
    elif isinstance(finder, Orthogonalised):
        # A run may know them, a trial computes them. Neither the layout of the arrays in memory nor what the data have
        # cached tells one from the other.
        residuals = (orthogonalised or finder.find_residuals(dataclasses.replace(data), progress)).copied()
    else:
        residuals = finder.find_residuals(data, progress)
    # Rollouts are created only if they are used: on short runs there are none, which would be an error.
    found = (s.sets | s.adjusts if "residuals" in s.sets else s.sets for s in strategies.values())
    plan_of = Plan.without_objective if any("objective" in parts for parts in found) else Plan.classical
    plan = plan_of(data, residuals)
    before: dict[str, Strategy] = {}
    for name, strategy in strategies.items():
        changed = strategy.apply(plan, data)
        notes = tuple(
            f"training.strategies: {name} replaces the {part} of {other}"
            for other, earlier in before.items()
            for part in _REPLACED
            if part in earlier.adjusts and getattr(changed, part) != getattr(plan, part)
        )
        plan = dataclasses.replace(changed, notes=(*changed.notes, *notes))
        before[name] = strategy
    terms = Counter(penalty.name for penalty in plan.penalties)
    if terms and max(terms.values()) > 1:
        twice = terms.most_common(1)[0][0]
        raise InputError(f"{_WHERE}: two of them add the loss term {twice}; leave one of them out")
    return plan


def _without_names(data: Phase2Data) -> Phase2Data:
    """The data as strategies see them: which others there are would tell the trial of a strategy file from a run."""
    changed = dataclasses.replace(data, training=data.training.model_copy(update={"strategies": ()}))
    vars(changed).update({name: value for name, value in vars(data).items() if name not in vars(changed)})
    return changed
