"""A job, `python -P -m metabolismgraph.explore.engines.job FOLDER`: it trains and evaluates the run of one iteration.

It has access to the truth, unlike the explorer, which gets metrics only. `job.json` in the folder, or in the one above
it for an attempt on a cluster, describes the job. A job with an outcome is finished, an interrupted one continues, and
two processes never work in the same folder. A job ends with its parent process; with a second argument, a time limit in
seconds, it runs on its own, and watches the limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabolismgraph.errors import (
    FirewallError,
    InputError,
    SimulationDivergedError,
    TrainingFailedError,
    TrainingLostError,
)
from metabolismgraph.explore.engines.attempts import is_retired
from metabolismgraph.explore.engines.base import NO_ROOM, Cause, too_late
from metabolismgraph.explore.engines.outcome import Outcome, read_outcome, write_outcome, write_start
from metabolismgraph.explore.keys import DATA_SEED
from metabolismgraph.files import alone, is_fault_of_disk, lack_of_room, write_bytes
from metabolismgraph.processes import end_with_parent, keep_to_cores
from metabolismgraph.sandbox import landlock
from metabolismgraph.text import one_line

if TYPE_CHECKING:
    from metabolismgraph.config import Config

JOB = "job.json"
LOCK = "lock"  # held by the running process
RUN = "run"  # the run folder within the folder of the job


_writing = threading.Lock()  # by the job, and by the watch on its time


def main(folder: Path, limit: float | None = None) -> int:
    """Run the job; exit code 0 with an outcome, failures included, `base.NO_ROOM` if it could not be written.

    Args:
        limit: time after which it stops itself [s]; None: it ends with its parent, which watches the time.
    """
    settle(limit)
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if read_outcome(folder) is None:
                if limit is not None:
                    _stop_after(limit, folder)
                _leave(folder, _outcome(folder))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(1, f"{error.strerror}\n".encode())
        return NO_ROOM
    return 0


def settle(limit: float | None) -> None:
    """What a job does first: it ends with its parent, unless it has a time limit, and keeps to its cores."""
    if limit is None:
        end_with_parent()
    keep_to_cores()


def _leave(folder: Path, outcome: Outcome) -> None:
    """Write the outcome, unless there is one, or another attempt has taken the place of this one."""
    with _writing:
        if read_outcome(folder) is None and not is_retired(folder):
            write_outcome(folder, outcome)


def _stop_after(limit: float, folder: Path) -> None:
    """End this process after a time [s], with an outcome that says so; its child processes end with it."""

    def stop() -> None:
        code = 0
        try:
            _leave(folder, Outcome(None, too_late(limit), limit, "machine"))
        except OSError:
            code = NO_ROOM
        os._exit(code)

    watch = threading.Timer(limit, stop)
    watch.daemon = True
    watch.start()


def _outcome(folder: Path) -> Outcome:
    started = time.perf_counter()
    try:
        write_start(folder)
        metrics = run_job(folder)
    except (InputError, FirewallError, SimulationDivergedError, TrainingFailedError) as error:
        return Outcome(None, one_line(error), time.perf_counter() - started, _cause(error, folder))
    except OSError as error:
        reason = one_line(f"{error.filename or folder}: {error.strerror}")
        return Outcome(None, reason, time.perf_counter() - started, "machine")
    except Exception as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        reason = one_line(f"{type(error).__name__}: {error}")
        return Outcome(None, reason, time.perf_counter() - started, _cause(error, folder))
    return Outcome(metrics, None, time.perf_counter() - started)


def _cause(error: Exception, folder: Path) -> Cause:
    """What is to blame for an error: the machine also for errors of libraries that do not say that the disk is full."""
    if isinstance(error, FirewallError):
        return "idea"
    lost = isinstance(error, TrainingLostError) or is_fault_of_disk(error) or lack_of_room(folder)
    return "machine" if lost else "idea"


def run_job(folder: Path) -> dict[str, Any]:
    """Run the job that job.json describes, and return its metrics.

    Raises:
        InputError, FirewallError, SimulationDivergedError, TrainingFailedError: as `runs.pipeline.run`.
        TrainingLostError: strategy files are not executed on this machine.
    """
    described = folder if (folder / JOB).exists() else folder.parent
    try:
        job = json.loads((described / JOB).read_text())
        base, cache, trial = (Path(os.path.normpath(described / job[name])) for name in ("base", "cache", "trial"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{described / JOB}: damaged ({error!r}); replicate the node to run it again") from None
    users = _use_compiled(cache.with_name("evaluation"))
    # Slow imports: only now, when the lock is held and the parent is watched.
    from metabolismgraph.config import Config  # noqa: PLC0415
    from metabolismgraph.runs import pipeline  # noqa: PLC0415
    from metabolismgraph.runs.folder import MANIFEST  # noqa: PLC0415

    try:
        config = Config.model_validate(job["config"])
    except ValueError as error:
        raise InputError(f"{described / JOB}: damaged ({one_line(error, 80)})") from None
    out = folder / RUN
    if not (out / MANIFEST).exists():
        shutil.rmtree(out, ignore_errors=True)  # from a crash before the manifest
    whole = job.get("trains") == "everything"
    if job["strategies"]:
        # The machine of the job may have another kernel than that of the explorer.
        if not (job.get("unsafe_strategies", False) or landlock.available()):
            raise TrainingLostError(landlock.MISSING)
        _check_settings(config, job["strategies"], base, trial)
    variation = {key: value for key, value in job.get("variation", {}).items() if not whole or key == DATA_SEED}
    if variation:
        # Replicates with other data, or trained on other frames, have a base of their own, which the first one makes.
        name = ",".join(f"{key}={value}" for key, value in sorted(variation.items()))
        own = base.with_name("bases") / name
        with alone(own.with_name(f"{name}.lock")):
            pipeline.run_like(base, own, variation)
        base = own
    if whole:
        evaluation = pipeline.run_on_data(config, base, out, truth=job["truth"])
    else:
        evaluation = pipeline.run_phase2(
            config,
            base,
            out,
            strategies=job["strategies"],
            unsafe_strategies=job.get("unsafe_strategies", False),
            cache=None if users and not job["strategies"] else cache,
            residuals=cache.with_name("residuals"),
            truth=job["truth"],
        )
    # Without lists of notes, which are in metrics.json of the run.
    return {
        name: int(value) if isinstance(value, bool) else value
        for name, value in evaluation.metrics.items()
        if not isinstance(value, list)
    }


def _use_compiled(cache: Path) -> bool:
    """Read and write compiled programs; returns whether in a folder of the user's, which serves for the whole package.

    Args:
        cache: otherwise used. Strategy files cannot write to it.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return True
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    from metabolismgraph.system.compilation import read_cache_settings  # noqa: PLC0415 (slow)

    read_cache_settings()  # a worker has imported JAX before
    return False


