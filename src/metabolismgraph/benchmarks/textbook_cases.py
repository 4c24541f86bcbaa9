"""Data for the textbook networks: clean data, corrupted twins, other units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float

from metabolismgraph.benchmarks.textbook_networks import (
    KnownReaction,
    Table,
    TextbookNetwork,
    as_network,
    as_observations,
    initial,
    largest_step,
    rates,
    simulate,
    simulate_run,
    stoichiometry,
    write_network,
)
from metabolismgraph.formats.dataset import NETWORK
from metabolismgraph.formats.table_writer import write_timeseries

Kind = Literal["clean", "left out", "wrong order", "coarse", "steady"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TABLE = "timeseries.csv"

UNEXPLAINED = 0.02  # of a species' rms dc/dt: least residual at which a wrong network is visible
_COARSE = 0.9  # of a species' range, between two samples
_FEWEST = 20  # samples of coarse data
_STEADY = 100  # samples of steady data
_LONGEST = 2**14  # times t_end, for coarse data
_SETTLED = 1e-6  # of the largest concentration at the start: largest change of a steady state within t_end


@dataclasses.dataclass(frozen=True)
class Case:
    """One network file, one table, and the truth of both.

    Attributes:
        reactions: those in the network file.
        truth: rate constants of the correct reactions of the file, in the units of the table.
        detail: description and size of the corruption.
        units: factors (concentration, time) between textbook and table.
    """

    network: str
    kind: Kind
    reactions: tuple[KnownReaction, ...]
    fixed: tuple[str, ...]
    table: Table
    truth: Mapping[str, float]
    detail: str
    units: tuple[float, float] = (1.0, 1.0)

    def write(self, folder: Path) -> None:
        """Write the two input files of a fit: network.xml and timeseries.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        write_network(self.network, self.reactions, self.table.species, self.fixed, folder / NETWORK)
        network = as_network(self.network, self.reactions, self.table.species, self.fixed)
        write_timeseries(as_observations(network, self.table), folder / TABLE)


@dataclasses.dataclass(frozen=True)
class NoTwin:
    """A twin that cannot be made."""

    network: str
    kind: Kind
    reason: str


def make(network: TextbookNetwork, kind: Kind) -> Case | NoTwin:
    """The case of one kind.

    Raises:
        RuntimeError: the simulation failed.
    """
    match kind:
        case "clean":
            return _case(network, kind, simulate(network), "")
        case "left out":
            return _left_out(network)
        case "wrong order":
            return _wrong_order(network)
        case "coarse":
            return _coarse(network)
        case "steady":
            return _steady(network)


def in_units(case: Case, concentration: float, time: float) -> Case:
    """The same data with multiplied concentrations and times, and matching rate constants."""
    table = dataclasses.replace(
        case.table, concentration=case.table.concentration * concentration, time=case.table.time * time
    )
    factors = unit_factors(case.reactions, concentration, time)
    truth = {name: k * factors[name] for name, k in case.truth.items()}
    return dataclasses.replace(case, table=table, truth=truth, units=(concentration, time))


def unit_factors(reactions: tuple[KnownReaction, ...], concentration: float, time: float) -> dict[str, float]:
    """The factors of the rate constants for given factors of concentration and time."""
    return {r.id: concentration ** (1.0 - r.order) / time for r in reactions}


def _case(network: TextbookNetwork, kind: Kind, table: Table, detail: str) -> Case:
    return Case(network.name, kind, network.reactions, network.fixed, table, network.constants, detail)


# -- the network is wrong


def unexplained(
    network: TextbookNetwork, table: Table, reaction: int, instead: KnownReaction | None = None
) -> dict[str, float]:
    """The part of a reaction's contribution to dc/dt that other terms cannot explain.

    Other terms are the other reactions, `instead`, and for every species a line slope * c + offset, with any
    coefficients.

    Returns:
        For every species that moves, the rms of this part, as a share of the rms of its dc/dt.
    """
    known = [*network.reactions, *([instead] if instead else [])]
    matrix = stoichiometry(known, table.species, network.fixed)
    speed = rates(known, table.species, table.concentration)
    count = len(network.reactions)
    size = np.sqrt(np.mean((speed[:, :count] @ matrix[:, :count].T) ** 2, axis=0))
    moving = size > 0
    parts = speed[:, None, :] * (matrix[moving] / size[moving, None])[None]
    others = np.delete(parts, reaction, axis=2)
    design = np.concatenate([others, _lines(table.concentration[:, moving])], axis=2).reshape(parts[..., 0].size, -1)
    norm = np.linalg.norm(design, axis=0)
    design = design[:, norm > 0] / norm[norm > 0]
    target = parts[..., reaction].reshape(-1)
    rest = target - design @ scipy.linalg.lstsq(design, target)[0]
    left = np.sqrt(np.mean(rest.reshape(len(table.time), -1) ** 2, axis=0))
    names = [s for s, moves in zip(table.species, moving, strict=True) if moves]
    return dict(zip(names, left.tolist(), strict=True))


def _lines(c: Float[np.ndarray, "samples moving"]) -> Float[np.ndarray, "samples moving columns"]:
    """Columns of slope and offset for each species, zero for the others."""
    eye = np.eye(c.shape[1])
    return np.concatenate([c[:, :, None] * eye, np.broadcast_to(eye, (len(c), *eye.shape))], axis=2)


def _left_out(network: TextbookNetwork) -> Case | NoTwin:
    """Leave out of the network file the first reaction that other terms cannot replace."""
    if len(network.reactions) == 1:
        return NoTwin(network.name, "left out", "it has only one reaction")
    changes = [_Change(j, None, f"without {r.id}") for j, r in enumerate(network.reactions)]
    return _first_visible(network, "left out", changes, "no reaction is missed by more than")


