"""A fit of trajectories, rebuilt from its result: what profiles, bootstrap and suggested measurements work with."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.reactions.by_shooting import ShootingSetting
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.integrators import Collocation, EulerSteps, Integrator
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.shooting import Problem, relax
from metabolismgraph.trajectories.stages import Stages, Start
from metabolismgraph.trajectories.threads import single_thread

_RELAXATIONS = 12


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
    """

    stages: Stages
    start: Start
    problem: Problem
    x: Float[np.ndarray, "windows species"]
    covariance: Float[np.ndarray, "unknowns unknowns"]
    units: Units
    network: ReactionNetwork

    @classmethod
    def of(cls, result: FitResult) -> FittedModel:
        """Rebuild the fit of Phase 1; only the initial states of the windows are fitted again.

        Raises:
            InputError: Phase 1 was not fitted to trajectories.

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
        units = Units.of(result.observations, result.graph_model)
        found = result.phase1.in_units(units.inverse(), network)
        own = units.observations(result.observations)
        own = own.select(~own.held_out(*result.training.held_out))
        evidence = found.trajectories
        assert evidence is not None  # as above
        setting = ShootingSetting.of(own, result.graph_model, result.training)
        with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            stages = Stages(own, setting.structure, setting.weak)
            theta = np.concatenate([found.log_k, found.slope, found.offset, evidence.law])
            integrator: Integrator = Collocation() if evidence.continuous else EulerSteps(evidence.substeps)
            noise = NoiseModel(evidence.noise, evidence.proportional, evidence.reference)
            parts = np.ones(own.n_frames, dtype=np.int64)
            start = Start(integrator, theta, stages.path, noise, stages.prior(theta), parts)
            start = dataclasses.replace(start, parts=stages.parts(start, evidence.window))
            problem = stages.problem(start, evidence.window)
            x, _ = relax(problem, theta, stages.path[problem.windows.starts], _RELAXATIONS)
            path = problem.windows.spread(problem.path(theta, x)[0], own.n_frames)
            start = dataclasses.replace(start, path=np.maximum(path, 0.0))
            problem = stages.problem(start, evidence.window)
        return cls(stages, start, problem, x, evidence.covariance, units, network)

    @property
    def names(self) -> tuple[str, ...]:
        """`k:REACTION`, `slope:SPECIES` and `offset:SPECIES` in the order of the unknowns."""
        species = self.network.species
        k = tuple(f"k:{name}" for name in self.network.reactions)
        return (*k, *(f"slope:{name}" for name in species), *(f"offset:{name}" for name in species))

    def index_of(self, name: str) -> int:
        """The place of a parameter among the unknowns.

        Raises:
            InputError: there is none of that name.
        """
        if name in self.names:
            return self.names.index(name)
        kind, _, own = name.partition(":")
        known = self.network.reactions if kind == "k" else self.network.species
        if kind not in {"k", "slope", "offset"}:
            raise InputError(f"{name}: no such parameter; write k:REACTION, slope:SPECIES or offset:SPECIES")
        raise InputError(
            f"{name}: there is no {'reaction' if kind == 'k' else 'species'} {own!r}; known: {_some(known)}"
        )

    def in_units(self, index: int, value: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """A parameter in the units of the data: log10 k, slope or offset."""
        u = self.stages.equation.unknowns
        if index < u.slope.start:
            return np.asarray(value + self.units.rate_constants(self.network)[index])
        return np.asarray(value / self.units.time if index < u.offset.start else value * self.units.rate)


def _some(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
