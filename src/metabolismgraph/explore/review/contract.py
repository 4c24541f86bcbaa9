"""The contract of strategies as checks, for built-in strategies in tests and for strategy files in the review.

Each check returns a list of faults, empty if there are none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.fit import Phase2Result, fit_homeostasis
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Objective, Penalty, Plan, Rollouts, Schedule, Unset
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.trainable import check_frozen

_PARTS = frozenset(get_args(Part))
_NEEDS = ("", "rollouts", "minibatches")
_SCHEDULES = ("constant", "onecycle", "restarts")
_LINES = {"summary": 120, "reference": 200}  # characters at most
_OPTIONS = (bool, int, float, str)
_DEEPEST = 50  # of values within values
# Fields of Rollouts and the parts of the plan for `sets` and `adjusts`.
_OF_ROLLOUTS: dict[str, Part] = {
    "lengths": "lengths",
    "starts": "lengths",
    "capacity": "lengths",
    "late": "weights",
    "amplification": "amplification",
    "scheme": "gradient",
}


def declaration_faults(kind: type[Strategy]) -> list[str]:
    """Faults of the declaration of a strategy."""
    described: Any = kind  # its class variables may have any type
    faults = [f"{name}: expected one line of at most {_LINES[name]} characters" for name in _unfit_lines(kind)]
    if type(getattr(described, "number", None)) is not int or described.number < 1:
        faults.append("number: expected a whole number from 1")
    for name in ("sets", "adjusts"):
        parts = getattr(described, name)
        if not isinstance(parts, frozenset) or not parts <= _PARTS:
            faults.append(f"{name}: expected a frozenset of {', '.join(sorted(_PARTS))}")
    if described.needs not in _NEEDS:
        faults.append("needs: expected an empty text, rollouts or minibatches")
    if type(described.draws_minibatches) is not bool:
        faults.append("draws_minibatches: expected true or false")
    if not (kind.__doc__ or "").strip():
        faults.append("the class has no docstring; say what the strategy does")
    if inspect.isabstract(kind):
        faults.append("apply is missing")
    elif list(inspect.signature(kind.apply).parameters) != ["self", "plan", "data"]:
        faults.append("apply: expected the arguments self, plan, data")
    if dict(kind.model_config) != dict(Strategy.model_config):
        faults.append("model_config: leave it as it is in Strategy")
    return faults + [fault for name in kind.model_fields for fault in _option_faults(kind, name)]


def _unfit_lines(kind: type[Strategy]) -> Iterator[str]:
    for name, limit in _LINES.items():
        text = getattr(kind, name, None)
        if not isinstance(text, str) or not 0 < len(text.strip()) <= limit or len(text.splitlines()) > 1:
            yield name


def _option_faults(kind: type[Strategy], name: str) -> Iterator[str]:
    field = kind.model_fields[name]
    if field.is_required():
        yield f"option {name}: has no default"
    if not field.description:
        yield f"option {name}: has no description"
    if field.annotation not in _OPTIONS and get_origin(field.annotation) not in {Literal, tuple}:
        yield f"option {name}: expected a bool, int, float, str, Literal or tuple"


def behaviour_faults(strategy: Strategy, plan: Plan, data: Phase2Data) -> list[str]:
    """Faults of `apply`: it must be a pure function, and declare the parts that it changes.

    Raises:
        InputError: the strategy refuses this plan or these data.
    """
    before = fingerprint(plan), _with_all(data)
    first = strategy.apply(plan, data)
    # Before the second call, which may undo changes of the first.
    after = fingerprint(plan), _with_all(data)
    changed = [name for name, one, other in zip(("plan", "data"), before, after, strict=True) if one != other]
    if changed:
        return [f"apply changes the {changed[0]} that it is given; make changed copies with dataclasses.replace"]
    faults = plan_faults(first)
    if faults:
        return faults
    if fingerprint(first) != fingerprint(strategy.apply(plan, data)):
        return ["apply gives two plans for the same input; draw random numbers from data.key alone"]
    return undeclared(strategy.sets | strategy.adjusts, plan, first)


def _with_all(data: Phase2Data) -> str:
    """Digest of the data with all cached properties."""
    for name, attribute in vars(Phase2Data).items():
        if isinstance(attribute, functools.cached_property):
            getattr(data, name)
    return fingerprint(vars(data))


def plan_faults(plan: Any) -> list[str]:
    """Faults of a plan that training could not execute."""
    if type(plan) is not Plan:
        return [f"apply gives a {type(plan).__name__}, expected a Plan"]
    found: dict[str, Any] = vars(plan)
    penalties, schedule, notes = found["penalties"], found["schedule"], found["notes"]
    faults = []
    if not isinstance(found["residuals"], Residuals):
        faults.append(f"plan.residuals: expected Residuals, got {type(found['residuals']).__name__}")
    if not isinstance(found["objective"], Objective) or isinstance(found["objective"], Unset):
        faults.append(f"plan.objective: expected an Objective, got {type(found['objective']).__name__}")
    if not isinstance(penalties, tuple) or not all(isinstance(p, Penalty) for p in penalties):
        faults.append("plan.penalties: expected a tuple of Penalty")
    elif len({p.name for p in penalties}) < len(penalties):
        faults.append("plan.penalties: two have the same name")
    faults += [
        f"plan.{name}: expected a whole number from 1"
        for name in ("steps", "accumulate")
        if type(found[name]) is not int or found[name] < 1
    ]
    if type(schedule) is not Schedule or schedule.kind not in _SCHEDULES:
        faults.append(f"plan.schedule: expected a Schedule that is {', '.join(_SCHEDULES[:-1])} or {_SCHEDULES[-1]}")
    if not callable(found["start"]) or not callable(found["finish"]):
        faults.append("plan.start and plan.finish: expected functions")
    if not isinstance(notes, tuple) or not all(isinstance(note, str) for note in notes):
        faults.append("plan.notes: expected a tuple of texts")
    return faults


def undeclared(declared: frozenset[Part], before: Plan, after: Plan) -> list[str]:
    """Faults: changed parts of the plan that neither `sets` nor `adjusts` names."""
    one, other = dict(_parts_of_plan(before)), dict(_parts_of_plan(after))
    changed = [part for part in one if fingerprint(one[part]) != fingerprint(other[part])]
    if not (isinstance(before.objective, Rollouts) and isinstance(after.objective, Rollouts)):
        # Another objective has no lengths or weights to compare.
        changed = [part for part in changed if part not in _OF_ROLLOUTS.values()]
    hidden = [part for part in changed if part not in declared]
    found = [f"apply changes the plan's {part}, which neither sets nor adjusts names" for part in hidden]
    kept = [fingerprint(a) == fingerprint(b) for a, b in zip(before.penalties, after.penalties, strict=False)]
    if len(after.penalties) < len(before.penalties) or not all(kept):
        found.append("apply changes a penalty of another strategy; it may add its own at the end")
    if after.notes[: len(before.notes)] != before.notes:
        found.append("apply changes the notes of others; it may add its own at the end")
    return found


def _parts_of_plan(plan: Plan) -> Iterator[tuple[Part, object]]:
    """Yield every part of a plan that a strategy can declare, with its value."""
    rollouts = isinstance(plan.objective, Rollouts)
    yield "residuals", plan.residuals
    yield "objective", Rollouts if rollouts else plan.objective
    for name, part in _OF_ROLLOUTS.items():
        yield part, getattr(plan.objective, name, None)
    yield "penalties", plan.penalties
    yield "steps", plan.steps
    yield "schedule", dataclasses.replace(plan.schedule, embeddings_wait=0.0)
    yield "embeddings_wait", plan.schedule.embeddings_wait
    yield "accumulation", plan.accumulate
    yield "start", plan.start
    yield "finish", plan.finish


def combination_faults(others: Iterable[str], plan_of: Callable[[str, str], Plan], own: str) -> list[str]:
    """Faults of plans with other strategies; a refused combination is not a fault.

    Args:
        others: names of the other strategies.
        plan_of: makes the plan of two entries of training.strategies.
        own: name of the strategy.
    """
    faults = []
    for name in others:
        with contextlib.suppress(InputError):
            faults += [f"together with {name}: {fault}" for fault in plan_faults(plan_of(own, name))]
    return faults


def fingerprint(value: object) -> str:
    """Digest of all parts of a value, arrays bit for bit."""
    digest = hashlib.sha256()
    for part in _parts(value, 0):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: object, depth: int) -> Iterator[bytes]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if depth > _DEEPEST:
        return
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        yield repr(value).encode()
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    elif isinstance(value, set | frozenset):
        yield from sorted(fingerprint(one).encode() for one in value)
    else:
        for one in _inside(value):
            yield from _parts(one, depth + 1)


def _inside(value: object) -> Iterable[object]:
    """The parts of a composed value."""
    for kinds, take in _COMPOSED:
        if isinstance(value, kinds):
            return take(value)
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return (vars(value),) if hasattr(value, "__dict__") else ()


def _of_function(f: types.FunctionType) -> Iterable[object]:
    cells = [cell.cell_contents for cell in f.__closure__ or ()]
    return f.__module__, f.__qualname__, f.__code__, f.__defaults__, f.__kwdefaults__, *cells


_COMPOSED: tuple[tuple[type | tuple[type, ...], Callable[[Any], Iterable[object]]], ...] = (
    (Mapping, lambda v: [part for item in v.items() for part in item]),
    ((tuple, list), lambda v: v),
    (functools.partial, lambda v: (v.func, v.args, v.keywords)),
    (types.FunctionType, _of_function),
    (types.MethodType, lambda v: (v.__func__, v.__self__)),
    (types.CodeType, lambda v: (v.co_code, v.co_names, v.co_consts)),
    (type, lambda v: (v.__module__, v.__qualname__)),
    (BaseModel, lambda v: (v.model_dump(),)),
)


def training_faults(data: Phase2Data, frozen: Phase1Result) -> list[str]:
    """Faults of a training with the strategies of `data`, done twice.

    Args:
        data: settings with a short training; its checkpoint may be changed by a strategy that breaks the contract.
        frozen: the same checkpoint, out of reach of the strategy.

    Raises:
        FirewallError: an array of Phase 1 changed.
    """
    first, second = (train(data, frozen) for _ in range(2))
    return result_faults(first) or repetition_faults(first, second)


def train(data: Phase2Data, frozen: Phase1Result, **limits: Any) -> Phase2Result:
    """Train with the strategies of `data`; arguments and errors as for `training_faults` and `fit_homeostasis`."""
    result = fit_homeostasis(data.observations, data.phase1, data.graph_model, data.training, **limits)
    check_frozen(frozen, result.model)
    return result


def result_faults(result: Phase2Result) -> list[str]:
    """Faults of a single training."""
    return loss_faults(result.losses, result.components) or learning_faults(result.model, result.node_magnitude)


def loss_faults(losses: np.ndarray, components: Mapping[str, np.ndarray]) -> list[str]:
    """Faults: steps of a training with a loss that is not finite."""
    bad = {name: np.flatnonzero(~np.isfinite(curve)) for name, curve in {"loss": losses, **components}.items()}
    return [f"{name} is not finite at step {steps[0] + 1}" for name, steps in bad.items() if steps.size]


def learning_faults(model: object, node_magnitude: float) -> list[str]:
    """Faults of the trained model: it must be finite, and MLP_node no longer zero."""
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype"))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        return ["the trained model is not finite"]
    return [] if node_magnitude > 0 else ["training changed nothing: MLP_node is still zero"]


def repetition_faults(one: Phase2Result, other: Phase2Result) -> list[str]:
    """Faults: two equal trainings must give the same bits."""
    for what, parts in (("models", ("model", "snapshots")), ("curves", ("losses", "components"))):
        first, second = (fingerprint([jax.tree.leaves(getattr(r, part)) for part in parts]) for r in (one, other))
        if first != second:
            return [f"training twice gives two {what}; draw random numbers from data.key alone"]
    return []
