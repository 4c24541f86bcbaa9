"""Phase 2: types and slopes recovered, Phase 1 untouched."""

import dataclasses
import functools
import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from recovered import assert_types, lines

from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.homeostasis import fit as phase2
from metabolismgraph.homeostasis.binned_regression import Regress, condense, regress, solve_outputs
from metabolismgraph.homeostasis.fit import fit_homeostasis, initial_model
from metabolismgraph.homeostasis.initial_embeddings import response_coordinates
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import make_plan, residual
from metabolismgraph.homeostasis.training_plan import Schedule
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs.checkpoint import load_phase1, load_phase2, save_phase1, save_phase2
from metabolismgraph.system.trainable import check_frozen


@pytest.fixture(scope="module")
def both(small_config):
    """Both phases on another simulation of the same size."""

    def inner(**changes):
        config = small_config.replace({f"simulation.{key}": value for key, value in changes.items()})
        data = simulate(config)
        phase1 = fit_reactions(data.observations, config.graph_model, config.training)
        return fit_homeostasis(data.observations, phase1, config.graph_model, config.training), data.truth

    return inner


@pytest.fixture(scope="module")
def data(small, small_phase1, small_config):
    return Phase2Data(small.observations, small_phase1, small_config.graph_model, small_config.training)


@pytest.fixture(scope="module")
def start(data):
    """The model before any step, and the points that it is fitted to."""
    residuals = data.checkpoint_residuals()
    return initial_model(data, residuals), condense(residuals)


@pytest.fixture(scope="module")
def similarity(data):
    """The loss term on the embeddings."""
    (term,) = make_plan(data).penalties
    return term


# -- recovery


def test_types_and_slopes(small, small_phase2):
    found = assert_types(small_phase2.model, small.truth)
    embeddings = np.asarray(small_phase2.model.embeddings)
    centers = [embeddings[found == one].mean(axis=0) for one in (0, 1)]
    spread = max(np.abs(embeddings[found == one] - centers[one]).max() for one in (0, 1))
    assert np.linalg.norm(centers[0] - centers[1]) > 20 * spread


def test_losses_fall_to_almost_nothing(small_phase2, small_config):
    losses, rms = small_phase2.losses, 0.01
    assert small_phase2.loss_unit == "(concentration/time)²"
    assert list(small_phase2.components) == ["similarity"]
    descent = small_config.training.phase2_steps
    assert len(small_phase2.components["similarity"]) == descent
    assert len(losses) > descent
    assert np.sqrt(losses[-1]) < 1e-3 * rms
    # In concentration per time: homeostasis on this data set is about a hundredth.
    assert 0.2 * rms < small_phase2.node_magnitude < 5 * rms


def test_one_type_is_not_torn_apart(both):
    found, truth = both(n_metabolite_types=1, homeostatic_lambda_per_type=[0.002], homeostatic_baseline_per_type=[5.0])
    assert_types(found.model, truth)


@pytest.mark.parametrize(
    ("lam", "baseline"),
    [([0.001, 0.001, 0.001, 0.002], [4.0, 4.0, 4.0, 6.0]), ([0.001, 0.002, 0.002, 0.002], [4.0, 6.0, 6.0, 6.0])],
    ids=["the weak one common", "the strong one common"],
)
def test_unbalanced_types(both, lam, baseline):
    found, truth = both(n_metabolite_types=4, homeostatic_lambda_per_type=lam, homeostatic_baseline_per_type=baseline)
    assert np.bincount((truth.lam > 0.0015).astype(int)).min() <= 8
    assert_types(found.model, truth)


def test_three_types(both):
    found, truth = both(
        n_metabolite_types=3,
        homeostatic_lambda_per_type=[0.0005, 0.002, 0.004],
        homeostatic_baseline_per_type=[4.0, 6.0, 8.0],
    )
    assert_types(found.model, truth)


# -- frozen means frozen


