"""Phase 1: the gradient of the projected loss, and the recovery of what was planted."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from random_networks import network_of, relabelled_observations

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.fit import check_size, fit_reactions
from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import orthonormal_basis
from metabolismgraph.reactions.projection import evaluate_loss, fit_linear
from metabolismgraph.reactions.search import loss_and_gradient
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations

# -- the loss


@pytest.fixture(scope="module")
def problem(small, small_config):
    """As in the first round of Phase 1, so that its compilation serves here too."""
    data = Phase1Data(small.observations, small_config.graph_model, small_config.training, rule="forward")
    keep = np.ones((len(data.transitions.dt), 30), dtype=bool)
    return data.problem(keep, None, stride=data.stride)


@pytest.fixture(scope="module")
def somewhere(small, small_config):
    """MLP_sub at a random point, last layer included."""
    data = Phase1Data(small.observations, small_config.graph_model, small_config.training, rule="forward")
    start = data.initial_function()
    last = 0.1 * jax.random.normal(jax.random.key(5), start.perceptron.weights[-1].shape)
    return eqx.tree_at(lambda f: (f.perceptron.weights[-1], f.skip), start, (last, jnp.array([0.8, 0.1])))


def test_gradient_against_finite_differences(problem, somewhere):
    """Rate constants and homeostasis are solved anew at every point, yet held fixed in the gradient."""
    trainable = eqx.tree_at(
        lambda f: (f.center, f.width), jax.tree.map(lambda _: True, somewhere), replace=(False, False)
    )
    parameters, constants = eqx.partition(somewhere, trainable)
    flat, unravel = jax.flatten_util.ravel_pytree(parameters)
    value, gradient = loss_and_gradient(problem)(parameters, constants)
    gradient = np.asarray(jax.flatten_util.ravel_pytree(gradient)[0])
    assert len(gradient) == len(flat)
    rng = np.random.default_rng(0)
    step = 1e-4
    directions = [*rng.standard_normal((3, len(flat))) / np.sqrt(len(flat)), *np.eye(len(flat))[-4:]]
    for direction in directions:
        shifted = [
            float(evaluate_loss(eqx.combine(unravel(flat + s * step * direction), constants), problem))
            for s in (2, 1, -1, -2)
        ]
        # Central differences of fourth order.
        by_difference = (-shifted[0] + 8 * shifted[1] - 8 * shifted[2] + shifted[3]) / (12 * step)
        assert gradient @ direction == pytest.approx(by_difference, rel=1e-5, abs=1e-7)
    assert float(value) == pytest.approx(float(evaluate_loss(somewhere, problem)), rel=1e-12)
    assert np.linalg.norm(gradient) > 1e-2


def test_the_loss_is_the_share_left(problem, somewhere):
    fitted, rows = fit_linear(somewhere, problem), problem.rows
    weight = np.asarray(rows.full_weight)
    share = np.sum(weight * np.asarray(fitted.residual) ** 2) / np.sum(weight * np.asarray(rows.derivative) ** 2)
    assert float(evaluate_loss(somewhere, problem)) == pytest.approx(np.log(share), rel=1e-10)
    assert 0 < share < 1


def test_no_other_rate_constants_leave_less(problem, somewhere):
    fitted = fit_linear(somewhere, problem)
    rows, s = problem.rows, problem.structure.stoichiometry
    rng = np.random.default_rng(0)

    def left(k, theta):
        residual = rows.derivative - (fitted.v * k) @ s.T - jnp.einsum("til,il->ti", rows.basis, theta)
        return float(jnp.sum(rows.full_weight * residual**2))

    best = left(fitted.k, fitted.theta)
    for _ in range(3):
        k = fitted.k * (1 + 0.01 * rng.standard_normal(fitted.k.shape))
        assert left(k, fitted.theta) > best
        assert left(fitted.k, fitted.theta * (1 + 0.1 * rng.standard_normal(fitted.theta.shape))) > best


# -- recovery


def r_squared(learned, true):
    return 1 - np.sum((learned - true) ** 2) / np.sum((true - true.mean()) ** 2)


def errors(found, truth):
    """R2 and absolute errors of log10 k over what is identifiable."""
    seen = found.identifiability.identifiable
    true = np.log10(truth.k)
    return r_squared(found.log_k[seen], true[seen]), np.abs(found.log_k - true)[seen]


@pytest.fixture(scope="module")
def fit(small_config):
    def inner(observations, **training):
        config = small_config.replace({f"training.{key}": value for key, value in training.items()})
        return fit_reactions(observations, config.graph_model, config.training)

    return inner


def test_planted_rate_constants_and_slopes(small, small_phase1):
    found, truth = small_phase1, small.truth
    r2, error = errors(found, truth)
    assert r2 > 0.999999
    assert np.median(error) < 1e-6
    np.testing.assert_allclose(found.slope, -truth.lam, rtol=5e-3)
    np.testing.assert_allclose(found.offset, truth.lam * truth.baseline, rtol=5e-3)
    assert found.converged
    assert found.notes == ()
    assert found.keep.all()
    assert found.rule == "forward"
    assert 5 <= (~found.identifiability.identifiable).sum() <= 20
    assert (np.diff(found.losses) < 1e-6).mean() > 0.8


def test_planted_rate_law(small, small_phase1):
    log_c = np.quantile(np.log(small.observations.concentration), np.linspace(0.01, 0.99, 20))
    np.testing.assert_allclose(small_phase1.mlp_sub(jnp.asarray(log_c), jnp.ones(20)), log_c, atol=1e-5)


def test_phase1_keeps_every_determined_combination(small, small_phase1):
    """Also of the rate constants that it fills in."""
    k, truth = 10.0**small_phase1.log_k, small.truth.k
    identifiability = small_phase1.identifiability
    assert identifiability.groups
    for combinations in identifiability.combinations:
        for combination in combinations:
            members, weight = list(combination.reactions), np.array(combination.coefficients)
            np.testing.assert_allclose(weight @ k[members], weight @ truth[members], atol=1e-6)
    hidden = ~identifiability.identifiable
    assert (k[hidden] > 0).all()
    seen = k[identifiability.identifiable]
    inside = (k[hidden] >= seen.min() * 0.999) & (k[hidden] <= seen.max() * 1.001)
    assert inside.mean() > 0.5


def test_standard_errors_are_of_the_right_size(small, small_phase1):
    seen = small_phase1.identifiability.identifiable
    _, error = errors(small_phase1, small.truth)
    assert np.isinf(small_phase1.log_k_error[~seen]).all()
    assert (small_phase1.log_k_error[seen] > 0).all()
    # Rounding to float32 is no white noise, so only the order of magnitude is asked for.
    assert 0.1 < np.median(error / small_phase1.log_k_error[seen]) < 10


def test_same_seed_same_bits(small, small_phase1, fit):
    again = fit(small.observations)
    for name in ("log_k", "log_k_error", "slope", "offset", "noise", "losses", "keep"):
        np.testing.assert_array_equal(getattr(again, name), getattr(small_phase1, name))
    for a, b in zip(jax.tree.leaves(again.mlp_sub), jax.tree.leaves(small_phase1.mlp_sub), strict=True):
        np.testing.assert_array_equal(a, b)


def test_relabelling_changes_nothing(small, small_phase1, fit):
    rng = np.random.default_rng(3)
    species, reactions = rng.permutation(30), rng.permutation(72)
    found = fit(relabelled_observations(small.observations, species, reactions))
    seen = small_phase1.identifiability.identifiable
    assert found.identifiability.identifiable.tolist() == seen[reactions].tolist()
    np.testing.assert_allclose(found.log_k[seen[reactions]], small_phase1.log_k[reactions][seen[reactions]], atol=1e-5)
    np.testing.assert_allclose(found.slope, small_phase1.slope[species], rtol=1e-3)
    np.testing.assert_allclose(found.offset, small_phase1.offset[species], rtol=1e-3)


@pytest.fixture(scope="module")
def saturating(small_config):
    return simulate(small_config.replace({"simulation.use_mass_action": False}))


def test_a_saturating_rate_law(saturating, fit):
    data = saturating
    found = fit(data.observations, phase1_tolerance=0.1)
    r2, error = errors(found, data.truth)
    assert r2 > 0.999
    assert np.median(error) < 2e-3
    log_c = np.quantile(np.log(data.observations.concentration), np.linspace(0.05, 0.95, 20))
    truth = log_c + np.log(6.0) - np.log(np.exp(log_c) + 5.0)
    np.testing.assert_allclose(found.mlp_sub(jnp.asarray(log_c), jnp.ones(20)), truth, atol=0.03)


# -- data that do not obey


def with_concentration(observations, concentration):
    return dataclasses.replace(observations, concentration=concentration)


def test_spikes_are_left_out_and_do_no_harm(small, fit):
    rng = np.random.default_rng(1)
    c = small.observations.concentration.copy()
    frames, species = rng.choice(np.arange(10, 1490), 4, replace=False), rng.choice(30, 4, replace=False)
    c[frames, species] *= 1.2
    found = fit(with_concentration(small.observations, c))
    assert not found.keep[frames, species].any()
    assert not found.keep[frames - 1, species].any()
    dropped = int((~found.keep).sum())
    assert 8 <= dropped <= 0.002 * found.keep.size  # depends on the initial weights: 59 to 88 for five seeds
    assert found.notes[0].startswith(f"{dropped} of 45000 changes did not fit the rate equation and were left out")
    r2, error = errors(found, small.truth)
    assert r2 > 0.999999
    assert np.median(error) < 1e-6


def test_changes_into_and_out_of_zero_are_left_out(small, fit):
    c = small.observations.concentration.copy()
    frame, species = np.unravel_index(np.argmin(c), c.shape)
    c[frame : frame + 3, species] = 0.0
    found = fit(with_concentration(small.observations, c))
    assert "2 changes into or out of an exact zero were left out" in found.notes
    assert not found.keep[[frame - 1, frame + 2], species].any()
    r2, _ = errors(found, small.truth)
    assert r2 > 0.9999


def test_a_negative_rate_constant_is_said_and_solved_again(small, small_phase1, fit):
    """One reaction is written the wrong way round: the best k would be negative."""
    backwards = int(np.flatnonzero(small_phase1.identifiability.identifiable)[3])
    written = small.observations.network.to_reactions()
    net = {s: -v for s, v in written[backwards].net.items()}
    written[backwards] = dataclasses.replace(written[backwards], net=net)
    network = ReactionNetwork.from_reactions("wrong", small.observations.network.species, written)
    found = fit(dataclasses.replace(small.observations, network=network))
    assert found.notes[0] == "1 determined rate constants came out negative; all were estimated again with k >= 0"
    assert np.isfinite(found.log_k).all()
    others = np.delete(np.arange(72), backwards)
    assert found.log_k[backwards] < found.log_k[others].min() - 1


def test_non_negative_least_squares_against_the_full_design():
    """Through a square root of the normal matrix, or on the design matrix itself: the same k."""
    substrates = {"A": 1.0, "B": 1.0}
    network = network_of(
        (substrates, {"A": -1.0, "B": 1.0}),
        (substrates, {"A": -1.0, "C": 1.0}),
        ({"C": 2.0}, {"C": -1.0, "D": 1.0}),
        ({"D": 1.0, "A": 1.0}, {"D": -1.0, "B": 1.0}),
    )
    rng = np.random.default_rng(4)
    start = rng.uniform(0.2, 3.0, (50, 4))
    v = np.stack(
        [start[:, 0] * start[:, 1]] * 2 + [start[:, 2] ** 2, start[:, 3] * start[:, 0]],
        axis=1,
    )
    planted = np.array([0.5, -0.4, 0.3, -0.2])
    change = (v * planted) @ network.stoichiometry.T + 0.05 * rng.standard_normal((50, 4))
    basis, _ = orthonormal_basis(start, 1)
    found = LinearModel(v, change, np.ones((50, 4)), basis, network.sparse_stoichiometry).solve().non_negative()
    design = (v[:, None, :] * network.stoichiometry[None]).reshape(200, 4)
    pull = np.zeros((50, 4, 4, 2))
    for i in range(4):
        pull[:, i, i] = np.stack([np.ones(50), start[:, i]], axis=1)
    pull = pull.reshape(200, 8)
    # Homeostasis may have either sign: as two columns each.
    expected, _ = scipy.optimize.nnls(np.hstack([design, pull, -pull]), change.reshape(-1))
    assert (expected[[1, 3]] == 0).all()
    np.testing.assert_allclose(found, expected[:4], atol=1e-6)


def test_too_few_frames(small, small_config):
    """The number of frames that the message asks for is enough, and one less is not."""
    first = small.observations.select(np.arange(1501) < 4)
    with pytest.raises(InputError) as caught:
        fit_reactions(first, small_config.graph_model, small_config.training)
    assert str(caught.value) == (
        "4 frames give 90 equations for 132 unknowns (rate constants and homeostasis of 30 species); "
        "at least 6 frames are needed"
    )
    with pytest.raises(InputError, match="5 frames give 120 equations"):
        check_size(small.observations.select(np.arange(1501) < 5), small_config.training)
    check_size(small.observations.select(np.arange(1501) < 6), small_config.training)


def test_a_large_network_still_has_rows_to_learn_from():
    """Evaluations of f per row grow with the network; the number of rows does not fall below what the unknowns need."""
    n = 2000
    species = [f"S{i}" for i in range(n)]
    steps = [({a: 1.0}, {a: -1.0, b: 1.0}) for a, b in itertools.pairwise(species)]
    c = np.random.default_rng(0).uniform(0.1, 1.0, (700, n))
    for reactions, rows in ((steps, 64), (11 * steps, 4 * (11 * (n - 1) + 2 * n) / n)):
        observations = Observations(
            network_of(*reactions, species=species), np.arange(700.0), np.zeros(700, dtype=np.int64), c
        )
        stride = Phase1Data(observations, GraphModel(), Training(), rule="forward").stride
        assert rows <= 699 // stride < 2 * rows


@pytest.mark.parametrize("network", [network_of(), network_of(({"A": 1.0}, {"B": 1.0}), fixed="ABCD")])
def test_nothing_to_fit(network, small_config):
    data = Observations(network, np.arange(9.0), np.zeros(9, dtype=np.int64), np.ones((9, 4)))
    with pytest.raises(InputError, match="^network test: nothing to fit"):
        fit_reactions(data, small_config.graph_model, small_config.training)


def test_not_converged_is_said(saturating, fit):
    found = fit(saturating.observations, phase1_max_iterations=3, phase1_method="projection")
    assert not found.converged
    assert found.notes[-1] == "Phase 1 did not converge within training.phase1_max_iterations = 3"


# -- small systems


RING = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
    ({"B": 1.0, "C": 1.0}, {"B": -1.0, "C": 1.0}),
    ({"C": 1.0, "A": 1.0}, {"C": -1.0, "A": 1.0}),
    species="ABC",
)
RING_K = np.array([0.05, 0.03, 0.08])


def ring_rates(c):
    return RING.stoichiometry @ (RING_K * [c[0] * c[1], c[1] * c[2], c[2] * c[0]])


@pytest.fixture(scope="module")
def tiny(small_config):
    return small_config.replace({"graph_model.hidden_dim_sub": 8, "graph_model.n_layers_sub": 2})


def test_no_nuisance_slope_at_degree_zero(tiny):
    """A constant inflow or outflow per species: offset found, slope zero."""
    inflow = np.array([0.01, 0.02, -0.015])
    c = [np.array([2.0, 3.0, 4.0])]
    for _ in range(200):
        c.append(c[-1] + 0.3 * (ring_rates(c[-1]) + inflow))
    data = Observations(RING, 0.3 * np.arange(201), np.zeros(201, dtype=np.int64), np.array(c))
    config = tiny.replace({"training.nuisance_degree": 0, "training.derivative": "forward"})
    found = fit_reactions(data, config.graph_model, config.training)
    np.testing.assert_allclose(10**found.log_k, RING_K, rtol=1e-3)
    np.testing.assert_allclose(found.offset, inflow, rtol=1e-2)
    assert found.slope.tolist() == [0, 0, 0]
    assert found.slope_error.tolist() == [0, 0, 0]


def test_a_rule_for_continuous_processes_is_chosen_for_continuous_data(tiny):
    lam, baseline = np.array([0.01, 0.02, 0.01]), np.array([4.0, 6.0, 4.0])
    times = np.linspace(0, 60, 201)
    times[1:-1] += 0.05 * np.sin(np.arange(199))  # no step as long as the other
    solution = scipy.integrate.solve_ivp(
        lambda _, c: ring_rates(c) - lam * (c - baseline), (0, 60), [2.0, 3.0, 4.0], t_eval=times, rtol=1e-10
    )
    data = Observations(RING, times, np.zeros(201, dtype=np.int64), solution.y.T)
    found = fit_reactions(data, tiny.graph_model, tiny.training)
    assert found.rule in {"trapezoid", "cubic"}
    np.testing.assert_allclose(10**found.log_k, RING_K, rtol=0.02)
    np.testing.assert_allclose(found.slope, -lam, rtol=0.1)
    np.testing.assert_allclose(found.offset, lam * baseline, rtol=0.1)


def test_a_substrate_function_starts_as_nothing():
    f = SubstrateFunction(8, 3, 0.0, 1.0, np.random.default_rng(0))
    assert f(jnp.linspace(-3, 3, 5), jnp.ones(5)).tolist() == [0.0] * 5


def test_a_species_that_never_moves_is_taken_as_fixed(small, small_config):
    """Its equation would be 0 = flux, with all the weight of a species without noise."""
    c = small.observations.concentration.copy()
    c[:, 0] = c[0, 0]
    observations = dataclasses.replace(small.observations, concentration=c)
    # With auto, other methods follow: these data do not fit the model.
    training = small_config.training.model_copy(update={"phase1_method": "projection"})
    found = fit_reactions(observations, small_config.graph_model, training)
    assert any("are constant" in note and "M000" in note for note in found.notes)
    assert np.isfinite(found.log_k).all()
    assert not found.keep[:, 0].any()