def _check_settings(config: Config, files: Mapping[str, str], base: Path, trial: Path) -> None:
    """Check that strategy files follow the data with the options and settings of this run, too.

    Args:
        trial: file of the result, which all runs with these settings share; the first of them writes it.

    Raises:
        InputError: they do not.
        TrainingLostError: the trial was killed from outside, or the disk is full.
    """
    from metabolismgraph.explore.review.admission import try_settings  # noqa: PLC0415

    with alone(trial.with_suffix(".lock")):
        reasons = _read_reasons(trial)
        if reasons is None:
            scratch = trial.with_suffix("")
            verdict = try_settings(files, config.training, base / "training", scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            lack = lack_of_room(trial.parent) if verdict.reasons else None
            if verdict.lost or lack:
                raise TrainingLostError(lack or verdict.reasons[0])
            reasons = list(verdict.reasons)
            write_bytes(trial, json.dumps(reasons).encode())
    if reasons:
        names = ", ".join(files)
        raise InputError(f"{names}, on trial with the options and settings of this run: {'; '.join(reasons)}")


def _read_reasons(trial: Path) -> list[str] | None:
    """Reasons of a trial to refuse strategy files; None if there is no result, or a damaged one."""
    try:
        found = json.loads(trial.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return [str(reason) for reason in found] if isinstance(found, list) else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), *map(float, sys.argv[2:3])))
