"""The plan of Phase 2: what is minimised, by which steps. Strategies are what changes a plan."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.rollouts import NodeTable, Scheme, rolled
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

# Rollouts and windows up to so many steps share one compiled program.
CAPACITY = 64


class Loss(NamedTuple):
    """What an objective says of a model.

    Attributes:
        value: what is minimised; of order one while nothing is explained.
        misfit: mean square that is reported as phase2_loss, in `Objective.unit`.
        parts: further figures to be watched, by name.
    """

    value: Float[Array, ""]
    misfit: Float[Array, ""]
    parts: dict[str, Float[Array, ""]]


class Objective(eqx.Module):
    """How a model is compared with the data; a pure function of model, random key and progress."""

    @property
    @abc.abstractmethod
    def unit(self) -> str:
        """Unit of `Loss.misfit`."""

    @abc.abstractmethod
    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        """Compare.

        Args:
            key: for random minibatches.
            share: how much of the training is over, from 0 to 1.
        """


class Unset(Objective):
    """In place of an objective, until a strategy sets one."""

    @property
    def unit(self) -> str:
        return ""

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        raise NotImplementedError("no strategy has set the objective of Phase 2")


class Penalty(eqx.Module):
    """A loss term besides the objective."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in results."""

    @abc.abstractmethod
    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        """The term, weight included."""


class Lengths(eqx.Module):
    """How long the rollouts of a minibatch are."""

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        """Steps of every rollout; never more than the capacity."""


class FixedLength(Lengths):
    """All rollouts of the same length."""

    steps: Int[Array, ""]

    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        del key, share
        return jnp.full(batch, self.steps)


class Starts(eqx.Module):
    """Frames with enough frames of the same run behind them.

    Attributes:
        frames: those, padded to the number of all frames: one compiled program serves windows of every length.
        count: how many of them are meant.
    """

    frames: Int[Array, " frames"]
    count: Int[Array, ""]

    @classmethod
    def of(cls, observations: Observations, steps: int) -> Starts:
        """Frames from which `steps` steps lead to a frame of the same run.

        Raises:
            InputError: no run has so many frames.
        """
        last = np.array([np.flatnonzero(observations.run == r)[-1] for r in observations.run])
        found = np.flatnonzero(np.arange(observations.n_frames) + steps <= last)
        if not found.size:
            raise InputError(
                f"training.homeostasis_time_step is {steps}, but the longest run has "
                f"{int(np.bincount(observations.run).max())} training frames; take fewer steps"
            )
        return cls(jnp.asarray(np.resize(found, observations.n_frames)), jnp.asarray(len(found)))

    def draw(self, key: PRNGKeyArray, batch: int) -> Int[Array, " batch"]:
        """A random minibatch, with replacement."""
        return self.frames[jax.random.randint(key, (batch,), 0, self.count)]


