"""Checkpoints: input and results of training, as safetensors beside JSON.

Not pickle, since checkpoints are exchanged between users.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ValidationError

from metabolismgraph.config import GraphModel
from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.homeostasis.residuals import Residuals
from metabolismgraph.reactions.identifiability import Combination, Identifiability
from metabolismgraph.reactions.result import Phase1Result, TrajectoryEvidence, WindowEvidence
from metabolismgraph.runs.checkpoint_content import (
    INTERPOLATED,
    LINES,
    LOSSES,
    OBSERVATIONS,
    PHASE1,
    RESIDUALS,
    TRAJECTORIES,
    WINDOWS,
    Meta,
    NetworkJson,
    ObservationsMeta,
    Phase1Meta,
    Phase2Meta,
    array_fault,
    meta_fault,
    snapshot_fault,
    weights_fault,
)
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.model import MetabolismModel, NodeFunction, empty_substrate_function
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations
from metabolismgraph.text import one_line, printable

# Names without suffix, in the folder of a training.
OBSERVATIONS_FILE, PHASE1_FILE, PHASE2_FILE, REFINED_FILE = "observations", "phase1", "phase2", "refined"
RESIDUALS_FILE = "residuals"
_PHASE1_ARRAYS = (
    "log_k",
    "log_k_error",
    "upper",
    "mass_action",
    "slope",
    "offset",
    "slope_error",
    "offset_error",
    "slope_offset_covariance",
    "noise",
    "keep",
    "losses",
)
_IDENTIFIABILITY_ARRAYS = ("identifiable", "null_space", "eigenvalues")
_PHASE1_WORDS = ("converged", "rule", "law_fails", "reasons", "notes", "alpha")
_OBSERVED_ARRAYS = ("time", "run", "concentration")

Module = TypeVar("Module")
M = TypeVar("M", bound=BaseModel)


class _Any(BaseModel):
    """A JSON file, whatever it tells."""


class _Digest(BaseModel):
    sha256: str


def save_phase1(path: Path, result: Phase1Result, seconds: float) -> None:
    """Write `path`.safetensors and `path`.json, with the duration of training in seconds."""
    found = result.identifiability
    arrays = {name: np.asarray(getattr(result, name)) for name in _PHASE1_ARRAYS} | _named(result.mlp_sub, "mlp_sub")
    arrays |= {f"identifiability.{name}": getattr(found, name) for name in _IDENTIFIABILITY_ARRAYS}
    evidence = {} if result.trajectories is None else dataclasses.asdict(result.trajectories)
    arrays |= {f"trajectories.{name}": value for name, value in evidence.items() if isinstance(value, np.ndarray)}
    meta = {name: getattr(result, name) for name in _PHASE1_WORDS} | {"groups": found.groups}
    meta["combinations"] = [[(c.reactions, c.coefficients) for c in group] for group in found.combinations]
    if result.windows is not None:
        arrays["windows.root"] = result.windows.root
        meta["windows"] = {"noise": result.windows.noise}
    meta["trajectories"] = {name: value for name, value in evidence.items() if not isinstance(value, np.ndarray)}
    _write(path, arrays, {"seconds": seconds, **meta})


def load_phase1(path: Path, graph_model: GraphModel, network: ReactionNetwork | None = None) -> Phase1Result:
    """Read a checkpoint of `save_phase1`.

    Args:
        path: of its files, without the suffix.
        graph_model: structure of the learned model.
        network: that it must have been made for; None: any.

    Raises:
        InputError: a file is missing or damaged, or belongs to a network of another shape.
    """
    arrays, meta = _read(path, Phase1Meta, "result of Phase 1")
    # Before they are compared: a checkpoint of an older version lacks some of them.
    missing = [name for name in PHASE1 if name not in arrays]
    if missing:
        raise InputError(f"{path}.safetensors: made by an older version ({missing[0]} is missing); train it again")
    sizes = _sizes(network)
    fault = array_fault(arrays, PHASE1 | (LINES if meta.windows is None else {}), sizes)
    if meta.trajectories is not None:
        fault = fault or array_fault(arrays, TRAJECTORIES, sizes, "trajectories.") or _unknowns_fault(sizes)
    if meta.windows is not None:
        fault = fault or array_fault(arrays, WINDOWS, sizes, "windows.")
    if fault or (fault := _indices_fault(meta, sizes)):
        raise InputError(f"{path}.safetensors: holds no result of Phase 1 ({fault}); train it again")
    directions: dict[str, Any] = {name: arrays[f"identifiability.{name}"] for name in _IDENTIFIABILITY_ARRAYS}
    identifiability = Identifiability(
        **directions,
        groups=meta.groups,
        combinations=tuple(tuple(Combination(r, c) for r, c in group) for group in meta.combinations),
    )
    evidence = None
    found: dict[str, Any] = {name: arrays[name] for name in _PHASE1_ARRAYS}
    found |= {name: getattr(meta, name) for name in _PHASE1_WORDS}
    if meta.trajectories is not None:
        of_fit: dict[str, Any] = {name: arrays[f"trajectories.{name}"] for name in TRAJECTORIES}
        evidence = TrajectoryEvidence(**of_fit, **meta.trajectories.model_dump())
    return Phase1Result(
        mlp_sub=_filled(empty_substrate_function(graph_model), arrays, "mlp_sub", path),
        identifiability=identifiability,
        **found,
        trajectories=evidence,
        windows=None if meta.windows is None else WindowEvidence(meta.windows.noise, arrays["windows.root"]),
    )


def _unknowns_fault(sizes: Mapping[str, int]) -> str:
    """What is wrong with the sizes of the evidence of trajectories; empty if nothing is."""
    laws = sizes["unknowns"] - sizes["reactions"] - 2 * sizes["species"]
    fits = laws == sizes["coefficients"] and not laws % max(sizes["functions"], 1)
    return "" if fits else "trajectories.covariance has another shape"


def _indices_fault(meta: Phase1Meta, sizes: Mapping[str, int]) -> str:
    """What is wrong with the reactions that are named by number; empty if nothing is."""
    if len(meta.reasons) != sizes["reactions"] or len(meta.combinations) != len(meta.groups):
        return "reasons or combinations are not one for each reaction or group"
    pairs = [pair for group in meta.combinations for pair in group]
    named = [*meta.groups, *(reactions for reactions, _ in pairs)]
    if any(j >= sizes["reactions"] for group in named for j in group) or any(len(r) != len(c) for r, c in pairs):
        return "groups or combinations are not those of its reactions"
    return ""


def _sizes(network: ReactionNetwork | None) -> dict[str, int]:
    return {} if network is None else {"reactions": network.n_reactions, "species": network.n_species}


def save_phase2(path: Path, result: Phase2Result, seconds: float) -> None:
    """Write `path`.safetensors and `path`.json, with the duration of training in seconds."""
    arrays = {"losses": np.asarray(result.losses)} | _named(result.model, "model")
    arrays |= {f"component.{name}": np.asarray(curve) for name, curve in result.components.items()}
    for step, model in result.snapshots.items():
        arrays |= _named(_trained(model), f"snapshot.{step}")
    meta = {"node_magnitude": result.node_magnitude, "loss_unit": result.loss_unit, "notes": list(result.notes)}
    meta |= {"gain": result.gain}
    _write(path, arrays, {"seconds": seconds, **meta})


def load_phase2(path: Path, graph_model: GraphModel, network: ReactionNetwork | None = None) -> Phase2Result:
    """Read a checkpoint of `save_phase2`.

    Args:
        path: of its files, without the suffix.
        graph_model: structure of the learned model.
        network: that it must have been made for; None: any.

    Raises:
        InputError: a file is missing or damaged, or belongs to a network of another shape.
    """
    arrays, meta = _read(path, Phase2Meta, "result of Phase 2")
    curves = {name: curve for name, curve in arrays.items() if name.startswith("component.")}
    fault = array_fault(arrays, {"losses": LOSSES, **dict.fromkeys(curves, LOSSES._replace(shape=("curve",)))}, {})
    if fault or (fault := snapshot_fault(list(arrays))):
        raise InputError(f"{path}.safetensors: holds no result of Phase 2 ({fault}); train it again")
    # Of the sizes that the network has, or those of the checkpoint, which must be those of its snapshots.
    sizes = _sizes(network) or {
        "reactions": arrays.get("model.log_k", np.zeros(0)).size,
        "species": arrays.get("model.embeddings", np.zeros(0)).shape[0],
    }
    empty = MetabolismModel(
        log_k=on_device(np.zeros(sizes["reactions"])),
        mlp_sub=empty_substrate_function(graph_model),
        mlp_node=NodeFunction(
            graph_model.hidden_dim_node,
            graph_model.n_layers_node,
            graph_model.embedding_dim,
            np.random.default_rng(0),  # shapes only: the weights are replaced
        ),
        embeddings=on_device(np.zeros((sizes["species"], graph_model.embedding_dim))),
        aggregation=graph_model.aggr_type,
    )
    model = _filled(empty, arrays, "model", path)
    steps = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("snapshot.")})
    kept = {step: _filled(_trained(empty), arrays, f"snapshot.{step}", path) for step in steps}
    return Phase2Result(
        model=model,
        snapshots={step: eqx.tree_at(_trained, model, trained) for step, trained in kept.items()},
        losses=arrays["losses"],
        loss_unit=meta.loss_unit,
        components={name.removeprefix("component."): curve for name, curve in curves.items()},
        node_magnitude=meta.node_magnitude,
        notes=meta.notes,
        gain=meta.gain,
    )


def save_residuals(path: Path, residuals: Residuals, seconds: float) -> None:
    """Write `path`.safetensors and `path`.json, with the duration of their computation in seconds."""
    _write(path, {name: np.asarray(getattr(residuals, name)) for name in RESIDUALS}, {"seconds": seconds})


def load_residuals(path: Path, observations: Observations) -> Residuals:
    """Read the files of `save_residuals`.

    Args:
        path: of its files, without the suffix.
        observations: that they must have been made for.

    Raises:
        InputError: a file is missing or damaged, or belongs to data of another shape.
    """
    arrays, _ = _read(path, Meta, "residuals")
    sizes = {"transitions": len(observations.transitions().dt), "species": observations.network.n_species}
    if fault := array_fault(arrays, RESIDUALS, sizes):
        raise InputError(f"{path}.safetensors: holds no residuals of these data ({fault}); remove it")
    return Residuals(**{name: arrays[name] for name in RESIDUALS})


def save_observations(path: Path, observations: Observations) -> None:
    """Write `path`.safetensors and `path`.json, which the sandbox can read without the NetCDF library."""
    arrays = {name: np.asarray(getattr(observations, name)) for name in _OBSERVED_ARRAYS}
    if observations.interpolated is not None:
        arrays["interpolated"] = observations.interpolated
    _write(path, arrays, {"network": observations.network.to_json(), "notes": list(observations.notes)})


def load_observations(path: Path) -> Observations:
    """Read the files of `save_observations`.

    Raises:
        InputError: a file is missing or damaged.
    """
    arrays, meta = _read(path, ObservationsMeta, "observations")
    wanted = OBSERVATIONS | (INTERPOLATED if "interpolated" in arrays else {})
    try:
        NetworkJson.model_validate_json(meta.network)
        network = ReactionNetwork.from_json(meta.network)
        fault = array_fault(arrays, wanted, _sizes(network))
    except ValidationError as error:
        fault = f"network: {meta_fault(error)}"
    if fault:
        raise InputError(f"{path}.safetensors: holds no observations ({fault}); start the run again")
    return Observations(network, **{name: arrays[name] for name in wanted}, notes=meta.notes)


def is_intact(path: Path) -> bool:
    """Whether both files of a checkpoint are there and match."""
    try:
        _read(path, _Any, "")
    except InputError:
        return False
    return True


def seconds_taken(path: Path) -> float:
    """Duration of the training that made a checkpoint [s].

    Raises:
        InputError: it is missing or damaged.
    """
    return _read(path, Meta, "result of training")[1].seconds


def _trained(model: MetabolismModel) -> tuple[NodeFunction, Any]:
    """What Phase 2 trains."""
    return model.mlp_node, model.embeddings


def _named(module: Any, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a module by their path, such as mlp_sub.perceptron.weights.0."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(module)
    return {f"{prefix}.{_dotted(path)}": np.asarray(leaf) for path, leaf in leaves}


def _dotted(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _filled(empty: Module, arrays: dict[str, np.ndarray], prefix: str, path: Path) -> Module:
    """The module with its arrays replaced by the stored ones of the same names."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(empty)
    names = [f"{prefix}.{_dotted(p)}" for p, _ in leaves]
    # Older checkpoints have no reference concentration of the rate law; it was 1.
    arrays = {name: np.zeros(()) for name in names if name.endswith("mlp_sub.reference")} | arrays
    # Scalars are stored as arrays of length one.
    shapes = {name: leaf.shape or (1,) for name, (_, leaf) in zip(names, leaves, strict=True)}
    missing = [
        name for name, shape in shapes.items() if name not in arrays or np.atleast_1d(arrays[name]).shape != shape
    ]
    if missing or len(names) != sum(name.startswith(f"{prefix}.") for name in arrays):
        raise InputError(
            f"{path}.safetensors: does not fit graph_model of the configuration; use the one it was made with"
        )
    for name in names:
        if fault := weights_fault(name, arrays[name]):
            raise InputError(f"{path}.safetensors: {name} {fault}; train it again")
    read = [arrays[name].reshape(leaf.shape) for name, (_, leaf) in zip(names, leaves, strict=True)]
    filled: Module = jax.tree_util.tree_unflatten(tree, [on_device(array) for array in read])
    return filled