def test_phase1_is_bit_identical(small_phase1, small_phase2):
    model = small_phase2.model
    np.testing.assert_array_equal(model.log_k, small_phase1.log_k)
    for a, b in zip(jax.tree.leaves(model.mlp_sub), jax.tree.leaves(small_phase1.mlp_sub), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("log_k", lambda m: m.log_k),
        ("mlp_sub", lambda m: m.mlp_sub.perceptron.weights[1]),
        ("mlp_sub", lambda m: m.mlp_sub.skip),
        ("mlp_sub", lambda m: m.mlp_sub.center),
    ],
)
def test_a_changed_bit_is_noticed(small_phase2, name, where):
    model = small_phase2.model
    check_frozen(model, model)
    old = np.array(where(model))
    old.flat[0] = np.nextafter(old.flat[0], np.inf)
    tampered = eqx.tree_at(where, model, jnp.asarray(old))
    with pytest.raises(FirewallError, match=f"Phase 2 changed {name}, which is frozen after Phase 1"):
        check_frozen(model, tampered)


def test_every_run_is_checked(monkeypatch, small, small_phase1, small_config):
    def descend(model, plan, data, progress):
        tampered = eqx.tree_at(lambda m: m.log_k, model, model.log_k * (1 + 1e-15))
        return tampered, np.zeros(1), {}, {}

    monkeypatch.setattr(phase2, "_descend", descend)
    monkeypatch.setattr(residual, "polish", lambda model, progress, points: (model, np.zeros(1)))
    with pytest.raises(FirewallError, match="its result is invalid"):
        fit_homeostasis(small.observations, small_phase1, small_config.graph_model, small_config.training)


def test_what_phase2_learns_may_change(small_phase2):
    model = small_phase2.model
    moved = eqx.tree_at(lambda m: (m.embeddings, m.mlp_node.slope), model, (model.embeddings + 1, jnp.ones(3)))
    check_frozen(model, moved)


def test_training_moves_nothing_else(start, small_phase2):
    """The standardisation of MLP_node's input is constant too."""
    before, points = start
    after = small_phase2.model.mlp_node
    np.testing.assert_allclose(after.center, before.mlp_node.center, rtol=1e-12)
    np.testing.assert_allclose(after.width, before.mlp_node.width, rtol=1e-12)
    np.testing.assert_allclose(after.unit, points.unit, rtol=1e-12)


# -- the start


def test_nothing_at_the_start_yet_gradients(start, similarity):
    model, points = start
    assert jnp.abs(model.homeostasis(points.c.T)).max() == 0

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(m):
        return regress(m, points).loss + similarity(m)

    found = gradient(model)
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all()
    assert jnp.abs(found.mlp_node.perceptron.weights[-1]).min() > 0
    assert jnp.abs(found.mlp_node.slope).max() > 0
    assert jnp.abs(found.embeddings).max() > 0


def test_equal_embeddings_have_finite_gradients(start, similarity):
    model, _ = start
    model = eqx.tree_at(lambda m: m.embeddings, model, jnp.zeros((30, 2)))
    value, gradient = eqx.filter_jit(jax.value_and_grad(lambda m: similarity(m)))(model)  # noqa: PLW0108
    assert np.isfinite(value)
    assert np.isfinite(gradient.embeddings).all()


def test_output_layers_are_solved_exactly(start, small):
    """With coefficients as embeddings a straight line explains all, and nothing is left for the correction."""
    model, points = start
    solved = solve_outputs(model, points, jnp.asarray(1e-10))
    loss = eqx.filter_jit(regress)(solved, points)
    assert float(loss.misfit) < 1e-6
    assert float(loss.correction) < 1e-6
    slope, offset = lines(solved)
    np.testing.assert_allclose(slope, -small.truth.lam, rtol=0.01)
    np.testing.assert_allclose(offset, small.truth.lam * small.truth.baseline, rtol=0.01)


def test_solved_output_layers_are_a_minimum(start):
    """Also where no straight line will do."""
    model, points = start
    bent = points._replace(residual=points.residual + 0.3 * jnp.sin(points.c))
    solved = solve_outputs(model, bent, jnp.asarray(1e-10))
    assert float(jnp.abs(solved.mlp_node.perceptron.weights[-1]).max()) > 0.01
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: regress(m, bent).loss))
    before, after = gradient(model).mlp_node, gradient(solved).mlp_node
    for part in (lambda f: f.slope, lambda f: f.offset, lambda f: f.perceptron.weights[-1]):
        assert jnp.abs(part(after)).max() < 1e-3 * jnp.abs(part(before)).max()