class Rollouts(Objective):
    """Mean squared error of concentrations along rollouts from random frames: the classical trainer.

    Attributes:
        c: concentrations of every frame.
        dt: length of the step that follows a frame.
        valid: 1 where the step that follows a frame may be used, per species.
        starts: where rollouts may begin.
        moving, highest: see `NodeTable`.
        lengths: of the rollouts of a batch.
        late: weight of step t of T is proportional to (t / T) to this power.
        amplification: what MLP_node's output is multiplied by at the start, and the share of the
            training over which that falls to one.
        scale: mean square drift per squared time that is one in `Loss.value`.
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
        """The classical trainer for `homeostasis_time_step` and `batch_size` of the settings.

        Raises:
            InputError: no run has so many frames.
        """
        observations, steps = data.observations, data.training.homeostasis_time_step
        t = data.transitions
        dt, valid = np.ones(observations.n_frames), np.zeros(observations.concentration.shape)
        dt[t.frame], valid[t.frame] = t.dt, data.keep
        return cls(
            c=jnp.asarray(observations.concentration),
            dt=jnp.asarray(dt),
            valid=jnp.asarray(valid),
            starts=Starts.of(observations, steps),
            moving=jnp.asarray(data.moving.astype(np.float64)),
            highest=jnp.asarray(data.highest),
            reactions=data.reactions,
            lengths=FixedLength(jnp.asarray(steps)),
            late=jnp.asarray(0.0),
            amplification=jnp.asarray([1.0, 1.0]),
            scale=jnp.asarray(data.checkpoint_residuals().unit ** 2),
            scheme=Scheme(rule=data.phase1.rule),
            batch=data.training.batch_size,
            capacity=max(CAPACITY, steps),
        )

    @property
    def unit(self) -> str:
        return "concentration²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        choose, measure = jax.random.split(key)
        start = self.starts.draw(choose, self.batch)
        lengths = self.lengths(measure, share, self.batch)
        weight, time = self._weights(start, lengths)
        frame = self._frames(start)
        node = self._amplified(NodeTable.of(model, self.highest).only(self.moving), share)
        states = rolled(node, self.reactions, self.c[start], self.dt[frame], jnp.max(lengths), self.scheme)
        error = (states - self.c[frame + 1]) ** 2
        misfit = jnp.sum(weight * error) / jnp.sum(weight)
        drift = jnp.sum(weight * time[..., None] ** 2) / jnp.sum(weight)
        parts = {}
        if self.scheme.detach:
            alone = rolled(
                jax.tree.map(jnp.zeros_like, node),
                self.reactions,
                self.c[start],
                self.dt[frame],
                jnp.max(lengths),
                self.scheme,
            )
            parts["reactions_alone"] = jnp.sum(weight * (alone - self.c[frame + 1]) ** 2) / jnp.sum(weight)
        return Loss(misfit / (self.scale * drift), misfit, parts)

    def _frames(self, start: Int[Array, " batch"]) -> Int[Array, "capacity batch"]:
        """Frames before every step; beyond the end of the data the last one, with weight zero."""
        return jnp.minimum(start + jnp.arange(self.capacity)[:, None], len(self.c) - 2)

    def _weights(
        self, start: Int[Array, " batch"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "capacity batch species"], Float[Array, "capacity batch"]]:
        """Weight of every state, and the time that has passed when it is reached.

        A species counts until its first step that does not follow the equation.
        """
        number = jnp.arange(1, self.capacity + 1)[:, None]
        frame = self._frames(start)
        usable = jnp.cumprod(self.valid[frame], axis=0)
        late = (number / lengths) ** self.late
        within = number <= lengths
        return jnp.where(within, late, 0.0)[..., None] * usable, jnp.cumsum(self.dt[frame], axis=0) * within

    def _amplified(self, node: NodeTable, share: Float[Array, ""]) -> NodeTable:
        largest, end = self.amplification
        factor = largest ** (1.0 - jnp.minimum(share / end, 1.0))
        return NodeTable(node.slope * factor, node.offset * factor, node.step, node.coefficients * factor)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rates over the training; the default is constant (the published trainer).

    Attributes:
        kind: constant; onecycle (Smith & Topin 2019); restarts (linear warm-up, then cosines with warm
            restarts, Loshchilov & Hutter 2017).
        warmup: share of the training for the warm-up of `restarts`.
        cycles: number of cosines of `restarts`.
        peak: factor on the learning rates of the configuration.
        embeddings_wait: share of the training for which the embeddings are held at their start.
    """

    kind: str = "constant"
    warmup: float = 0.0
    cycles: int = 1
    peak: float = 1.0
    embeddings_wait: float = 0.0

    def rate(self, steps: int, rate: float) -> optax.Schedule:
        """The learning rate of one group over `steps` gradient steps."""
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
        """The same for the embeddings, which wait first."""
        wait = int(self.embeddings_wait * steps)
        return optax.join_schedules([optax.constant_schedule(0.0), self.rate(steps - wait, rate)], [wait])


def _as_it_is(model: MetabolismModel) -> MetabolismModel:
    return model


def _no_polish(model: MetabolismModel, progress: Progress) -> tuple[MetabolismModel, Float[np.ndarray, " iterations"]]:
    del progress
    return model, np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How Phase 2 is going to be done.

    Attributes:
        residuals: where standardisation and the start of the embeddings come from.
        objective: what is minimised.
        penalties: loss terms besides it.
        steps: gradient steps.
        schedule: learning rates.
        accumulate: minibatches whose gradients make one step.
        start: applied to the model before the first step.
        finish: applied after the last; gives the losses of its own iterations as well.
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
        """Rollouts, Adam, constant learning rates: what strategies start from.

        Args:
            residuals: None: what the checkpoint leaves.

        Raises:
            InputError: no run is as long as a rollout.
        """
        plan = cls.without_objective(data, data.checkpoint_residuals() if residuals is None else residuals)
        return dataclasses.replace(plan, objective=Rollouts.of(data))

    @classmethod
    def without_objective(cls, data: Phase2Data, residuals: Residuals) -> Plan:
        """The same where a strategy is going to set the objective."""
        training = data.training
        steps = max(1, training.n_epochs * training.steps_per_epoch(data.observations.n_frames))
        return cls(residuals=residuals, objective=Unset(), penalties=(), steps=steps)

    def rollouts(self) -> Rollouts:
        """The objective, for a strategy that changes rollouts.

        Raises:
            InputError: another strategy has replaced it.
        """
        if not isinstance(self.objective, Rollouts):
            raise InputError("training.strategies: there are no rollouts to change")
        return self.objective


@functools.lru_cache(maxsize=8)
def optimiser(
    schedule: Schedule, steps: int, rate_node: float, rate_embedding: float, accumulate: int
) -> optax.GradientTransformation:
    """Adam with a learning rate of its own for MLP_node and for the embeddings.

    The same arguments give the same object, so that nothing is compiled again for it.
    """
    updates = max(1, steps // accumulate)

    def label(parameters: MetabolismModel) -> MetabolismModel:
        labels: MetabolismModel = eqx.tree_at(
            lambda m: m.embeddings, jax.tree.map(lambda _: "node", parameters), "embedding"
        )
        return labels

    chosen = optax.partition(
        {
            "node": optax.adam(schedule.rate(updates, rate_node)),
            "embedding": optax.adam(schedule.late_rate(updates, rate_embedding)),
        },
        label,
    )
    if accumulate > 1:
        multi = optax.MultiSteps(chosen, accumulate)
        return optax.GradientTransformation(multi.init, multi.update)
    return chosen
