"""Benchmark of textbook networks, fitted from files: correct and wrong rate constants, with or without a warning."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from metabolismgraph.benchmarks import textbook_cases as textbook
from metabolismgraph.benchmarks.models_report import Row, markdown
from metabolismgraph.benchmarks.textbook_cases import TABLE, Case, NoTwin
from metabolismgraph.benchmarks.textbook_networks import find
from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.fitting.fit import fit
from metabolismgraph.formats import read
from metabolismgraph.formats.dataset import NETWORK
from metabolismgraph.formats.network_and_table import read_with_model
from metabolismgraph.reactions.identifiability import identify
from metabolismgraph.runs.pipeline import fit_files
from metabolismgraph.sandbox.prctl import end_with
from metabolismgraph.system.progress import Progress
from metabolismgraph.text import one_line

CONFIG = "oscillatory_rank50"  # the default of `metabolismgraph fit`
CLOSE, FAR = 0.1, 2.0  # within 10 % of the truth; wrong by more than 2-fold
UNITS = ((1e-9, 1.0), (1e6, 1.0), (1.0, 1.0 / 3600.0))  # factors of concentration and time
UNIT_NETWORKS = ("michaelis_menten", "lotka_volterra", "brusselator", "dimerisation", "fed_batch")


@dataclasses.dataclass(frozen=True)
class Constant:
    """The result of a run for one rate constant; NaN for missing numbers."""

    k: float
    determined: bool
    lower: float = math.nan
    upper: float = math.nan
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The results of a run."""

    constants: Mapping[str, Constant]
    trustworthy: bool
    why_not: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one case: an answer, a refusal with its message, or an error.

    Attributes:
        identified: reactions that `identify` calls determined on the same data; None if it was not run.
        cpu_s: CPU time of the process for reading, fitting and drawing, with its start and its children.
    """

    answer: Answer | None = None
    refused: str | None = None
    error: str | None = None
    identified: tuple[str, ...] | None = None
    cpu_s: float = math.nan
    wall_s: float = math.nan


def run_models(
    out: Path,
    progress: Progress,
    *,
    networks: Sequence[str] = (),
    kinds: Sequence[str] = (),
    units: bool = False,
    workers: int = 1,
    keep: bool = False,
    quick: bool = False,
    limit: float = 30.0,
) -> str:
    """Run every case, write models.json and models.md into `out`, return the Markdown.

    Args:
        networks: names; empty: all networks.
        kinds: of cases; empty: clean data and all corrupted twins.
        units: fit the clean data of some networks (or of `networks`) in other units as well.
        workers: number of parallel cases.
        keep: keep files and run folders of all cases in `out`/cases.
        quick: Phase 1 and the verdict only; no score depends on Phase 2 or figures.
        limit: time after which a fit is given up, which is an error [minutes].

    Raises:
        InputError: no such network or kind.
    """
    cases, missing = plan(networks, kinds, units=units)
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[int, Row] = {}
    result: dict[str, Any] = {}
    run = fit_quickly if quick else run_case
    with _scratch(out, keep=keep) as scratch, _compiled_once(), _executor(workers, quick=quick) as executor:
        running: dict[Future[Outcome], int] = {
            executor.submit(run, case, scratch / f"{i:03}_{case.network}_{case.kind}".replace(" ", "_"), limit): i
            for i, case in enumerate(cases)
        }
        try:
            for done in as_completed(running):
                case = cases[running[done]]
                rows[running[done]] = row(case, done.result())
                progress("models", len(rows) / len(cases), f"{case.network} {case.kind}")
                result = {"cases": [rows[i] for i in sorted(rows)], "no_twin": [dataclasses.asdict(n) for n in missing]}
                write_bytes(out / "models.json", (json.dumps(result, indent=1) + "\n").encode())
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    text = markdown(result)
    write_bytes(out / "models.md", text.encode())
    return text


def plan(
    networks: Sequence[str] = (), kinds: Sequence[str] = (), *, units: bool = False
) -> tuple[list[Case], list[NoTwin]]:
    """All cases, and the twins that cannot be made.

    Raises:
        InputError: no such network or kind.
    """
    unknown = [kind for kind in kinds if kind not in textbook.KINDS]
    if unknown:
        raise InputError(f"{unknown[0]!r} is not a kind of case; kinds are {', '.join(textbook.KINDS)}")
    chosen = find(networks)
    made = [textbook.make(n, kind) for n in chosen for kind in textbook.KINDS if not kinds or kind in kinds]
    cases = [case for case in made if isinstance(case, Case)]
    if units:
        for network in (n for n in chosen if networks or n.name in UNIT_NETWORKS):
            clean = textbook.make(network, "clean")
            assert isinstance(clean, Case)
            cases += [] if kinds and "clean" not in kinds else [textbook.in_units(clean, *factors) for factors in UNITS]
    return cases, [case for case in made if isinstance(case, NoTwin)]


@contextlib.contextmanager
def _scratch(out: Path, *, keep: bool) -> Iterator[Path]:
    if keep:
        yield out / "cases"
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def _executor(workers: int, *, quick: bool) -> Executor:
    """Processes for quick fits, which one process does one after the other; threads that each start a process."""
    if not quick:
        return ThreadPoolExecutor(workers)
    spawned = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, spawned, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(benchmark: int) -> None:
    """A worker would otherwise finish its fit, of up to half an hour, after the benchmark was killed."""
    if sys.platform == "linux":
        end_with(benchmark)


@contextlib.contextmanager
def _compiled_once() -> Iterator[None]:
    """A temporary cache of compiled programs for all cases, or the user's own."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="compiled") as store:
        settings = {"JAX_COMPILATION_CACHE_DIR": store, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        before = dict(os.environ)
        os.environ.update(settings)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


# -- one case


class _OutOfTimeError(BaseException):
    """A fit is given up. Not an `Exception`, which a fit may handle as a failure of one of its methods."""


@contextlib.contextmanager
def _time_limit(minutes: float) -> Iterator[None]:
    """Raise an error after so many minutes; in the main thread of a process only, as signals are."""

    def stop(*_: object) -> None:
        raise _OutOfTimeError(f"given up after {minutes:g} minutes")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_case(case: Case, folder: Path, limit: float) -> Outcome:
    """Write the files of a case and fit them in a separate process, like the command; see `run_models`."""
    try:
        case.write(folder)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
            return own.submit(fit_case, folder, limit).result()
    except Exception as error:  # of a killed process as well
        return Outcome(error=_message(error))


def fit_quickly(case: Case, folder: Path, limit: float) -> Outcome:
    """Write the files of a case and run Phase 1 with default settings in this process: same constants, same verdict.

    Args:
        limit: as for `run_models`.
    """

    def answer() -> Answer:
        case.write(folder)
        observations = read(folder / NETWORK, folder / TABLE)
        result = fit(observations, load_config(CONFIG, ["training.homeostasis_training=false"]))
        found = {row["reaction"]: _constant(row) for row in result.rate_constants.to_dict("records")}
        return Answer(found, result.trust.trustworthy, result.trust.why_not, result.phase1.notes)

    started, used = time.perf_counter(), time.process_time()
    found = _outcome(answer, limit)
    cpu, wall = time.process_time() - used, time.perf_counter() - started
    known = None if found.answer is None else identified(folder / NETWORK, folder / TABLE)
    return dataclasses.replace(found, identified=known, cpu_s=cpu, wall_s=wall)


def fit_case(folder: Path, limit: float) -> Outcome:
    """Fit network.xml and timeseries.csv of a folder with default settings, and run `identify` on the same data.

    Args:
        limit: as for `run_models`.
    """
    started = time.perf_counter()
    network, table, config, run = folder / NETWORK, folder / TABLE, load_config(CONFIG), folder / "run"
    found = _outcome(lambda: read_answer(run, fit_files(network, table, config, run).notes), limit)
    found = dataclasses.replace(found, cpu_s=_cpu_seconds(), wall_s=time.perf_counter() - started)
    if found.answer is None:
        return found
    try:
        return dataclasses.replace(found, identified=identified(network, table))
    except Exception as error:
        return dataclasses.replace(found, error=f"identify: {_message(error)}")


def _outcome(answer: Callable[[], Answer], limit: float) -> Outcome:
    """An answer, or why there is none."""
    try:
        with _time_limit(limit):
            return Outcome(answer=answer())
    except InputError as error:
        return Outcome(refused=_message(error))
    except _OutOfTimeError as error:
        return Outcome(error=str(error))
    except Exception as error:
        return Outcome(error=_message(error))


def _cpu_seconds() -> float:
    """CPU time of this process since its start, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _message(error: Exception) -> str:
    return one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"


def identified(network: Path, table: Path) -> tuple[str, ...]:
    """The reactions that `metabolismgraph identify` calls determined."""
    config = load_config(CONFIG)
    observations, model = read_with_model(network, table)
    learned_from, _ = observations.split(*config.training.held_out)
    found = identify(
        model.network,
        learned_from,
        aggregation=config.graph_model.aggr_type,
        tolerance=config.training.identifiability_tolerance,
    )
    return tuple(r for r, known in zip(model.network.reactions, found.identifiable, strict=True) if known)


def read_answer(folder: Path, notes: Sequence[str] = ()) -> Answer:
    """Read rate_constants.csv and metrics.json of a run folder; only this function knows their columns and keys."""
    with (folder / "rate_constants.csv").open(newline="") as stream:
        constants = {row["reaction"]: _constant(row) for row in csv.DictReader(stream)}
    metrics = json.loads((folder / "metrics.json").read_text())
    return Answer(constants, bool(metrics["trustworthy"]), tuple(metrics["why_not"]), tuple(notes))


def _constant(row: Mapping[Hashable, Any]) -> Constant:
    """A row of the table of rate constants, from a fit or as text."""
    k, lower, upper = (math.nan if row[name] == "" else float(row[name]) for name in ("k", "lower", "upper"))
    return Constant(k, str(row["identifiable"]) == "True", lower, upper, row["reason"])


# -- scoring


def row(case: Case, outcome: Outcome) -> Row:
    """One line of the results: case, answer and scores."""
    answer = outcome.answer
    scores: dict[str, Any] = {}
    if answer is not None:
        scores = {
            "trustworthy": answer.trustworthy,
            "why_not": list(answer.why_not),
            "notes": list(answer.notes),
            "constants": constants(case, answer),
            **score(case, answer, outcome.identified),
        }
    return {
        "network": case.network,
        "kind": case.kind,
        "units": list(case.units),
        "detail": case.detail,
        "points": case.table.n_points,
        "reactions": len(case.reactions),
        "verdict": verdict(case, outcome),
        "refused": outcome.refused,
        "error": outcome.error,
        "cpu_s": _finite(outcome.cpu_s),
        "wall_s": _finite(outcome.wall_s),
        **scores,
    }


def verdict(case: Case, outcome: Outcome) -> str:
    """One word for a case.

    Clean data: "passed", "false alarm" (trustworthy is false) or "refused". Corrupted: "caught" (trustworthy is false,
    or refused), "recovered" or "miss". A case without an answer or a refusal: "error".

    Coarse samples leave the network file correct, so a fit can be right. They are recovered if the fit determines rate
    constants and none of them is wrong.
    """
    clean = case.kind == "clean"
    if outcome.refused is not None:
        return "refused" if clean else "caught"
    if outcome.answer is None:
        return "error"
    if not outcome.answer.trustworthy:
        return "false alarm" if clean else "caught"
    if clean:
        return "passed"
    scores = score(case, outcome.answer)
    return "recovered" if case.kind == "coarse" and scores["n_determined"] and not scores["off"] else "miss"


def score(case: Case, answer: Answer, identified: Sequence[str] | None = None) -> dict[str, Any]:
    """Count and name the rate constants that a run calls determined, and the wrong ones among them.

    A reaction with a wrong law in the network file has no true rate constant: if called determined, it is wrong. A true
    rate constant that the run does not list counts as not determined.

    Returns:
        n_constants, n_determined, n_close (within 10 %), off (ids, wrong by more than 10 %), far (ids, wrong by more
        than 2-fold), n_bounded and n_inside (numbers of intervals, and of those that contain the truth), contradictions
        (ids that `identify` does not call determined; None if it was not run).
    """
    claimed = {r.id: answer.constants[r.id] for r in case.reactions if _claims(answer, r.id)}
    ratio = {name: _ratio(constant.k, case.truth.get(name)) for name, constant in claimed.items()}
    bounded = {n: c for n, c in claimed.items() if n in case.truth and not math.isnan(c.lower + c.upper)}
    close = [name for name, r in ratio.items() if abs(r - 1.0) <= CLOSE]
    return {
        "n_constants": len(case.reactions),
        "n_determined": len(claimed),
        "n_close": len(close),
        "off": [name for name in ratio if name not in close],
        "far": [name for name, r in ratio.items() if not 1.0 / FAR <= r <= FAR],
        "n_bounded": len(bounded),
        "n_inside": sum(c.lower <= case.truth[n] <= c.upper for n, c in bounded.items()),
        "contradictions": None if identified is None else [name for name in claimed if name not in identified],
    }


def _claims(answer: Answer, reaction: str) -> bool:
    return reaction in answer.constants and answer.constants[reaction].determined


def _ratio(k: float, true: float | None) -> float:
    """k as a multiple of the truth; infinite without truth or number."""
    return math.inf if true is None or math.isnan(k) else k / true


def constants(case: Case, answer: Answer) -> dict[str, dict[str, Any]]:
    """Result and truth for every reaction; `k_plain` is k in the units of the textbook."""
    factors = textbook.unit_factors(case.reactions, *case.units)
    return {
        name: {
            "k": _finite(c.k),
            "k_plain": _finite(c.k / factors[name]) if name in factors else None,
            "true": case.truth.get(name),
            "determined": c.determined,
            "lower": _finite(c.lower),
            "upper": _finite(c.upper),
            "reason": c.reason,
        }
        for name, c in answer.constants.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