@pytest.mark.parametrize("apart", [1.0, 1e-6])
@pytest.mark.parametrize("unit", [1.0, 1e-25])
def test_single_precision_is_enough_for_gradient_steps(start, apart, unit):
    """Also for concentrations that differ by less than single precision resolves, and rates whose squares vanish."""
    model, points = start
    bent = points._replace(residual=points.residual + 0.3 * jnp.sin(points.c))
    model = solve_outputs(model, bent, jnp.asarray(1e-2))
    center, width = model.mlp_node.center, model.mlp_node.width
    model = eqx.tree_at(
        lambda m: (m.mlp_node.center, m.mlp_node.width, m.mlp_node.unit),
        model,
        (jnp.asarray(1e3), width * apart, model.mlp_node.unit * unit),
    )
    c, reach = (1e3 + (x - center) * apart for x in (bent.c, bent.reach))
    bent = bent._replace(c=c, reach=reach, unit=bent.unit * unit)
    exact = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: regress(m, bent).loss))(model)
    steps = eqx.filter_jit(
        eqx.filter_value_and_grad(lambda m: Regress(bent)(m, jax.random.key(0), jnp.zeros(())).value)
    )(model)
    assert float(steps[0]) == pytest.approx(float(exact[0]), rel=1e-5)
    for own, right in zip(jax.tree.leaves(steps[1]), jax.tree.leaves(exact[1]), strict=True):
        if right.ndim:
            np.testing.assert_allclose(own, right, atol=1e-4 * float(jnp.abs(right).max()))
    misfit = float(Regress(bent)(model, jax.random.key(0), jnp.zeros(())).misfit)
    assert misfit == pytest.approx(float(regress(model, bent).misfit) * float(bent.unit) ** 2, rel=1e-5)


def test_points_are_the_residual(small, start):
    """Mean residual of a bin is the true homeostasis at the bin's mean concentration."""
    _, points = start
    pull = -small.truth.lam[:, None] * (np.asarray(points.c) - small.truth.baseline[:, None])
    np.testing.assert_allclose(points.residual * points.unit, pull, atol=2e-5)
    assert float(jnp.sqrt(jnp.mean(points.residual**2))) == pytest.approx(1.0)
    assert (np.diff(points.c, axis=1) >= 0).all()
    assert (points.weight > 0.9).all()


def test_rows_left_out_do_not_enter(small, data):
    """A species without a row has no weight; one with few has the mean of those."""
    keep = data.phase1.keep.copy()
    keep[:, 4] = False
    keep[3:, 7] = False
    points = condense(dataclasses.replace(data.checkpoint_residuals(), keep=keep))
    assert (points.weight[4] == 0).all()
    assert int((points.weight[7] > 0).sum()) == 3
    assert np.sort(points.c[7])[-3:].tolist() == np.sort(small.observations.concentration[:3, 7]).tolist()


# -- response coordinates


@pytest.fixture
def coordinates():
    """Of evidence with given slopes and offsets."""

    def inner(slope, offset, error=0.0, moving=None, dim=2, at=None):
        """`at`: concentration at which the rate is known, if the slope has an error."""
        n = len(slope)
        error = np.broadcast_to(error, n)
        residuals = Residuals(
            at=np.ones((3, n)),
            residual=np.zeros((3, n)),
            slope=np.array(slope, dtype=float),
            offset=np.array(offset, dtype=float),
            slope_error=error,
            offset_error=error if at is None else at * error,
            slope_offset_covariance=np.zeros(n) if at is None else -at * error**2,
            noise=np.ones(n),
            keep=np.ones((3, n), dtype=bool),
        )
        return response_coordinates(residuals, np.ones(n, dtype=bool) if moving is None else np.array(moving), dim)

    return inner


TWO_TYPES = [-1.0] * 5 + [-3.0] * 5


