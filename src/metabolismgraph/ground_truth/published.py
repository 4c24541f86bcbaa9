"""The truth of a published data folder: types from its arrays, rate constants and homeostasis from its generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metabolismgraph.errors import InputError
from metabolismgraph.formats.published import CONCENTRATION, read_array, read_rate
from metabolismgraph.formats.torch_file import read_torch
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.system.kinetics import Structure, mass_action
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_GENERATOR, _PARAMETERS = "gt_model.pt", "model_p_0.pt"
_TYPE = 6  # column of x_list
_AGREES = 1e-3  # largest error of dc/dt, relative to its rms


def read_published_truth(folder: Path, network: ReactionNetwork) -> Truth | None:
    """The labels of a published data folder; None without gt_model.pt.

    Args:
        folder: see `read_published_data`; the homeostasis of the types is in model_p_0.pt or in gt_model.pt.
        network: of the same folder.

    Raises:
        InputError: a file is damaged or does not fit the others, or mass action with these rate constants does not give
            the dc/dt of y_list_0.npy, so that another rate law made the data.
    """
    path = folder / _GENERATOR
    if not path.exists():
        return None
    state = read_torch(path)
    log_k = state.get("log_k") if isinstance(state, dict) else None
    if not isinstance(log_k, np.ndarray) or log_k.shape != (network.n_reactions,):
        raise InputError(f"{path}: no log_k of {network.n_reactions} reactions; take it from the folder of the data")
    # The generator may have drawn the parameters of the types after it saved itself.
    drawn = folder / _PARAMETERS
    p = read_torch(drawn) if drawn.exists() else state.get("p")
    x = read_array(folder / "x_list_0.npy")
    if x.shape[2] <= _TYPE:
        raise InputError(f"{folder / 'x_list_0.npy'}: has no column {_TYPE} with types, which {_GENERATOR} refers to")
    label = np.asarray(x[0, :, _TYPE])
    if not isinstance(p, np.ndarray) or p.ndim != 2 or p.shape[1] != 2 or not np.isin(label, range(len(p))).all():
        raise InputError(
            f"{path}: no p with lambda and baseline of every type; remove the file to convert without labels"
        )
    types = label.astype(np.int64)
    lam, baseline = p[types].astype(np.float64).T
    truth = Truth(network.reactions, network.species, 10.0 ** log_k.astype(np.float64), types, lam, baseline)
    if not _explains(truth, folder, network):
        raise InputError(
            f"{path}: mass action with its rate constants does not give y_list_0.npy, so another rate law made the "
            "data; remove the file to convert without labels"
        )
    return truth


def _explains(truth: Truth, folder: Path, network: ReactionNetwork) -> bool:
    """Whether mass action and homeostasis give most values of dc/dt in the first run.

    Not all, since the generator may have limited fluxes. Where it added noise, files with raw_ have none.
    """
    without_noise = "raw_" if (folder / "raw_x_list_0.npy").exists() else ""
    path = folder / f"{without_noise}y_list_0.npy"
    if not path.exists():  # nothing to compare with
        return True
    c = np.asarray(read_array(folder / f"{without_noise}x_list_0.npy")[..., CONCENTRATION], dtype=np.float64)
    rate = read_rate(path, c)
    reactions = TabulatedReactions.of(mass_action, truth.k, Structure.of(network), "mul", c)
    error = reactions(c) - truth.lam * (c - truth.baseline) - rate
    return bool(np.median(np.abs(error) / np.maximum(np.sqrt(np.mean(rate**2, axis=0)), 1e-30)) < _AGREES)
