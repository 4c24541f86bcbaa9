"""Arrays for compiled functions, and random numbers, without the compilation of small programs.

Outside compiled functions, every `jax.numpy` call on a new shape compiles a program of its own, which takes far
longer than the call. What runs once therefore uses NumPy, and its result goes to the device by `on_device`.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

# Double precision: homeostasis is hundreds of times weaker than the reactions, and normal equations square that ratio.
jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]


def on_device(values: object) -> Shaped[Array, ...]:
    """What NumPy can make an array of, as an array on the device of JAX and of the same type.

    `jax.numpy.asarray` would compile a program for every shape.

    Example:
        >>> on_device([1.0, 2.0]).dtype
        dtype('float64')
    """
    array: Array = jax.device_put(np.asarray(values))
    return array


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers from a seed >= 0 and a number that is different for every purpose.

    Example:
        >>> generator(1, 2).normal() == generator(1, 2).normal() != generator(1, 3).normal()
        True
    """
    return np.random.default_rng((seed, purpose))


def random_key(seed: int, purpose: int) -> PRNGKeyArray:
    """A key of `jax.random`, for random numbers inside compiled functions; arguments as of `generator`."""
    key: PRNGKeyArray = jax.random.wrap_key_data(on_device(np.random.SeedSequence((seed, purpose)).generate_state(2)))
    return key