def test_types_lie_apart(coordinates):
    found = coordinates(TWO_TYPES, [4.0] * 10)
    assert found[:5, 0].tolist() == [1.0] * 5
    assert found[5:, 0].tolist() == [-1.0] * 5
    assert (found[:, 1] == 0).all()


def test_small_differences_are_not_blown_up(coordinates):
    almost = np.linspace(-1.001, -0.999, 10)
    assert np.abs(coordinates(almost, [4.0] * 10)[:, 0]).max() < 0.05


def test_uncertain_differences_are_not_blown_up(coordinates):
    assert np.abs(coordinates(TWO_TYPES, [4.0] * 10, error=2.0)[:, 0]).max() < 0.2


def test_outliers_are_clipped(coordinates):
    found = coordinates([*TWO_TYPES * 5, -1000.0, 1000.0], [4.0] * 52)
    assert found[[0, 5, 50, 51], 0].tolist() == [1.0, -1.0, -1.5, 1.5]


@pytest.mark.parametrize(("baseline", "like"), [(4.0, 0), (6.0, 5), (5.0, None)])
def test_an_uncertain_line_is_that_of_the_others_which_explains_it(coordinates, baseline, like):
    """A species at rest determines where its line is zero, not its slope; -(c - 4) and -3 (c - 6) are the others."""
    slope, error = [*TWO_TYPES, -5.0], [0.0] * 10 + [3.0]
    found = coordinates(slope, [4.0] * 5 + [18.0] * 5 + [5.0 * baseline], error=error, at=baseline)
    assert (found[:5] == found[0]).all()
    assert (found[5:10] == found[5]).all()
    if like is None:  # no line of the others has its zero at 5: its own remains
        np.testing.assert_allclose(found[10, 0] - found[5, 0], found[5, 0] - found[0, 0])
    else:
        np.testing.assert_allclose(found[10], found[like], atol=1e-3)


def test_a_line_that_both_types_explain_lies_between(coordinates):
    """The lines -(c - 4) and -3 (c - 6) meet at 7."""
    found = coordinates([*TWO_TYPES, -2.0], [4.0] * 5 + [18.0] * 5 + [11.0], error=[0.0] * 10 + [20.0], at=7.0)
    np.testing.assert_allclose(found[10], (found[0] + found[5]) / 2, atol=0.05)


def test_without_certain_lines_none_is_replaced(coordinates):
    few = coordinates(TWO_TYPES, [4.0] * 10, error=0.6)
    assert len(np.unique(few[:, 0])) == 2


def test_fixed_species_lie_in_the_middle(coordinates):
    found = coordinates([*TWO_TYPES, 77.0], [4.0] * 11, moving=[True] * 10 + [False])
    assert found[-1].tolist() == [0, 0]
    assert found[:10].tolist() == coordinates(TWO_TYPES, [4.0] * 10).tolist()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_dimensions(coordinates, dim):
    found = coordinates(TWO_TYPES, range(10), dim=dim)
    assert found.shape == (10, dim)
    full = coordinates(TWO_TYPES, range(10))
    np.testing.assert_array_equal(found[:, :2], full[:, :dim])
    assert (found[:, 2:] == 0).all()


def test_no_homeostasis_at_all(coordinates):
    assert (coordinates([0.0] * 4, [0.0] * 4) == 0).all()


def test_a_random_start_is_random_and_reproducible(data, small_config):
    def start(seed):
        training = small_config.replace({"training.embedding_start": "random", "training.seed": seed}).training
        model = initial_model(dataclasses.replace(data, training=training), data.checkpoint_residuals())
        return np.asarray(model.embeddings)

    np.testing.assert_array_equal(start(1), start(1))
    assert (start(1) != start(2)).all()
    assert 0.5 < start(1).std() < 1.5


# -- comparison with MLP_node = 0


def test_the_gain_tells_learning_from_none(tmp_path, small, small_phase1, small_phase2, small_config):
    assert small_phase2.gain > 0.999
    save_phase2(tmp_path / "phase2", small_phase2, 1.0)
    assert load_phase2(tmp_path / "phase2", small_config.graph_model).gain == small_phase2.gain


