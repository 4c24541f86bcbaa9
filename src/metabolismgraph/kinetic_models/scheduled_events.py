"""Events of an SBML model at times that are known before a simulation: pulses, dilutions, switches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import libsbml

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, Compiled, FormulaError, Values, children, evaluate, names
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.kinetic_models.model import Environment, Instant, Jump

_COMPARED = {
    libsbml.AST_RELATIONAL_GEQ,
    libsbml.AST_RELATIONAL_GT,
    libsbml.AST_RELATIONAL_LEQ,
    libsbml.AST_RELATIONAL_LT,
}
_LOGICAL = {
    libsbml.AST_LOGICAL_AND,
    libsbml.AST_LOGICAL_OR,
    libsbml.AST_LOGICAL_NOT,
    libsbml.AST_LOGICAL_XOR,
    libsbml.AST_CONSTANT_TRUE,
    libsbml.AST_CONSTANT_FALSE,
}
_EXAMPLE = "time >= 5"


class _Execution(NamedTuple):
    """One execution of an event.

    Attributes:
        priority: NaN if there is none; the event with the highest one is executed first.
    """

    instant: Instant
    priority: float
    event: Any

    @property
    def has_priority(self) -> bool:
        return not math.isnan(self.priority)


class ScheduledEvents:
    """The events of a model, whose triggers compare the time with constants.

    Args:
        source: of the model, for messages.
        start: values at the start.
        begin: time of the start.
        formula: makes a function of a formula, given a name for messages.

    Attributes:
        jumps: what they do, in order of time, from `begin` on.

    Raises:
        InputError: a trigger, delay or priority depends on more than the time and numbers; or what several events at
            the same time do depends on their order, which is not given.
    """

    def __init__(
        self, source: str, index: ModelIndex, start: Environment, begin: float, formula: Callable[[str, Any], Compiled]
    ):
        self._source, self._index, self._start, self._begin, self._formula = source, index, start, begin, formula
        found = itertools.chain.from_iterable(self._executions(e) for e in index.model.getListOfEvents())
        ordered = sorted(found, key=lambda one: (one.instant, -one.priority if one.has_priority else math.inf))
        self.jumps = tuple(
            self._jump(instant, list(group)) for instant, group in itertools.groupby(ordered, lambda one: one.instant)
        )

    def _executions(self, event: Any) -> Iterator[_Execution]:
        """When an event is executed."""
        name = event.getId() or "without id"
        trigger = event.getTrigger()
        if trigger is None or trigger.getMath() is None:
            return  # Level 3 Version 2 allows it: the event never happens
        fired = list(self._fired(name, trigger))
        delay = self._number(f"the delay of event {name}", event.getDelay(), 0.0)
        if not 0 <= delay < math.inf:
            raise self._refusal(f"the delay of event {name} is {delay:g}; it must be finite and >= 0")
        if delay:
            self._check_delayed(name, event, trigger)
        priority = self._number(f"the priority of event {name}", event.getPriority(), math.nan)
        for instant in fired:
            yield _Execution(Instant(instant.time + delay, instant.after), priority, event)

    def _check_delayed(self, name: str, event: Any, trigger: Any) -> None:
        if not trigger.getPersistent():
            raise self._refusal(f"event {name} has a delay and is not persistent, which is not simulated yet")
        if event.isSetTimeUnits():
            raise self._refusal(f"event {name} has a delay with units of its own, which are not read yet")
        formulas = [assignment.getMath() for assignment in event.getListOfEventAssignments()]
        if event.getUseValuesFromTriggerTime() and not all(map(self._index.is_constant, formulas)):
            raise self._refusal(
                f"event {name} has a delay and assigns values from before it (useValuesFromTriggerTime), which is not "
                "simulated yet"
            )

    def _fired(self, name: str, trigger: Any) -> Iterator[Instant]:
        """When a trigger becomes true."""
        node = trigger.getMath()
        limits = sorted({limit for limit in self._limits(name, node) if self._begin <= limit < math.inf})
        # Between two limits nothing changes. At a limit, `time >= 5` is true already, `time > 5` only after it.
        moments = [(self._begin, Instant(self._begin, after=False))]
        for limit, following in itertools.zip_longest(limits, limits[1:], fillvalue=math.inf):
            beyond = limit + 1.0 if math.isinf(following) else (limit + following) / 2
            moments += [(limit, Instant(limit, after=False)), (beyond, Instant(limit, after=True))]
        before = bool(trigger.getInitialValue())
        for time, instant in moments:
            now = self._is_true(name, node, time)
            if now and not before:
                yield instant
            before = now

    def _limits(self, name: str, node: Any) -> Iterator[float]:
        """Times at which the comparisons of a trigger change."""
        kind = node.getType()
        if kind in _LOGICAL:
            for child in children(node):
                yield from self._limits(name, child)
            return
        sides = list(children(node))
        is_time = [side.getType() == libsbml.AST_NAME_TIME for side in sides]
        if kind not in _COMPARED or sum(is_time) != 1:
            raise self._refusal(
                f"event {name} does not happen at a given time ({_EXAMPLE}); such events are not simulated yet"
            )
        for side, skipped in zip(sides, is_time, strict=True):
            if not skipped:
                yield self._evaluated(f"the trigger of event {name}", side)

    def _is_true(self, name: str, node: Any, time: float) -> bool:
        def value(of: str) -> Values:
            return time if of == TIME else self._start[of]

        try:
            return bool(evaluate(node, value, self._index.functions))
        except (FormulaError, KeyError):
            raise self._refusal(f"the trigger of event {name} cannot be evaluated") from None

    def _number(self, what: str, part: Any, usual: float) -> float:
        """The value of a delay or priority; the usual one if there is none."""
        node = None if part is None else part.getMath()
        return usual if node is None else self._evaluated(what, node)

    def _evaluated(self, what: str, node: Any) -> float:
        """The value of a formula of constants."""
        if not self._index.is_constant(node):
            raise self._refusal(f"{what} depends on what changes during the simulation, which is not simulated yet")
        known = dict[str, float]()
        for name in sorted(names(node)):
            if name not in self._start:
                raise self._refusal(f"{name}, on which {what} depends, has no value")
            known[name] = float(self._start[name])
            if math.isnan(known[name]):  # of a symbol, too
                unknown = "has no value" if isinstance(self._start[name], float) else "is estimated"
                raise self._refusal(f"{what} depends on {name}, which {unknown}; times of events must be known")
        try:
            return float(evaluate(node, known.__getitem__, self._index.functions))
        except FormulaError:
            raise self._refusal(f"the formula of {what} cannot be evaluated") from None

    def _jump(self, instant: Instant, group: Sequence[_Execution]) -> Jump:
        """What the events at an instant do. Each uses the values from before it, so that the order hardly matters."""
        at = f"time {instant.time:g}"
        if len(group) > 1 and not all(one.event.getUseValuesFromTriggerTime() for one in group):
            raise self._refusal(
                f"several events at {at}, and one that does not use the values from before (useValuesFromTriggerTime); "
                "this is not simulated yet"
            )
        changes: dict[str, Compiled] = {}
        seen: dict[str, float] = {}
        for one in group:
            for assignment in one.event.getListOfEventAssignments():
                name = assignment.getVariable()
                if name in seen and not one.priority < seen[name]:
                    raise self._refusal(f"several events at {at} change {name}, and no priority tells their order")
                seen[name] = one.priority
                if assignment.getMath() is not None:
                    changes[name] = self._formula(f"{name} after an event", assignment.getMath())
        for name in changes:
            size = self._index.species[name].getCompartment() if name in self._index.species else ""
            if size in changes and not self._index.species[name].getHasOnlySubstanceUnits():
                raise self._refusal(
                    f"events at {at} change the concentration of {name} and the size of its compartment {size}, which "
                    "simulators do in different orders; change one of them later"
                )
        needed = set[str]().union(*(self._index.times_of(one.event) for one in group))
        return Jump(instant, changes, frozenset(needed - {TIME}))

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self._source}: {reason}")
