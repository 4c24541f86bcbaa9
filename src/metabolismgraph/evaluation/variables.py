"""What every variable of evaluation.nc is: one line and the units, written into the file itself."""

from __future__ import annotations

import xarray as xr

# name: (what it is, units)
VARIABLES: dict[str, tuple[str, str]] = {
    "log_k": ("log10 of the rate constant", "log10 concentration^(1-order)/time"),
    "log_k_error": ("standard error of log_k; infinite where it is not determined", "1"),
    "identifiable": ("whether the rate constant is determined by itself", "1"),
    "group": ("index of the group of reactions known only in combination; -1 for none", "1"),
    "true_log_k": ("log10 of the true rate constant", "log10 concentration^(1-order)/time"),
    "phase1_loss": ("share of the weighted sum of squares of dc/dt that is left, after every iteration", "1"),
    "unexplained_error": ("rms of what is left of dc/dt while learning, as a share of the species' signal", "1"),
    "misfit_error": ("unexplained_error without what looks like measurement noise", "1"),
    "held_out_error": ("rms error of dc/dt on held-out frames, as a share of the signal", "1"),
    "rollout_error": ("rms error of held-out rollouts, as a share of what the species changes", "1"),
    "singular_value": ("singular values of the concentrations (frames x species)", "concentration"),
    "concentration": ("measured or simulated concentrations", "concentration"),
    "time": ("time of each frame", "time"),
    "run": ("index of the run of each frame", "1"),
    "held_out": ("whether a frame was kept aside while learning", "1"),
    "law_concentration": ("concentrations at which the rate law is shown", "concentration"),
    "law_order": ("substrate order of each rate law", "1"),
    "law_f": ("learned substrate function f", "1"),
    "true_law_f": ("true substrate function f", "1"),
    "sweep": (
        "concentrations at which MLP_node is shown: 0 to 40 where there is a truth, else 0 to the highest observed",
        "concentration",
    ),
    "node_curve": ("MLP_node of every species over the sweep", "concentration/time"),
    "slope": ("slope of MLP_node's line over the sweep", "1/time"),
    "offset": ("offset of MLP_node's line over the sweep", "concentration/time"),
    "slope_observed": ("slope of MLP_node's line over the species' own observed range", "1/time"),
    "offset_observed": ("offset of MLP_node's line over the species' own observed range", "concentration/time"),
    "lowest": ("lowest observed concentration", "concentration"),
    "highest": ("highest observed concentration", "concentration"),
    "moving": ("whether the species may change", "1"),
    "embedding": ("embedding of the species", "1"),
    "cluster": ("cluster of the embeddings, the species' type as found; -1 for fixed species", "1"),
    "phase2_loss": ("misfit of Phase 2 after every step", ""),
    "phase2_components": ("further loss terms of Phase 2", ""),
    "true_type": ("true type of the species", "1"),
    "true_slope": ("true slope of homeostasis, minus lambda", "1/time"),
    "true_offset": ("true offset of homeostasis, lambda times baseline", "concentration/time"),
    "derivative": ("mean dc/dt over each step between two frames", "concentration/time"),
    "predicted_derivative": ("the same as the model has it", "concentration/time"),
    "transition_time": ("time at the start of each step", "time"),
}


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """The same data with a description and units on every variable, where they are not there already."""
    for name, variable in dataset.data_vars.items():
        text, units = VARIABLES[str(name)]
        variable.attrs = {"long_name": text, **({"units": units} if units else {}), **variable.attrs}
    return dataset
