"""The response of MLP_node, and its straight line for every species, for trials."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.system.model import MetabolismModel

_GRID = 8  # concentrations per species, at quantiles of its own


def response(
    data: Phase2Data, model: MetabolismModel
) -> tuple[Float[np.ndarray, "grid species"], Float[np.ndarray, "grid species"]]:
    """Concentrations of every species, and MLP_node there in concentration/time."""
    c = np.quantile(data.observations.concentration, (np.arange(_GRID) + 0.5) / _GRID, axis=0)
    return c, np.asarray(model.homeostasis(c))


def lines(
    data: Phase2Data, model: MetabolismModel
) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
    """Slope (1/time) and offset (concentration/time) of the least-squares line of MLP_node of every species."""
    c, found = response(data, model)
    mean = c.mean(axis=0)
    c = c - mean
    slope = np.asarray(np.sum(c * found, axis=0) / np.maximum(np.sum(c**2, axis=0), 1e-30))
    return slope, found.mean(axis=0) - slope * mean
