"""The model in the parts of an experiment: between changes of conditions, and between events."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from metabolismgraph.formats.formula import Values
from metabolismgraph.kinetic_models.model import Instant, KineticModel


@dataclasses.dataclass(frozen=True)
class Stage:
    """The model in a part of an experiment.

    Attributes:
        begin: time of the start; -inf: the stage lasts until the states are at rest.
        end: time of the next stage; infinite for the last.
        model: its `start` is used in the first stage only.
        entered: the states at the start from those at the end of the stage before; None in the first stage.
        begins_after: whether the values at `begin` belong to the stage before.
        ends_after: whether the values at `end` belong to this stage.
    """

    begin: float
    end: float
    model: KineticModel
    entered: Callable[[Sequence[Values]], list[Values]] | None = None
    begins_after: bool = False
    ends_after: bool = False

    def own(self, times: Float[np.ndarray, " times"]) -> Float[np.ndarray, " own"]:
        """Those of some times that belong to the stage; none if it starts at -inf."""
        if math.isinf(self.begin):
            return times[:0]
        late = times > self.begin if self.begins_after else times >= self.begin
        early = times <= self.end if self.ends_after else times < self.end
        return times[late & (early | math.isinf(self.end))]

    def parts(self) -> Iterator[Stage]:
        """The stage, divided at the jumps of its model."""
        at, entered = Instant(self.begin, self.begins_after), self.entered
        for jump in self.model.jumps:
            if not at <= jump.instant < (self.end, self.ends_after):
                continue
            enter = functools.partial(self.model.after, jump)
            if jump.instant > at:
                yield Stage(at.time, jump.instant.time, self.model, entered, at.after, jump.instant.after)
                at, entered = jump.instant, enter
            elif entered is not None:  # conditions change first
                entered = _composed(entered, enter)
        yield dataclasses.replace(self, begin=at.time, entered=entered, begins_after=at.after)


def _composed(
    first: Callable[[Sequence[Values]], list[Values]], then: Callable[[Sequence[Values]], list[Values]]
) -> Callable[[Sequence[Values]], list[Values]]:
    return lambda states: then(first(states))
