"""Simulation of a random metabolism: network, rate constants and homeostasis, integrated to observations.

As in the published benchmark (Allier 2026): autocatalytic reactions A + B -> 2 B in closed cycles,
other reactions random and mass-conserving, explicit Euler steps, concentrations clamped at zero.

The seed alone determines a system. With `simulation.secret`, all but the network depends on a secret key as well, which
is kept with the truth: training, which may know the configuration, cannot draw the same truth again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.config import Config, Simulation
from metabolismgraph.errors import SimulationDivergedError
from metabolismgraph.ground_truth.rate_laws import chosen_rate_law
from metabolismgraph.ground_truth.rate_laws.base import RateLaw
from metabolismgraph.ground_truth.size import check_size
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.secret_keys import new_key
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import (
    Aggregation,
    Structure,
    aggregate,
    homeostasis,
    limit_fluxes,
    pair_concentrations,
    reaction_rates,
)
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

_CHUNK = 240  # frames between two checks for divergence
# Exponent of Zipf's law for hubs. With it and a share of 0.65, the numbers of reactions of the 100 most connected
# species are within 10 % on average of those of the genome-scale model iJO1366 of E. coli (Orth et al. 2011): 1031,
# 573, 359, 308, ...
_ZIPF = 1.1
_LIMIT = 1e9  # a trajectory with a higher concentration has diverged


class Simulated(NamedTuple):
    """The result of a simulation: observations, and the truth that is to be recovered."""

    observations: Observations
    truth: Truth

    def __repr__(self) -> str:
        return f"{self.observations!r}\n{self.truth!r}"

    def _repr_html_(self) -> str:
        return self.observations._repr_html_() + self.truth._repr_html_()


def simulate(
    config: Config, progress: Callable[[float], None] = lambda _: None, *, secret: bytes | None = None
) -> Simulated:
    """Simulate a data set; the same configuration, seed and secret give identical bits.

    Concentrations are rounded to float32, the precision of published data sets.

    Args:
        config: `simulation` and `graph_model.aggr_type` are used.
        progress: called with the completed share.
        secret: a key, which the truth then contains; None: with `simulation.secret` a new one, otherwise none.

    Raises:
        InputError: the system does not fit the memory of this machine.
        SimulationDivergedError: the trajectory diverged; with frame, metabolite and fastest reaction.

    Example:
        >>> import metabolismgraph as mg
        >>> data = mg.simulate(mg.load_config("small", ["simulation.n_frames=100"]))
        >>> data.observations.concentration.shape, data.truth.k.shape
        ((101, 30), (72,))
    """
    settings = config.simulation
    check_size(settings)
    secret = new_key() if secret is None and settings.secret else secret
    of_network, *streams = np.random.default_rng(settings.seed).spawn(4)
    network = random_network(settings, config.dataset or "simulated", of_network)
    noise_seed = settings.seed
    if secret is not None:
        *streams, of_noise = np.random.default_rng([settings.seed, *secret]).spawn(4)
        noise_seed = int(of_noise.integers(2**32))
    of_truth, of_initial, of_measurement = streams
    truth = _draw_truth(settings, network, of_truth, secret)
    system = _System.of(settings, network, truth, config.graph_model.aggr_type)
    frames = settings.n_frames + 1
    trajectories = []
    for r in range(settings.n_runs):
        initial = of_initial.uniform(settings.concentration_min, settings.concentration_max, network.n_species)
        if settings.baseline_mode == "initial":
            system = dataclasses.replace(system, baseline=initial)
            truth = dataclasses.replace(truth, baseline=initial) if r == 0 else truth

        def report(share: float, r: int = r) -> None:
            progress((r + share) / settings.n_runs)

        trajectories.append(_trajectory(system, network, settings, initial, (noise_seed, r), report))
    c = _measure(np.concatenate(trajectories), settings, of_measurement)
    observations = Observations(
        network=network,
        # Rounded as in a written table: a fit of the file uses identical numbers.
        time=np.tile(np.round(np.arange(frames) * settings.delta_t, 12), settings.n_runs),
        run=np.repeat(np.arange(settings.n_runs), frames),
        concentration=c,
    )
    return Simulated(observations, truth)


def random_network(settings: Simulation, id: str, rng: np.random.Generator) -> ReactionNetwork:
    """Closed autocatalytic cycles, then random mass-conserving reactions.

    Reactions that are not sufficient for a complete cycle have no participants, as in the published
    benchmark (256 reactions: 85 cycles of 3 and one empty reaction).
    """
    n, m = settings.n_metabolites, settings.n_reactions
    width = max(3, len(str(max(n, m) - 1)))
    species = [f"M{i:0{width}d}" for i in range(n)]
    cyclic = round(settings.cycle_fraction * m)
    share = _participation(n, settings.hub_share, rng)
    written: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(cyclic // settings.cycle_length):
        ring = [species[i] for i in rng.choice(n, min(settings.cycle_length, n), replace=False, p=share)]
        for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
            written.append(({a: 1.0, b: 1.0}, {a: -1.0, b: 1.0}))
    written += [({}, {})] * (cyclic - len(written))
    most = settings.max_metabolites_per_reaction
    written += [_random_reaction(species, most, share, rng) for _ in range(m - cyclic)]
    reactions = [Reaction(f"R{j:0{width}d}", s, d) for j, (s, d) in enumerate(written)]
    return ReactionNetwork.from_reactions(id, species, reactions)


def _participation(n: int, hub_share: float, rng: np.random.Generator) -> Float[np.ndarray, " species"] | None:
    """The probability of every species to fill a place in a reaction; None: all alike.

    The number of reactions of a metabolite follows a power law (Jeong et al. 2000), down to the metabolites of a
    single pathway.
    """
    if not hub_share:
        return None
    hub = (1.0 + rng.permutation(n)) ** -_ZIPF
    return np.asarray(hub_share * hub / hub.sum() + (1 - hub_share) / n)


def _random_reaction(
    species: list[str], most: int, share: Float[np.ndarray, " species"] | None, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, float]]:
    """A reaction with 1 to `most` substrates and products each, coefficients 1 or 2, and equal sums of both."""
    most = min(most, len(species) // 2)
    while True:
        n_in, n_out = rng.integers(1, most + 1, 2)
        chosen = [species[i] for i in rng.choice(len(species), n_in + n_out, replace=False, p=share)]
        coefficients = rng.integers(1, 3, n_in + n_out).astype(float)
        if coefficients[:n_in].sum() == coefficients[n_in:].sum():
            substrates = dict(zip(chosen[:n_in], coefficients[:n_in].tolist(), strict=True))
            products = dict(zip(chosen[n_in:], coefficients[n_in:].tolist(), strict=True))
            return substrates, {s: -v for s, v in substrates.items()} | products


def _draw_truth(
    settings: Simulation, network: ReactionNetwork, rng: np.random.Generator, secret: bytes | None
) -> Truth:
    k = 10.0 ** rng.uniform(settings.log_k_min, settings.log_k_max, network.n_reactions)
    # Equal numbers of each type, in random order: the order of species must not reveal types.
    types = rng.permutation(np.arange(network.n_species) * settings.n_metabolite_types // network.n_species)
    lam, baseline = (
        np.array(configured) if drawn_from is None else spread(*drawn_from, settings.n_metabolite_types, rng)
        for configured, drawn_from in (
            (settings.lambda_of_type, settings.homeostatic_lambda_range),
            (settings.baseline_of_type, settings.homeostatic_baseline_range),
        )
    )
    law, rate_law = chosen_rate_law(settings), None
    if not law.is_mass_action:
        orders = np.unique(network.edge_order) if network.edge_order.size else np.ones(1)
        log_c = np.linspace(np.log(1e-4), np.log(1e3), 400)
        log_f = [law.log_factor(log_c, np.full(len(log_c), s)) for s in orders]
        tables = [
            np.stack([np.full_like(log_c, s), np.exp(log_c), np.exp(f)], axis=1)
            for s, f in zip(orders, log_f, strict=True)
        ]
        rate_law = np.concatenate(tables)
    return Truth(
        reactions=network.reactions,
        species=network.species,
        k=k,
        type=types,
        lam=lam[types],
        baseline=baseline[types],
        rate_law=rate_law,
        secret=secret,
    )


def spread(low: float, high: float, n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Random values between `low` and `high` in random order, of which no two are close together.

    The range is divided into `n` parts of equal ratio; each part contains one value, in its middle half.
    """
    share = (rng.permutation(n) + rng.uniform(0.25, 0.75, n)) / n
    return np.asarray(low * (high / low) ** share)


