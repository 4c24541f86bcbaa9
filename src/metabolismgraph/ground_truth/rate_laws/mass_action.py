"""Mass action."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from metabolismgraph.ground_truth.rate_laws.base import RateLaw
from metabolismgraph.system.kinetics import mass_action


class MassAction(RateLaw):
    """f = c^order (Guldberg & Waage 1864)."""

    is_mass_action: ClassVar[bool] = True

    def log_factor(
        self, log_c: Float[np.ndarray, "*batch"], order: Float[np.ndarray, "*batch"]
    ) -> Float[np.ndarray, "*batch"]:
        return mass_action(log_c, order)
