"""Calling the command line from tests."""

from __future__ import annotations

import sys

import pytest

QUICK = [
    "--set",
    "simulation.n_metabolites=12",
    "--set",
    "simulation.n_reactions=24",
    "--set",
    "simulation.n_frames=400",
    "--set",
    "plotting.dpi=40",
]


def call(monkeypatch, *arguments: object) -> int:
    """Exit code of the command line."""
    from metabolismgraph.cli import main

    monkeypatch.setattr(sys, "argv", ["metabolismgraph", *map(str, arguments)])
    monkeypatch.setattr("metabolismgraph.cli.app.skip_last_collection", lambda: None)  # the process goes on
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """The one line that wrong input is answered with."""
    assert call(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