def _write(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    # safetensors needs contiguous memory.
    content = safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path.with_suffix(".safetensors"), content)
    # The JSON file with the checksum is written last: it makes the checkpoint valid.
    meta = {"sha256": hashlib.sha256(content).hexdigest(), **meta}
    write_bytes(path.with_suffix(".json"), json.dumps(meta, indent=1).encode())


def _read(path: Path, kind: type[M], what: str) -> tuple[dict[str, np.ndarray], M]:
    """The arrays and the JSON file of a checkpoint.

    Args:
        path: of its files, without the suffix.
        kind: of the JSON file.
        what: the checkpoint holds, for messages.

    Raises:
        InputError: a file is missing or damaged, or the JSON file is of another kind.
    """
    arrays, meta = path.with_suffix(".safetensors"), path.with_suffix(".json")
    try:
        content, raw = arrays.read_bytes(), meta.read_bytes()
        digest = _Digest.model_validate_json(raw).sha256
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{arrays}: does not match its checksum in {meta.name}; train it again")
        return safetensors.numpy.load(content), kind.model_validate_json(raw)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; a checkpoint is {arrays.name} with {meta.name}") from None
    except ValidationError as error:
        raise InputError(f"{arrays}: holds no {what} ({meta_fault(error)}); train it again") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, safetensors.SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{arrays}: damaged checkpoint ({one_line(printable(str(error)))}); train it again") from None
