"""A fit of trajectories, rebuilt from its result: what profiles, bootstrap and suggested measurements work with."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.errors import InputError, check_argument
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.reactions.by_shooting import ShootingSetting
from metabolismgraph.reactions.identifiability import Identifiability
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.threads import single_thread
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.misfit import ROBUST
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.shooting import relax
from metabolismgraph.trajectories.stages import FOLLOWED, Stages, Start

_RELAXATIONS = 12
_BY_DATA = 0.5  # largest standard error of a determined unknown, in standard deviations of its prior


@dataclasses.dataclass(frozen=True)
class FittedModel:
    """The last stage of a fit of trajectories.

    Attributes:
        stages: data and model, in internal units.
        start: unknowns, path, noise, prior and integrator of the fit.
        problem: windows and measurements of the fit.
        x: fitted initial states of the windows.
        covariance: of the unknowns.
        units: internal units.
        network: species and reactions.
        found: the result of Phase 1, in the units of the data.
        allowed: rate constants that the network and these frames can determine.
        usual: standard deviations of the prior where homeostasis can be told from the reactions.
        homeostasis: whether the fit looked for homeostasis at all.
        seed: of the fit.
    """

    stages: Stages
    start: Start
    problem: Problem
    x: Float[np.ndarray, "windows species"]
    covariance: Float[np.ndarray, "unknowns unknowns"]
    units: Units
    network: ReactionNetwork
    found: Phase1Result
    allowed: Identifiability
    usual: Float[np.ndarray, " unknowns"]
    homeostasis: bool
    seed: int

    @classmethod
    def of(cls, result: FitResult) -> FittedModel:
        """Rebuild the fit of Phase 1; only the initial states of the windows are fitted again.

        Raises:
            InputError: Phase 1 was not fitted to trajectories, or not to these ones.

        Example:
            >>> import metabolismgraph as mg
            >>> settings = ["simulation.n_frames=120", "training.phase1_method=shooting"]
            >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
            >>> result = mg.fit(mg.simulate(config).observations, config)
            >>> FittedModel.of(result).names[0]
            'k:R000'
        """
        evidence, network = result.phase1.trajectories, result.observations.network
        if evidence is None:
            raise InputError(
                "the rate constants were fitted to dc/dt, not to trajectories; "
                "fit again with training.phase1_method=shooting"
            )
        # The units of the training frames: coefficients of rate laws are those of the basis in these units.
        seen, _ = result.observations.split(*result.training.held_out)
        units = Units.of(seen, result.graph_model)
        found = result.phase1.in_units(units.inverse(), network)
        own = units.observations(seen)
        evidence = found.trajectories
        assert evidence is not None  # as above
        setting = ShootingSetting.of(own, result.graph_model, result.training)
        with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            stages = Stages(own, setting.structure, setting.weak)
            if not np.allclose(stages.differences, evidence.noise_of_differences):
                raise InputError("Phase 1 is a checkpoint that was fitted to other data; fit these data")
            theta = np.concatenate([found.log_k, found.slope, found.offset, evidence.law])
            noise = NoiseModel(evidence.noise, evidence.proportional, evidence.reference)
            parts = np.ones(own.n_frames, dtype=np.int64)
            # That of the fit before its steps were divided for accuracy.
            integrator = dataclasses.replace(
                evidence.integrator, substeps=1 if evidence.integrator.continuous else evidence.substeps
            )
            start = Start(integrator, theta, stages.path, noise, stages.prior(theta), parts)
            start = dataclasses.replace(start, parts=stages.parts(start, evidence.window))
            # As in the fit: outliers count less where the residual is noise.
            robust = ROBUST if evidence.chi2 < FOLLOWED else np.inf
            problem = stages.problem(start, evidence.window, robust)
            x, _ = relax(problem, theta, stages.path[problem.windows.starts], _RELAXATIONS)
            path = problem.windows.spread(problem.path(theta, x)[0], own.n_frames)
            start = dataclasses.replace(start, path=np.maximum(path, 0.0))
            problem = stages.problem(start, evidence.window, robust)
            free = Stages(own, setting.structure, np.zeros_like(setting.weak))
        return cls(
            stages=stages,
            start=start,
            problem=problem,
            x=x,
            covariance=evidence.covariance,
            units=units,
            network=network,
            found=result.phase1,
            allowed=setting.promised,
            usual=free.prior(theta)[1],
            homeostasis=result.training.nuisance_degree > 0,
            seed=result.training.seed,
        )

    @classmethod
    def trusted(cls, result: FitResult, *, anyway: bool = False) -> FittedModel:
        """The same for a fit that is to be trusted.

        Args:
            anyway: whether a fit that is not to be trusted is taken as well.

        Raises:
            InputError: the fit is not to be trusted, or was not a fit of trajectories.
        """
        check_argument("result", result, FitResult, "call mg.fit first")
        model = cls.of(result)
        if not anyway and not result.trust.trustworthy:
            raise InputError(
                f"the fit is not to be trusted ({'; '.join(result.trust.why_not)}), so that its errors mean nothing; "
                "--anyway, or anyway=True in Python, computes them"
            )
        return model

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """`k:REACTION`, `slope:SPECIES` and `offset:SPECIES` in the order of the unknowns."""
        species = self.network.species
        k = tuple(f"k:{name}" for name in self.network.reactions)
        return (*k, *(f"slope:{name}" for name in species), *(f"offset:{name}" for name in species))

    @property
    def theta(self) -> Float[np.ndarray, " unknowns"]:
        """The estimates, in internal units."""
        return self.start.theta

    @property
    def error(self) -> Float[np.ndarray, " unknowns"]:
        """Standard errors, in internal units."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))

    @property
    def lines(self) -> Bool[np.ndarray, " species"]:
        """True for a species whose homeostasis the fit looks for and can tell from the reactions."""
        u = self.stages.equation.unknowns
        kept_small = self.problem.prior[1][u.slope] < self.usual[u.slope]
        return np.asarray(self.stages.equation.moving & ~kept_small)

    @functools.cached_property
    def determined(self) -> Bool[np.ndarray, " unknowns"]:
        """True for an unknown that the data determine, rather than its prior."""
        u = self.stages.equation.unknowns
        by_data = self.error < _BY_DATA * self.usual
        by_data[u.log_k] = self.found.identifiability.identifiable
        by_data[u.slope] &= self.lines
        by_data[u.offset] &= self.lines
        return np.asarray(by_data)

    def index_of(self, name: str) -> int:
        """The place of a parameter among the unknowns.

        Args:
            name: one of `names`, or the id of a reaction, which stands for its k.

        Raises:
            InputError: there is none of that name, or the concentration of the species is fixed.
        """
        kind, colon, own = name.partition(":")
        if not colon:
            return self._plain(name)
        if kind not in {"k", "slope", "offset"}:
            raise InputError(f"{name}: no such parameter; write k:REACTION, slope:SPECIES or offset:SPECIES")
        known = self.network.reactions if kind == "k" else self.network.species
        if own not in known:
            raise InputError(
                f"{name}: there is no {'reaction' if kind == 'k' else 'species'} {own!r}; known: {_some(known)}"
            )
        if kind != "k" and not self.stages.equation.moving[known.index(own)]:
            raise InputError(f"{name}: {own} does not change, so that it has no homeostasis")
        return self.names.index(name)

    def _plain(self, name: str) -> int:
        """The place of the parameter that an id alone stands for."""
        reaction, species = name in self.network.reactions, name in self.network.species
        if species:
            every = [*([f"k:{name}"] if reaction else []), f"slope:{name}", f"offset:{name}"]
            raise InputError(f"{name}: could be {' or '.join(every)}; write one of these")
        if not reaction:
            raise InputError(
                f"{name}: there is no reaction {name!r}; write k:REACTION, slope:SPECIES or offset:SPECIES; "
                f"known reactions: {_some(self.network.reactions)}"
            )
        return self.network.reactions.index(name)

    def in_units(self, index: int, value: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """A parameter in the units of the data: log10 k, slope or offset."""
        shift = self.units.rate_constants(self.network)[index] if index < self.network.n_reactions else 0.0
        return np.asarray(value * self.scale[index] + shift)

    def all_in_units(self, theta: Float[np.ndarray, "*batch unknowns"]) -> Float[np.ndarray, "*batch parameters"]:
        """log10 k, slopes and offsets in the units of the data, without the coefficients of rate laws."""
        shift = np.zeros(len(self.scale))
        shift[: self.network.n_reactions] = self.units.rate_constants(self.network)
        return np.asarray(theta[..., : len(shift)] * self.scale + shift)

    @functools.cached_property
    def scale(self) -> Float[np.ndarray, " parameters"]:
        """The units of differences of log10 k, of slopes and of offsets, in those of the data."""
        n = self.network.n_species
        return np.repeat([1.0, 1 / self.units.time, self.units.rate], [self.network.n_reactions, n, n])


def _some(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
