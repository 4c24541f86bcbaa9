"""The training of a run: the files that its process is given, and the reports of that process, which is not trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metabolismgraph.errors import FirewallError, InputError, TrainingFailedError, TrainingLostError
from metabolismgraph.files import lack_of_room, write_bytes
from metabolismgraph.processes import Child, describe_exit, environment, excerpt, killed_from_outside, last_line
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    REFINED_FILE,
    is_intact,
    load_observations,
    load_phase1,
    save_observations,
)
from metabolismgraph.runs.folder import ERRORS, MOST_SECONDS, RunFolder
from metabolismgraph.runs.train_process import NO_ROOM, UNGUARDED
from metabolismgraph.runs.training_server import ForkedTraining, start_training
from metabolismgraph.runs.training_settings import write_settings
from metabolismgraph.sandbox import landlock
from metabolismgraph.sandbox.audit_hook import attempt_of
from metabolismgraph.sandbox.protocol import read_events
from metabolismgraph.system.assumed_rate_laws import assume_rate_laws
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.threads import training_threads
from metabolismgraph.text import one_line, printable

_LONGEST_STAGE = 40  # characters


def hand_over(folder: RunFolder, observations: Observations, start: Path | None) -> None:
    """Write the input of training: observations, two sections of the configuration, a checkpoint.

    Args:
        start: files of the checkpoint to start from, without suffix; None: training begins with Phase 1.

    Raises:
        InputError: the checkpoint is damaged, or was made for other reactions.
    """
    graph_model, training = folder.config.graph_model, folder.config.training
    if start is not None:
        _check_network(start, observations)
    given = None if start is None else load_phase1(start, graph_model, observations.network).mass_action
    observations = assume_rate_laws(observations, graph_model, training, given)
    folder.training.mkdir(parents=True, exist_ok=True)
    save_observations(folder.training / OBSERVATIONS_FILE, observations)
    folder.record(observations=observations_digest(folder))
    write_settings(folder.training, graph_model, folder.config.training)
    if start is not None:
        for suffix in (".safetensors", ".json"):
            write_bytes((folder.training / PHASE1_FILE).with_suffix(suffix), start.with_suffix(suffix).read_bytes())


def _check_network(start: Path, observations: Observations) -> None:
    """Check that a checkpoint beside its observations, as in a run folder, was made for the network of a run.

    Raises:
        InputError: the reactions differ, although their numbers may be equal.
    """
    beside = start.with_name(OBSERVATIONS_FILE)
    if not beside.with_suffix(".json").exists():
        return
    made_for, given = (
        [(dict(r.substrates), dict(r.net)) for r in network.to_reactions()]
        for network in (load_observations(beside).network, observations.network)
    )
    if made_for != given:
        raise InputError(
            f"{start}.safetensors: made for other reactions than those of the data; fit the data it belongs to, or "
            "give another --checkpoint"
        )


def observations_digest(folder: RunFolder) -> str:
    """The checksum of the observations that training is given."""
    content = (folder.given / OBSERVATIONS_FILE).with_suffix(".safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()


def train(folder: RunFolder, progress: Progress, cache: Path | None = None, *, kernel: bool = False) -> None:
    """Train what is not trained yet, in a process of its own.

    Args:
        cache: folder of compiled programs that training may read and write; None: that of the environment, if any.
        kernel: whether to train only where the kernel restricts the process.

    Raises:
        FirewallError: training tried to reach something outside its folder.
        InputError: training refuses the data.
        TrainingFailedError: its process failed.
        TrainingLostError: its process was lost through no fault of the training, or the kernel does not restrict it
            though `kernel` is true.
    """
    settings = folder.config.training
    phases = {} if folder.base else {"phase 1": PHASE1_FILE}
    if settings.homeostasis_training:
        phases |= {"phase 2": PHASE2_FILE} | ({"refine": REFINED_FILE} if settings.joint_refinement else {})
    if all(folder.is_finished(stage) and is_intact(folder.training / name) for stage, name in phases.items()):
        return
    shared = folder.given if folder.base else None
    with sealed_training(folder.training, shared, cache, kernel=kernel) as training:
        refused, leak = _follow(read_events(training.stdout), folder, phases, progress)
        code = training.wait()
    if attempt := leak or attempt_of(code):
        folder.mark_leak(attempt)
        raise FirewallError(folder.leak)
    if refused is not None:
        raise InputError(refused)
    if kernel and code == UNGUARDED:
        raise TrainingLostError(landlock.MISSING)
    if code:
        # Text of the process is not a reason: it may have been written by the code of a strategy.
        errors = folder.training / ERRORS
        lost = killed_from_outside(code) or code == NO_ROOM or lack_of_room(folder.training)
        raise (TrainingLostError if lost else TrainingFailedError)(
            f"training {describe_exit(code)} ({last_line(errors) or 'no message'}); see {errors}, "
            "then continue with --resume"
        )


@contextmanager
def sealed_training(
    folder: Path, shared: Path | None, cache: Path | None = None, *, kernel: bool = False
) -> Iterator[ForkedTraining | Child]:
    """A training in a folder, with threads by the number of species; it ends with the context.

    Args:
        folder, shared, kernel: as for `train_process.main`. Its error output is left in `folder`.
        cache: as for `train`.

    Raises:
        InputError: the observations cannot be read.
        OSError: it cannot be started.
    """
    threads = training_threads(load_observations((shared or folder) / OBSERVATIONS_FILE).network.n_species)
    env = environment(**threads, **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}))
    with (
        excerpt(folder / ERRORS) as stderr,
        start_training(folder, shared, kernel=kernel, env=env, stderr=stderr) as training,
    ):
        yield training


def _follow(
    events: Iterable[dict[str, Any]], folder: RunFolder, phases: Mapping[str, str], progress: Progress
) -> tuple[str | None, str | None]:
    """Pass on the reports of the training process.

    Its code is not trusted: an event of another form is ignored, and so is the end of a stage that is not the next one
    of this training, or has left no checkpoint.

    Args:
        phases: stages of the training in their order, with the names of their checkpoints.

    Returns:
        Why it refuses the data, and what it tried to reach; None where it did not.
    """
    refused = leak = None
    pending = list(phases)
    sealed = False
    for event in events:
        match event:
            # Only the first one: it is written before untrusted code runs.
            case {"event": "sealed", "kernel": bool(kernel), "calls": bool(calls)} if not sealed:
                guards = {"audit hook": True, "kernel": kernel, "system calls": calls}
                folder.record(sandbox=[name for name, there in guards.items() if there])
                sealed = True
            case {"event": "progress", "stage": str(stage), "done": float() | int() as done, "message": str(message)}:
                if 0 <= done <= 1:
                    progress(one_line(printable(stage), _LONGEST_STAGE), float(done), one_line(printable(message)))
            case {"event": "finished", "stage": str(stage), "seconds": float() | int() as seconds}:
                fits = pending[:1] == [stage] and 0 <= seconds <= MOST_SECONDS
                if fits and is_intact(folder.training / phases[stage]):
                    pending.pop(0)
                    folder.finish(stage, float(seconds))
            case {"event": "refused", "message": str(message)}:
                refused = one_line(printable(message))
            case {"event": "leak", "tried": str(tried), "on": str(on)}:
                leak = one_line(printable(f"{tried} {on}"))
    return refused, leak
