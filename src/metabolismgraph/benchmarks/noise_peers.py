"""Methods of other packages and textbooks on the data of the noise benchmark. They are handed truth that they need.

All know the rate law, mass action; the methods of this package learn it. SciPy also gets the integrator of the
simulator and the range of k.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.optimize
import scipy.sparse
from jaxtyping import Float

from metabolismgraph.benchmarks.noise_methods import Estimate, Sample
from metabolismgraph.errors import InputError
from metabolismgraph.system.kinetics import Structure, aggregate, mass_action, pair_concentrations
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.integrators import EulerSteps
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import FLOOR, RateEquation, RateFunction
from metabolismgraph.trajectories.sensitivities import sensitivities
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.weak_form import not_too_small
from metabolismgraph.trajectories.windows import Windows

PYSINDY = "pysindy"
_WIDTHS = (8, 16, 32, 64)  # half widths of the domains of PySINDy, in frames
_DOMAINS = 32  # domains of PySINDy per unknown of the species with most unknowns
_WINDOW = 10  # frames of the windows of SciPy's fit
_STARTS, _SPREAD = 3, 0.3  # of SciPy's fit; standard deviation of log10 k
_MOST_EVALUATIONS = 100  # of one start
_WORST = 1e3  # residual, in standard deviations of a species, of states that have diverged


# -- closed form


def by_closed_form(sample: Sample) -> Estimate:
    """Least squares of dc/dt with k >= 0, one linear problem: what remains if the rate law is known.

    dc/dt is the difference of two frames; the rate law is evaluated at the first, as in the simulator, and for coarser
    samples at both. Species count in units of the rms of their dc/dt.

    Raises:
        InputError: the rate law is not mass action.
    """
    seen, network = sample.seen, sample.network(law_known=True)
    n, m, s = network.n_species, network.n_reactions, network.sparse_stoichiometry.tocsr()
    t = seen.transitions()
    ends, structure = np.array([t.start] if sample.every == 1 else [t.start, t.end]), Structure.of(network)
    log_c, present = pair_concentrations(ends, structure)
    v = aggregate(mass_action(log_c, np.asarray(structure.pair_order)), present, structure, "mul").mean(axis=0)
    c = ends.mean(axis=0)
    matrix, right = np.zeros((m + 2 * n, m + 2 * n)), np.zeros(m + 2 * n)
    for i in np.flatnonzero(~network.fixed):
        reactions = s.indices[s.indptr[i] : s.indptr[i + 1]]
        own = np.array([*reactions, m + i, m + n + i])
        design = np.column_stack([v[:, reactions] * s.data[s.indptr[i] : s.indptr[i + 1]], c[:, i], np.ones(len(c))])
        scale = max(float(np.mean(t.derivative[:, i] ** 2)), 1e-300)
        matrix[np.ix_(own, own)] += design.T @ design / scale
        right[own] += design.T @ t.derivative[:, i] / scale
    unit = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    values, vectors = np.linalg.eigh(matrix * unit[:, None] * unit)
    kept = values > 1e-13 * values[-1]
    root = np.sqrt(values[kept])
    design, target = root[:, None] * vectors[:, kept].T, (vectors[:, kept].T @ (unit * right)) / root
    least = np.where(np.arange(m + 2 * n) < m, 0.0, -np.inf)
    k, slope, offset = np.split(unit * scipy.optimize.lsq_linear(design, target, (least, np.inf)).x, [m, m + n])
    return Estimate(np.log10(not_too_small(k)), slope, offset, integrator="differences of frames")


# -- PySINDy


def by_pysindy(sample: Sample) -> Estimate:
    """Weak SINDy (Messenger & Bortz 2021) as in PySINDy, with the true terms of every species.

    Each species is fitted on its own, as PySINDy does: on the monomials of its reactions, its concentration and 1.
    Rate constants are then the generalised least-squares combination of these coefficients, by the known
    stoichiometry. Of several widths of the domains, the one with the rate constants closest to the truth is taken.

    Raises:
        InputError: PySINDy is not installed, or the rate law is not mass action.
    """
    if importlib.util.find_spec(PYSINDY) is None:
        raise InputError("PySINDy is not installed; pip install metabolismgraph[peers]")
    true, known = np.log10(sample.truth.k), sample.identifiable
    tries = [_weak_sindy(sample, width) for width in _WIDTHS]
    return min(tries, key=lambda found: float(np.median(np.abs(found.log_k - true)[known])))


def _weak_sindy(sample: Sample, width: int) -> Estimate:
    """The fit with domains of one half width."""
    import pysindy  # noqa: PLC0415 - an optional dependency

    seen, network = sample.seen, sample.network(law_known=True)
    n, m, s = network.n_species, network.n_reactions, network.stoichiometry
    orders = np.zeros((m, n))
    orders[network.edge_reaction, network.edge_species] = network.edge_order
    monomials, of_reaction = np.unique(orders, axis=0, return_inverse=True)
    terms = np.prod(seen.concentration[:, None] ** monomials, axis=-1)
    features, targets = _weak_features(seen, terms, width, int((s != 0).sum(axis=1).max()) + 2, sample.every)
    matrix, right = np.zeros((m + 2 * n, m + 2 * n)), np.zeros(m + 2 * n)
    for i in np.flatnonzero(~network.fixed):
        reactions = np.flatnonzero(s[i])
        used, place = np.unique(of_reaction[reactions], return_inverse=True)
        design = features[:, [0, 1 + i, *(1 + n + used)]]
        solver = pysindy.STLSQ(threshold=0, alpha=0)
        own = np.asarray(solver.fit(design, targets[:, [i]]).coef_)[0]
        # How the coefficients follow from all unknowns: k, slopes, offsets.
        from_unknowns = np.zeros((len(own), m + 2 * n))
        from_unknowns[0, m + n + i] = from_unknowns[1, m + i] = 1.0
        from_unknowns[2 + place, reactions] = s[i, reactions]
        left = float(np.mean((targets[:, i] - design @ own) ** 2))
        precision = design.T @ design / max(left, 1e-300)
        matrix += from_unknowns.T @ precision @ from_unknowns
        right += from_unknowns.T @ (precision @ own)
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    x = scale * np.linalg.lstsq(matrix * scale[:, None] * scale, scale * right, rcond=1e-13)[0]
    k, slope, offset = np.split(x, [m, m + n])
    return Estimate(np.log10(not_too_small(k)), slope, offset, integrator="weak form of PySINDy", window=2 * width + 1)


def _weak_features(
    seen: Observations, terms: Float[np.ndarray, "frames terms"], width: int, unknowns: int, every: int
) -> tuple[Float[np.ndarray, "domains features"], Float[np.ndarray, "domains species"]]:
    """PySINDy's integrals of 1, all concentrations and all terms against its test functions, and those of dc/dt.

    PySINDy assumes a continuous process, and the data are Euler steps: a step from t has the dc/dt of the state at t,
    but it is the change around the middle of the step. The states for dc/dt are therefore half a step later.
    """
    import pysindy  # noqa: PLC0415 - an optional dependency

    features, targets = [], []
    for r in np.unique(seen.run):
        own = seen.run == r
        t = (seen.time[own] - seen.time[own][0])[:-1]
        most = 0.24 * t[-1]  # two domains must fit into a run
        with _drawn_from(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = pysindy.WeakPDELibrary(
                function_library=pysindy.PolynomialLibrary(degree=1, include_bias=False),
                spatiotemporal_grid=t,
                include_bias=True,
                K=int(_DOMAINS * unknowns),
                H_xt=min(width * float(np.median(np.diff(t))), most),
            )
            c = seen.concentration[own]
            features.append(np.asarray(library.fit_transform(np.concatenate([c, terms[own]], axis=1)[:-1])))
            targets.append(np.asarray(library.convert_u_dot_integral(c[:-1] + np.diff(c, axis=0) / (2 * every))))
    return np.concatenate(features), np.concatenate(targets)


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """PySINDy draws the places of its domains from NumPy's global generator."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


