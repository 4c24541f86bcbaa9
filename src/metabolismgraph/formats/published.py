"""Data folders and checkpoints of the published program (Allier 2026), which its users have as NumPy and PyTorch files.

The arrays of a data folder also hold the type of every metabolite (column 6). It is read by `ground_truth.published`
alone, never here, so that it cannot reach training.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.formats.torch_file import read_torch
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import Aggregation
from metabolismgraph.system.model import MetabolismModel, NodeFunction, Perceptron, PublishedSubstrateFunction
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

CONCENTRATION, EXTERNAL_INPUT = 3, 4  # columns of x_list
_GRAPH, _STOICHIOMETRY = "stoich_graph.pt", "stoichiometry.pt"
_PARTS = ("sub", "all")  # edges of substrates with their orders, and all edges with net coefficients
_LARGEST = 1 << 32  # bytes of an array
_STEP_SPREAD = 0.1  # largest share of the changes of concentration that dc/dt times the step may leave unexplained
_STEP_DIGITS = 4  # significant digits of the step
# What a checkpoint holds beside the layers of its two networks: what is used, and what follows from it.
_USED = ("log_k", "a", "sto_all", "met_sub", "rxn_sub", "met_all", "rxn_all", "sub_to_all")
_DERIVED = ("met_prod", "rxn_prod", "prod_indices", "n_sub_per_rxn", "n_prod_per_rxn")
_LAYER = re.compile(r"(node_func|substrate_func)\.(\d+)\.(weight|bias)")

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]  # metabolite, reaction, coefficient
Module = TypeVar("Module", bound=eqx.Module)


def is_published(path: Path) -> bool:
    """Whether a folder has one of the files of the published program."""
    return any((path / name).exists() for name in (_GRAPH, _STOICHIOMETRY, "x_list_0.npy"))


def read_published_data(folder: Path, delta_t: float | None = None) -> Observations:
    """Network and concentrations of a published data folder.

    Species are named M000, M001, ... and reactions R000, R001, ... by their numbers in the folder.

    Args:
        folder: holds stoich_graph.pt, stoichiometry.pt and, per run, x_list_0.npy and y_list_0.npy.
        delta_t: time between frames; None: found from the changes of concentration and their dc/dt in y_list.

    Raises:
        InputError: a file is missing, damaged or does not fit the others, there are external inputs, or y_list does not
            determine the time between frames.
    """
    if delta_t is not None and not 0 < delta_t < np.inf:
        raise InputError(f"--delta-t {delta_t:g}: the time between frames must be greater than zero")
    network = _read_network(folder)
    concentration = []
    for run in range(len(list(folder.glob("x_list_*.npy"))) or 1):
        path = folder / f"x_list_{run}.npy"
        x = read_array(path)
        if x.ndim != 3 or x.shape[1] != network.n_species or x.shape[2] <= EXTERNAL_INPUT:
            raise InputError(
                f"{path}: has shape {x.shape}; expected frames x {network.n_species} metabolites x columns"
            )
        if np.any(x[..., EXTERNAL_INPUT]):
            raise InputError(f"{path}: column {EXTERNAL_INPUT}, external input, is not zero; it is not modelled")
        concentration.append(np.asarray(x[..., CONCENTRATION], dtype=np.float64))
    lengths = [len(c) for c in concentration]
    observations = Observations(
        network=network,
        time=np.concatenate([np.arange(n, dtype=np.float64) for n in lengths]),
        run=np.repeat(np.arange(len(lengths)), lengths),
        concentration=np.concatenate(concentration),
    )
    step = delta_t or np.median([_found_step(c, folder / f"y_list_{run}.npy") for run, c in enumerate(concentration)])
    return dataclasses.replace(observations, time=np.round(observations.time * step, 12))


def read_array(path: Path) -> np.ndarray:
    """A NumPy file, mapped into memory, so that only the columns in use are read.

    Raises:
        InputError: it is missing, too large or damaged, or it holds no numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; see `metabolismgraph convert --help` for a data folder") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable NumPy array ({error})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise InputError(f"{path}: not an array of floating-point numbers")
    if array.nbytes > _LARGEST:
        raise InputError(f"{path}: larger than {_LARGEST >> 30} GiB; split it into runs")
    return array


def read_rate(path: Path, c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "frames species"]:
    """dc/dt at the concentrations `c` of a run.

    Raises:
        InputError: as for `read_array`, or the file has another number of values.
    """
    y = read_array(path)
    if y.size != c.size:
        raise InputError(f"{path}: holds {y.size} values of dc/dt for {c.size} concentrations")
    return np.asarray(y, dtype=np.float64).reshape(c.shape)


