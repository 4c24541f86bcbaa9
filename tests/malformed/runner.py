"""Run malformed inputs, each in a fork of this process, which has loaded the program, with limits of time and memory.

`python tests/malformed/runner.py` runs all of them, and prints those that are not refused as they should be;
`--family NAME` runs one family, `--sample N` so many of each, `--only TEXT` those with a text in their name, and
`--show` prints the messages.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import hashlib
import importlib
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A file of bytecode that a full disk cuts off would stop every later start.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
# What every evaluation compiles is compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "malformed_compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
sys.path[:0] = [str(Path(__file__).parents[1])]

from malformed.case import Case
from malformed.families import FAMILIES

MEMORY = 2 << 30  # bytes of a case, beyond those of the loaded program
_ADDRESSES = 6 << 30  # beyond those of the loaded program, so that a case cannot exhaust the machine
_PR_SET_PDEATHSIG = 1
_PATIENCE = 4  # times the seconds of the processor, on a busy machine
_LONGEST = 2000  # characters of a message
_LOADED = (
    *("pandas", "scipy.integrate", "libsbml", "safetensors.numpy", "matplotlib.pyplot", "xarray"),
    *("metabolismgraph.cli.app", "metabolismgraph.cli.tables", "metabolismgraph.cli.explore_tables"),
    *("metabolismgraph.formats.sbml", "metabolismgraph.formats.network_and_table", "metabolismgraph.formats.published"),
    *("metabolismgraph.kinetic_models.simulation", "metabolismgraph.kinetic_models.likelihood"),
    *("metabolismgraph.runs.pipeline", "metabolismgraph.runs.petab", "metabolismgraph.explore.loop"),
    *("metabolismgraph.explore.proposers.rules", "metabolismgraph.explore.validation"),
)
RUN = (
    *("run", "small", "--quiet", "--set", "simulation.n_metabolites=6", "--set", "simulation.n_reactions=9"),
    *("--set", "simulation.n_frames=60", "--set", "plotting.dpi=30", "--set", "training.phase2_steps=20"),
    *("--set", "training.phase2_snapshots=2"),
)


class Ended(NamedTuple):
    """How a case ended: `code` is None if it was killed for its time; `new` are files and folders that it left."""

    code: int | None
    seconds: float
    memory: float  # bytes beyond those of this process
    out: str
    err: str
    new: list[str]


def load() -> None:
    """Import what the commands use. No thread of JAX starts before a device is used."""
    for name in _LOADED:
        importlib.import_module(name)


def make_templates(folder: Path) -> Path:
    """A finished run, an exploration, and a data set, by the program itself."""
    if not (folder / "run" / "metrics.json").exists():
        command = [sys.executable, "-m", "metabolismgraph", *RUN, "--out", str(folder / "run")]
        subprocess.run(command, check=True, capture_output=True)
    if not (folder / "exploration").exists():
        from journals import exploration, journal

        from metabolismgraph.config import load_config

        (folder / "exploration").mkdir()
        journal(folder / "exploration", exploration(6, config=load_config("small")))
        shutil.copytree(folder / "run", folder / "exploration" / "base")
    return folder


def run(case: Case, templates: Path) -> Ended:
    """Run one case in a fork, in a new folder."""
    folder = Path(tempfile.mkdtemp(prefix="malformed_"))
    try:
        work = folder / "work"
        work.mkdir()
        case.write(work, templates)
        before = _contents(work)
        own = _pages(1)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _call(case, folder, work)
        code, usage = _wait(child, began + _PATIENCE * case.seconds)
        took = time.monotonic() - began
        texts = [_text(folder / name) for name in ("stdout", "stderr")]
        after = _contents(work)
        new = sorted(name for name, digest in after.items() if before.get(name) != digest)
        new += sorted(f"-{name}" for name in before.keys() - after.keys())
        return Ended(code, took, max(0.0, usage.ru_maxrss * 1024.0 - own), *texts, new)
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def faults(case: Case, ended: Ended) -> list[str]:
    """What is not as it should be."""
    found = []
    everything = ended.err + ended.out
    if ended.code in {None, -signal.SIGXCPU}:
        found.append(f"more than {case.seconds:g} s")
    elif ended.code not in ((0,) if case.right else (0, 1, 2) if case.fails else (0, 2)):
        found.append(f"code {ended.code}")
    if "Traceback (most recent call last)" in everything:
        found.append("traceback")
    if ended.memory > MEMORY:
        found.append(f"{ended.memory / 2**30:.1f} GB")
    if any(not c.isprintable() and c not in "\n\t\r" for c in ended.err):
        found.append("control character")
    if "reader of stdout" in case.closed and ended.code != 2:  # ends in silence, as other programs do
        return [f"code {ended.code}"] * (ended.code not in (0, 1)) + ["a message"] * bool(ended.err)
    lines = ended.err.rstrip("\n").split("\n")
    if ended.code in (1, 2) and "stderr" not in case.closed:
        if len(lines) != 1 or not lines[0].startswith("error: "):
            found.append(f"{len(lines)} lines")
        if max(map(len, lines)) > _LONGEST:
            found.append("a very long line")
    if ended.code in (1, 2) and ended.new and not case.keeps:
        found.append(f"left {', '.join(ended.new[:4])}")
    return found


def _call(case: Case, folder: Path, work: Path) -> None:
    """Call the command line, and end this process."""
    code = 99
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        where = {"stdout": case.stdout or folder / "stdout", "stderr": folder / "stderr"}
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(where[name], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), number)
        if "reader of stdout" in case.closed:  # as `| head` leaves it
            ends = os.pipe()
            os.dup2(ends[1], 1)
            os.close(ends[0])
            os.close(ends[1])
        for number, name in ((1, "stdout"), (2, "stderr")):
            if name in case.closed:
                os.close(number)
        os.chdir(work)
        sys.argv = ["metabolismgraph", *case.arguments]
        sys.stdout = None if "stdout" in case.closed else open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = None if "stderr" in case.closed else open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        most = _pages(0) + _ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        processor = math.ceil(case.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 5))
        if case.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest, case.largest))
        warnings.simplefilter("ignore")
        code = _exit_code()
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _exit_code() -> int:
    """What the interpreter does around a script."""
    from metabolismgraph.cli import main

    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:  # as the interpreter says it
            sys.stderr.write(f"Exception ignored in: {sys.stdout!r}\n{error!r}\n")
            code = 120
    return code


def _wait(child: int, until: float) -> tuple[int | None, resource.struct_rusage]:
    """Exit code and use of a child, which is killed with its own children at a time; then the code is None."""
    while time.monotonic() < until:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(status), usage
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    _, _, usage = os.wait4(child, 0)
    return None, usage


def _pages(column: int) -> int:
    """Bytes of this process: 0 of its addresses, 1 of its memory."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