# -- SciPy


class _OutOfTimeError(Exception):
    """The budget of a fit is spent."""


def by_scipy(sample: Sample, budget: float) -> Estimate:
    """A fit of trajectories by `scipy.optimize.least_squares`, with exact derivatives of the simulator's own steps.

    From random starts around the middle of the range of k, a fit of the whole series does not get anywhere: the
    systems oscillate, and the states diverge. So the series is cut into short windows of one length with free initial
    states. The best of the starts that end within the budget counts.

    Args:
        budget: CPU seconds.

    Raises:
        InputError: no start has ended within the budget, or the rate law is not mass action.
    """
    fit = _WindowFit(sample, time.process_time() + budget)
    rng, found = np.random.default_rng(sample.config.simulation.seed), list[tuple[float, np.ndarray]]()
    with single_thread(), np.errstate(all="ignore"), contextlib.suppress(_OutOfTimeError):
        # What has ended stays in the list when the time is up.
        found.extend(fit.fit(fit.start(rng)) for _ in range(_STARTS))
    if not found:
        raise InputError(f"did not finish within {budget:g} s of CPU time")
    _, best = min(found, key=lambda one: one[0])
    u = fit.problem.equation.unknowns
    return Estimate(
        log_k=best[u.log_k],
        slope=best[u.slope],
        offset=best[u.offset],
        integrator=fit.problem.integrator.name,
        window=fit.problem.windows.length,
    )


