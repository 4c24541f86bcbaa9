"""The sparse normal matrix against the dense one, on networks that both can process."""

import dataclasses

import numpy as np
import pytest
import scipy
from random_networks import network_of

from metabolismgraph.errors import InputError
from metabolismgraph.reactions import linear_model, search, sparse_matrix
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import orthonormal_basis
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.sparse_matrix import Accuracy, SparseMatrix, conjugate_gradients, proportional
from metabolismgraph.system.kinetics import Structure, mass_action
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

# H is a hub. R0 and R1 have the same substrates and opposite effects on A and B: they are one combination, as are R3
# and the homeostasis of C. No reaction depends on E alone.
ROWS = 36
NETWORK = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
    ({"A": 1.0, "B": 1.0}, {"A": 1.0, "B": -1.0}),
    ({"B": 1.0, "C": 1.0}, {"B": -1.0, "H": 1.0}),
    ({"C": 1.0}, {"C": -1.0}),
    *(({a: 1.0, b: 2.0}, {a: -1.0, "H": float(1 + n)}) for n, (a, b) in enumerate(("AC", "CA", "DB", "EA", "HE"))),
    *(({a: 1.0}, {"H": -1.0, "D": 1.0}) for a in "ABCE"),
    *(({"H": order, "A": 1.0}, {"H": -1.0, "E": order}) for order in (0.5, 1.0, 1.5, 2.0, 3.0)),
    *(({"H": order, "D": 1.0}, {"H": -1.0, "B": order}) for order in (0.5, 1.0, 1.5, 2.0, 3.0)),
    species="ABCDEH",
)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    c = rng.uniform(0.2, 3.0, (ROWS, NETWORK.n_species))
    table = TabulatedReactions.of(mass_action, np.ones(NETWORK.n_reactions), Structure.of(NETWORK), "mul", c)
    v = table.substrate_factors(c)
    derivative = (v * rng.uniform(0.5, 2.0, NETWORK.n_reactions)) @ NETWORK.stoichiometry.T
    derivative += 0.1 * rng.standard_normal(derivative.shape)
    weight = rng.uniform(0.5, 2.0, derivative.shape)
    weight[3:9, 0] = 0.0
    return LinearModel(v, derivative, weight, orthonormal_basis(c, 1)[0], NETWORK.sparse_stoichiometry)


@pytest.fixture(scope="module")
def both(model):
    columns = model.columns()
    dense, sparse = DenseMatrix.of(columns), SparseMatrix.of(columns, model.v)
    assert sparse.hubs
    assert sparse.matrix.nnz
    return columns, dense, sparse


def projector(directions, m):
    total = np.zeros((m, m))
    for one in directions:
        total[np.ix_(one.reactions, one.reactions)] += one.vectors @ one.vectors.T
    return total


def test_both_are_the_same_matrix(both):
    _, dense, sparse = both
    np.testing.assert_allclose(sparse.scale, dense.scale)
    np.testing.assert_allclose(sparse @ np.eye(len(dense.scale)), dense.matrix, atol=1e-13)


def test_both_find_the_same_rate_constants(both):
    columns, dense, sparse = both
    rhs = columns.rhs
    np.testing.assert_allclose(sparse.solve(rhs), dense.solve(rhs), rtol=1e-4, atol=1e-8)
    several = np.stack([rhs, 2 * rhs], axis=1)
    np.testing.assert_allclose(sparse.solve(several)[:, 1], 2 * dense.solve(rhs), rtol=1e-4, atol=1e-8)


def test_both_find_the_same_undetermined_directions(both):
    _, dense, sparse = both
    m = len(dense.scale)
    ours, theirs = (x.undetermined(1e-8) for x in (sparse, dense))
    least, values = sparse.eigenvalues(ours), dense.eigenvalues(theirs)
    np.testing.assert_allclose(projector(ours, m), projector(theirs, m), atol=1e-7)
    hidden = sum(one.vectors.shape[1] for one in ours)
    assert hidden == 2
    np.testing.assert_allclose(least[-1], values[hidden], rtol=0.05)
    a, b = (analyse(x, 1e-8) for x in (sparse, dense))
    assert a.groups == b.groups
    assert a.combinations == b.combinations
    np.testing.assert_array_equal(a.identifiable, b.identifiable)
    np.testing.assert_allclose(sparse.null_leverage(), dense.null_leverage(), atol=1e-7)


def test_a_direction_beyond_the_groups_is_found(model):
    """B, C and D are constant multiples of one another, but only in the sum of two reactions that share no rate law."""
    v = model.v.copy()
    v[:, 2] = v[:, 9] + v[:, 10]  # R2 changes B and H; make it a combination of others
    s = model.stoichiometry.toarray()
    s[:, 2] = s[:, 9] = s[:, 10]
    found = dataclasses.replace(model, v=v, stoichiometry=scipy.sparse.csr_array(s))
    columns = found.columns()
    m = columns.n_reactions
    ours, theirs = (x.undetermined(1e-8) for x in (SparseMatrix.of(columns, v), DenseMatrix.of(columns)))
    assert sum(one.vectors.shape[1] for one in ours) == 3
    np.testing.assert_allclose(projector(ours, m), projector(theirs, m), atol=1e-6)