@dataclasses.dataclass(frozen=True)
class _System:
    """The parameters of an Euler step.

    Steps are those of NumPy: a program of JAX would be compiled for every size, for longer than a simulation takes.
    """

    structure: Structure
    k: Float[np.ndarray, " reactions"]
    lam: Float[np.ndarray, " species"]
    baseline: Float[np.ndarray, " species"]
    dt: float
    circadian_amplitude: float
    circadian_period: float
    aggregation: Aggregation
    law: RateLaw
    flux_limit: bool

    @classmethod
    def of(cls, settings: Simulation, network: ReactionNetwork, truth: Truth, aggregation: Aggregation) -> _System:
        return cls(
            structure=Structure.of(network, np.asarray),
            k=truth.k,
            lam=truth.lam,
            baseline=truth.baseline,
            dt=settings.delta_t,
            circadian_amplitude=settings.circadian_amplitude,
            circadian_period=settings.circadian_period,
            aggregation=aggregation,
            law=chosen_rate_law(settings),
            flux_limit=settings.flux_limit,
        )

    def fluxes(self, c: Float[np.ndarray, " species"]) -> Float[np.ndarray, " reactions"]:
        """Rates of all reactions, in concentration/time."""
        log_c, present = pair_concentrations(c, self.structure)
        log_f = np.asarray(self.law.log_factor(log_c, np.asarray(self.structure.pair_order)))  # of JAX, in some laws
        fluxes = self.k * aggregate(log_f, present, self.structure, self.aggregation)
        return limit_fluxes(fluxes, c, self.dt, self.structure) if self.flux_limit else fluxes

    def step(self, c: Float[np.ndarray, " species"], frame: int) -> Float[np.ndarray, " species"]:
        """The concentrations after one Euler step, without noise; they can be negative."""
        modulation = 1.0 + self.circadian_amplitude * np.sin(2 * np.pi * frame / self.circadian_period)
        change = reaction_rates(self.fluxes(c), self.structure) + homeostasis(c, self.lam, self.baseline * modulation)
        return np.asarray(c + self.dt * change)


