"""The plan of Phase 2: objective, penalties and optimiser. Strategies are functions that change a plan."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.rollouts import NodeTable, Scheme, rolled
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

# Rollouts and windows of up to this number of steps share one compiled program.
CAPACITY = 64
# Error of MLP_node for one species, relative to the residual, below which steps of its embedding get shorter.
_RESOLVED = 0.1


class Loss(NamedTuple):
    """The value of an objective for a model.

    Attributes:
        value: to be minimised; of order one for a model without homeostasis, whatever the units.
        misfit: mean squared error, reported as phase2_loss, in `Objective.unit`.
        parts: further quantities to be monitored, by name.
    """

    value: Float[Array, ""]
    misfit: Float[Array, ""]
    parts: dict[str, Float[Array, ""]]


class Objective(eqx.Module):
    """A comparison of a model with the data; a pure function of model, random key and progress."""

    @property
    @abc.abstractmethod
    def unit(self) -> str:
        """Unit of `Loss.misfit`."""

    @abc.abstractmethod
    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        """The loss of a model.

        Args:
            model: the model.
            key: for random minibatches.
            share: completed share of the training, from 0 to 1.
        """


class Unset(Objective):
    """A placeholder for the objective that a strategy will set."""

    @property
    def unit(self) -> str:
        return ""

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        raise NotImplementedError("no strategy has set the objective of Phase 2")


class Penalty(eqx.Module):
    """A loss term that is added to the objective."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the term in results."""

    @abc.abstractmethod
    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        """The term, including its weight."""


class Lengths(eqx.Module):
    """Lengths of the rollouts of a minibatch."""

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        """Number of steps of every rollout, at most the capacity."""


class FixedLength(Lengths):
    """All rollouts of the same length."""

    steps: Int[Array, ""]

    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        del key, share
        return jnp.full(batch, self.steps)


class Starts(eqx.Module):
    """Frames at which a rollout or window of a given length can start.

    Attributes:
        frames: indices, padded to the number of all frames: the shape does not depend on the length, so one compiled
            program is valid for every length.
        count: number of indices without padding.
    """

    frames: Int[Array, " frames"]
    count: Int[Array, ""]

    @classmethod
    def of(cls, observations: Observations, steps: int) -> Starts:
        """Frames that are followed by `steps` further frames of the same run.

        Raises:
            InputError: every run is shorter.
        """
        last = np.array([np.flatnonzero(observations.run == r)[-1] for r in observations.run])
        found = np.flatnonzero(np.arange(observations.n_frames) + steps <= last)
        if not found.size:
            raise InputError(
                f"training.homeostasis_time_step is {steps}, but the longest run has "
                f"{int(np.bincount(observations.run).max())} training frames; take fewer steps"
            )
        return cls(on_device(np.resize(found, observations.n_frames)), on_device(len(found)))

    def draw(self, key: PRNGKeyArray, batch: int) -> Int[Array, " batch"]:
        """A random minibatch, with replacement."""
        return self.frames[jax.random.randint(key, (batch,), 0, self.count)]


