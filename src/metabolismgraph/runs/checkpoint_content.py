"""What checkpoints hold: kinds, shapes and ranges, checked where they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.text import one_line, printable
from metabolismgraph.trajectories.integrators import METHODS

# Largest magnitudes: of quantities in the units of data, whose squares are still finite; of weights and embeddings,
# which are of order one; of log10 k, so that k is a finite number > 0.
_QUANTITY, _WEIGHT, _LOG_K = 1e100, 1e9, 300.0
_SNAPSHOT = re.compile(r"snapshot\.\d{1,15}\.")
_WEIGHTS = re.compile(
    r"(weights|biases)\.\d+$|embeddings$|skip$|mlp_node\.(slope|offset)$|^snapshot\.\d+\.(0\.(slope|offset)|1)$"
)

Index = Annotated[int, Field(ge=0)]
Quantity = Annotated[float, Field(ge=-_QUANTITY, le=_QUANTITY)]
Order = Annotated[float, Field(ge=-1e6, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=_QUANTITY)]
Note = Annotated[str, Field(max_length=10_000)]
_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == {} else value)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Meta(_Strict):
    """What every checkpoint of training tells in its JSON file; other keys may be there."""

    seconds: float = Field(ge=0, le=1e12)


class Trajectories(_Strict):
    """The numbers of `TrajectoryEvidence`."""

    method: str
    substeps: int = Field(ge=1, le=1_000_000)
    window: Index
    chi2: Quantity
    proportional: float = Field(ge=0, le=1)
    refused: Index = 0
    growth: float = Field(np.inf, allow_inf_nan=True)

    @model_validator(mode="after")
    def _known(self) -> Trajectories:
        if self.method not in METHODS:
            raise ValueError("its integrator is not known")
        return self


class Windows(_Strict):
    """The number of `WindowEvidence`."""

    noise: Positive


class Phase1Meta(Meta):
    """The JSON file of a checkpoint of Phase 1; some of it, older checkpoints do not tell."""

    converged: bool
    rule: Rule
    law_fails: bool
    reasons: tuple[Note, ...]
    notes: tuple[Note, ...]
    groups: tuple[tuple[Index, ...], ...]
    combinations: tuple[tuple[tuple[tuple[Index, ...], tuple[Quantity, ...]], ...], ...]
    alpha: Positive = 1.0
    trajectories: Annotated[Trajectories | None, _EMPTY_IS_NONE] = None
    windows: Annotated[Windows | None, _EMPTY_IS_NONE] = None


class Phase2Meta(Meta):
    """The JSON file of a checkpoint of Phase 2."""

    node_magnitude: float = Field(ge=0, le=_QUANTITY)
    loss_unit: str = Field(max_length=60)
    notes: tuple[Note, ...]
    gain: float | None = Field(None, le=1.0)


class ObservationsMeta(_Strict):
    """The JSON file of observations; the network is JSON as well."""

    network: str
    notes: tuple[Note, ...] = ()


class _Reaction(_Strict):
    id: str
    substrates: dict[str, Order]
    net: dict[str, Order]
    mass_action: bool = False


class NetworkJson(_Strict):
    """A network, see `ReactionNetwork.to_json`."""

    id: str
    species: tuple[str, ...] = Field(min_length=1)
    fixed: tuple[str, ...]
    reactions: tuple[_Reaction, ...]
    volume: dict[str, Positive] = Field(default_factory=dict)


class Array(NamedTuple):
    """What an array must be.

    Attributes:
        shape: names of its dimensions, which must agree between arrays, or a number.
        kind: "f" floats, "b" truth values, "i" whole numbers.
        least, most: range; infinite for an array that may be infinite.
        unknown: whether NaN stands for an unknown value.
        empty: whether it may be.
    """

    shape: tuple[str, ...]
    kind: str = "f"
    least: float = -_QUANTITY
    most: float = _QUANTITY
    unknown: bool = False
    empty: bool = True


_REACTIONS, _SPECIES = ("reactions",), ("species",)
_ERROR = Array(_REACTIONS, least=0.0, most=np.inf)
PHASE1 = {
    "log_k": Array(_REACTIONS, least=-_LOG_K, most=_LOG_K),
    "log_k_error": _ERROR,
    "upper": _ERROR._replace(unknown=True),
    "mass_action": Array(_REACTIONS, "b"),
    "slope": Array(_SPECIES),
    "offset": Array(_SPECIES),
    "slope_error": _ERROR._replace(shape=_SPECIES),
    "offset_error": _ERROR._replace(shape=_SPECIES),
    "slope_offset_covariance": Array(_SPECIES),
    "noise": Array(_SPECIES, least=0.0),
    "keep": Array(("transitions", "species"), "b"),
    "losses": Array(("iterations",), unknown=True, empty=False),
    "identifiability.identifiable": Array(_REACTIONS, "b"),
    "identifiability.null_space": Array(("reactions", "directions"), least=-2.0, most=2.0),
    "identifiability.eigenvalues": Array(("eigenvalues",)),
}
# Only implicit windows, which have no homeostasis, do not know the errors of its lines.
LINES = {name: PHASE1[name]._replace(most=_QUANTITY) for name in ("slope_error", "offset_error")}
TRAJECTORIES = {
    "autocorrelation": Array(_SPECIES, unknown=True),
    "noise": Array(_SPECIES, least=0.0),
    "reference": Array(_SPECIES, least=0.0),
    "noise_of_differences": _ERROR._replace(shape=_SPECIES),
    "covariance": Array(("unknowns", "unknowns"), least=-np.inf, most=np.inf),
    "law": Array(("coefficients",)),
    "law_concentration": Array(("points",), least=0.0),
    "law_basis": Array(("points", "functions")),
}
WINDOWS = {"root": Array(("reactions", "reactions"), least=-np.inf, most=np.inf)}
OBSERVATIONS = {
    "time": Array(("frames",)),
    "run": Array(("frames",), "i", least=0.0),
    "concentration": Array(("frames", "species"), least=0.0),
}
INTERPOLATED = {"interpolated": Array(("frames", "species"), "b")}
_ENTRIES = ("transitions", "species")
RESIDUALS = {
    "at": Array(_ENTRIES, unknown=True),
    "residual": Array(_ENTRIES, unknown=True),
    "keep": PHASE1["keep"],
    **{name: PHASE1[name] for name in ("noise", "slope", "offset", *LINES, "slope_offset_covariance")},
}
LOSSES = Array(("steps",), unknown=True, empty=False)


def array_fault(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Array], sizes: dict[str, int], prefix: str = ""
) -> str:
    """What is wrong with some arrays; empty if nothing is.

    Args:
        arrays: by name.
        wanted: what each must be.
        sizes: of dimensions that are known; those of the arrays are added.
        prefix: of the names in `arrays`.
    """
    for name, what in wanted.items():
        array = arrays.get(prefix + name)
        if array is None:
            return f"{prefix}{name} is missing"
        if array.ndim != len(what.shape) or any(
            sizes.setdefault(dimension, size) != size for dimension, size in zip(what.shape, array.shape, strict=True)
        ):
            return f"{prefix}{name} has another shape, {array.shape}"
        if not (array.size or what.empty):
            return f"{prefix}{name} is empty"
        if fault := values_fault(array, what):
            return f"{prefix}{name} {fault}"
    return ""


def values_fault(array: np.ndarray, what: Array) -> str:
    """What is wrong with the kind or the values of an array; empty if nothing is."""
    if array.dtype.kind != what.kind or (what.kind == "f" and array.dtype.itemsize < 4):
        return f"holds values of another kind, {array.dtype}"
    if what.kind == "b":
        return ""
    right = (array >= what.least) & (array <= what.most)
    right &= np.isinf(array) | (np.abs(array) <= _QUANTITY)  # infinite is a value, 1e300 an error
    if what.unknown:
        right |= np.isnan(array)
    if right.all():
        return ""
    return f"holds {array[~right][0]:g}, which is not a value that training gives"


def weights_fault(name: str, array: np.ndarray) -> str:
    """What is wrong with an array of a network, or its input, by its name; empty if nothing is."""
    if name.endswith("log_k"):
        return values_fault(array, PHASE1["log_k"])
    most = _WEIGHT if _WEIGHTS.search(name) else _QUANTITY
    least = np.finfo(float).tiny if name.endswith((".width", ".unit")) else -most
    return values_fault(array, Array((), least=least, most=most))


def snapshot_fault(names: list[str]) -> str:
    """Which array of a snapshot has a name that is not known; empty if none has."""
    strange = [name for name in names if name.startswith("snapshot.") and not _SNAPSHOT.match(name)]
    return f"{one_line(printable(strange[0]), 60)} is not known" if strange else ""


def meta_fault(error: ValidationError) -> str:
    """What is wrong with a JSON file, in words."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = one_line(printable(".".join(str(part) for part in first["loc"])), 60)
    return f"{place} is missing, or of another kind" if place else one_line(first["msg"], 100)
