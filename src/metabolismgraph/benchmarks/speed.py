"""Speed of the inner loops against a plain implementation, in one process on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metabolismgraph.config import Config, load_config
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.homeostasis.fit import initial_model as phase2_model
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable, Scheme, rolled
from metabolismgraph.reactions import penalties
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.descent import Coefficients, advance, begin, learning_rates
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.reactions.gradient import initial_model, to_single_precision
from metabolismgraph.reactions.minibatches import Batches
from metabolismgraph.system.integrate import euler
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.trainable import phase2_parameters

_REPEATS = 5
_FAST_STEPS, _PLAIN_STEPS = 1000, 60  # per repeat
_BATCH = 8
_FAST_ROLLOUTS, _PLAIN_ROLLOUTS = 40, 4  # per repeat
_ROLLOUT = 64  # Euler steps
_NODE_WIDTH = 64  # units of MLP_node
_RISE = 200  # concentrations at which the plain form checks the slope of f


def gradient_phase1(substrate_input: str = "log") -> dict[str, float]:
    """Gradient steps per second of Phase 1 on the 100 species and 256 reactions of rank50, batch 8.

    The plain form is the usual implementation: MLP_sub evaluated for every edge of every frame
    of the batch, messages gathered and scattered, one compiled step per call, learning rates per group.
    Both forms are compiled and run once before the measurement. They are measured in turns, so that a
    change in the load of the machine affects both; results are medians.

    Returns:
        steps_per_second, plain_steps_per_second, and ratio, the median of the ratios of the turns.
    """
    config = load_config("oscillatory_rank50").replace(
        {
            "training.phase1_method": "gradient",
            "training.batch_size": _BATCH,
            "training.coeff_k_floor": 1.0,
            "graph_model.substrate_input": substrate_input,
        }
    )
    observations = simulate(config).observations
    data = Phase1Data(observations, config.graph_model, config.training, rule="forward")
    fast, plain = _fast(data, config), _plain(data, observations.network, config)
    return _compared(fast, plain, _FAST_STEPS, _PLAIN_STEPS)


def rollout_step() -> dict[str, float]:
    """Gradients per second of one minibatch of Phase 2 rollouts on rank50: batch 8, 64 Euler steps, 64-wide MLP_node.

    The plain form scans over Euler steps of the whole model, with MLP_sub evaluated for every substrate
    and MLP_node for every species at every step. Measured as in `gradient_phase1`.

    Returns:
        steps_per_second, plain_steps_per_second, and ratio, the median of the ratios of the turns.
    """
    config = load_config("oscillatory_rank50").replace({"graph_model.hidden_dim_node": _NODE_WIDTH})
    observations = simulate(config).observations
    phase1 = fit_reactions(observations, config.graph_model, config.training)
    data = Phase2Data(observations, phase1, config.graph_model, config.training)
    model = phase2_model(data, data.checkpoint_residuals())
    parameters, constants = eqx.partition(model, phase2_parameters(model))
    start = np.random.default_rng(0).integers(observations.n_frames - _ROLLOUT, size=_BATCH)
    frames = start + np.arange(_ROLLOUT)[:, None]
    c = observations.concentration
    first, later = jnp.asarray(c[start]), jnp.asarray(c[frames + 1])
    dt = jnp.asarray(observations.time[frames + 1] - observations.time[frames])
    moving, highest = jnp.asarray(data.moving, jnp.float64), jnp.asarray(data.highest)
    n_steps, scheme = jnp.asarray(_ROLLOUT), Scheme()

    def tabulated(p: MetabolismModel) -> Float[Array, ""]:
        node = NodeTable.of(eqx.combine(p, constants), highest).only(moving)
        return jnp.mean((rolled(node, data.reactions, first, dt, n_steps, scheme) - later) ** 2)

    def plain(p: MetabolismModel) -> Float[Array, ""]:
        whole = eqx.combine(p, constants)
        return jnp.mean((euler(lambda x: whole(x, data.structure), first, dt) - later) ** 2)

    return _compared(
        _gradients(tabulated, parameters, _FAST_ROLLOUTS),
        _gradients(plain, parameters, _PLAIN_ROLLOUTS),
        _FAST_ROLLOUTS,
        _PLAIN_ROLLOUTS,
    )


def _gradients(
    loss: Callable[[MetabolismModel], Float[Array, ""]], parameters: MetabolismModel, times: int
) -> Callable[[], None]:
    gradient = eqx.filter_jit(jax.grad(loss))

    def run() -> None:
        for _ in range(times):
            np.asarray(gradient(parameters).embeddings)  # waits for the result

    return run


def _compared(fast: Callable[[], None], plain: Callable[[], None], n_fast: int, n_plain: int) -> dict[str, float]:
    """Steps per second of both, in turns, after a first call that compiles."""
    fast()
    plain()
    rates = np.array([(n_fast / _seconds(fast), n_plain / _seconds(plain)) for _ in range(_REPEATS)])
    return {
        "steps_per_second": float(np.median(rates[:, 0])),
        "plain_steps_per_second": float(np.median(rates[:, 1])),
        "ratio": float(np.median(rates[:, 0] / rates[:, 1])),
    }


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _fast(data: Phase1Data, config: Config) -> Callable[[], None]:
    batches: Batches = to_single_precision(Batches.of(data))
    carry, constants = begin(to_single_precision(initial_model(data)))
    rates = to_single_precision(learning_rates(eqx.combine(carry.parameters, constants), config.training))
    coefficients = to_single_precision(Coefficients.of(config.training))
    key = jax.random.key(0)

    def run() -> None:
        done = advance(carry, constants, rates, batches, coefficients, key, jnp.asarray(_FAST_STEPS, jnp.int32))
        float(done[1])  # waits for the result

    return run


def _plain(data: Phase1Data, network: ReactionNetwork, config: Config) -> Callable[[], None]:
    """One step per call; the same loss, written edge by edge (MLP_sub's rise on a fixed grid)."""
    model: MetabolismModel = to_single_precision(initial_model(data))
    coefficients = to_single_precision(Coefficients.of(config.training))
    start = jnp.asarray(data.transitions.start, jnp.float32)
    derivative = jnp.asarray(data.transitions.derivative, jnp.float32)
    species, reaction = jnp.asarray(network.edge_species), jnp.asarray(network.edge_reaction)
    order = jnp.asarray(network.edge_order, jnp.float32)
    made_by = np.nonzero(network.stoichiometry)
    amount = jnp.asarray(network.stoichiometry[made_by], jnp.float32)
    target, source = (jnp.asarray(index) for index in made_by)
    grid = jnp.linspace(jnp.log(start.min()), jnp.log(start.max()), _RISE)

    def loss(
        parameters: MetabolismModel, constants: MetabolismModel, c: Float[Array, "b s"], y: Float[Array, "b s"]
    ) -> Float[Array, ""]:
        m = eqx.combine(parameters, constants)
        log_f = m.mlp_sub(jnp.log(c[:, species]), order)
        log_v = jnp.zeros((len(c), network.n_reactions), c.dtype).at[:, reaction].add(log_f)
        flux = 10.0**m.log_k * jnp.exp(log_v)
        rate = jnp.zeros_like(c).at[:, target].add(amount * flux[:, source])
        node = m.homeostasis(c)
        at_one = m.mlp_sub(jnp.zeros(1, c.dtype), jnp.ones(1, c.dtype))[0]
        return (
            jnp.mean((rate + node - y) ** 2)
            + coefficients.coeff_MLP_sub_diff * penalties.substrate_falls(m.mlp_sub(grid, jnp.ones((), c.dtype))[None])
            + coefficients.coeff_MLP_sub_norm * penalties.substrate_norm(at_one)
            + coefficients.coeff_MLP_node_L1 * penalties.node_magnitude(node)
            + coefficients.coeff_k_floor * penalties.rate_constant_floor(m.log_k, coefficients.k_floor_threshold)
        )

    adam = optax.scale_by_adam()

    @eqx.filter_jit
    def step(
        parameters: MetabolismModel, state: optax.OptState, c: Float[Array, "b s"], y: Float[Array, "b s"]
    ) -> tuple[MetabolismModel, optax.OptState]:
        direction, state = adam.update(jax.grad(loss)(parameters, constants, c, y), state)
        return jax.tree.map(lambda p, d, rate: p - rate * d, parameters, direction, rates), state

    carry, constants = begin(model)
    rates = to_single_precision(learning_rates(model, config.training))
    rng = np.random.default_rng(0)

    def run() -> None:
        parameters, state = carry.parameters, adam.init(carry.parameters)
        for _ in range(_PLAIN_STEPS):
            chosen = jnp.asarray(rng.integers(len(start), size=_BATCH))
            parameters, state = step(parameters, state, start[chosen], derivative[chosen])
        np.asarray(parameters.log_k)  # waits for the result

    return run