@pytest.mark.parametrize(("factor", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.5, 1.0), (2.5, -3.0, -0.5)])
def test_the_gain_of_an_answer_without_training(small, small_phase1, small_config, monkeypatch, factor, low, high):
    """No pull is worth nothing, the right one something, and one that is far too strong less than nothing."""

    def plan_of(data, progress, orthogonalised):
        plan = make_plan(data, progress)
        scaled = {name: factor * getattr(plan.residuals, name) for name in ("residual", "slope", "offset")}
        residuals = dataclasses.replace(plan.residuals, **scaled) if factor else plan.residuals
        start = functools.partial(residual.start_from_line, points=condense(residuals)) if factor else plan.start
        return dataclasses.replace(plan, residuals=residuals, start=start, steps=100, schedule=Schedule(peak=0.0))

    monkeypatch.setattr(phase2, "make_plan", plan_of)
    training = small_config.training.model_copy(update={"strategies": ()})
    found = fit_homeostasis(small.observations, small_phase1, small_config.graph_model, training)
    assert low <= found.gain <= high


# -- reproducibility


def test_same_seed_same_bits(small, small_phase1, small_phase2, small_config):
    again = fit_homeostasis(small.observations, small_phase1, small_config.graph_model, small_config.training)
    for a, b in zip(jax.tree.leaves(again.model), jax.tree.leaves(small_phase2.model), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.losses, small_phase2.losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, meta: meta.pop("loss_unit"), "loss_unit is missing, or of another kind"),
        (lambda arrays, meta: meta.update(node_magnitude="big"), "node_magnitude is missing, or of another kind"),
        (lambda arrays, meta: meta.update(notes=[1]), "notes.0 is missing, or of another kind"),
        (lambda arrays, meta: arrays.pop("losses"), "losses is missing"),
        (lambda arrays, meta: arrays.update(losses=np.zeros((2, 2))), "losses has another shape"),
        (lambda arrays, meta: arrays.update(losses=np.zeros(0)), "losses is empty"),
        (lambda arrays, meta: arrays.update({"snapshot.x": np.zeros(1)}), "snapshot.x is not known"),
        (lambda arrays, meta: arrays.update({"snapshot": np.zeros(1), "snapshot.": np.zeros(1)}), "snapshot. is not"),
    ],
)
def test_a_checkpoint_with_a_valid_digest_and_other_content(tmp_path, small_phase2, small_config, change, message):
    path = tmp_path / "phase2"
    save_phase2(path, small_phase2, 1.0)
    arrays = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
    meta = json.loads(path.with_suffix(".json").read_text())
    change(arrays, meta)
    content = safetensors.numpy.save(arrays)
    path.with_suffix(".safetensors").write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(meta | {"sha256": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(InputError, match=f"holds no result of Phase 2 .{message}.*; train it again"):
        load_phase2(path, small_config.graph_model)


def test_phase1_without_losses_is_refused(tmp_path, small_phase1, small_config):
    path = tmp_path / "phase1"
    save_phase1(path, dataclasses.replace(small_phase1, losses=np.zeros(0)), 1.0)
    with pytest.raises(InputError, match="losses is empty"):
        load_phase1(path, small_config.graph_model)


def test_models_on_the_way_are_kept_and_read_back(tmp_path, small, small_phase1, small_config):
    config = small_config.replace({"training.phase2_steps": 300, "training.phase2_snapshots": 3})
    found = fit_homeostasis(small.observations, small_phase1, config.graph_model, config.training)
    assert list(found.snapshots) == [100, 300]  # log-spaced, and at the end of a piece
    save_phase2(tmp_path / "phase2", found, 1.0)
    read = load_phase2(tmp_path / "phase2", config.graph_model)
    for step, model in found.snapshots.items():
        check_frozen(found.model, model)
        for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(read.snapshots[step]), strict=True):
            np.testing.assert_array_equal(one, other)
    early, late = (np.asarray(found.snapshots[step].embeddings) for step in (100, 300))
    assert not np.array_equal(early, late)
    none = fit_homeostasis(small.observations, small_phase1, config.graph_model, small_config.training)
    assert none.snapshots == {}
