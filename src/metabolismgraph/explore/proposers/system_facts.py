"""Facts of the system under exploration for prompts: its size, data, checkpoint and budget. The truth is not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metabolismgraph.config import Training
from metabolismgraph.errors import InputError
from metabolismgraph.explore.planning import configuration
from metabolismgraph.explore.state import State
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.runs.checkpoint import OBSERVATIONS_FILE, PHASE1_FILE, load_observations, load_phase1
from metabolismgraph.system.observations import Observations


def system_facts(state: State, block: int, base: Path | None) -> str:
    """Size, data and checkpoint of a system, one fact per line.

    Args:
        block: whose root determines the number of gradient steps.
        base: the run with data and Phase 1; None, or without a checkpoint: the facts are unknown.
    """
    if base is None:
        return "unknown"
    training = configuration(state, state.root(block)).training
    given = base / "training"
    try:
        observations = load_observations(given / OBSERVATIONS_FILE)
        phase1 = load_phase1(given / PHASE1_FILE, state.config.graph_model)
    except InputError:
        return "unknown"
    known = [*_size(observations, training), *_checkpoint(observations, phase1, training)]
    if state.opened.oracle and (r2 := _r2(base)) is not None:
        known.append(f"R2 of log10 k of the checkpoint, by the truth: {r2:.4f}")
    return "\n".join(known)


def _size(observations: Observations, training: Training) -> Iterator[str]:
    network, c = observations.network, observations.concentration
    dt = observations.transitions().dt
    moving = network.n_species - int(network.fixed.sum())
    frames = observations.split(training.held_out_fraction)[0].n_frames
    yield f"species: {network.n_species}, of which {moving} follow an equation; reactions: {network.n_reactions}"
    yield (
        f"frames: {observations.n_frames} in {len(np.unique(observations.run))} runs, of which {frames} are for "
        f"training and the last of every run held out; step: {dt.min():.4g} to {dt.max():.4g}"
    )
    low, median, high = np.quantile(c, (0.05, 0.5, 0.95))
    yield f"concentrations: median {median:.4g}, 5 to 95 % {low:.4g} to {high:.4g}"
    yield (
        f"{Training.steps_per_epoch.__doc__} With the root's settings: {training.steps_per_epoch(frames)}, times "
        f"n_epochs = {training.n_epochs}"
    )


def _checkpoint(observations: Observations, phase1: Phase1Result, training: Training) -> Iterator[str]:
    derivative = np.sqrt(np.mean(observations.transitions().derivative ** 2))
    method = "shooting" if phase1.trajectories is not None else training.phase1_method.replace("auto", "projection")
    yield f"checkpoint: Phase 1 by {method}; rule for dc/dt: {phase1.rule}"
    yield (
        f"noise of dc/dt as estimated by Phase 1: {np.median(phase1.noise):.3g}, the median over species; rms of "
        f"dc/dt: {derivative:.3g}"
    )
    if phase1.losses.size:
        yield f"share of the squared dc/dt that Phase 1 leaves unexplained: {np.exp(phase1.losses[-1]):.3g}"


def _r2(base: Path) -> float | None:
    try:
        found = json.loads((base / "metrics.json").read_bytes()).get("rate_constants_R2")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, float) else None


def budget(state: State, iterations: int | None) -> str:
    """Time per iteration so far, and what is left of iterations, hours and money.

    Args:
        iterations: their total number; None if it is not known.
    """
    settings, done = state.settings, len(state.iterations)
    seconds = [i.outcome.seconds for i in state.iterations if i.outcome is not None]
    time = f"{np.mean(seconds):.0f} s on average, {max(seconds):.0f} s at most" if seconds else "unknown"
    lines = [f"time per iteration so far: {time}; limit {settings.slot_minutes:g} minutes"]
    left = "no limit known" if iterations is None else f"{max(iterations - done, 0)} left"
    lines.append(f"iterations: {done} proposed, {left}; block of {settings.n_iter_block}, {settings.n_parallel} slots")
    hours = "no limit" if settings.max_hours is None else f"{max(settings.max_hours - state.hours, 0):.2f} left"
    lines.append(f"hours: {state.hours:.2f} spent, {hours}")
    cost = "no limit" if settings.max_cost is None else f"{max(settings.max_cost - state.cost, 0):.2f} left"
    lines.append(f"US dollars: {state.cost:.2f} spent, {cost}")
    return "\n".join(lines)
