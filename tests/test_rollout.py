"""Rollouts from tables: against the network itself, against plain integration, and their gradient."""

import dataclasses
import functools
import itertools
import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import network_of

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable, Scheme, rolled
from metabolismgraph.homeostasis.training_plan import FixedLength, Rollouts, Starts
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.integrate import euler, integrate
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import MetabolismModel, NodeFunction, new_substrate_function
from metabolismgraph.system.model_rates import ModelRates, homeostasis_at, mean_homeostasis
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

# Orders 1 and 2, a reaction without substrates, a species that drives and is not driven.
NETWORK = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
    ({"B": 2.0}, {"B": -2.0, "C": 1.0}),
    ({"C": 1.0, "D": 1.0}, {"C": -1.0, "A": 1.0}),
    ({}, {"A": 1.0}),
    fixed=["D"],
)
STRUCTURE = Structure.of(NETWORK)
BATCH, CAPACITY = 3, 64


@functools.cache
def model_of(aggregation="mul", substrate_input="log"):
    """A model with random weights everywhere."""
    keys = jax.random.split(jax.random.key(5), 6)
    settings = GraphModel(substrate_input=substrate_input, hidden_dim_sub=8, n_layers_sub=3)
    rng = np.random.default_rng(0)
    mlp_sub = new_substrate_function(settings, np.exp(rng.normal(0.0, 1.0, 50)), rng)
    node = NodeFunction(8, 3, 2, rng, center=1.5, width=0.8, unit=0.05)
    embeddings = jax.random.normal(keys[2], (4, 2))
    model = MetabolismModel(jnp.array([-0.5, -0.8, -0.3, -1.0]), mlp_sub, node, embeddings, aggregation)
    return eqx.tree_at(
        lambda m: (
            m.mlp_sub.perceptron.weights[-1], m.mlp_node.perceptron.weights[-1], m.mlp_node.slope, m.mlp_node.offset
        ),
        model,
        (
            0.3 * jax.random.normal(keys[3], (8, 1)),
            0.5 * jax.random.normal(keys[4], (8, 1)),
            jnp.array([0.3, -0.2, -0.5]),
            jnp.array([0.1, 0.4, -0.2]),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Concentrations from 1e-3 to 5, some of them exactly zero."""
    c = np.exp(np.random.default_rng(1).uniform(np.log(1e-3), np.log(5.0), (40, 4)))
    c[3, 0] = c[7, 1] = 0.0
    return c


def frozen_of(model, data):
    return TabulatedReactions.of(model.mlp_sub, 10.0 ** np.asarray(model.log_k), STRUCTURE, model.aggregation, data)


# -- the table of the reactions


@pytest.mark.parametrize("substrate_input", ["log", "raw"])
def test_frozen_reactions_are_those_of_the_model(data, substrate_input):
    beyond = np.random.default_rng(2).uniform(1e-4, 30.0, (200, 4))
    for aggregation in ("mul", "add"):
        model = model_of(aggregation, substrate_input)
        frozen = frozen_of(model, data)
        for c in (data, beyond):
            exact = np.asarray(model.reactions(jnp.asarray(c), STRUCTURE))
            rms = np.sqrt(np.mean(exact**2))
            assert rms > 1e-2
            assert np.abs(np.asarray(frozen(jnp.asarray(c))) - exact).max() < 1e-9 * rms


@pytest.mark.parametrize("substrate_input", ["log", "raw", "published"])
def test_networks_compute_the_same_with_numpy(data, substrate_input):
    model = model_of(substrate_input=substrate_input)
    log_c = np.linspace(-6.0, 3.0, 40)
    order = np.repeat([1.0, 2.0], 20)
    compiled = eqx.filter_jit(lambda m: (m.mlp_sub(jnp.asarray(log_c), jnp.asarray(order)), m.homeostasis(data)))(model)
    for found, expected in zip((model.mlp_sub(log_c, order), model.homeostasis(data)), compiled, strict=True):
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_homeostasis_comes_from_a_table(data):
    model = model_of()
    many = np.repeat(data, 50, axis=0) * np.random.default_rng(4).uniform(0.5, 1.0, (2000, 1))
    many[:, 2] = 0.0  # a species that is never there
    exact, found = model.homeostasis(many), homeostasis_at(model, many)
    assert isinstance(found, NodeTable)
    assert isinstance(found(many), np.ndarray)
    assert np.abs(found(many) - exact).max() < 1e-7 * np.abs(exact).max()
    assert mean_homeostasis(model, many) == pytest.approx(np.abs(exact).mean(), rel=1e-7)
    few = model.homeostasis(data)
    assert np.abs(homeostasis_at(model, data)(data) - few).max() < 1e-7 * np.abs(few).max()


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1e6])
def test_the_table_does_not_hang_on_the_unit_of_concentration(data, unit):
    many = unit * np.repeat(data, 50, axis=0) * np.random.default_rng(4).uniform(0.5, 1.0, (2000, 1))
    model = model_of()
    node = eqx.tree_at(
        lambda n: (n.center, n.width), model.mlp_node, (unit * model.mlp_node.center, unit * model.mlp_node.width)
    )
    model = eqx.tree_at(lambda m: m.mlp_node, model, node)
    exact = model.homeostasis(many)
    assert np.abs(homeostasis_at(model, many)(many) - exact).max() < 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("far", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("substrate_input", ["log", "raw"])
def test_a_model_that_diverges_has_no_numbers_and_is_not_an_error(data, far, substrate_input):
    """A state that is not finite has no place in a table; that was an IndexError in NumPy."""
    model = model_of(substrate_input=substrate_input)
    many = np.repeat(data, 50, axis=0)
    diverged = many.copy()
    diverged[7, 0] = far
    for rate in (homeostasis_at(model, many), frozen_of(model, many), ModelRates.of(model, STRUCTURE, many)):
        with np.errstate(all="ignore"):
            found, usual = rate(diverged), rate(many)
        assert np.isfinite(usual).all()
        others = np.arange(len(many)) != 7
        np.testing.assert_array_equal(found[others], usual[others])
        if np.isnan(far):
            assert np.isnan(found[7]).any()


def test_the_table_of_many_species_takes_little_memory():
    """All at once, a hidden layer of 2000 species would take a quarter of a gigabyte."""
    node, one = NodeFunction(64, 3, 2, np.random.default_rng(0)), model_of()
    node = eqx.tree_at(lambda n: n.perceptron.weights[-1], node, jnp.ones((64, 1)))
    embeddings = np.random.default_rng(1).normal(size=(2000, 2))
    model = dataclasses.replace(one, mlp_node=node, embeddings=jnp.asarray(embeddings))
    many = np.full((600, 2000), 2.0)
    tracemalloc.start()
    try:
        table = homeostasis_at(model, many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(table, NodeTable)
    assert peak < 2e8
    few = dataclasses.replace(model, embeddings=jnp.asarray(embeddings[700:703]))
    of_few = np.asarray(homeostasis_at(few, many[:, :3]).coefficients)
    np.testing.assert_allclose(table.coefficients[700:703], of_few, rtol=1e-9, atol=1e-12 * np.abs(of_few).max())
    assert np.abs(of_few).max() > 0


# -- rollouts


@pytest.fixture(scope="module")
def tables(data):
    """MLP_node and reactions as tables, starts, and steps of changing length."""
    model = model_of()
    node = NodeTable.of(model, jnp.asarray(data.max(axis=0))).only(jnp.asarray(1.0 - NETWORK.fixed))
    dt = jnp.asarray(np.random.default_rng(3).uniform(0.02, 0.06, (CAPACITY, BATCH)))
    return node, frozen_of(model, data), jnp.asarray(data[10 : 10 + BATCH]), dt


# One function per scheme for all tests: the number of steps is traced.
roll = eqx.filter_jit(rolled)


@pytest.mark.parametrize("rule", ["forward", "trapezoid", "cubic"], ids=["euler", "heun", "runge-kutta"])
def test_rolled_is_plain_integration(tables, rule):
    node, frozen, start, dt = tables
    model = model_of()
    states = roll(node, frozen, start, dt, jnp.asarray(20), Scheme(rule=rule))
    plain = integrate(lambda c: model(c, STRUCTURE), start, dt[:20], rule)
    # MLP_node's table has 48 knots.
    np.testing.assert_allclose(states[:20], plain, atol=1e-5)
    assert (states[20:] == 0).all()
    assert float(jnp.abs(plain[-1] - start).max()) > 0.1
    np.testing.assert_array_equal(states[:20, :, 3], np.broadcast_to(start[:, 3], (20, BATCH)))


def test_one_compilation_for_every_length(tables):
    node, frozen, start, dt = tables
    compiled = 0

    @jax.jit
    def gradient(node, n_steps):
        nonlocal compiled
        compiled += 1  # runs when it is traced, and not when it is called
        return jax.grad(lambda n: jnp.sum(rolled(n, frozen, start, dt, n_steps, Scheme()) ** 2))(node)

    ends = [gradient(node, jnp.asarray(steps)).offset for steps in (4, 16, 64)]
    assert compiled == 1
    assert all(float(jnp.abs(a - b).max()) > 1e-3 for a, b in itertools.pairwise(ends))


# -- its gradient


def weighted_sum(states):
    """A loss in which every state counts differently."""
    return jnp.sum(states[:6] ** 2 * jnp.linspace(0.5, 2.0, states[:6].size).reshape(states[:6].shape))


@eqx.filter_jit
def value_and_gradient(node, frozen, start, dt, scheme):
    return jax.value_and_grad(lambda n: weighted_sum(rolled(n, frozen, start, dt, jnp.asarray(6), scheme)))(node)


@eqx.filter_jit
def plain_gradient(node, frozen, start, dt, scheme):
    """By automatic differentiation of a loop that is written out."""

    def rate(n, c):
        return frozen(jax.lax.stop_gradient(c) if scheme.detach else c) + n(c)

    return jax.grad(lambda n: weighted_sum(integrate(lambda c: rate(n, c), start, dt[:6], scheme.rule)))(node)


@pytest.mark.parametrize(
    "scheme",
    [Scheme(), Scheme(rule="trapezoid"), Scheme(rule="cubic"), Scheme(detach=True)],
    ids=["euler", "heun", "runge-kutta", "detach"],
)
def test_gradient_is_that_of_a_loop_written_out(tables, scheme):
    found, expected = value_and_gradient(*tables, scheme)[1], plain_gradient(*tables, scheme)
    for name in ("slope", "offset", "step", "coefficients"):
        size = float(jnp.abs(getattr(expected, name)).max())
        assert size > 0
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12 * size, err_msg=name)


def test_gradient_against_finite_differences(tables):
    """In every field; a rollout that is clamped at zero on its way included."""
    node, *rest = tables
    drained = dataclasses.replace(node, offset=node.offset - jnp.array([6.0, 0.0, 0.0, 0.0]))
    assert float(roll(drained, *rest, jnp.asarray(6), Scheme())[:6, :, 0].min()) == 0.0
    for table in (node, drained):
        _, gradient = value_and_gradient(table, *rest, Scheme())
        for name in ("slope", "offset", "step", "coefficients"):
            value = getattr(table, name)
            direction = np.random.default_rng(4).standard_normal(value.shape) * np.asarray(jnp.abs(value).mean())
            ends = [
                value_and_gradient(dataclasses.replace(table, **{name: value + h * direction}), *rest, Scheme())[0]
                for h in (1e-6, -1e-6)
            ]
            along = float(jnp.sum(getattr(gradient, name) * direction))
            assert along == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7), name


def test_detached_gradient_differs(tables):
    """What MLP_node did does not reach later states by way of the reactions."""
    full, detached = (value_and_gradient(*tables, scheme)[1].offset for scheme in (Scheme(), Scheme(detach=True)))
    assert float(jnp.abs(full - detached).max()) > 1e-2 * float(jnp.abs(full).max())


def test_gradients_reach_weights_and_embeddings(data):
    """Through the knots: against the network in the loop itself."""
    model, start, dt = model_of(), jnp.asarray(data[10:13]), jnp.full((CAPACITY, BATCH), 0.05)
    frozen, highest, moving = frozen_of(model, data), jnp.asarray(data.max(axis=0)), jnp.asarray(1.0 - NETWORK.fixed)

    def tabulated(m):
        return weighted_sum(rolled(NodeTable.of(m, highest).only(moving), frozen, start, dt, jnp.asarray(6), Scheme()))

    def exact(m):
        rate = lambda c: frozen(c) + moving * m.homeostasis(c)  # noqa: E731
        return weighted_sum(euler(rate, start, dt[:6]))

    found, expected = (eqx.filter_jit(eqx.filter_grad(loss))(model) for loss in (tabulated, exact))
    for a, b in zip(jax.tree.leaves(found.mlp_node), jax.tree.leaves(expected.mlp_node), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(float(jnp.abs(b).max()), 1e-3))
    np.testing.assert_allclose(
        found.embeddings, expected.embeddings, atol=1e-3 * float(jnp.abs(expected.embeddings).max())
    )


# -- the objective


def measured(*, frames=30, run=None, keep=None):
    """The made-up network, its random model as the checkpoint, and data that have nothing to do with it."""
    model = model_of()
    c = np.exp(np.random.default_rng(6).normal(0.0, 0.3, (frames, 4)))
    c[:, 3] = 1.0
    run = np.zeros(frames, dtype=np.int64) if run is None else run
    observations = Observations(NETWORK, 0.05 * np.arange(frames), run, c)
    checkpoint = Phase1Result(
        mlp_sub=model.mlp_sub,
        log_k=np.asarray(model.log_k),
        identifiability=analyse(DenseMatrix(np.eye(4), np.ones(4)), 1e-8),
        keep=np.ones((len(observations.transitions().dt), 4), dtype=bool) if keep is None else keep,
        **dict.fromkeys(("slope", "offset", "slope_error", "offset_error", "noise", "log_k_error"), np.zeros(4)),
        slope_offset_covariance=np.zeros(4),
        reasons=("",) * 4,
        upper=np.full(4, np.nan),
        mass_action=np.zeros(4, dtype=bool),
        law_fails=False,
        losses=np.zeros(1),
        converged=True,
        rule="forward",
        notes=(),
    )
    return Phase2Data(observations, checkpoint, GraphModel(), Training(homeostasis_time_step=4, batch_size=2))


def starting_at(rollouts, frame):
    """The same objective, with all rollouts from one frame."""
    return dataclasses.replace(rollouts, starts=Starts(jnp.full(30, frame), jnp.asarray(1)), batch=16)


@eqx.filter_jit
def _judge(objective, model, share):
    return objective(model, jax.random.key(0), share)


def judge(objective, share=0.0, model=None):
    """What the objective says of the random model, or another."""
    return _judge(objective, model or model_of(), jnp.asarray(share))


@pytest.fixture(scope="module")
def phase2_data():
    return measured()


@pytest.fixture(scope="module")
def objective(phase2_data):
    return Rollouts.of(phase2_data)


def test_misfit_is_the_mean_square_error_of_concentrations(phase2_data, objective):
    model, c = model_of(), phase2_data.observations.concentration
    states = np.asarray(euler(lambda x: model(x, STRUCTURE), jnp.asarray(c[5]), jnp.full(4, 0.05)))
    expected = np.mean((states - c[6:10])[:, :3] ** 2)  # D is fixed
    found = judge(starting_at(objective, 5))
    assert float(found.misfit) == pytest.approx(expected, rel=1e-4)
    assert objective.unit == "concentration²"
    assert not found.parts


class Two(FixedLength):
    """Lengths that alternate between one step and four."""

    def __call__(self, key, share, batch):
        del key, share
        return jnp.where(jnp.arange(batch) % 2 == 0, 1, self.steps)


def test_every_rollout_counts_its_own_steps_only(phase2_data, objective):
    """Spoilt data after the first step matter to the long rollouts only."""
    one_frame = starting_at(objective, 5)
    lengths = {
        "short": FixedLength(jnp.asarray(1)), "long": FixedLength(jnp.asarray(4)), "mixed": Two(jnp.asarray(4)),
    }  # fmt: skip
    misfit = {
        name: float(judge(dataclasses.replace(one_frame, lengths=length)).misfit) for name, length in lengths.items()
    }
    # Sums over 1 step and over 4 steps in equal numbers.
    assert misfit["mixed"] == pytest.approx((misfit["short"] + 4 * misfit["long"]) / 5, rel=1e-9)
    spoilt = dataclasses.replace(one_frame, c=one_frame.c.at[7:10].add(100.0))
    assert float(judge(dataclasses.replace(spoilt, lengths=lengths["short"])).misfit) == misfit["short"]
    assert float(judge(spoilt).misfit) > 100 * misfit["long"]
    beyond = dataclasses.replace(one_frame, c=one_frame.c.at[10:].add(100.0))
    assert float(judge(beyond).misfit) == misfit["long"]


def test_a_species_counts_until_its_first_dropped_row(objective):
    keep = np.ones((29, 4), dtype=bool)
    keep[6, 1] = False  # B, the step from frame 6 to frame 7
    one_frame = starting_at(Rollouts.of(measured(keep=keep)), 5)
    base = float(judge(one_frame).misfit)
    after = dataclasses.replace(one_frame, c=one_frame.c.at[7:10, 1].add(100.0))
    assert float(judge(after).misfit) == base
    before = dataclasses.replace(one_frame, c=one_frame.c.at[6, 1].add(100.0))
    assert float(judge(before).misfit) > 100 * base
    others = dataclasses.replace(one_frame, c=one_frame.c.at[8, 0].add(100.0))
    assert float(judge(others).misfit) > 100 * base
    fixed = dataclasses.replace(starting_at(objective, 5), c=objective.c.at[7:10, 3].add(100.0))
    assert float(judge(fixed).misfit) == float(judge(starting_at(objective, 5)).misfit)


def test_late_steps_weigh_more(phase2_data, objective):
    model, c = model_of(), phase2_data.observations.concentration
    states = np.asarray(euler(lambda x: model(x, STRUCTURE), jnp.asarray(c[5]), jnp.full(4, 0.05)))
    error = np.mean((states - c[6:10])[:, :3] ** 2, axis=1)
    late = dataclasses.replace(starting_at(objective, 5), late=jnp.asarray(2.0))
    expected = np.average(error, weights=np.arange(1, 5) ** 2)
    assert float(judge(late).misfit) == pytest.approx(expected, rel=1e-4)


def test_amplification_falls_to_one(objective):
    """From its factor to one, geometrically; the loss is that of an MLP_node which is really so large."""
    node = NodeTable(jnp.ones(4), jnp.ones(4), jnp.ones(4), jnp.ones((4, 5, 4)))
    amplified = dataclasses.replace(objective, amplification=jnp.array([50.0, 0.6]))
    factors = [float(amplified._amplified(node, jnp.asarray(share)).slope[0]) for share in (0.0, 0.3, 0.6, 0.8, 1.0)]
    assert factors == pytest.approx([50.0, 50.0**0.5, 1.0, 1.0, 1.0])
    table = amplified._amplified(node, jnp.asarray(0.0))
    assert float(table.offset[0]) == float(table.coefficients[0, 0, 0]) == 50.0
    assert float(table.step[0]) == 1.0
    one_frame = starting_at(amplified, 5)
    at_the_end = float(judge(one_frame, 0.9).misfit)
    assert at_the_end == float(judge(starting_at(objective, 5)).misfit)
    large = eqx.tree_at(lambda m: m.mlp_node.unit, model_of(), 50 * model_of().mlp_node.unit)
    really = judge(starting_at(objective, 5), model=large)
    assert float(judge(one_frame).misfit) == pytest.approx(float(really.misfit), rel=1e-9)
    assert abs(float(really.misfit) / at_the_end - 1) > 0.02


def test_detach_reports_the_reactions_alone(objective):
    """Their own error is that of a model without MLP_node, and no part of what is minimised."""
    detached = dataclasses.replace(starting_at(objective, 5), scheme=Scheme(detach=True))
    found, plain = judge(detached), judge(starting_at(objective, 5))
    assert float(found.value) == pytest.approx(float(plain.value), rel=1e-12)
    silent = eqx.tree_at(lambda m: m.mlp_node.unit, model_of(), jnp.asarray(0.0))
    alone = judge(starting_at(objective, 5), model=silent)
    assert float(found.parts["reactions_alone"]) == pytest.approx(float(alone.misfit), rel=1e-9)
    assert float(found.parts["reactions_alone"]) != float(found.misfit)


# -- where rollouts start


def test_rollouts_stay_within_a_run(phase2_data):
    two_runs = dataclasses.replace(
        phase2_data.observations.select(np.arange(30) < 12), run=np.repeat([0, 1], [5, 7]), time=np.arange(12.0)
    )
    four, six = Starts.of(two_runs, 4), Starts.of(two_runs, 6)
    assert four.frames[: int(four.count)].tolist() == [0, 5, 6, 7]
    assert six.frames[: int(six.count)].tolist() == [5]
    assert four.frames.shape == six.frames.shape == (12,)
    drawn, counts = np.unique(four.draw(jax.random.key(0), 400), return_counts=True)
    assert drawn.tolist() == [0, 5, 6, 7]
    assert counts.min() > 60
    with pytest.raises(InputError) as caught:
        Starts.of(two_runs, 7)
    assert str(caught.value) == (
        "training.homeostasis_time_step is 7, but the longest run has 7 training frames; take fewer steps"
    )


def test_too_long_rollouts_are_refused():
    with pytest.raises(InputError, match="homeostasis_time_step is 4, but the longest run has 4 training frames"):
        Rollouts.of(measured(frames=8, run=np.repeat([0, 1], 4)))
