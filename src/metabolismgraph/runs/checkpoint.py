"""Checkpoints: input and results of training, as safetensors beside JSON.

Not pickle, since checkpoints are exchanged between users.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from metabolismgraph.config import GraphModel
from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.reactions.identifiability import Combination, Identifiability
from metabolismgraph.reactions.result import Phase1Result, TrajectoryEvidence, WindowEvidence
from metabolismgraph.system.model import MetabolismModel, NodeFunction, empty_substrate_function
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations

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
_ANY_KEY = 0  # shapes only: the random numbers drawn with it are replaced

_SNAPSHOT = re.compile(r"snapshot\.\d{1,15}\.")

Module = TypeVar("Module")


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


def load_phase1(path: Path, graph_model: GraphModel) -> Phase1Result:
    """Read a checkpoint of `save_phase1`.

    Raises:
        InputError: a file is missing or damaged, or belongs to a network of another shape.
    """
    arrays, meta = _read(path)
    meta = {"alpha": 1.0, "trajectories": {}, "windows": {}, **meta}  # older checkpoints do not tell
    wanted = (*_PHASE1_ARRAYS, *_PHASE1_WORDS, "groups", "combinations")
    absent = [name for name in wanted if name not in {**arrays, **meta}]
    prefix = "trajectories."
    evidence: dict[str, Any] = {
        name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
    } | meta["trajectories"]
    if evidence:
        absent += [field.name for field in dataclasses.fields(TrajectoryEvidence) if field.name not in evidence]
    if absent:
        raise InputError(f"{path}.safetensors: made by an older version ({absent[0]} is missing); train it again")
    identifiability = Identifiability(
        **{name: arrays[f"identifiability.{name}"] for name in _IDENTIFIABILITY_ARRAYS},
        groups=tuple(tuple(g) for g in meta["groups"]),
        combinations=tuple(tuple(Combination(tuple(r), tuple(c)) for r, c in g) for g in meta["combinations"]),
    )
    return Phase1Result(
        mlp_sub=_filled(empty_substrate_function(graph_model), arrays, "mlp_sub", path),
        identifiability=identifiability,
        **{name: arrays[name] for name in _PHASE1_ARRAYS},
        converged=meta["converged"],
        rule=meta["rule"],
        law_fails=meta["law_fails"],
        reasons=tuple(meta["reasons"]),
        notes=tuple(meta["notes"]),
        alpha=meta["alpha"],
        trajectories=TrajectoryEvidence(**evidence) if evidence else None,
        windows=WindowEvidence(root=arrays["windows.root"], **meta["windows"]) if meta["windows"] else None,
    )


def save_phase2(path: Path, result: Phase2Result, seconds: float) -> None:
    """Write `path`.safetensors and `path`.json, with the duration of training in seconds."""
    arrays = {"losses": np.asarray(result.losses)} | _named(result.model, "model")
    arrays |= {f"component.{name}": np.asarray(curve) for name, curve in result.components.items()}
    for step, model in result.snapshots.items():
        arrays |= _named(_trained(model), f"snapshot.{step}")
    meta = {"node_magnitude": result.node_magnitude, "loss_unit": result.loss_unit, "notes": list(result.notes)}
    meta |= {"gain": result.gain}
    _write(path, arrays, {"seconds": seconds, **meta})


def load_phase2(path: Path, graph_model: GraphModel) -> Phase2Result:
    """Read a checkpoint of `save_phase2`.

    Raises:
        InputError: a file is missing or damaged, or belongs to a network of another shape.
    """
    arrays, meta = _read(path)
    if fault := _phase2_fault(arrays, meta):
        raise InputError(f"{path}.safetensors: holds no result of Phase 2 ({fault}); train it again")
    key = jax.random.key(_ANY_KEY)
    empty = MetabolismModel(
        log_k=jnp.zeros(0),
        mlp_sub=empty_substrate_function(graph_model),
        mlp_node=NodeFunction(graph_model.hidden_dim_node, graph_model.n_layers_node, graph_model.embedding_dim, key),
        embeddings=jnp.zeros((0, graph_model.embedding_dim)),
        aggregation=graph_model.aggr_type,
    )
    model = _filled(empty, arrays, "model", path)
    steps = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("snapshot.")})
    kept = {step: _filled(_trained(empty), arrays, f"snapshot.{step}", path) for step in steps}
    return Phase2Result(
        model=model,
        snapshots={step: eqx.tree_at(_trained, model, trained) for step, trained in kept.items()},
        losses=arrays["losses"],
        loss_unit=meta["loss_unit"],
        components={
            name.removeprefix("component."): curve for name, curve in arrays.items() if name.startswith("component.")
        },
        node_magnitude=meta["node_magnitude"],
        notes=tuple(meta["notes"]),
        gain=meta.get("gain"),  # older checkpoints have none
    )


def _phase2_fault(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """What is wrong with the content of a checkpoint of Phase 2; empty if nothing is."""
    for name, kind in (("loss_unit", str), ("node_magnitude", (int, float)), ("notes", list)):
        if not isinstance(meta.get(name), kind):
            return f"{name} is missing, or of another kind"
    if not isinstance(meta.get("gain"), (int, float, type(None))):
        return "gain is of another kind"
    if not all(isinstance(note, str) for note in meta["notes"]):
        return "a note is not a text"
    if arrays.get("losses", np.zeros(())).ndim != 1:
        return "losses are missing, or of another shape"
    strange = [name for name in arrays if name.startswith("snapshot.") and not _SNAPSHOT.match(name)]
    return f"{strange[0]} is not known" if strange else ""


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
    arrays, meta = _read(path)
    missing = [name for name in (*_OBSERVED_ARRAYS, "network") if name not in {**arrays, **meta}]
    if missing:
        raise InputError(f"{path}.safetensors: holds no observations ({missing[0]} is missing); start the run again")
    return Observations(
        ReactionNetwork.from_json(meta["network"]),
        **{name: arrays[name] for name in _OBSERVED_ARRAYS},
        notes=tuple(meta.get("notes", ())),
        interpolated=arrays.get("interpolated"),
    )


def is_intact(path: Path) -> bool:
    """Whether both files of a checkpoint are there and match."""
    try:
        _read(path)
    except InputError:
        return False
    return True


def seconds_taken(path: Path) -> float:
    """Duration of the training that made a checkpoint [s].

    Raises:
        InputError: it is missing or damaged.
    """
    return float(_read(path)[1]["seconds"])


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
    missing = [name for name in names if name not in arrays]
    if missing or len(names) != sum(name.startswith(f"{prefix}.") for name in arrays):
        raise InputError(
            f"{path}.safetensors: does not fit graph_model of the configuration; use the one it was made with"
        )
    # Scalars are stored as arrays of length one.
    read = [
        arrays[name].reshape(()) if leaf.ndim == 0 else arrays[name]
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    filled: Module = jax.tree_util.tree_unflatten(tree, [jnp.asarray(array) for array in read])
    return filled


def _write(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    # safetensors needs contiguous memory.
    content = safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path.with_suffix(".safetensors"), content)
    # The JSON file with the checksum is written last: it makes the checkpoint valid.
    meta = {"sha256": hashlib.sha256(content).hexdigest(), **meta}
    write_bytes(path.with_suffix(".json"), json.dumps(meta, indent=1).encode())


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, meta = path.with_suffix(".safetensors"), path.with_suffix(".json")
    try:
        content, raw = arrays.read_bytes(), json.loads(meta.read_bytes())
        if hashlib.sha256(content).hexdigest() != raw["sha256"]:
            raise InputError(f"{arrays}: does not match its checksum in {meta.name}; train it again")
        return safetensors.numpy.load(content), raw
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; a checkpoint is {arrays.name} with {meta.name}") from None
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{arrays}: damaged checkpoint ({error}); train it again") from None
