"""The base class of rate laws of the simulator: parameters and one function."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict


class RateLaw(BaseModel, abc.ABC):
    """The substrate function f in the rate k * product of f(c); the fields of a subclass are its parameters.

    Attributes:
        is_mass_action: True if f = c^order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    is_mass_action: ClassVar[bool] = False

    @abc.abstractmethod
    def log_factor(
        self, log_c: Float[np.ndarray, "*batch"], order: Float[np.ndarray, "*batch"]
    ) -> Float[np.ndarray, "*batch"]:
        """log f at log concentrations; zero at c = 1, which defines k."""