def test_variances_are_estimated_without_bias(both, monkeypatch):
    """The estimates are random, with a relative error of sqrt(2 / number of samples)."""
    columns, dense, sparse = both
    monkeypatch.setattr(sparse_matrix, "_SAMPLES", 40_000)
    np.testing.assert_allclose(sparse.variance(), dense.variance(), rtol=0.04, atol=1e-12)
    by_k = columns.theta_by_k
    ours, theirs = (x.covariance_of(by_k, 2) for x in (sparse, dense))
    size = np.sqrt(np.einsum("ill->il", theirs))
    np.testing.assert_allclose(ours, theirs, atol=0.04 * float((size[:, :, None] * size[:, None, :]).max()))


def test_both_find_the_same_non_negative_rate_constants(both, model):
    columns, dense, sparse = both
    wrong = dataclasses.replace(model, derivative=-model.derivative)
    rhs = wrong.columns().rhs
    ours, theirs = (x.non_negative(rhs) for x in (sparse, dense))
    assert (theirs == 0).sum() > 3
    np.testing.assert_allclose(sparse @ (ours * sparse.scale), dense.matrix @ (theirs * dense.scale), atol=1e-7)
    rows, target = 0.01 * columns.theta_by_k, np.zeros(columns.theta_by_k.shape[0])
    ours, theirs = (x.non_negative(rhs, rows, target) for x in (sparse, dense))
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * theirs.max())


def test_joint_steps_agree(model, monkeypatch):
    rng = np.random.default_rng(3)
    changes = rng.standard_normal((ROWS, NETWORK.n_reactions, 2)) * model.v[..., None]
    dense = model.with_shapes(model.solve(), changes)
    monkeypatch.setattr(linear_model, "LARGEST_DENSE", 1)
    sparse = model.with_shapes(model.solve(), changes)
    np.testing.assert_allclose(sparse.shapes, dense.shapes, rtol=1e-6)
    np.testing.assert_array_equal(sparse.hidden, dense.hidden)


@pytest.fixture(scope="module")
def fits(small, small_config):
    seen, _ = small.observations.split(*small_config.training.held_out)
    dense = fit_reactions(seen, small_config.graph_model, small_config.training)
    with pytest.MonkeyPatch.context() as patch:
        for module in (linear_model, search):
            patch.setattr(module, "LARGEST_DENSE", 1)
        sparse = fit_reactions(seen, small_config.graph_model, small_config.training)
    return dense, sparse


def test_a_whole_fit_agrees(fits, small):
    dense, sparse = fits
    known = dense.identifiability.identifiable
    np.testing.assert_array_equal(sparse.identifiability.identifiable, known)
    assert sparse.identifiability.combinations == dense.identifiability.combinations
    np.testing.assert_allclose(sparse.log_k[known], dense.log_k[known], atol=1e-5)
    np.testing.assert_allclose(sparse.log_k[known], np.log10(small.truth.k[known]), atol=1e-4)
    # Standard errors are estimated from random vectors.
    np.testing.assert_allclose(sparse.log_k_error[known], dense.log_k_error[known], rtol=0.4)
    np.testing.assert_allclose(sparse.slope, dense.slope, atol=1e-5)


def test_a_large_network_with_hardly_informative_data_is_solved_densely(model, monkeypatch):
    monkeypatch.setattr(linear_model, "LARGEST_DENSE", 1)
    assert isinstance(model.solve().matrix, SparseMatrix)
    monkeypatch.setattr(SparseMatrix, "is_well_conditioned", lambda self: False)
    assert isinstance(model.solve().matrix, DenseMatrix)
    monkeypatch.setattr(linear_model, "LARGEST_IN_NEED", 1)
    assert isinstance(model.solve().matrix, SparseMatrix)


@pytest.mark.parametrize(("size", "well"), [(100, True), (12_000, False)])
def test_a_chain_of_reactions_is_worse_the_longer_it_is(both, size, well):
    """The second differences of a line, with the least eigenvalue (pi / size)^2: as many iterations as its size."""
    matrix = scipy.sparse.diags_array([-0.5, 1.0, -0.5], offsets=[-1, 0, 1], shape=(size, size)).tocsr()
    found = SparseMatrix(matrix, (), np.ones(size), np.arange(size), both[0])
    assert found.is_well_conditioned() == well
    rhs = matrix @ np.random.default_rng(0).standard_normal(size)
    np.testing.assert_allclose(matrix @ found.solve(rhs), rhs, atol=1e-6)
    with pytest.raises(InputError, match="hardly distinguish some of the reactions"):
        conjugate_gradients(found.__matmul__, np.copy, rhs[:, None], Accuracy(iterations=size // 4))


def test_rate_laws_are_grouped():
    v = np.array([[1.0, 0.0, 3.0, 2.0, 0.0], [2.0, 0.0, 1.0, 4.0, 0.0]])
    group = proportional(v)
    assert group[0] == group[3]
    assert len(set(group.tolist())) == 4


def test_what_is_not_solved_is_an_error():
    values = np.geomspace(1e-14, 1.0, 200)
    apply, same = (lambda x: values[:, None] * x), (lambda x: x)
    with pytest.raises(InputError, match="hardly distinguish some of the reactions"):
        conjugate_gradients(apply, same, np.ones((200, 1)), Accuracy(iterations=50))
    found = conjugate_gradients(lambda x: 2 * x, same, np.ones((3, 2)), Accuracy())
    np.testing.assert_allclose(found, 0.5)