class Rollouts(Objective):
    """Mean squared error of concentrations along rollouts from random frames: the published objective.

    Attributes:
        c: concentrations of every frame.
        dt: length of the step after each frame.
        valid: 1 if the step after a frame may be used, otherwise 0; per species.
        starts: frames at which rollouts may begin.
        moving, highest: see `NodeTable`.
        reactions: frozen reactions.
        lengths: of the rollouts of a batch.
        late: the weight of step t of T is proportional to (t / T)^late.
        amplification: initial factor on the output of MLP_node, and the share of the training over which it decreases
            to one.
        scale: mean square of the residual of the checkpoint, in (concentration/time)^2. Times time^2, it is the mean
            square error of concentrations that is one in `Loss.value`.
        scheme: integration scheme.
        batch: rollouts per minibatch.
        capacity: largest number of steps.
    """

    c: Float[Array, "frames species"]
    dt: Float[Array, " frames"]
    valid: Float[Array, "frames species"]
    starts: Starts
    moving: Float[Array, " species"]
    highest: Float[Array, " species"]
    reactions: TabulatedReactions
    lengths: Lengths
    late: Float[Array, ""]
    amplification: Float[Array, " 2"]
    scale: Float[Array, ""]
    scheme: Scheme = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    capacity: int = eqx.field(static=True)

    @classmethod
    def of(cls, data: Phase2Data) -> Rollouts:
        """The published objective, with `homeostasis_time_step` and `batch_size` of the configuration.

        Raises:
            InputError: every run is shorter than a rollout.
        """
        observations, steps = data.observations, data.training.homeostasis_time_step
        t = data.transitions
        dt, valid = np.ones(observations.n_frames), np.zeros(observations.concentration.shape)
        dt[t.frame], valid[t.frame] = t.dt, data.keep
        return cls(
            c=on_device(observations.concentration),
            dt=on_device(dt),
            valid=on_device(valid),
            starts=Starts.of(observations, steps),
            moving=on_device(data.moving.astype(np.float64)),
            highest=on_device(data.highest),
            reactions=data.reactions,
            lengths=FixedLength(on_device(steps)),
            late=on_device(0.0),
            amplification=on_device([1.0, 1.0]),
            scale=on_device(data.checkpoint_residuals().unit ** 2),
            scheme=Scheme(rule=data.phase1.rule),
            batch=data.training.batch_size,
            capacity=max(CAPACITY, steps),
        )

    @property
    def unit(self) -> str:
        return "concentration²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        choose, measure = jax.random.split(key)
        # Arrays have the size of the capacity; states beyond the length of a rollout have weight zero.
        start = self.starts.draw(choose, self.batch)
        lengths = self.lengths(measure, share, self.batch)
        # Frame before every step; beyond the end of the data, the last one, with weight zero.
        frame = jnp.minimum(start + jnp.arange(self.capacity)[:, None], len(self.c) - 2)
        weight, time = self._weights(frame, lengths)

        def mean_square_error(node: NodeTable) -> Float[Array, ""]:
            states = rolled(node, self.reactions, self.c[start], self.dt[frame], jnp.max(lengths), self.scheme)
            return jnp.sum(weight * (states - self.c[frame + 1]) ** 2) / jnp.sum(weight)

        node = self._amplified(NodeTable.of(model, self.highest).only(self.moving), share)
        misfit = mean_square_error(node)
        # Without homeostasis, the error of a state grows as residual * time; `drift` is the mean square of this time.
        drift = jnp.sum(weight * time[..., None] ** 2) / jnp.sum(weight)
        parts = {}
        if self.scheme.detach:
            # Rollouts of the reactions without homeostasis, for comparison.
            parts["reactions_alone"] = mean_square_error(jax.tree.map(jnp.zeros_like, node))
        return Loss(misfit / (self.scale * drift), misfit, parts)

    def _weights(
        self, frame: Int[Array, "capacity batch"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "capacity batch species"], Float[Array, "capacity batch"]]:
        """Weight of every state, and its time since the start of the rollout.

        The weight of a species is zero from its first step that does not follow the rate equation.
        """
        number = jnp.arange(1, self.capacity + 1)[:, None]
        # Once an entry does not follow the equation, the observed trajectory is another one.
        usable = jnp.cumprod(self.valid[frame], axis=0)
        late = (number / lengths) ** self.late
        within = number <= lengths
        return jnp.where(within, late, 0.0)[..., None] * usable, jnp.cumsum(self.dt[frame], axis=0) * within

    def _amplified(self, node: NodeTable, share: Float[Array, ""]) -> NodeTable:
        """MLP_node times a factor that decreases geometrically from its initial value to one."""
        largest, end = self.amplification
        factor = largest ** (1.0 - jnp.minimum(share / end, 1.0))
        return NodeTable(node.slope * factor, node.offset * factor, node.step, node.coefficients * factor)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rates over the training; constant by default, as published.

    Attributes:
        kind: constant; onecycle (Smith & Topin 2019); restarts (linear warm-up, then cosines with warm
            restarts, Loshchilov & Hutter 2017).
        warmup: share of the training for the warm-up of `restarts`.
        cycles: number of cosines of `restarts`.
        peak: factor on the learning rates of the configuration.
        embeddings_wait: share of the training during which the embeddings keep their initial values.
    """

    kind: str = "constant"
    warmup: float = 0.0
    cycles: int = 1
    peak: float = 1.0
    embeddings_wait: float = 0.0

    def rate(self, steps: int, rate: float) -> optax.Schedule:
        """The learning rate of a group of parameters over `steps` gradient steps."""
        rate *= self.peak
        if self.kind == "onecycle":
            return optax.cosine_onecycle_schedule(steps, rate)
        if self.kind == "restarts":
            rise = max(1, int(self.warmup * steps))
            length = max(1, (steps - rise) // self.cycles)
            cosines = [optax.cosine_decay_schedule(rate, length, alpha=0.01) for _ in range(self.cycles)]
            bounds = [rise + i * length for i in range(self.cycles)]
            return optax.join_schedules([optax.linear_schedule(0.0, rate, rise), *cosines], bounds)
        return optax.constant_schedule(rate)

    def late_rate(self, steps: int, rate: float) -> optax.Schedule:
        """The learning rate of the embeddings: zero for `embeddings_wait`, then `rate` over the remaining steps."""
        wait = int(self.embeddings_wait * steps)
        return optax.join_schedules([optax.constant_schedule(0.0), self.rate(steps - wait, rate)], [wait])


def _as_it_is(model: MetabolismModel) -> MetabolismModel:
    return model


def _no_polish(model: MetabolismModel, progress: Progress) -> tuple[MetabolismModel, Float[np.ndarray, " iterations"]]:
    del progress
    return model, np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of Phase 2.

    Attributes:
        residuals: for the standardisation of MLP_node and the initial embeddings.
        objective: to be minimised.
        penalties: further loss terms.
        steps: number of gradient steps.
        schedule: learning rates.
        accumulate: minibatches per step of the optimiser.
        start: applied to the model before the first step.
        finish: applied after the last step; also returns the losses of its own iterations.
        notes: plain sentences for the user.
    """

    residuals: Residuals
    objective: Objective
    penalties: tuple[Penalty, ...]
    steps: int
    schedule: Schedule = Schedule()
    accumulate: int = 1
    start: Callable[[MetabolismModel], MetabolismModel] = _as_it_is
    finish: Callable[[MetabolismModel, Progress], tuple[MetabolismModel, Float[np.ndarray, " iterations"]]] = _no_polish
    notes: tuple[str, ...] = ()

    @classmethod
    def classical(cls, data: Phase2Data, residuals: Residuals | None = None) -> Plan:
        """The published training, from which strategies start: rollouts, Adam, constant learning rates.

        Args:
            data: the data of Phase 2.
            residuals: None: those of the checkpoint.

        Raises:
            InputError: every run is shorter than a rollout.
        """
        plan = cls.without_objective(data, data.checkpoint_residuals() if residuals is None else residuals)
        return dataclasses.replace(plan, objective=Rollouts.of(data))

    @classmethod
    def without_objective(cls, data: Phase2Data, residuals: Residuals) -> Plan:
        """The published training without its objective, which a strategy will set."""
        training = data.training
        steps = max(1, training.n_epochs * training.steps_per_epoch(data.observations.n_frames))
        return cls(residuals=residuals, objective=Unset(), penalties=(), steps=steps)

    def rollouts(self) -> Rollouts:
        """The objective, for a strategy that changes rollouts.

        Raises:
            InputError: another strategy has replaced the objective.
        """
        if not isinstance(self.objective, Rollouts):
            raise InputError(
                "training.strategies: a strategy changes rollouts, but another has replaced them; remove one of the two"
            )
        return self.objective

    def with_rollouts(self, **changes: Any) -> Plan:
        """The plan with attributes of the rollouts changed.

        Raises:
            InputError: another strategy has replaced the objective.
        """
        return dataclasses.replace(self, objective=dataclasses.replace(self.rollouts(), **changes))


