"""The methods of the noise benchmark that belong to this package, and the data that all methods are given."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.fitting.fit import fit
from metabolismgraph.ground_truth.rate_laws import chosen_rate_law
from metabolismgraph.ground_truth.simulator import Simulated
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import make_plan
from metabolismgraph.reactions.identifiability import identify
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.threads import single_thread
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.bound import Bound, cramer_rao_bound
from metabolismgraph.trajectories.integrators import EulerSteps
from metabolismgraph.trajectories.stages import Stages
from metabolismgraph.trajectories.weak_form import weak_form

WINDOW = 480  # frames of the windows for which the bound is computed, if a fit has no longer ones
_ABOUT_HOMEOSTASIS = "homeostasis"  # how the notes begin that warn of slopes, offsets and types


@dataclasses.dataclass(frozen=True)
class Sample:
    """One data set of the benchmark.

    Attributes:
        observations: with noise, every n-th frame.
        clean: the same frames without noise.
        truth: in the order of the network.
        config: of the simulation and of the fits.
        sigma: standard deviation of the noise, in concentration.
        every: every n-th frame of the simulation is a sample.
    """

    observations: Observations
    clean: Observations
    truth: Truth
    config: Config
    sigma: Float[np.ndarray, " species"]
    every: int

    @classmethod
    def of(cls, simulated: Simulated, config: Config, noise: float, every: int) -> Sample:
        """Add noise to a simulation, and keep every n-th frame.

        The noise has the seed of the simulation. It is drawn for all frames, so that coarser samples are a subset of
        finer ones, and negative concentrations become zero.

        Args:
            noise: in % of the standard deviation of each species over the simulation.
        """
        whole = simulated.observations
        c = whole.concentration
        sigma = noise / 100 * c.std(axis=0)
        rng = np.random.default_rng(config.simulation.seed)
        noisy = np.maximum(c + sigma * rng.standard_normal(c.shape), 0.0) if noise else c
        frame = np.arange(whole.n_frames) - np.searchsorted(whole.run, whole.run)  # within its run
        kept = frame % every == 0
        truth = simulated.truth.aligned(whole.network.species, whole.network.reactions)
        observed = dataclasses.replace(whole, concentration=noisy)
        return cls(observed.select(kept), whole.select(kept), truth, config, sigma, every)

    @functools.cached_property
    def seen(self) -> Observations:
        """The frames that are not held out."""
        return self.observations.split(*self.config.training.held_out)[0]

    @functools.cached_property
    def identifiable(self) -> Bool[np.ndarray, " reactions"]:
        """The reactions that `identify` calls determined on the noise-free samples: the same for all methods."""
        clean, _ = self.clean.split(*self.config.training.held_out)
        aggregation, training = self.config.graph_model.aggr_type, self.config.training
        found = identify(clean.network, clean, aggregation=aggregation, tolerance=training.identifiability_tolerance)
        return found.identifiable

    @property
    def line(self) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
        """True slope and offset of homeostasis."""
        return -self.truth.lam, self.truth.lam * self.truth.baseline

    def network(self, *, law_known: bool) -> ReactionNetwork:
        """The network, with mass action as the law of all reactions if the law is known.

        Raises:
            InputError: the law is to be known, but it is not mass action.
        """
        network = self.observations.network
        if not law_known:
            return network
        if not chosen_rate_law(self.config.simulation).is_mass_action:
            raise InputError("the method needs a known rate law, and that of this configuration is not mass action")
        return dataclasses.replace(network, mass_action=np.ones(network.n_reactions, dtype=bool))

    def bound(self, *, law_known: bool, length: int = WINDOW) -> Bound | None:
        """The Cramér-Rao bound of these data; None without noise.

        Args:
            length: largest number of frames of a window.
        """
        if not self.sigma.any():
            return None
        clean, _ = self.clean.split(*self.config.training.held_out)
        law = chosen_rate_law(self.config.simulation)

        def log_f(log_c: np.ndarray, order: float) -> np.ndarray:
            return law.log_factor(log_c, np.full(len(log_c), order))

        structure = Structure.of(self.network(law_known=law_known))
        log_k = np.log10(self.truth.k)
        return cramer_rao_bound(clean, structure, log_f, log_k, self.line, EulerSteps(self.every), self.sigma, length)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a method found; None for what it does not estimate.

    Attributes:
        log_k: log10 of the rate constants, in the units of the data.
        slope, offset: of the homeostasis of every species.
        log_k_error: standard errors of log_k.
        line_covariance: of the slopes of all species, then of all offsets.
        determined: rate constants that the method calls determined.
        trustworthy: its verdict on itself, with the reasons.
        warnings: on homeostasis.
        integrator: in words.
        window: frames.
    """

    log_k: Float[np.ndarray, " reactions"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    log_k_error: Float[np.ndarray, " reactions"] | None = None
    line_covariance: Float[np.ndarray, "lines lines"] | None = None
    determined: Bool[np.ndarray, " reactions"] | None = None
    trustworthy: bool | None = None
    why_not: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    integrator: str | None = None
    window: int | None = None


def by_fit(sample: Sample, phase1_method: str) -> Estimate:
    """Phase 1 of this package with its verdict, and the warnings of the strategies of Phase 2 that belong to it."""
    config = sample.config.replace({"training.phase1_method": phase1_method, "training.homeostasis_training": False})
    result = fit(sample.observations, config)
    phase1, evidence = result.phase1, result.phase1.trajectories
    plan = make_plan(Phase2Data(sample.seen, phase1, config.graph_model, config.training))
    return Estimate(
        log_k=phase1.log_k,
        slope=phase1.slope,
        offset=phase1.offset,
        log_k_error=phase1.log_k_error,
        line_covariance=phase1.line_covariance,
        determined=phase1.identifiability.identifiable,
        trustworthy=result.trust.trustworthy,
        why_not=result.trust.why_not,
        warnings=tuple(note for note in (*phase1.notes, *plan.notes) if note.startswith(_ABOUT_HOMEOSTASIS)),
        integrator=evidence.integrator.name if evidence else f"rule {phase1.rule} for dc/dt",
        window=evidence.window if evidence else None,
    )


def by_weak_form(sample: Sample) -> Estimate:
    """The start of shooting alone, with the law unknown; no errors and no verdict.

    The data are Euler steps of the simulator, so the rule is forward for every frame, and cubic for coarser samples.
    """
    seen = sample.seen
    units = Units.of(seen, sample.config.graph_model)
    own, structure = units.observations(seen), Structure.of(seen.network)
    rule: Rule = "forward" if sample.every == 1 else "cubic"
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        stages = Stages(own, structure, np.zeros(seen.network.n_species, dtype=bool))
        theta = weak_form(own, stages.equation, stages.path, stages.differences, rule)
    u = stages.equation.unknowns
    return Estimate(
        log_k=theta[u.log_k] + units.rate_constants(seen.network),
        slope=theta[u.slope] / units.time,
        offset=theta[u.offset] * units.rate,
        integrator=f"rule {rule} for dc/dt",
    )