def _found_step(c: Float[np.ndarray, "frames species"], path: Path) -> float:
    """The time between frames: the least-squares factor of dc/dt that gives the changes of concentration."""
    rate, change = read_rate(path, c)[:-1], np.diff(c, axis=0)
    usable = np.isfinite(rate).all() and np.any(rate) and np.any(change)
    step = float(np.sum(rate * change) / np.sum(rate**2)) if usable else -1.0
    if not step > 0 or np.sum((change - step * rate) ** 2) > _STEP_SPREAD**2 * np.sum(change**2):
        raise InputError(f"{path}: does not determine the time between frames; give it with --delta-t")
    return float(f"{step:.{_STEP_DIGITS}g}")


def _read_network(folder: Path) -> ReactionNetwork:
    path = folder / _GRAPH
    if not path.exists():
        raise InputError(
            f"{path}: no such file; a published data folder holds {_GRAPH}, {_STOICHIOMETRY} and x_list_0.npy"
        )
    graph = read_torch(path)
    matrix = read_torch(folder / _STOICHIOMETRY)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InputError(f"{folder / _STOICHIOMETRY}: not a matrix of metabolites x reactions")
    if not isinstance(graph, dict) or set(graph) != set(_PARTS):
        raise InputError(f"{path}: expected the entries sub and all alone; external stimuli are not modelled")
    orders, net = (_dense(_edges(graph[part], f"{path}: {part}"), matrix.shape, f"{path}: {part}") for part in _PARTS)
    if not np.array_equal(net, matrix):
        raise InputError(f"{path}: its coefficients are not those of {_STOICHIOMETRY}; take both from one folder")
    if (orders < np.maximum(-net, 0)).any():
        i, j = (int(x) for x in np.argwhere(orders < np.maximum(-net, 0))[0])
        raise InputError(f"{path}: reaction {j} consumes more of metabolite {i} than its order as a substrate")
    width = max(3, len(str(max(matrix.shape) - 1)))
    species = [f"M{i:0{width}d}" for i in range(matrix.shape[0])]

    def named(column: np.ndarray) -> dict[str, float]:
        return {species[i]: float(column[i]) for i in np.flatnonzero(column)}

    reactions = [Reaction(f"R{j:0{width}d}", named(orders[:, j]), named(net[:, j])) for j in range(matrix.shape[1])]
    return ReactionNetwork.from_reactions(folder.resolve().name, species, reactions)


def _edges(found: Any, where: str) -> Edges:
    """Metabolite, reaction and coefficient of every edge."""
    try:
        metabolite, reaction, coefficient = found
        if not metabolite.shape == reaction.shape == coefficient.shape == (len(coefficient),):
            raise ValueError
        kinds = metabolite.dtype.kind + reaction.dtype.kind + coefficient.dtype.kind
        if kinds != "iif" or not np.isfinite(coefficient).all():
            raise ValueError
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"{where}: expected metabolite, reaction and coefficient of every edge") from None
    return metabolite.astype(np.int64), reaction.astype(np.int64), coefficient


def _dense(edges: Edges, shape: tuple[int, ...], where: str) -> Float[np.ndarray, "species reactions"]:
    """Edges as a matrix of coefficients."""
    metabolite, reaction, coefficient = edges
    matrix = np.zeros(shape)
    for index, size, what in ((metabolite, shape[0], "metabolite"), (reaction, shape[1], "reaction")):
        if index.size and not (index.min() >= 0 and index.max() < size):
            raise InputError(f"{where}: names {what} {index.max()}, but there are {size}")
    if len(np.unique(metabolite * shape[1] + reaction)) < len(metabolite):
        raise InputError(f"{where}: an edge between a metabolite and a reaction is listed twice")
    matrix[metabolite, reaction] = coefficient
    return matrix