@functools.lru_cache(maxsize=8)
def optimiser(
    schedule: Schedule, steps: int, rate_node: float, rate_embedding: float, accumulate: int, n_species: int
) -> optax.GradientTransformation:
    """Adam with separate learning rates for MLP_node and the embeddings.

    The result is cached: compiled functions are specific to the object, so a new one would cause a compilation.
    """
    updates = max(1, steps // accumulate)
    # Adam divides by the magnitude of the gradient: however small the error of a species is, its embedding would move
    # by the learning rate, away from others of its type whose concentrations have another range. A loss is of order
    # one and a mean over species, so a relative error e of one species has a gradient of about 2 e / n.
    smallest = 2 * _RESOLVED / n_species

    def label(parameters: MetabolismModel) -> MetabolismModel:
        labels: MetabolismModel = eqx.tree_at(
            lambda m: m.embeddings, jax.tree.map(lambda _: "node", parameters), "embedding"
        )
        return labels

    chosen = optax.partition(
        {
            "node": optax.adam(schedule.rate(updates, rate_node)),
            "embedding": optax.adam(schedule.late_rate(updates, rate_embedding), eps=smallest),
        },
        label,
    )
    return optax.MultiSteps(chosen, accumulate).gradient_transformation() if accumulate > 1 else chosen
