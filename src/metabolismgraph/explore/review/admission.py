"""Review of a strategy file: by its syntax tree, then by a trial in a sealed process.

The file is executed in that process only. Its output is believed where it names a fault. That there is none is found
out here: from the results that the trial leaves, and from the text of the file.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import operator
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from metabolismgraph.config import Training
from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.explore.review.contract import learning_faults, loss_faults, repetition_faults
from metabolismgraph.explore.review.declared import disagreements, read_declaration
from metabolismgraph.explore.review.examination import LATE, LEARNED, REPEATED, SYSTEMS
from metabolismgraph.explore.review.following import following_faults
from metabolismgraph.explore.review.syntax import static_reasons
from metabolismgraph.explore.review.trial_systems import TrialSystems, draw_systems, secret_generator
from metabolismgraph.files import remove_folder, write_bytes
from metabolismgraph.homeostasis.fit import Phase2Result, initial_model
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import custom
from metabolismgraph.homeostasis.strategies.base import Part
from metabolismgraph.processes import Completed, describe_exit, environment, killed_from_outside, last_line, run
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    load_observations,
    load_phase1,
    load_phase2,
    save_observations,
    save_phase1,
)
from metabolismgraph.runs.training_settings import read_settings, write_settings
from metabolismgraph.sandbox.audit_hook import attempt_of
from metabolismgraph.sandbox.protocol import read_events
from metabolismgraph.system.model_rates import mean_homeostasis
from metabolismgraph.system.trainable import check_frozen
from metabolismgraph.text import one_line, printable

_MOST_REASONS = 20
_LARGEST_OUTPUT = 1 << 22  # bytes of output with which a trial ends
_MOST_OUTPUT = 1 << 18  # bytes of the output of a trial that are read
_COMPILED = "compiled"  # folder of a trial
# The graphics card is for runs. Every training of a trial begins without compiled functions; with these settings, it
# finds its programs in a cache, that of the trial.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
    "array": (list, tuple),
}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "maximum": (operator.le, "at most"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


def _line(text: str) -> str:
    return one_line(printable(text))


Line = Annotated[str, AfterValidator(_line)]  # without characters that a terminal would obey


class Declaration(BaseModel):
    """The declaration of a strategy, for checks that do not execute its file.

    Attributes:
        name: as in training.strategies.
        options: JSON schema of its options.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    number: int = Field(ge=1)
    summary: Line
    reference: Line
    sets: tuple[Part, ...]
    needs: str = Field(pattern="^(rollouts|minibatches)?$")
    draws_minibatches: bool
    options: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The declaration in types of JSON."""
        return self.model_dump(mode="json")

    def check(self, options: dict[str, Any]) -> None:
        """Check options in a configuration.

        Raises:
            InputError: an option does not exist, or its value is out of range.
        """
        known = self.options.get("properties", {})
        for option, value in options.items():
            where = f"training.strategies: option {option} of {self.name}"
            if option not in known:
                raise InputError(f"{where}: there is no such option (options: {', '.join(known) or 'none'})")
            problem = _misfit(value, known[option])
            if problem:
                raise InputError(f"{where}: {problem}, not {one_line(value, 50)}")


def _misfit(value: object, schema: dict[str, Any]) -> str | None:
    """The expected value of an option; None if the value is valid."""
    kinds = _KINDS.get(schema.get("type", ""), (object,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and object not in kinds):
        return f"expected a value of type {schema['type']}"
    if isinstance(value, list | tuple):
        return next(filter(None, (_misfit(item, schema.get("items", {})) for item in value)), None)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None and value not in choices:
        return f"expected one of {', '.join(map(str, choices))}"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return "expected a finite number"
        for bound, (fits, words) in _BOUNDS.items():
            if bound in schema and not fits(value, schema[bound]):
                return f"expected {words} {schema[bound]}"
    return None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of a review.

    Attributes:
        reasons: of a refusal, one line each.
        declaration: of an accepted strategy.
        lost: whether the trial of a refused file was killed from outside, so that the refusal says nothing about it.
    """

    accepted: bool
    reasons: tuple[str, ...]
    declaration: Declaration | None = None
    lost: bool = False

    limit: ClassVar = 300  # characters of a reason

    @classmethod
    def refused(cls, *reasons: str) -> Verdict:
        """A refusal; reasons are made printable, since they may contain text of an untrusted file."""
        return cls(False, tuple(printable(one_line(reason, cls.limit), "?") for reason in reasons[:_MOST_REASONS]))