def read_published_model(path: Path, network: ReactionNetwork, aggregation: Aggregation) -> MetabolismModel:
    """The model of a published checkpoint: it predicts dc/dt as the published program does.

    Rate constants are corrected as in the program, by alpha = |MLP_sub(1, 1)| per substrate; the substrate factor is
    divided by the same, see `aggregate_published`.

    Args:
        path: best_model_with_..._graphs_....pt, or another file of its model_state_dict.
        network: of the data on which it was trained.
        aggregation: "mul" or "add", `graph_model.aggr_type` of its configuration; the file does not contain it.

    Raises:
        InputError: the file is missing, damaged, or another model; a number is not finite; or its graph or
            stoichiometry is not that of the network.
    """
    content = read_torch(path)
    state = content.get("model_state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise InputError(f"{path}: no model_state_dict; expected a checkpoint of the published program")
    missing = [name for name in _USED if name not in state]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; expected a checkpoint of the published program")
    unknown = [name for name in state if name not in (*_USED, *_DERIVED) and not _LAYER.fullmatch(str(name))]
    if unknown:
        raise InputError(f"{path}: holds {str(unknown[0])!r}, which is not part of the model that can be converted")
    bad = [name for name, value in state.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise InputError(f"{path}: {bad[0]} contains a number that is not finite; take an earlier checkpoint")
    _check_graph(state, network, path)
    embeddings, log_k = state["a"].astype(np.float64), state["log_k"].astype(np.float64)
    if log_k.shape != (network.n_reactions,) or embeddings.ndim != 2 or len(embeddings) != network.n_species:
        raise InputError(
            f"{path}: log_k has shape {log_k.shape} and a {embeddings.shape}, for {network.n_reactions} reactions and "
            f"{network.n_species} metabolites; convert it with the data it was trained on"
        )
    mlp_sub = PublishedSubstrateFunction(_perceptron(state, "substrate_func", 2, path))
    # Without scales: those of the program are 1. The random weights are replaced.
    node = NodeFunction(1, 1, embeddings.shape[1], np.random.default_rng(0))
    node = _with(node, "perceptron", _perceptron(state, "node_func", 1 + embeddings.shape[1], path))
    substrates = np.bincount(network.edge_reaction, minlength=network.n_reactions)
    corrected = log_k + np.maximum(substrates, 1) * float(mlp_sub.log_alpha) / np.log(10.0)
    return MetabolismModel(on_device(corrected), mlp_sub, node, on_device(embeddings), aggregation)


def _check_graph(state: Mapping[str, np.ndarray], network: ReactionNetwork, path: Path) -> None:
    """Compare the graph of a checkpoint with the network.

    Raises:
        InputError: they differ.
    """
    shape = (network.n_species, network.n_reactions)
    every = _edges((state["met_all"], state["rxn_all"], state["sto_all"]), f"{path}: sto_all")
    chosen = state["sub_to_all"]
    if chosen.size and not (chosen.dtype.kind == "i" and chosen.min() >= 0 and chosen.max() < len(every[0])):
        raise InputError(f"{path}: sub_to_all is not an index of sto_all; the file is damaged")
    if not all(
        np.array_equal(whole[chosen], state[name]) for whole, name in zip(every, ("met_sub", "rxn_sub"), strict=False)
    ):
        raise InputError(f"{path}: sub_to_all does not lead from the substrates to their edges; the file is damaged")
    used = _edges((state["met_sub"], state["rxn_sub"], np.abs(every[2][chosen])), f"{path}: met_sub")
    orders = np.zeros(shape)
    orders[network.edge_species, network.edge_reaction] = network.edge_order
    for edges, own, what in ((every, network.stoichiometry, "stoichiometry"), (used, orders, "order of a substrate")):
        found = _dense(edges, shape, f"{path}: {what}")
        if np.array_equal(found, own):
            continue
        i, j = (int(x) for x in np.argwhere(found != own)[0])
        raise InputError(
            f"{path}: the {what} of {network.species[i]} in {network.reactions[j]} is {found[i, j]:g}, but "
            f"{own[i, j]:g} in the data; convert it with its own data (learned stoichiometry is not supported)"
        )


def _perceptron(state: Mapping[str, np.ndarray], name: str, inputs: int, path: Path) -> Perceptron:
    """A network of Linear layers with tanh between; the layers have even numbers."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in state)
    keys = [[f"{name}.{2 * layer}.{part}" for layer in range(count)] for part in ("weight", "bias")]
    missing = [key for key in (*keys[0], *keys[1]) if key not in state] or [f"{name}.0.weight"] * (count == 0)
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; expected a checkpoint of the published program")
    weights, biases = ([state[key].astype(np.float64) for key in part] for part in keys)
    sizes = [inputs, *(len(bias) if bias.ndim == 1 else -1 for bias in biases)]
    expected = list(zip(sizes[1:], sizes[:-1], strict=True))
    wrong = [key for key, w, shape in zip(keys[0], weights, expected, strict=True) if w.shape != shape]
    if wrong or sizes[-1] != 1:
        raise InputError(
            f"{path}: {(wrong or [keys[0][-1]])[0]} has a wrong shape; expected layers from {inputs} inputs to 1 output"
        )
    network = Perceptron(sizes, np.random.default_rng(0))
    network = _with(network, "weights", [on_device(weight.T) for weight in weights])
    return _with(network, "biases", [on_device(bias) for bias in biases])


def _with(module: Module, name: str, value: Any) -> Module:
    changed: Module = eqx.tree_at(lambda m: getattr(m, name), module, value)
    return changed
