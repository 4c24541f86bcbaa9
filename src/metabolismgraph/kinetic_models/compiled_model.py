"""A model whose rates of change, for given parameters, are compiled by CasADi, so that LSODA is many times faster."""

from __future__ import annotations

import dataclasses

import casadi as ca
import numpy as np
from jaxtyping import Float

from metabolismgraph.kinetic_models.model import KineticModel

_TOLERANCE = 1e-9  # of rates by formulas and by their compiled form, relative to the largest one


@dataclasses.dataclass(frozen=True)
class CompiledModel(KineticModel):
    """A model with compiled rates.

    Attributes:
        compiled_rates, compiled_jacobian: functions of time and states.
    """

    compiled_rates: ca.Function
    compiled_jacobian: ca.Function

    def rate(self, time: float, y: Float[np.ndarray, " states"]) -> Float[np.ndarray, " states"]:
        """dy/dt."""
        found: np.ndarray = self.compiled_rates(time, y).full()[:, 0]
        return found

    def jacobian(self, time: float, y: Float[np.ndarray, " states"]) -> Float[np.ndarray, "states states"]:
        """Derivatives of dy/dt by the states."""
        found: np.ndarray = np.nan_to_num(self.compiled_jacobian(time, y).full(), posinf=0.0, neginf=0.0)
        return found


def compile_rates(model: KineticModel, symbolic: KineticModel) -> KineticModel:
    """The model with compiled rates; as it is where these differ from its formulas at the start.

    Args:
        symbolic: the same model with `SYMBOLS` as operations.
    """
    if not model.states or not np.isfinite(np.array(model.start, dtype=float)).all():
        return model
    time, y = ca.SX.sym("t"), ca.SX.sym("y", len(model.states))
    environment = symbolic.values(time, ca.vertsplit(y))
    rates = ca.vertcat(*[rate(environment) for rate in symbolic.rates])
    functions = (ca.Function("f", [time, y], [ca.densify(x)]) for x in (rates, ca.jacobian(rates, y)))
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    found = CompiledModel(**fields, **dict(zip(("compiled_rates", "compiled_jacobian"), functions, strict=True)))
    start = np.array(model.start, dtype=float)
    by_formulas, compiled = model.rate(0.0, start), found.rate(0.0, start)
    largest = float(np.abs(by_formulas).max())
    return found if np.allclose(by_formulas, compiled, rtol=_TOLERANCE, atol=_TOLERANCE * largest) else model