@functools.partial(jax.jit, static_argnames="n")
def _normal(key: PRNGKeyArray, frames: Int[Array, " steps"], n: int) -> Float[Array, "steps n"]:
    """Standard normal numbers, which depend on the key and the number of the frame alone."""
    return jax.vmap(lambda frame: jax.random.normal(jax.random.fold_in(key, frame), (n,)))(frames)


def _noise(
    settings: Simulation, stream: tuple[int, int], frames: Int[np.ndarray, " steps"]
) -> Float[np.ndarray, "steps species"]:
    if not settings.noise_model_level:
        return np.zeros((len(frames), settings.n_metabolites))
    key = jax.random.fold_in(jax.random.key(stream[0]), stream[1])
    return settings.noise_model_level * np.asarray(_normal(key, on_device(frames), settings.n_metabolites))


def _trajectory(
    system: _System,
    network: ReactionNetwork,
    settings: Simulation,
    initial: Float[np.ndarray, " species"],
    stream: tuple[int, int],
    progress: Callable[[float], None],
) -> Float[np.ndarray, "frames species"]:
    """Concentrations of every frame.

    Args:
        stream: seed of the noise, and number of the run.
    """
    first, last = settings.start_frame, settings.n_frames
    states = np.zeros((last - first + 1, network.n_species))
    states[0] = initial
    for begin in range(first, last, _CHUNK):
        # Noise is drawn for complete chunks, since a compiled program is valid for one length.
        noise = _noise(settings, stream, np.arange(begin, begin + _CHUNK))
        end = min(begin + _CHUNK, last)
        with np.errstate(all="ignore"):
            for frame in range(begin, end):
                at = frame - first
                states[at + 1] = np.maximum(system.step(states[at], frame) + noise[frame - begin], 0.0)
        _check_finite(states[begin - first + 1 : end - first + 1], states[begin - first], begin, system, network)
        progress((end - first) / (last - first))
    return states[-first:]


def _check_finite(
    states: Float[np.ndarray, "steps species"],
    before: Float[np.ndarray, " species"],
    begin: int,
    system: _System,
    network: ReactionNetwork,
) -> None:
    bad = ~(states < _LIMIT)
    if not bad.any():
        return
    step = int(np.argmax(bad.any(axis=1)))
    species = int(np.argmax(bad[step]))
    with np.errstate(all="ignore"):
        fluxes = system.fluxes(states[step - 1] if step else before)
    fastest = int(np.nanargmax(fluxes))
    raise SimulationDivergedError(
        f"the simulation diverged at frame {begin + step + 1}: {network.species[species]} passed {_LIMIT:g}, fastest "
        f"reaction {network.reactions[fastest]} (flux {fluxes[fastest]:.3g}); lower simulation.delta_t or "
        "simulation.log_k_max, or set simulation.flux_limit to true"
    )


def _measure(
    c: Float[np.ndarray, "frames species"], settings: Simulation, rng: np.random.Generator
) -> Float[np.ndarray, "frames species"]:
    if settings.measurement_noise_level:
        c = np.maximum(c + settings.measurement_noise_level * rng.standard_normal(c.shape), 0.0)
    return c.astype(np.float32).astype(np.float64)
