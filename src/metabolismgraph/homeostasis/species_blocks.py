"""Blocks of species, within which all pairs are compared."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from metabolismgraph.system.arrays import generator

_ORDER = 5  # purpose of random numbers
# Where there are several blocks, the species are divided twice, each time at random, which connects all of them; the
# number of pairs is proportional to that of species.
_BLOCK, _DIVISIONS = 128, 2


def divide(chosen: Bool[np.ndarray, " species"], seed: int) -> Int[np.ndarray, "blocks size"]:
    """Blocks of at most 128 of the chosen species in random order, padded with the number of all species.

    Example:
        >>> divide(np.array([True, False, True]), seed=0).shape
        (1, 2)
    """
    rng = generator(seed, _ORDER)
    species = np.flatnonzero(chosen)
    number = max(1, -(-len(species) // _BLOCK))
    blocks = [
        block
        for _ in range(1 if number == 1 else _DIVISIONS)
        for block in np.array_split(rng.permutation(species), number)
    ]
    size = max(len(block) for block in blocks)
    return np.stack([np.pad(block, (0, size - len(block)), constant_values=len(chosen)) for block in blocks])