def _wrong_order(network: TextbookNetwork) -> Case | NoTwin:
    """Write to the network file a wrong order of one substrate, the first that does not fit the data."""
    changes = []
    for j, reaction in enumerate(network.reactions):
        for name, order in reaction.orders.items():
            other = 2.0 if order == 1 else order - 1
            wrong = dataclasses.replace(reaction, orders={**reaction.orders, name: other})
            changes.append(_Change(j, wrong, f"{reaction.id} with {name}^{other:g} for {name}^{order:g}"))
    return _first_visible(network, "wrong order", changes, "no wrong order leaves more than")


class _Change(NamedTuple):
    """Another reaction, or none, in place of one of a network, and its description."""

    reaction: int
    instead: KnownReaction | None
    words: str


def _first_visible(network: TextbookNetwork, kind: Kind, changes: Sequence[_Change], otherwise: str) -> Case | NoTwin:
    """The network file with the first of the changes that other terms cannot make up for."""
    table = simulate(network)
    largest = 0.0
    for j, instead, words in changes:
        left = unexplained(network, table, j, instead)
        species = max(left, key=lambda s: left[s])
        largest = max(largest, left[species])
        if left[species] >= UNEXPLAINED:
            case = _case(network, kind, table, f"{words}: {left[species]:.0%} of d{species}/dt unexplained")
            written = (*network.reactions[:j], *([instead] if instead else []), *network.reactions[j + 1 :])
            right = {r.id: r.k for r in written if r is not instead}
            return dataclasses.replace(case, reactions=written, truth=right)
    return NoTwin(network.name, kind, f"{otherwise} {largest:.1%}")


# -- the data are wrong


def _coarse(network: TextbookNetwork) -> Case | NoTwin:
    """Evenly spaced samples, first fewer, then over longer times, until one step of every run is too long."""
    count = len(network.times)
    fewest = -(-_FEWEST // len(network.runs))
    thinner = []
    while count >= fewest:
        thinner.append((count, 1))
        count //= 2
    longer = [(fewest, 2**power) for power in range(_LONGEST.bit_length())]
    for samples, stretch in (*thinner[1:], *longer):
        sparse = dataclasses.replace(network, times=np.linspace(0.0, network.t_end * stretch, samples))
        table = simulate(sparse)
        step = min(largest_step(run) for run in table.runs())
        if step > _COARSE:
            detail = f"{table.n_points} samples {sparse.times[1]:.3g} apart: {step:.0%} within one step"
            return _case(network, "coarse", table, detail)
    return NoTwin(network.name, "coarse", f"no species changes by more than {_COARSE:.0%} within one step")


def _steady(network: TextbookNetwork) -> Case | NoTwin:
    """A constant table: the final state of the first run, or the unstable steady state that it circles."""
    c = steady_state(network)
    if c is None:
        return NoTwin(network.name, "steady", "it has no steady state")
    time = np.linspace(0.0, network.t_end, _STEADY)
    table = Table(network.species, time, np.zeros(_STEADY, dtype=np.int64), np.tile(c, (_STEADY, 1)))
    state = ", ".join(f"{s} {x:.3g}" for s, x in zip(network.species, c, strict=True) if s not in network.fixed)
    return _case(network, "steady", table, f"{_STEADY} samples of {state}" if len(c) < 8 else f"{_STEADY} samples")


def steady_state(network: TextbookNetwork) -> Float[np.ndarray, " species"] | None:
    """A state with dc/dt = 0 and the conserved quantities of the first run; None if none is found."""
    start = initial(network, 0)
    times = np.linspace(0.0, 30.0 * network.t_end, 3000)
    path = simulate_run(network, start, times)
    settled = _is_settled(network, start, path[-1])
    found = path[-1] if settled else _zero_near(network, start, path.mean(axis=0))
    if found is None:  # neither at rest nor circling: slow
        found = simulate_run(network, path[-1], np.array([0.0, 1e6 * network.t_end]))[-1]
    if not _is_settled(network, start, found):
        return None
    return np.where(found < 1e-12 * found.max(), 0.0, found)


def _drift(network: TextbookNetwork, c: np.ndarray) -> np.ndarray:
    """The change of every concentration within t_end at its current rate."""
    matrix = stoichiometry(network.reactions, network.species, network.fixed)
    return np.asarray(matrix @ rates(network.reactions, network.species, c) * network.t_end)


def _is_settled(network: TextbookNetwork, start: np.ndarray, c: np.ndarray) -> bool:
    moving = [s not in network.fixed for s in network.species]
    largest = start[moving].max() or c[moving].max()
    return bool(np.abs(_drift(network, c)).max() <= _SETTLED * largest)


def _zero_near(network: TextbookNetwork, start: np.ndarray, guess: np.ndarray) -> np.ndarray | None:
    """A positive state without drift near `guess`; None if the search fails."""
    matrix = stoichiometry(network.reactions, network.species, network.fixed)
    conserved = scipy.linalg.null_space(matrix.T)
    scale = max(float(start.max()), float(guess.max()))
    begin = np.log(guess.clip(1e-9 * scale))

    def away(log_c: np.ndarray) -> np.ndarray:
        c = np.exp(log_c)
        return np.concatenate([_drift(network, c) / guess.clip(1e-9 * scale), conserved.T @ (c - start) / scale])

    found = np.exp(scipy.optimize.least_squares(away, begin, xtol=1e-15, ftol=1e-15, gtol=1e-15).x)
    return found if np.isfinite(found).all() and _is_settled(network, start, found) else None
