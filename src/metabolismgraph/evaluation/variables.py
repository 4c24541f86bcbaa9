"""Description and units of every variable of evaluation.nc, as attributes in the file."""

from __future__ import annotations

import xarray as xr

# name: (description, units)
VARIABLES: dict[str, tuple[str, str]] = {
    "log_k": ("log10 of the rate constant", "log10 concentration^(1-order)/time"),
    "log_k_error": ("standard error of log_k; infinite if it is not determined", "1"),
    "identifiable": ("whether the rate constant is determined individually", "1"),
    "group": ("index of the group of reactions determined only in combination; -1 for none", "1"),
    "true_log_k": ("log10 of the true rate constant", "log10 concentration^(1-order)/time"),
    "phase1_loss": ("unexplained share of the weighted sum of squares of dc/dt, after every iteration", "1"),
    "unexplained_error": ("rms residual of dc/dt in training frames, relative to the signal of the species", "1"),
    "misfit_error": ("unexplained_error without white measurement noise", "1"),
    "held_out_error": ("rms error of dc/dt in held-out frames, relative to the signal", "1"),
    "rollout_error": ("rms error of held-out rollouts, relative to the change of the species", "1"),
    "singular_value": ("singular values of the concentrations (frames x species)", "concentration"),
    "concentration": ("measured or simulated concentrations, NaN where missing", "concentration"),
    "predicted_concentration": (
        "rollout of the model of Phase 2 over the held-out frames of each run, two or more; NaN in other frames",
        "concentration",
    ),
    "fitted_concentration": (
        "after a fit of trajectories, those of the model in windows of at most 32 held-out frames; initial states are "
        "fitted to these frames, and estimates move within their errors; NaN in other frames",
        "concentration",
    ),
    "time": ("time of each frame", "time"),
    "run": ("index of the run of each frame", "1"),
    "held_out": ("whether a frame was held out from training", "1"),
    "law_concentration": ("concentrations at which the rate law is shown", "concentration"),
    "law_order": ("substrate order of each rate law", "1"),
    "law_f": ("learned substrate function f", "1"),
    "law_f_lower": ("lower end of the 95 % interval of f", "1"),
    "law_f_upper": ("upper end of the 95 % interval of f", "1"),
    "true_law_f": ("true substrate function f", "1"),
    "sweep": (
        "concentrations at which MLP_node is shown: 0 to 40 with a truth, otherwise 0 to the highest observed",
        "concentration",
    ),
    "node_curve": ("MLP_node of every species over the sweep", "concentration/time"),
    "slope": ("slope of the line of MLP_node over the sweep", "1/time"),
    "offset": ("offset of the line of MLP_node over the sweep", "concentration/time"),
    "slope_observed": ("slope of the line of MLP_node over the observed range of the species", "1/time"),
    "offset_observed": ("offset of the line of MLP_node over the observed range of the species", "concentration/time"),
    "lowest": ("lowest observed concentration", "concentration"),
    "highest": ("highest observed concentration", "concentration"),
    "moving": ("False for a fixed species", "1"),
    "embedding": ("embedding of the species", "1"),
    "cluster": ("cluster of the embedding, the estimated type; -1 for a fixed species", "1"),
    "phase2_loss": ("misfit of Phase 2 after every step", ""),
    "phase2_components": ("further loss terms of Phase 2", ""),
    "true_type": ("true type of the species", "1"),
    "true_slope": ("true slope of homeostasis, minus lambda", "1/time"),
    "true_offset": ("true offset of homeostasis, lambda times baseline", "concentration/time"),
    "derivative": ("mean dc/dt over each step between two frames, NaN where a value is missing", "concentration/time"),
    "predicted_derivative": ("mean dc/dt of the model over each step", "concentration/time"),
    "transition_time": ("time at the start of each step", "time"),
}

# Concentrations of the model in held-out frames, and what they are. The first of those there are is shown: noise of the
# first held-out sample would spoil a rollout.
MODEL_TRACES = {
    "fitted_concentration": "model, from fitted states",
    "predicted_concentration": "model, a rollout from the first held-out sample",
}


def model_trace(dataset: xr.Dataset) -> str | None:
    """The variable that shows the concentrations of the model, of `MODEL_TRACES`; None if there is none."""
    return next((name for name in MODEL_TRACES if name in dataset), None)


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """Add description and units to every variable that has none; returns the same data set."""
    for name, variable in dataset.data_vars.items():
        text, units = VARIABLES[str(name)]
        variable.attrs = {"long_name": text, **({"units": units} if units else {}), **variable.attrs}
    return dataset
