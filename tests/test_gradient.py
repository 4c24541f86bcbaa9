"""Gradient Phase 1: the loss and its penalties, the descent, and what is concluded from where it ended."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from random_networks import network_of

from metabolismgraph.benchmarks import speed
from metabolismgraph.config import GraphModel, Training, load_config
from metabolismgraph.errors import InputError
from metabolismgraph.fitting.fit import fit
from metabolismgraph.ground_truth import imperfect_phase1
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.homeostasis.joint_descent import fit_jointly
from metabolismgraph.reactions import penalties
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.descent import Coefficients, objective
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.reactions.gradient import (
    Snapshot,
    conclude,
    descend,
    has_settled,
    initial_model,
    snapshot_steps,
)
from metabolismgraph.reactions.minibatches import Batches
from metabolismgraph.runs.checkpoint import load_phase1, save_phase1
from metabolismgraph.system.log_table import LogTable
from metabolismgraph.system.model import RawSubstrateFunction, SubstrateFunction, new_substrate_function
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.trainable import check_frozen

# -- a small planted system

SHALLOW = {"hidden_dim_sub": 8, "n_layers_sub": 2, "hidden_dim_node": 8, "n_layers_node": 2}


@pytest.fixture(scope="module")
def tiny_config():
    return load_config("small").replace(
        {
            "simulation.seed": 1,
            "simulation.n_metabolites": 10,
            "simulation.n_reactions": 18,
            "simulation.n_frames": 400,
            **{f"graph_model.{key}": value for key, value in SHALLOW.items()},
            "training.phase1_method": "gradient",
            "training.batch_size": 8,
            "training.held_out_fraction": 0.0,  # one shape, one compilation
            "training.data_augmentation_loop": 149,  # 1493 steps
            "training.learning_rate_start": 3e-3,
            "training.learning_rate_k": 1e-2,
            "training.phase1_snapshots": 4,
        }
    )


@pytest.fixture(scope="module")
def tiny(tiny_config):
    return simulate(tiny_config)


@pytest.fixture(scope="module")
def descended(tiny, tiny_config):
    return descend(tiny.observations, tiny_config.graph_model, tiny_config.training)


@pytest.fixture(scope="module")
def raw_config(tiny_config):
    return tiny_config.replace({"graph_model.substrate_input": "raw", "training.data_augmentation_loop": 5})


@pytest.fixture(scope="module")
def raw_descended(tiny, raw_config):
    return descend(tiny.observations, raw_config.graph_model, raw_config.training)


def data_of(observations, graph_model=None, **training):
    settings = Training(phase1_method="gradient", **training)
    return Phase1Data(observations, graph_model or GraphModel(**SHALLOW), settings, rule="forward")


def somewhere(data):
    """A model at a random point, output layers included."""
    start = initial_model(data)
    keys = jax.random.split(jax.random.key(3), 3)
    sub, node = start.mlp_sub.perceptron.weights[-1], start.mlp_node.perceptron.weights[-1]
    moved = (
        start.log_k + 0.3 * jax.random.normal(keys[0], start.log_k.shape),
        0.3 * jax.random.normal(keys[1], sub.shape),
        0.3 * jax.random.normal(keys[2], node.shape),
    )
    return eqx.tree_at(
        lambda m: (m.log_k, m.mlp_sub.perceptron.weights[-1], m.mlp_node.perceptron.weights[-1]), start, moved
    )


def observations_of(concentration, *, species="ABC", run=None):
    network = network_of(
        ({"A": 1.0, "B": 2.0}, {"A": -1.0, "B": 1.0}), ({"C": 1.0}, {"C": -1.0, "A": 1.0}), ({}, {"B": 1.0}),
        species=species,
    )  # fmt: skip
    frames = len(concentration)
    return Observations(
        network, np.arange(frames) * 0.1, np.zeros(frames, dtype=np.int64) if run is None else run, concentration
    )


@pytest.fixture(scope="module")
def with_zeros():
    """Orders 1 and 2, a reaction without substrates, exact zeros that come and stay."""
    c = np.exp(np.random.default_rng(0).uniform(-6.0, 4.0, (30, 3)))
    c[7, 0] = 0.0
    c[12:16, 1] = 0.0
    return observations_of(c)


# -- the loss

objective_of = eqx.filter_jit(objective)


@pytest.mark.parametrize("substrate_input", ["log", "raw"])
@pytest.mark.parametrize("aggr_type", ["mul", "add"])
def test_the_table_against_every_edge(with_zeros, substrate_input, aggr_type):
    graph_model = GraphModel(substrate_input=substrate_input, aggr_type=aggr_type, **SHALLOW)
    data = data_of(with_zeros, graph_model)
    model, batches = somewhere(data), Batches.of(data)
    c = jnp.asarray(data.transitions.start)
    exact = eqx.filter_jit(model.reactions)(c, data.structure)
    found = eqx.filter_jit(lambda m, b: b.reactions(m.log_k, LogTable.through(b.tabulate(m.mlp_sub), b.knots), c))(
        model, batches
    )
    scale = np.sqrt(np.mean(np.asarray(exact) ** 2))
    np.testing.assert_allclose(found, exact, atol=1e-5 * scale)
    assert scale > 1e-3
    assert (np.asarray(c) == 0).any()


def test_gradient_of_the_objective_against_finite_differences(with_zeros):
    data = data_of(with_zeros, coeff_k_floor=2.0, k_floor_threshold=0.0, recurrent_training=True, time_step=3)
    batches, coefficients = Batches.of(data), Coefficients.of(data.training)
    chosen = batches.first[::5]
    flat, unravel = ravel_pytree(somewhere(data))
    both = jax.jit(jax.value_and_grad(lambda x: objective(unravel(x), batches, chosen, coefficients)[0]))
    gradient = np.asarray(both(flat)[1])
    rng = np.random.default_rng(1)
    step = 1e-6
    for _ in range(3):
        direction = rng.standard_normal(len(flat)) / np.sqrt(len(flat))
        by_difference = (both(flat + step * direction)[0] - both(flat - step * direction)[0]) / (2 * step)
        assert gradient @ direction == pytest.approx(float(by_difference), rel=1e-4, abs=1e-6)


def test_a_rollout_of_one_step_is_dc_dt_itself(tiny):
    data = data_of(tiny.observations)
    one = Batches.of(data)
    chosen, coefficients, model = one.first[:50], Coefficients.of(data.training), somewhere(data)
    _, misfit = objective_of(model, one, chosen, coefficients)
    rate = eqx.filter_jit(model)
    predicted = rate(one.start[chosen], data.structure)
    assert float(misfit) == pytest.approx(float(jnp.mean((predicted - one.derivative[chosen]) ** 2)), rel=1e-4)
    longer = Batches.of(data_of(tiny.observations, recurrent_training=True, time_step=2))
    _, over_two = objective_of(model, longer, chosen, coefficients)
    ahead = jnp.maximum(one.start[chosen] + 0.1 * predicted, 0.0)
    second = jnp.maximum(ahead + 0.1 * rate(ahead, data.structure), 0.0)
    errors = jnp.stack([(ahead - one.end[chosen]) / 0.1, (second - one.end[chosen + 1]) / 0.2])
    assert float(over_two) == pytest.approx(float(jnp.mean(errors**2)), rel=1e-4)


def test_windows_stay_within_a_run():
    c = np.random.default_rng(0).uniform(1.0, 2.0, (9, 3))
    two_runs = observations_of(c, run=np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]))
    first = Batches.of(data_of(two_runs, recurrent_training=True, time_step=3)).first
    assert first.tolist() == [0, 3, 4]  # transitions 0-2 are the first run's, 3-6 the second's
    with pytest.raises(InputError, match=r"training.time_step is 5, but no run has so many steps"):
        Batches.of(data_of(two_runs, recurrent_training=True, time_step=5))


def test_entries_that_break_the_rate_equation_do_not_count(with_zeros):
    data = data_of(with_zeros)
    batches, coefficients, model = Batches.of(data), Coefficients.of(data.training), somewhere(data)
    chosen = jnp.arange(len(data.transitions.dt))
    weight = np.asarray(batches.weight)
    # Into and out of zero; staying there follows the equation, as a species that is absent does.
    assert sorted(map(tuple, np.argwhere(weight == 0).tolist())) == [(6, 0), (7, 0), (11, 1), (15, 1)]
    _, misfit = objective_of(model, batches, chosen, coefficients)
    spoilt = dataclasses.replace(batches, derivative=batches.derivative + 100.0 * (1 - batches.weight))
    assert float(objective_of(model, spoilt, chosen, coefficients)[1]) == float(misfit)
    wrong = dataclasses.replace(batches, derivative=batches.derivative + 1e4 * batches.weight)
    assert float(objective_of(model, wrong, chosen, coefficients)[1]) > 2 * float(misfit)


# -- penalties


def test_substrate_function_that_rises_costs_nothing():
    rising = jnp.array([[0.0, 1.0, 1.0, 5.0], [-3.0, -2.0, 0.0, 0.5]])
    assert float(penalties.substrate_falls(rising)) == 0.0
    falling = rising.at[0, 2].set(0.25)  # 1.0 -> 0.25
    assert float(penalties.substrate_falls(falling)) == pytest.approx(0.75 / 2)
    slope = jax.grad(penalties.substrate_falls)(falling)
    assert slope[0].tolist() == [0.0, 0.5, -0.5, 0.0]  # lift the one that is low, lower the one before it
    assert slope[1].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_substrate_norm_is_zero_at_one():
    assert float(penalties.substrate_norm(jnp.zeros(()))) == 0.0
    for value in (0.5, 2.0):
        assert float(penalties.substrate_norm(jnp.log(value))) == pytest.approx((value - 1) ** 2)
        assert np.sign(jax.grad(penalties.substrate_norm)(jnp.log(value))) == np.sign(value - 1)


def test_node_magnitude_is_the_mean_of_absolute_values():
    assert float(penalties.node_magnitude(jnp.zeros((2, 3)))) == 0.0
    node = jnp.array([[1.0, -2.0, 0.0]])
    assert float(penalties.node_magnitude(node)) == 1.0
    assert jax.grad(penalties.node_magnitude)(node)[0, :2].tolist() == pytest.approx([1 / 3, -1 / 3])


def test_rate_constants_above_the_floor_cost_nothing():
    threshold = jnp.asarray(-3.0)
    assert float(penalties.rate_constant_floor(jnp.array([-3.0, -1.0]), threshold)) == 0.0
    low = jnp.array([-5.0, -1.0])
    assert float(penalties.rate_constant_floor(low, threshold)) == 1.0
    assert jax.grad(penalties.rate_constant_floor)(low, threshold).tolist() == [-0.5, 0.0]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("coeff_MLP_sub_diff", "sub_diff"),
        ("coeff_MLP_sub_norm", "sub_norm"),
        ("coeff_MLP_node_L1", "node_l1"),
        ("coeff_k_floor", "k_floor"),
    ],
)
def test_every_coefficient_weighs_its_own_penalty(with_zeros, key, name):
    nothing = dict.fromkeys(("coeff_MLP_sub_diff", "coeff_MLP_sub_norm", "coeff_MLP_node_L1", "coeff_k_floor"), 0.0)
    data = data_of(with_zeros, GraphModel(substrate_input="raw", **SHALLOW), **nothing, k_floor_threshold=1.0)
    batches, model = Batches.of(data), somewhere(data)
    last = model.mlp_sub.perceptron.weights[-1]
    tabulate = eqx.filter_jit(batches.tabulate)
    rising = np.asarray(tabulate(model.mlp_sub))[0, [0, -1]]
    if rising[1] > rising[0]:  # it should fall
        model = eqx.tree_at(lambda m: m.mlp_sub.perceptron.weights[-1], model, -last)
    chosen = batches.first[:5]

    def extra(weight):
        training = Training(**{**nothing, key: weight}, k_floor_threshold=1.0)
        loss, misfit = objective_of(model, batches, chosen, Coefficients.of(training))
        return float(loss - misfit)

    values = tabulate(model.mlp_sub)
    node = eqx.filter_jit(model.homeostasis)(batches.start[chosen])
    alone = {
        "sub_diff": penalties.substrate_falls(values),
        "sub_norm": penalties.substrate_norm(model.mlp_sub(jnp.zeros(()), jnp.ones(()))),
        "node_l1": penalties.node_magnitude(node),
        "k_floor": penalties.rate_constant_floor(model.log_k, jnp.asarray(1.0)),
    }
    assert extra(0.0) == 0.0
    assert extra(3.0) == pytest.approx(3.0 * float(alone[name]), rel=1e-6)
    assert float(alone[name]) > 1e-4


# -- the descent


def r_squared(log_k, truth, identifiable):
    true = np.log10(truth.k)[identifiable]
    return 1 - np.sum((log_k[identifiable] - true) ** 2) / np.sum((true - true.mean()) ** 2)


def test_the_loss_falls_and_rate_constants_are_found(tiny, descended):
    seen = descended.result.identifiability.identifiable
    reached = [r_squared(s.log_k, tiny.truth, seen) for s in descended.snapshots]
    assert [s.step for s in descended.snapshots] == [10, 53, 281, 1493]
    assert reached[0] < 0.2
    assert reached[0] < reached[1] < reached[2] < reached[3]
    assert reached[3] > 0.8
    losses = descended.result.losses
    assert np.exp(losses[0]) > 0.5
    assert np.exp(losses[-1] / 2) < 0.2
    assert len(losses) == 7  # four snapshots, at 500 and 1000 steps, and the frozen model at the end
    np.testing.assert_array_equal(descended.result.log_k, descended.snapshots[-1].log_k)
    assert descended.result.log_k.dtype == np.float64


def test_the_same_seed_gives_the_same_bits_however_it_is_cut(tiny, tiny_config, descended):
    def end(**training):
        config = tiny_config.replace({f"training.{key}": value for key, value in training.items()})
        return descend(tiny.observations, config.graph_model, config.training).result.log_k

    np.testing.assert_array_equal(end(phase1_snapshots=0), descended.result.log_k)
    assert np.abs(end(seed=43) - descended.result.log_k).max() > 1e-3


def test_no_step_is_no_change(tiny, tiny_config):
    config = tiny_config.replace({"training.n_epochs": 0, "training.log_k_prior": [-3.0, -1.0]})
    found = descend(tiny.observations, config.graph_model, config.training)
    assert found.snapshots == ()
    np.testing.assert_array_equal(found.result.log_k, np.full(18, -2.0))
    assert found.result.losses.shape == (1,)
    assert not found.result.converged


def test_without_a_prior_log_k_starts_where_mass_action_is_as_fast_as_the_data(tiny):
    """Within the range of the truth, [-2, -1], which is nowhere told."""
    start = np.asarray(initial_model(data_of(tiny.observations)).log_k)
    assert np.ptp(start) == 0
    assert -2 < start[0] < -1


def test_recurrent_training_reduces_its_loss(tiny, tiny_config):
    config = tiny_config.replace(
        {"training.recurrent_training": True, "training.time_step": 4, "training.data_augmentation_loop": 60}
    )
    found = descend(tiny.observations, config.graph_model, config.training)
    assert np.exp(found.result.losses[-2]) < 0.5 * np.exp(found.result.losses[0])
    seen = found.result.identifiability.identifiable
    reached = [r_squared(s.log_k, tiny.truth, seen) for s in found.snapshots]
    assert reached[-1] > reached[0] + 0.2


def test_the_floor_holds_rate_constants_up(tiny, tiny_config, descended):
    floor = {"training.coeff_k_floor": 1e4, "training.k_floor_threshold": -1.4}
    config = tiny_config.replace(floor)
    found = descend(tiny.observations, config.graph_model, config.training)
    assert descended.result.log_k.min() < -1.5
    assert found.result.log_k.min() > -1.45


def test_learning_rates_belong_to_their_parts(tiny, tiny_config, descended):
    """With a rate too small to matter a part stays where it is."""
    still = {"training.learning_rate_k": 1e-12, "training.data_augmentation_loop": 5}
    config = tiny_config.replace(still)
    found = descend(tiny.observations, config.graph_model, config.training)
    assert np.ptp(found.result.log_k) < 1e-6
    start = data_of(tiny.observations, config.graph_model).initial_function()
    assert float(jnp.abs(found.result.mlp_sub.skip - start.skip).max()) > 1e-2
    config = config.replace({"training.learning_rate_k": 3e-3, "training.learning_rate_sub": 1e-12})
    found = descend(tiny.observations, config.graph_model, config.training)
    assert np.ptp(found.result.log_k) > 1e-2
    assert float(jnp.abs(found.result.mlp_sub.skip - start.skip).max()) < 1e-6


def test_what_is_refused(tiny, tiny_config):
    def run(**changes):
        config = tiny_config.replace(changes)
        fit_reactions(tiny.observations, config.graph_model, config.training)

    with pytest.raises(InputError, match="substrate_input is raw, but training.phase1_method projection needs log"):
        run(**{"graph_model.substrate_input": "raw", "training.phase1_method": "projection"})
    with pytest.raises(InputError, match="not finite after .* gradient steps; lower the learning rates"):
        run(**{"training.learning_rate_k": 1e30})


# -- the raw substrate function


def test_raw_function_starts_at_about_one():
    c = np.exp(np.random.default_rng(0).normal(0.5, 1.5, 500))
    f = new_substrate_function(GraphModel(substrate_input="raw", **SHALLOW), c, np.random.default_rng(0))
    assert isinstance(f, RawSubstrateFunction)
    value = np.exp(np.asarray(f(jnp.log(jnp.asarray(c)), jnp.ones(()))))
    assert value.min() > 0.5
    assert value.max() < 2.0
    assert value.std() > 1e-3
    assert isinstance(new_substrate_function(GraphModel(**SHALLOW), c, np.random.default_rng(0)), SubstrateFunction)


def test_raw_function_keeps_its_logarithm_far_below_zero():
    f = new_substrate_function(GraphModel(substrate_input="raw", **SHALLOW), np.ones(1), np.random.default_rng(0))
    low = eqx.tree_at(lambda f: f.perceptron.biases[-1], f, jnp.full(1, -400.0))
    value, slope = jax.value_and_grad(lambda f: f(jnp.zeros(()), jnp.ones(())))(low)
    assert float(value) == pytest.approx(-400.0, abs=1.0)
    assert float(slope.perceptron.biases[-1][0]) == pytest.approx(1.0)


def test_the_gauge_changes_no_flux(tiny, raw_config, raw_descended):
    """f(1, 1) = 1 afterwards; what f loses, k gains."""
    found = raw_descended.result
    assert float(found.mlp_sub(jnp.zeros(()), jnp.ones(()))) == pytest.approx(0.0, abs=1e-12)
    alpha = float(found.mlp_sub.gauge)
    assert abs(alpha) > 1e-4
    data = data_of(tiny.observations, raw_config.graph_model)
    model = eqx.tree_at(lambda m: (m.log_k, m.mlp_sub), initial_model(data), (jnp.asarray(found.log_k), found.mlp_sub))
    substrates = np.array([2] * 18)  # every reaction is A + B -> 2 B
    before = eqx.tree_at(
        lambda m: (m.log_k, m.mlp_sub.gauge),
        model,
        (jnp.asarray(found.log_k - substrates * alpha / np.log(10)), jnp.zeros(())),
    )
    c = jnp.asarray(data.transitions.start)
    expected = before.reactions(c, data.structure)
    np.testing.assert_allclose(model.reactions(c, data.structure), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["log", "raw"])
def test_a_checkpoint_is_read_back(tmp_path, tiny_config, raw_config, descended, raw_descended, kind):
    config, found = {"log": (tiny_config, descended), "raw": (raw_config, raw_descended)}[kind]
    save_phase1(tmp_path / "phase1", found.result, 1.0)
    back = load_phase1(tmp_path / "phase1", config.graph_model)
    assert type(back.mlp_sub) is type(found.result.mlp_sub)
    log_c = jnp.linspace(-5.0, 4.0, 7)
    np.testing.assert_array_equal(back.mlp_sub(log_c, jnp.ones(7)), found.result.mlp_sub(log_c, jnp.ones(7)))
    np.testing.assert_array_equal(back.log_k, found.result.log_k)
    assert back.notes == found.result.notes
    other = GraphModel(**{**config.graph_model.model_dump(), "substrate_input": "raw" if kind == "log" else "log"})
    with pytest.raises(InputError, match="does not fit graph_model"):
        load_phase1(tmp_path / "phase1", other)


# -- what is concluded


def test_homeostasis_is_the_line_through_the_residual_of_the_frozen_model(tiny, tiny_config, descended):
    found = descended.result
    data = data_of(tiny.observations, tiny_config.graph_model)
    model = eqx.tree_at(lambda m: (m.log_k, m.mlp_sub), initial_model(data), (jnp.asarray(found.log_k), found.mlp_sub))
    c = data.transitions.start
    left = data.transitions.derivative - np.asarray(model.reactions(jnp.asarray(c), data.structure))
    for i in (0, 5, 9):
        slope, offset = np.polyfit(c[:, i], left[:, i], 1)
        assert found.slope[i] == pytest.approx(slope, rel=1e-3)
        assert found.offset[i] == pytest.approx(offset, rel=1e-3)
    assert np.isfinite(found.slope_error).all()
    assert (found.slope_error > 0).all()
    assert np.isinf(found.log_k_error[~found.identifiability.identifiable]).all()
    assert found.rule == "forward"


def test_the_true_model_leaves_nothing(tiny, tiny_config):
    """Planted k and mass action: slopes are the planted ones, errors are small, every verdict is as from projection."""
    law = data_of(tiny.observations, tiny_config.graph_model).initial_function()
    law = eqx.tree_at(lambda f: f.skip, law, jnp.array([1.0, 0.0]))
    snapshot = Snapshot(0, np.log10(tiny.truth.k), law, np.zeros(0))
    found = conclude(snapshot, tiny.observations, tiny_config.graph_model, tiny_config.training)
    np.testing.assert_allclose(found.slope, -tiny.truth.lam, rtol=5e-3)
    assert np.exp(found.losses[-1] / 2) < 1e-3  # the data are rounded to float32
    assert (found.slope_error < 0.01 * tiny.truth.lam).all()
    assert found.log_k_error[found.identifiability.identifiable].max() < 1e-3
    np.testing.assert_array_equal(
        found.identifiability.identifiable,
        conclude(
            dataclasses.replace(snapshot, log_k=snapshot.log_k + 1), tiny.observations, tiny_config.graph_model,
            tiny_config.training,
        ).identifiability.identifiable,
    )  # fmt: skip


def test_snapshots_are_log_spaced():
    assert snapshot_steps(1000, 3) == (10, 100, 1000)
    assert snapshot_steps(1000, 1) == (1000,)
    assert snapshot_steps(5, 4) == (5,)
    assert snapshot_steps(0, 4) == ()
    assert snapshot_steps(1000, 0) == ()


def test_settled_is_when_the_last_tenth_brings_little():
    assert has_settled(np.zeros(20))
    assert not has_settled(-np.arange(20.0))
    assert not has_settled(np.zeros(5))


# -- checkpoints for the benchmark, and its clock


def test_the_first_crossing_is_picked():
    assert imperfect_phase1.pick([0.0, 0.5, 0.69, 0.75, 0.6, 0.7], 0.7) == 2
    assert imperfect_phase1.pick([0.0, 0.5, 0.72, 0.7], 0.7) == 2
    assert imperfect_phase1.pick([0.0, 0.6, 0.4], 0.7) == 1
    assert imperfect_phase1.pick([0.9, 0.8], 0.7) == 0


def test_imperfect_checkpoints(tiny, tiny_config):
    """Its R2 is near the one asked for."""
    descent = {**imperfect_phase1.DESCENT, "training.learning_rate_k": 1e-2, "training.learning_rate_sub": 3e-3}
    config = tiny_config.replace({"training.phase1_stop_at_r2": 0.6})
    found = imperfect_phase1.train_imperfect_phase1(tiny, config, descent=descent, steps=1500)
    assert r_squared(found.log_k, tiny.truth, found.identifiability.identifiable) == pytest.approx(0.6, abs=0.08)
    with pytest.raises(InputError, match="phase1_stop_at_r2 is empty"):
        imperfect_phase1.train_imperfect_phase1(tiny, tiny_config)
    with pytest.raises(InputError, match="phase1_snapshots is 0"):
        imperfect_phase1.train_imperfect_phase1(
            tiny, config, 0.6, descent={**descent, "training.phase1_snapshots": 0}, steps=10
        )


def test_imperfect_checkpoints_are_trained_without_the_held_out_frames(monkeypatch, tiny, tiny_config):
    class Seen(Exception):  # noqa: N818
        pass

    def stop(observations, graph_model, training, progress):
        raise Seen(observations.n_frames, training.steps_per_epoch(observations.n_frames))

    monkeypatch.setattr(imperfect_phase1, "descend", stop)
    with pytest.raises(Seen) as seen:
        imperfect_phase1.train_imperfect_phase1(
            tiny, tiny_config.replace({"training.held_out_fraction": 0.2}), 0.6, steps=1000
        )
    frames, steps = seen.value.args
    assert frames == 321
    assert 1000 <= steps < 1010


def test_speed_is_measured(monkeypatch, tiny_config):
    monkeypatch.setattr(speed, "load_config", lambda _: tiny_config)
    monkeypatch.setattr(speed, "_REPEATS", 1)
    monkeypatch.setattr(speed, "_FAST_STEPS", 50)
    monkeypatch.setattr(speed, "_PLAIN_STEPS", 2)
    measured = speed.gradient_phase1()
    assert set(measured) == {"steps_per_second", "plain_steps_per_second", "ratio"}
    assert measured["ratio"] == pytest.approx(measured["steps_per_second"] / measured["plain_steps_per_second"])


# -- joint training


def test_joint_training_keeps_what_the_descent_learned(tiny, tiny_config, descended):
    """The same descent: k and f to the bit, and MLP_node and embeddings, which have moved."""
    config = tiny_config.replace({"training.joint_training": True})
    phase1, phase2 = fit_jointly(tiny.observations, config.graph_model, config.training)
    np.testing.assert_array_equal(phase1.log_k, descended.result.log_k)
    check_frozen(phase1, phase2.model)
    assert len(phase2.losses) == descended.snapshots[-1].step
    assert phase2.node_magnitude > 0
    result = fit(tiny.observations, config.replace({"training.held_out_fraction": 0.0}))
    np.testing.assert_array_equal(result.phase1.log_k, phase1.log_k)
    np.testing.assert_array_equal(result.phase2.model.embeddings, phase2.model.embeddings)


def test_the_scale_of_the_rate_law_is_kept(tmp_path, raw_config, raw_descended):
    """f(1, 1) before it was moved into k."""
    assert raw_descended.result.alpha != 1.0
    save_phase1(tmp_path / "phase1", raw_descended.result, 1.0)
    assert load_phase1(tmp_path / "phase1", raw_config.graph_model).alpha == raw_descended.result.alpha


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phase1_method": "projection"}, "phase1_method is projection"),
        ({"skip_phase1": True}, "skip_phase1 is true"),
    ],
)
def test_joint_training_needs_gradient_descent(tiny_config, changes, reason):
    changes = {"joint_training": True, "phase1_method": "gradient"} | changes
    with pytest.raises(InputError, match=f"joint_training is true, but {reason}"):
        tiny_config.replace({f"training.{key}": value for key, value in changes.items()})