class _WindowFit:
    """Residuals and derivatives of windows; unknowns are log10 k, slopes, offsets and the initial states."""

    def __init__(self, sample: Sample, until: float):
        seen = sample.seen
        self.c, self.until = seen.concentration, until
        positive = self.c[self.c > 0]
        spline = SubstrateSpline.over(np.log(positive) if positive.size else np.zeros(1))
        structure = Structure.of(sample.network(law_known=True))
        equation = RateEquation.of(structure, spline, FLOOR * float(self.c.max()))
        self.spread = np.maximum(self.c.std(axis=0), 1e-300)
        self.total = equation.unknowns.total
        measured = Measurements.of(seen, np.broadcast_to(self.spread, self.c.shape), equation.moving)
        windows, prior = Windows.cut(seen, _WINDOW), (np.zeros(self.total), np.ones(self.total))
        undivided = np.ones(len(self.c), dtype=np.int64)
        self.problem = Problem(equation, EulerSteps(sample.every), windows, measured, prior, undivided)
        simulation = sample.config.simulation
        self.middle = (simulation.log_k_min + simulation.log_k_max) / 2

    def start(self, rng: np.random.Generator) -> Float[np.ndarray, " all"]:
        """Rate constants around the middle of their range, no homeostasis, measured initial states."""
        theta = np.zeros(self.total)
        log_k = self.problem.equation.unknowns.log_k
        theta[log_k] = self.middle + _SPREAD * rng.standard_normal(log_k.stop)
        return np.concatenate([theta, self.c[self.problem.windows.starts].ravel()])

    def fit(self, start: Float[np.ndarray, " all"]) -> tuple[float, Float[np.ndarray, " all"]]:
        """The misfit and all unknowns from one start."""
        found = scipy.optimize.least_squares(
            self.residual, start, self.jacobian, x_scale="jac", tr_solver="lsmr", max_nfev=_MOST_EVALUATIONS
        )
        return float(found.cost), np.asarray(found.x)

    def residual(self, p: Float[np.ndarray, " all"]) -> Float[np.ndarray, " values"]:
        """Fitted minus measured concentrations, in standard deviations of a species."""
        windows = self.problem.windows
        z = (self._at(p)[1] - self.c[windows.frame]) / self.spread * windows.valid[..., None]
        return np.asarray(np.clip(np.nan_to_num(z, nan=_WORST), -_WORST, _WORST).ravel())

    def jacobian(self, p: Float[np.ndarray, " all"]) -> scipy.sparse.csr_array:
        """Derivatives of the residual; those by the initial states are a block per window."""
        n = self.c.shape[1]
        windows = self.problem.windows
        frames = sensitivities(self.problem, windows, *self._at(p))
        j = np.stack([frame.sensitivities for frame in frames], axis=1)
        j = j / self.spread[:, None] * windows.valid[..., None, None]
        j = np.nan_to_num(j, nan=0.0, posinf=0.0, neginf=0.0).reshape(len(j), -1, n + self.total)
        shared = scipy.sparse.csr_array(j[..., n:].reshape(-1, self.total))
        return scipy.sparse.csr_array(scipy.sparse.hstack([shared, scipy.sparse.block_diag(list(j[..., :n]))]))

    def _at(self, p: Float[np.ndarray, " all"]) -> tuple[RateFunction, Float[np.ndarray, "windows length species"]]:
        """dc/dt, and the states of all windows."""
        if time.process_time() > self.until:
            raise _OutOfTimeError
        rate = self.problem.equation.bind(p[: self.total])
        return rate, self.problem.states(self.problem.windows, rate, p[self.total :].reshape(-1, self.c.shape[1]))
