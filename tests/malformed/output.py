"""Output that cannot be written: places, full disks, closed streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from malformed.case import Case
from malformed.folders import _copy
from malformed.models import TABLE, model
from malformed.petab import PROBLEM

_QUICK = ["--set", "simulation.n_metabolites=6", "--set", "simulation.n_reactions=9", "--set", "simulation.n_frames=60"]
_FILES = {"m.xml": model(), "t.csv": TABLE, "file": "here", **PROBLEM}
_WRITERS = {
    "run": ("run", "small", *_QUICK, "--set", "training.phase1_method=projection", "--quiet", "--out"),
    "simulate": ("simulate", "small", *_QUICK, "--quiet", "--out"),
    "fit": ("fit", "run/data/network.xml", "run/data/timeseries.csv.gz", "--quiet", "--out"),
    "simulate-model": ("simulate-model", "m.xml", "--end", "1", "--points", "300", "--out"),
    "convert": ("convert", "t.csv"),
    "convert model": ("convert", "m.xml"),
    "convert folder": ("convert", "run"),
    "fit-model": (
        "fit-model",
        "m.xml",
        "t.csv",
        "--starts",
        "1",
        "--minutes",
        "0.01",
        "--processes",
        "1",
        "--quiet",
        "--out",
    ),
    "fit-petab": (
        "fit-petab",
        "problem.yaml",
        "--starts",
        "1",
        "--minutes",
        "0.01",
        "--processes",
        "1",
        "--quiet",
        "--out",
    ),
    "simulate-petab": ("simulate-petab", "problem.yaml", "--out"),
    "explore start": ("explore", "start", "small", *_QUICK, "--quiet", "--iterations", "1", "--out"),
    "explore import": ("explore", "import", "log.md"),
    "profile": ("profile", "run", "k:R000", "--anyway", "--quiet", "--out"),
}
_SUFFIX = {
    "simulate-model": ".csv",
    "convert": ".csv",
    "convert model": ".ant",
    "convert folder": ".omex",
    "simulate-petab": ".tsv",
}


def _with_run(folder: Path, templates: Path) -> None:
    _copy("run")(folder, templates)
    closed = folder / "closed"
    closed.mkdir()
    if os.geteuid():
        closed.chmod(0o500)


def places() -> Iterator[Case]:
    """Places where nothing can be written."""
    for name, words in _WRITERS.items():
        suffix = _SUFFIX.get(name, "")
        for place in (
            f"/proc/nothing{suffix}",
            f"/proc/self/nothing/x{suffix}",
            "file",
            f"file/x{suffix}",
            f"{'x' * 300}{suffix}",
            "/dev/full",
            f"/sys/x{suffix}",
            "m.xml",
            ".",
        ):
            yield Case(f"{name} to {place[:30]}", (*words, place), _FILES, prepare=_with_run)


def disks() -> Iterator[Case]:
    """A disk that is full after so many bytes."""
    for name, words in _WRITERS.items():
        for largest in (2000, 4000, 20_000):
            out = f"out{_SUFFIX.get(name, '')}"
            # What training needs more for can be continued.
            given = {"largest": largest, "fails": largest == 20_000, "keeps": largest == 20_000, "seconds": 120.0}
            yield Case(f"{name} with {largest} bytes", (*words, out), _FILES, prepare=_with_run, **given)
    for largest in (2000, 4000, 20_000):
        yield Case(f"evaluate with {largest} bytes", ("evaluate", "run", "--quiet"), prepare=_with_run, largest=largest)
        yield Case(
            f"explore pause with {largest} bytes",
            ("explore", "pause", "exploration"),
            prepare=_copy("exploration"),
            largest=largest,
            keeps=True,
        )


def streams() -> Iterator[Case]:
    """Standard output that is closed or full."""
    commands = (
        ("configs",),
        ("configs", "--show", "small"),
        ("--version",),
        ("--help",),
        ("run", "--help"),
        ("strategies",),
        ("simulate-model", "m.xml", "--end", "1", "--points", "3000"),
        ("simulate-petab", "problem.yaml"),
        ("identify", "m.xml", "t.csv", "--json"),
        ("identify", "m.xml", "t.csv"),
        ("convert", "t.csv", "out.csv"),
        ("explore", "status", "exploration"),
        ("explore", "show", "exploration", "1"),
        ("simulate", "small", *_QUICK, "--out", "out"),
        ("configs", "--show", "nowhere"),
    )
    for words in commands:
        name = " ".join(words)[:30]
        given = {"files": _FILES, "prepare": _copy("exploration"), "keeps": words[0] == "simulate"}
        yield Case(f"{name} closed", words, closed=("stdout",), **given)
        yield Case(f"{name} errors closed", words, closed=("stderr",), **given)
        yield Case(f"{name} both closed", words, closed=("stdout", "stderr"), **given)
        yield Case(f"{name} full", words, stdout="/dev/full", **given)
        yield Case(f"{name} nobody reads", words, closed=("reader of stdout",), **given)