def _contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder, and the folders, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        digest = ""
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size < 5e7:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = digest
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(10_000_000).decode(errors="replace")
    except OSError:
        return ""


def selected(family: str | None, only: str, sample: int | None) -> Iterator[tuple[str, Case]]:
    """Cases with the name of their family; a sample of each is spread over it, and begins with its first one."""
    for name, cases in FAMILIES.items():
        if family not in {None, name}:
            continue
        found = [case for case in cases() if only in case.name]
        step = 1 if sample is None else max(1, len(found) // sample)
        yield from ((name, case) for case in found[::step])


def main() -> int:
    """Exit code: 0 if all inputs are refused as they should be, or accepted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--only", default="")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--templates", type=Path)
    given = parser.parse_args()
    load()
    counts = collections.Counter()
    kinds = collections.Counter()
    with tempfile.TemporaryDirectory() as made:
        templates = make_templates(given.templates or Path(made))
        for family, case in selected(given.family, given.only, given.sample):
            ended = run(case, templates)
            wrong = faults(case, ended)
            counts[family, "wrong" if wrong else "refused" if ended.code else "accepted"] += 1
            kinds.update(word.split()[0] for word in wrong)
            if wrong or given.show:
                last = (ended.err.strip().splitlines() or [""])[-1][:400]
                print(
                    f"{family}: {case.name}: {', '.join(wrong) or ended.code}; {ended.seconds:.1f} s; {last!r}",
                    flush=True,
                )
    for family in dict.fromkeys(name for name, _ in counts):
        print(family, {kind: counts[family, kind] for kind in ("refused", "accepted", "wrong")})
    print(
        sum(counts.values()),
        "inputs,",
        sum(n for (_, kind), n in counts.items() if kind == "wrong"),
        "wrong;",
        dict(kinds),
    )
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
