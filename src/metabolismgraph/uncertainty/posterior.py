"""Samples of the Gaussian approximation of the posterior, for predictions with errors.

Around the estimate the posterior is nearly N(estimate, covariance), where the covariance is that of the fit: the
inverse of its normal matrix with the weak prior (Laplace's approximation; MacKay 2003, chapter 27). What the data do
not determine has the spread of that prior, and is marked.

The file has the groups of an InferenceData object (Kumar et al. 2019): `arviz.from_netcdf` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from metabolismgraph.fitting.result import FitResult
from metabolismgraph.uncertainty.fitted_model import FittedModel

SAMPLES = 1000
_CHAINS = 4  # independent samples, in the shape that programs for Markov chains expect
_LAW_POINTS = 40
_GROUPS = ("posterior", "constant_data", "observed_data")


def posterior(
    result: FitResult, samples: int = SAMPLES, *, seed: int | None = None, anyway: bool = False
) -> xr.DataTree:
    """Samples of rate constants, homeostasis and rate law from the Gaussian approximation of the posterior.

    Args:
        result: of a fit with training.phase1_method=shooting, or where `auto` chose it.
        samples: their number, rounded up to a multiple of four.
        seed: of the samples; None: training.seed of the fit.
        anyway: whether a fit that is not to be trusted is taken as well.

    Returns:
        Groups `posterior` (log10_k, slope, offset, and rate_law where one was learned, with the dimensions chain and
        draw), `constant_data` (estimates, standard errors, and what the data determine) and `observed_data`
        (concentrations of the training frames). Units are those of the data, in the attributes.

    Raises:
        InputError: the fit is not one of trajectories, or not to be trusted.

    Example:
        >>> import metabolismgraph as mg
        >>> settings = ["simulation.n_frames=120", "training.phase1_method=shooting"]
        >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> dict(mg.posterior(result, samples=100)["posterior"]["log10_k"].sizes)
        {'chain': 4, 'draw': 25, 'reaction': 72}
    """
    return posterior_of(FittedModel.trusted(result, anyway=anyway), samples, seed)


def posterior_of(model: FittedModel, samples: int, seed: int | None = None) -> xr.DataTree:
    """The same for a fit that has been rebuilt."""
    groups = {"posterior": _samples(model, samples, seed), "constant_data": _estimates(model)}
    return xr.DataTree.from_dict({**groups, "observed_data": _observed(model)})


def write_posterior(tree: xr.DataTree, path: Path) -> None:
    """Write a NetCDF file with one group per group, completely or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        for mode, name in zip("waa", _GROUPS, strict=True):
            tree[name].to_dataset().to_netcdf(part, mode="w" if mode == "w" else "a", group=name, engine="h5netcdf")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _samples(model: FittedModel, samples: int, seed: int | None) -> xr.Dataset:
    rng = np.random.default_rng(model.seed if seed is None else seed)
    draws = -(-samples // _CHAINS)
    theta = model.theta + rng.standard_normal((_CHAINS, draws, len(model.theta))) @ _root(model.covariance).T
    u = model.stages.equation.unknowns
    for part in (u.slope, u.offset):
        theta[..., part] = np.where(model.stages.equation.moving, theta[..., part], 0.0)
    log_k, slope, offset = _by_kind(model, model.all_in_units(theta))
    data = {
        "log10_k": _named(log_k, "reaction", "log10 of the rate constant", "log10 concentration^(1-order)/time"),
        "slope": _named(slope, "species", "slope of the line of homeostasis", "1/time"),
        "offset": _named(offset, "species", "offset of the line of homeostasis", "concentration/time"),
    }
    coords = {"chain": np.arange(_CHAINS), "draw": np.arange(draws), **_names(model)}
    if u.laws:
        concentration, orders, f = _rate_laws(model, theta)
        what = {"long_name": "substrate function f", "units": "concentration^law_order"}
        data["rate_law"] = xr.Variable(("chain", "draw", "law_order", "law_point"), f, what)
        coords |= {"law_order": orders, "law_point": np.arange(len(concentration))}
        place = {"long_name": "concentrations of rate_law", "units": "concentration"}
        data["law_concentration"] = xr.Variable("law_point", concentration, place)
    dataset = xr.Dataset(data, coords)
    dataset = dataset.set_coords("law_concentration") if u.laws else dataset
    return dataset.assign_attrs(
        inference_library="metabolismgraph",
        sampling="independent, from the Gaussian approximation around the estimate with the covariance of the fit",
    )


def _root(covariance: Float[np.ndarray, "unknowns unknowns"]) -> Float[np.ndarray, "unknowns unknowns"]:
    """A square root of the covariance, whose smallest eigenvalues can be negative by rounding."""
    # Scaled, since k, slopes and offsets have different units.
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def _rate_laws(
    model: FittedModel, theta: Float[np.ndarray, "chain draw unknowns"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concentrations, orders, and f of every learned rate law at them."""
    equation, unit = model.stages.equation, model.units.concentration
    u, spline = equation.unknowns, equation.spline
    log_c = np.linspace(spline.low, spline.high, _LAW_POINTS)
    coefficients = theta[..., u.law].reshape(*theta.shape[:-1], u.laws, u.size)
    log_f = coefficients @ spline(log_c).T
    order = equation.learned_orders
    # f(1) = 1 in internal units; k f is the same in any units.
    return np.exp(log_c) * unit, order, np.exp(log_f) * unit ** order[:, None]


def _estimates(model: FittedModel) -> xr.Dataset:
    """Estimates, standard errors, and what the data determine."""
    parameters = len(model.names)
    parts = {
        "estimate": ("estimate of the fit", model.all_in_units(model.theta)),
        "error": ("standard error of the fit", model.error[:parameters] * model.scale),
        "identifiable": (
            "whether the data determine the parameter; otherwise its spread is that of the weak prior",
            model.determined[:parameters],
        ),
    }
    units = {"log10_k": "log10 concentration^(1-order)/time", "slope": "1/time", "offset": "concentration/time"}
    data = {}
    for part, (meaning, values) in parts.items():
        for (kind, unit), own in zip(units.items(), _by_kind(model, values), strict=True):
            # The rate constants are what is asked for most.
            name = part if (part, kind) == ("identifiable", "log10_k") else f"{kind}_{part}"
            dim = "reaction" if kind == "log10_k" else "species"
            attributes = {"long_name": f"{kind}: {meaning}", "units": "1" if part == "identifiable" else unit}
            data[name] = xr.Variable(dim, own, attributes)
    return xr.Dataset(data, _names(model))


def _observed(model: FittedModel) -> xr.Dataset:
    """The measured concentrations of the training frames."""
    own = model.stages.observations
    c = own.concentration * model.units.concentration
    what = {"long_name": "measured concentrations", "units": "concentration"}
    return xr.Dataset(
        {"concentration": xr.Variable(("frame", "species"), c, what)},
        {
            "frame": np.arange(own.n_frames),
            "species": np.array(model.network.species, dtype=object),
            "time": ("frame", own.time * model.units.time, {"units": "time"}),
            "run": ("frame", own.run, {"long_name": "run of the frame", "units": "1"}),
        },
    )


def _by_kind(model: FittedModel, values: np.ndarray) -> list[np.ndarray]:
    """log10 k, slopes and offsets."""
    m, n = model.network.n_reactions, model.network.n_species
    return list(np.split(values, [m, m + n], axis=-1))


def _named(values: np.ndarray, dim: str, meaning: str, unit: str) -> xr.Variable:
    return xr.Variable(("chain", "draw", dim), values, {"long_name": meaning, "units": unit})


def _names(model: FittedModel) -> dict[str, np.ndarray]:
    return {
        "reaction": np.array(model.network.reactions, dtype=object),
        "species": np.array(model.network.species, dtype=object),
    }
