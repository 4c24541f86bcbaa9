"""Damped Gauss-Newton steps (Levenberg 1944; Marquardt 1963), as long as the misfit falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

_TRIES = 7  # dampings that are tried for one step
_GROWTH, _LEAST, _NEGLIGIBLE = 10.0, 1e-3, 1e-6
# Gain of a step, its decrease of the misfit over the predicted one: above the first value less damping is wanted, below
# the second one more (Nielsen 1999).
_GOOD, _POOR = 0.75, 0.25


@runtime_checkable
class HasLoss(Protocol):
    """A point with its misfit."""

    @property
    def loss(self) -> float: ...


Point = TypeVar("Point", bound=HasLoss)


class Trial(NamedTuple):
    """What a damped step leads to.

    Attributes:
        change: of the unknowns, and of what else the misfit depends on.
        predicted: decrease of the misfit, if it were quadratic.
    """

    change: tuple[np.ndarray, ...]
    predicted: float


def damped_step(
    now: Point, solve: Callable[[float], Trial], move: Callable[[Trial], Point], damping: float
) -> tuple[Point | None, float]:
    """A step that lowers the misfit, with as little damping as possible.

    Args:
        now: from where.
        solve: the step for a damping; it raises LinAlgError or ValueError where there is none.
        move: the point that the step leads to.
        damping: to begin with; zero for an undamped step.

    Returns:
        The new point, or None if no damping leads to one; and the damping for the next step.

    Example:
        The minimum of x^4 from x = 1, with steps for its quadratic approximation.

        >>> class At(NamedTuple):
        ...     x: float
        ...     loss: float
        >>> def solve(damping):
        ...     step = -4 * now.x**3 / (12 * now.x**2 * (1 + damping))
        ...     return Trial((np.array(step),), -4 * now.x**3 * step / 2)
        >>> now, damping = At(1.0, 1.0), 0.0
        >>> for _ in range(20):
        ...     now, damping = damped_step(now, solve, lambda t: At(x := now.x + t.change[0], x**4), damping)
        >>> bool(abs(now.x) < 0.001)
        True
    """
    for _ in range(_TRIES):
        try:
            trial = solve(damping)
        except (np.linalg.LinAlgError, ValueError):  # not positive, or not finite
            damping = max(damping * _GROWTH, _LEAST)
            continue
        then = move(trial)
        if np.isfinite(then.loss) and then.loss < now.loss:
            decrease = now.loss - then.loss
            if decrease > _GOOD * trial.predicted:
                damping = damping / _GROWTH if damping > _NEGLIGIBLE else 0.0
            elif decrease < _POOR * trial.predicted:
                damping = max(damping * _GROWTH, _LEAST)
            return then, damping
        damping = max(damping * _GROWTH, _LEAST)
    return None, damping


def good(now: HasLoss, then: HasLoss, trial: Trial) -> bool:
    """Whether a step lowers the misfit about as much as predicted."""
    return now.loss - then.loss > _GOOD * trial.predicted
