"""Wrong input of every kind ends in one line and exit code 2: a sample, or all of it with --hypothesis-profile=long."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from malformed.case import Case
from malformed.families import FAMILIES
from malformed.runner import Ended, faults

RUNNER = Path(__file__).parent / "malformed" / "runner.py"
SAMPLE = 4  # cases of every family, spread over it
# Their right inputs train or compile.
LONG = {"checkpoints", "runs", "disks", "places", "streams"}


@pytest.fixture(scope="module")
def templates(finished_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("templates")
    shutil.copytree(finished_run, folder / "run")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_input_is_refused_with_one_line(family, templates):
    everything = settings.get_current_profile_name() == "long"
    if not everything and family in LONG:
        pytest.skip("the long profile runs it")
    command = [sys.executable, RUNNER, "--family", family, "--templates", templates]
    command += [] if everything else ["--sample", str(SAMPLE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_names_of_cases_are_unique():
    for family, cases in FAMILIES.items():
        names = [case.name for case in cases()]
        assert len(set(names)) == len(names), family
    assert sum(1 for cases in FAMILIES.values() for _ in cases()) >= 500


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (Ended(None, 30.0, 0.0, "", "", []), "more than"),
        (Ended(-11, 1.0, 0.0, "", "", []), "code -11"),
        (Ended(1, 1.0, 0.0, "", "error: a", []), "code 1"),
        (Ended(2, 1.0, 3e9, "", "error: a", []), "GB"),
        (Ended(2, 1.0, 0.0, "", "Traceback (most recent call last)\nerror: a", []), "traceback"),
        (Ended(2, 1.0, 0.0, "", "error: a\nb", []), "2 lines"),
        (Ended(2, 1.0, 0.0, "", "a", []), "1 lines"),
        (Ended(2, 1.0, 0.0, "", "error: \x1b[31m", []), "control"),
        (Ended(2, 1.0, 0.0, "", "error: " + "a" * 5000, []), "long"),
        (Ended(2, 1.0, 0.0, "", "error: a", ["out"]), "left out"),
    ],
)
def test_every_kind_of_fault_is_seen(ended, fault):
    assert any(fault in found for found in faults(Case("", ()), ended))


def test_a_right_input_must_be_accepted():
    assert faults(Case("", (), right=True), Ended(2, 1.0, 0.0, "", "error: a", [])) == ["code 2"]
    assert faults(Case("", (), right=True), Ended(0, 1.0, 0.0, "", "", ["out"])) == []
