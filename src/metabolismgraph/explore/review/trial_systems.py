"""The systems of a trial: that of the exploration, and others like it with another, secret homeostasis.

A strategy that writes down what it should learn gives the same answer for all of them (`following.py`). They have the
network, rate constants, times and numbers of frames of the exploration, so that code cannot tell them apart by sizes or
settings. They are drawn before the sealed process starts; it gets data and checkpoints only.

- The hidden systems are simulated from the first frame of the exploration, with the reactions of its checkpoint and
  with random strengths, baselines and types of homeostasis. The types of one are independent of those of the other.
- The converted system is that of the exploration with time in another unit and species in another order: the
  concentrations are the same numbers, and slopes are multiplied by a known factor. It needs no accurate checkpoint.

The draws depend on a secret of the exploration, which lies beside its truth, and on the file: the same file has the
same trial again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.initial_embeddings import response_coordinates
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.secret_keys import new_key, read_key, write_key
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.integrate import STEPS
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units

KEY = "review.key"  # in the folder of data of the base run
_MOST_FRAMES = 3000
_WEAK, _STRONG = (0.35, 0.45), (2.0, 2.5)  # lambdas of the hidden systems, relative to the typical slope of Phase 1
_RESOLVED = 0.5  # largest residual that homeostasis may leave, relative to its own rms
_STRONGER, _ATTEMPTS = 4.0, 5  # factor on all lambdas until they are resolved, and number of attempts
_RELAXED = 0.4  # largest typical lambda at first, per duration of the longest run
_FASTEST = 0.3  # largest lambda, per longest step
_NOISE = 0.2  # largest noise of dc/dt of the hidden systems, relative to homeostasis
_HIGHEST = 3.0  # largest concentration, relative to the observed maximum; beyond, the observed frame is taken
_TIME_FACTORS = (2.2, 3.0)
_PERMUTATIONS = 20
_SEEDS = 4  # seeds of training, from that of the exploration on, of which those of the systems are drawn
# Rollout lengths of the hidden systems, and those from which that of the other two is drawn [frames].
_LENGTHS, _OWN_LENGTHS = (4, 16), (32, 64)


class Homeostasis(NamedTuple):
    """The secret of a hidden system, by species.

    Attributes:
        lam: strength, in 1/time; the slope is -lam.
        baseline: in concentration.
        type: from 0.
    """

    lam: Float[np.ndarray, " species"]
    baseline: Float[np.ndarray, " species"]
    type: Int[np.ndarray, " species"]

    def __call__(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch species"]:
        """dc/dt by homeostasis."""
        return np.asarray(self.lam * (self.baseline - c))


class TrialSystems(NamedTuple):
    """The systems of a trial.

    Attributes:
        own: data of the exploration.
        converted: the same in another unit of time, and with species in another order.
        time_factor: slopes of `converted` divided by those of `own`.
        hidden: simulated systems, with weak and strong homeostasis; none if it cannot be resolved.
        truth: homeostasis of the hidden systems.
    """

    own: Phase2Data
    converted: Phase2Data
    time_factor: float
    hidden: tuple[Phase2Data, ...]
    truth: tuple[Homeostasis, ...]

    @property
    def every(self) -> tuple[Phase2Data, ...]:
        return (*self.hidden, self.own, self.converted)


def draw_systems(own: Phase2Data, rng: np.random.Generator, *, draw_lengths: bool = True) -> TrialSystems:
    """Draw the systems of a trial.

    Args:
        own: all training frames of the exploration, its checkpoint and its settings.
        rng: from `secret_generator`.
        draw_lengths: draw the rollout length of every system; otherwise they have that of the settings.
    """
    own = _beginning(own)
    lengths = [own.training.homeostasis_time_step] * 3
    if draw_lengths:
        longest = max(1, int(np.bincount(own.observations.run).max()) // 4)
        lengths = [min(int(length), longest) for length in (rng.choice(_OWN_LENGTHS), *_LENGTHS)]
    # Of those of replicates, so that none of them tells a trial from a run; a stream of its own.
    seeds = [own.training.seed + int(number) for number in rng.spawn(1)[0].permutation(_SEEDS)]
    own = _with_settings(own, homeostasis_time_step=lengths[0], seed=seeds[0])
    converted, factor = _converted(own, rng)
    hidden = [
        (_with_settings(data, homeostasis_time_step=length, seed=seed), truth)
        for (data, truth), length, seed in zip(_hidden(own, rng), lengths[1:], seeds[1:], strict=False)
    ]
    return TrialSystems(own, converted, factor, tuple(d for d, _ in hidden), tuple(t for _, t in hidden))


def secret_generator(base: Path, told: str) -> np.random.Generator:
    """Random numbers that depend on the secret of an exploration and on what is tried.

    Args:
        base: the base run of the exploration; its secret is created with the first review.
        told: what is tried.

    Raises:
        InputError: the secret cannot be written, or is damaged.
    """
    path = base / "data" / KEY
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_key(path, new_key())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    return np.random.default_rng(list(hashlib.sha256(read_key(path) + told.encode()).digest()))


def _beginning(data: Phase2Data) -> Phase2Data:
    """The first frames of every run, enough for a trial."""
    observations = data.observations
    share = _MOST_FRAMES / observations.n_frames
    return data if share >= 1 else dataclasses.replace(data, observations=observations.split(1.0 - share)[0])


def _with_settings(data: Phase2Data, **changes: object) -> Phase2Data:
    return dataclasses.replace(data, training=data.training.model_copy(update=changes))


# The exploration's own system, in another unit and order


def _converted(own: Phase2Data, rng: np.random.Generator) -> tuple[Phase2Data, float]:
    factor = rng.uniform(*_TIME_FACTORS)
    same = Units.of(own.observations, own.graph_model)
    # The internal unit of time must not change with the unit of the data: it would hide the change from the file.
    if Units.of(Units(1.0, factor).observations(own.observations), own.graph_model) != same:
        factor = 1 / factor
    units, order = Units(1.0, factor), _order(own, rng)
    network = own.observations.network
    back = np.argsort(order)
    network = dataclasses.replace(
        network,
        edge_species=back[network.edge_species],
        net_species=back[network.net_species],
        volume=network.volume[order],
        fixed=network.fixed[order],
    )
    observations = units.observations(own.observations)
    observations = dataclasses.replace(
        observations, network=network, concentration=observations.concentration[:, order]
    )
    phase1 = own.phase1.in_units(units.inverse(), own.observations.network)
    by_species = ("slope", "offset", "slope_error", "offset_error", "slope_offset_covariance", "noise")
    phase1 = dataclasses.replace(
        phase1, keep=phase1.keep[:, order], **{name: getattr(phase1, name)[order] for name in by_species}
    )
    return Phase2Data(observations, phase1, own.graph_model, own.training), factor


def _order(own: Phase2Data, rng: np.random.Generator) -> Int[np.ndarray, " species"]:
    """An order of species in which others than before are alike; fixed species keep their places."""
    moving = np.flatnonzero(own.moving)
    at = response_coordinates(own.checkpoint_residuals(), own.moving, 2)
    orders = [rng.permutation(moving) for _ in range(_PERMUTATIONS)]
    order = np.arange(len(own.moving))
    order[moving] = min(orders, key=lambda one: abs(likeness(at[moving], at[one])))
    return order


def likeness(one: Float[np.ndarray, "species dim"], other: Float[np.ndarray, "species other_dim"]) -> float:
    """Correlation of the distances of the same pairs of species in two sets of points; 0 if all are equal."""
    few = slice(300)  # species are enough
    pairs = np.triu_indices(len(one[few]), 1)
    x, y = (np.linalg.norm(e[few, None] - e[None, few], axis=-1)[pairs] for e in (one, other))
    if not x.size or not x.std() > 0 or not y.std() > 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


# Systems with another homeostasis


def _hidden(own: Phase2Data, rng: np.random.Generator) -> list[tuple[Phase2Data, Homeostasis]]:
    """A system with weak and one with strong homeostasis; none if it cannot be made strong enough to be seen."""
    moving, c, t = own.moving, own.observations.concentration, own.transitions
    if not moving.any():
        return []
    first = rng.permutation(np.arange(len(moving)) * 2 // len(moving))
    second = np.empty_like(first)
    # Every type of the first system has equal numbers of all types of the second.
    second[np.lexsort((rng.random(len(first)), first))] = np.arange(len(first)) % 3
    least = 1e-3 * np.sqrt(np.mean(t.derivative**2)) / max(float(c.std()), 1e-30)
    typical = max(float(np.median(np.abs(own.phase1.slope[moving]))), float(least))
    # Slopes of an imperfect checkpoint are too steep; with such homeostasis the system would come to rest.
    longest = max(float(np.ptp(own.observations.time[own.observations.run == r])) for r in set(own.observations.run))
    typical = min(typical, _RELAXED / longest)
    drawn = [_draw(types, scale, c, rng) for types, scale in ((first, _WEAK), (second, _STRONG))]
    noise = rng.standard_normal((2, c.shape[0] - 1, c.shape[1]))
    for _ in range(_ATTEMPTS):
        truths = [truth._replace(lam=truth.lam * typical * moving) for truth in drawn]
        if max(truth.lam.max() for truth in truths) > _FASTEST / t.dt.max():
            return []
        systems = [_simulated(own, truth, shake) for truth, shake in zip(truths, noise, strict=True)]
        if all(_resolved(data, truth) for data, truth in zip(systems, truths, strict=True)):
            return list(zip(systems, truths, strict=True))
        typical *= _STRONGER
    return []


def _draw(
    types: Int[np.ndarray, " species"],
    scale: tuple[float, float],
    c: Float[np.ndarray, "frames species"],
    rng: np.random.Generator,
) -> Homeostasis:
    """Random homeostasis, with strengths relative to the typical one."""
    n = types.max() + 1
    lam = rng.permutation(np.geomspace(1.0, rng.uniform(1.8, 2.5), n))[types]
    baseline = c.mean() * rng.uniform(0.8, 1.2) * rng.permutation(np.linspace(0.5, 1.5, n))[types]
    return Homeostasis(rng.uniform(*scale) * lam / lam.mean(), baseline, types)


def _resolved(data: Phase2Data, truth: Homeostasis) -> bool:
    """Whether homeostasis is the larger part of the residual of a system."""
    h = truth(data.at)[data.keep]
    left = data.residual[data.keep] - h
    return bool(h.size and np.sqrt(np.mean(left**2)) < _RESOLVED * np.sqrt(np.mean(h**2)))


def _simulated(own: Phase2Data, truth: Homeostasis, shake: Float[np.ndarray, "steps species"]) -> Phase2Data:
    """The system with the reactions of the checkpoint and the given homeostasis, and a checkpoint of it.

    Args:
        shake: random numbers for noise like that of the data, where it does not hide homeostasis.
    """
    given, c = own.observations, own.observations.concentration
    between = np.diff(given.run) != 0  # steps from one run to the next
    noise = np.minimum(own.phase1.noise, _NOISE * truth.lam * c.std(axis=0)) * own.moving
    states, taken = _integrate(
        own.reactions,
        jnp.asarray(truth.lam),
        jnp.asarray(truth.baseline),
        jnp.asarray(c),
        jnp.asarray(np.where(between, 1.0, np.diff(given.time))),
        jnp.asarray(between),
        jnp.asarray(noise * shake),
        own.phase1.rule,
    )
    observations = dataclasses.replace(given, concentration=np.concatenate([c[:1], np.asarray(states)]))
    follows = ~np.asarray(taken)[~between]
    phase1 = dataclasses.replace(own.phase1, keep=follows[:, None] & own.moving)
    data = Phase2Data(observations, phase1, own.graph_model, own.training)
    return dataclasses.replace(data, phase1=dataclasses.replace(phase1, **_lines(data)))


@eqx.filter_jit
def _integrate(
    reactions: TabulatedReactions,
    lam: Float[Array, " species"],
    baseline: Float[Array, " species"],
    c: Float[Array, "frames species"],
    dt: Float[Array, " steps"],
    between: Bool[Array, " steps"],
    noise: Float[Array, "steps species"],
    rule: Rule,
) -> tuple[Float[Array, "steps species"], Bool[Array, " steps"]]:
    """States after every step, and whether the observed frame was taken: between runs, and where states diverge."""
    highest = _HIGHEST * jnp.max(c, axis=0)

    def advance(x: Float[Array, " species"], now: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        observed, dt, between, noise = now
        x = STEPS[rule](lambda x: reactions(x) + lam * (baseline - x), x, dt)
        x = jnp.maximum(x + dt * noise, 0.0)
        taken = between | ~jnp.all(jnp.isfinite(x) & (x <= highest))
        x = jnp.where(taken, observed, x)
        return x, (x, taken)

    return jax.lax.scan(advance, c[0], (c[1:], dt, between, noise))[1]


def _lines(data: Phase2Data) -> dict[str, Any]:
    """The least-squares line of the residual of every species and its errors, by their names in `Phase1Result`."""
    keep = data.keep.astype(np.float64)
    count = np.maximum(keep.sum(axis=0), 1)
    c, residual = ((x * keep).sum(axis=0) / count for x in (data.at, data.residual))
    spread = np.maximum((keep * (data.at - c) ** 2).sum(axis=0), 1e-30)
    slope = (keep * (data.at - c) * (data.residual - residual)).sum(axis=0) / spread
    left = keep * (data.residual - residual - slope * (data.at - c))
    variance = (left**2).sum(axis=0) / np.maximum(count - 2, 1)
    return {
        "slope": slope,
        "offset": residual - slope * c,
        "slope_error": np.sqrt(variance / spread),
        "offset_error": np.sqrt(variance * (1 / count + c**2 / spread)),
        "slope_offset_covariance": -variance * c / spread,
        "noise": np.sqrt(variance),
    }