def review(name: str, source: str, training: Path, scratch: Path, *, time_limit: float = 300.0) -> Verdict:
    """Judge a strategy file.

    Args:
        name: of the strategy.
        source: the whole file.
        training: a folder with observations, a Phase 1 checkpoint and settings.json, in the base run of an exploration.
        scratch: a folder for temporary files.
        time_limit: of the trial [s].

    Raises:
        InputError: observations or checkpoint in `training` are missing or damaged.
    """
    reasons = static_reasons(name, source)
    if reasons:
        return Verdict.refused(*reasons)
    return on_trial(name, source, training, scratch, time_limit=time_limit)


def on_trial(name: str, source: str, training: Path, scratch: Path, *, time_limit: float = 300.0) -> Verdict:
    """The second part of a review: execute the file in a sealed process, and judge what it learned."""
    return _tried(name, {name: source}, systems_for(source, training), scratch, time_limit)


def try_settings(
    files: Mapping[str, str], settings: Training, training: Path, scratch: Path, *, time_limit: float = 300.0
) -> Verdict:
    """Judge strategy files that passed their reviews with the settings of a run, which a file may use as a signal.

    An option whose default has no effect could carry an answer, and a file could behave well with the settings of
    its review only.

    Args:
        files: source of each strategy file that `settings` names.
        settings: of the run.
        training, scratch, time_limit: as for `review`.

    Raises:
        InputError: as for `review`.
    """
    told = json.dumps([sorted(files.items()), settings.model_dump(mode="json")])
    systems = systems_for(told, training, settings)
    return _tried(min(files), files, systems, scratch, time_limit)


def _tried(name: str, files: Mapping[str, str], systems: TrialSystems, scratch: Path, time_limit: float) -> Verdict:
    scratch.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f"{name[:40]}-", dir=scratch))
    try:
        # The folder of the trial has an empty parent folder.
        folder = place / "trial"
        write_trial(folder, files, systems)
        command = [sys.executable, "-P", "-m", "metabolismgraph.explore.review.trial"]
        command += [str(folder.resolve()), name, str(math.ceil(time_limit) + 5)]
        env = environment(**_ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=str(folder.resolve() / _COMPILED))
        completed = run(command, seconds=time_limit, output=_LARGEST_OUTPUT, cwd=folder, env=env)
        verdict = _verdict(name, files[name], completed, time_limit)
        reasons = learned_faults(folder, systems) if verdict.accepted else []
        return Verdict.refused(*reasons) if reasons else verdict
    finally:
        remove_folder(place)


def systems_for(told: str, training: Path, settings: Training | None = None) -> TrialSystems:
    """The systems of a trial.

    Args:
        told: what is tried, on which the draw depends.
        training: as for `review`.
        settings: of a run; None: those of `training`, with rollout lengths of all kinds.

    Raises:
        InputError: settings, observations, checkpoint or secret are missing or damaged.
    """
    graph_model, given = read_settings(training)
    observations, _ = load_observations(training / OBSERVATIONS_FILE).split(*given.held_out)
    own = Phase2Data(observations, load_phase1(training / PHASE1_FILE, graph_model), graph_model, settings or given)
    return draw_systems(own, secret_generator(training.parent, told), draw_lengths=settings is None)


def write_trial(folder: Path, files: Mapping[str, str], systems: TrialSystems) -> None:
    """Write what a trial may read: the files, and data, checkpoint and settings of every system."""
    (folder / custom.FOLDER).mkdir(parents=True)
    for name, source in files.items():
        write_bytes(folder / custom.FOLDER / f"{name}.py", source.encode())
    for number, data in enumerate(systems.every):
        path = folder / SYSTEMS / str(number)
        save_observations(path / OBSERVATIONS_FILE, data.observations)
        save_phase1(path / PHASE1_FILE, data.phase1, 0.0)
        write_settings(path, data.graph_model, data.training)


def learned_faults(folder: Path, systems: TrialSystems) -> list[str]:
    """Faults of the results that a trial has written, of which nothing is taken for granted."""
    every = systems.every
    places = {str(number): data for number, data in enumerate(every)}
    late = {place + LATE: data for place, data in list(places.items())[-2:]}
    everywhere = places | late | {REPEATED: every[0]}
    try:
        learned = {place: _load_learned(folder / LEARNED / place, data) for place, data in everywhere.items()}
        for result, data in zip(learned.values(), everywhere.values(), strict=True):
            check_frozen(data.phase1, result.model)
            # What a result says of its model is that of the trial.
            size = mean_homeostasis(result.model, data.observations.concentration)
            faults = loss_faults(result.losses, result.components) or learning_faults(result.model, size)
            if faults:
                return faults
        return repetition_faults(learned["0"], learned[REPEATED]) or following_faults(
            systems, *([learned[place].model for place in some] for some in (places, late))
        )
    except FirewallError as error:
        return [str(error)]
    except (InputError, ValueError, TypeError) as error:
        return [f"its trial left no model that can be read ({error})"]


def _load_learned(path: Path, data: Phase2Data) -> Phase2Result:
    """A result of a trial.

    Raises:
        InputError: it is missing or damaged, or belongs to another system.
    """
    result = load_phase2(path, data.graph_model)
    expected = initial_model(data, data.checkpoint_residuals())
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(model)] for model in (expected, result.model)]
    if shapes[0] != shapes[1] or not result.losses.size:
        raise InputError(f"{path.name}: other arrays than those of the system, or no losses")
    return result


def _verdict(name: str, source: str, completed: Completed, time_limit: float) -> Verdict:
    events = list(read_events(io.BytesIO(completed.stdout[:_MOST_OUTPUT])))
    reasons = _reasons(events, completed, time_limit)
    if reasons:
        # A process that is watched is killed when it tries to leave its folder; it has reported that.
        reported = any(event.get("event") in {"leak", "fault"} for event in events)
        lost = not (completed.limit or reported) and killed_from_outside(completed.code)
        return dataclasses.replace(Verdict.refused(*reasons), lost=lost)
    try:
        declared = {**events[-1]["declared"], "name": name}
        declaration = Declaration.model_validate_json(json.dumps(declared))
    except (ValidationError, KeyError, TypeError) as error:
        return Verdict.refused(f"its declaration is not valid ({error})")
    others = list(disagreements(read_declaration(source), declared))
    if others:
        return Verdict.refused(f"declares something else on trial than in its text ({', '.join(others)})")
    return Verdict(True, (), declaration)


def _reasons(events: list[dict[str, Any]], completed: Completed, time_limit: float) -> list[str]:
    """Reasons for the failure of a trial; empty if it passed."""
    leaks = [event for event in events if event.get("event") == "leak"]
    faults = [str(event.get("fault")) for event in events if event.get("event") == "fault"]
    tried = f"{leaks[-1].get('tried')} {leaks[-1].get('on')}" if leaks else attempt_of(completed.code)
    if tried:
        return [f"tried to reach outside its folder ({tried})"]
    if completed.limit:
        too_much = {"output": f"wrote more than {_LARGEST_OUTPUT >> 20} MB of output on trial; let it print less"}
        return [too_much.get(completed.limit, f"took longer than {time_limit:g} s on trial; make it faster")]
    if faults:
        return faults
    if completed.code != 0:
        return [f"its trial {describe_exit(completed.code)} ({last_line(completed.stderr) or 'no message'})"]
    if not events or events[-1].get("event") != "passed":
        return ["ended its process before the trial was over"]
    return []
