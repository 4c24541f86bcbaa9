"""Training cannot see the truth: not by import, not by argument, not by what the linter lets through."""

import dataclasses
import hashlib
import importlib
import inspect
import json
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.runs.checkpoint import OBSERVATIONS_FILE, PHASE1_FILE, load_observations, save_observations
from metabolismgraph.sandbox.audit_hook import SHARED_FILES
from metabolismgraph.system.observations import Observations

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = ("metabolismgraph.ground_truth", "metabolismgraph.evaluation", "metabolismgraph.benchmarks")
PACKAGES = [f"metabolismgraph.{name}" for name in ("system", "reactions", "homeostasis", "fitting", "sandbox")]
MODULES = [
    *PACKAGES,
    *(
        module.name
        for name in PACKAGES
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
    ),
    "metabolismgraph.runs.train_folder",
    "metabolismgraph.runs.train_process",
]
# What a sealed process imports, which has not even the configuration of the simulation.
SEALED = [
    *("metabolismgraph.runs.train_folder", "metabolismgraph.runs.train_process"),
    *("metabolismgraph.explore.review.examination", "metabolismgraph.explore.review.trial"),
]
SIMULATION = ("metabolismgraph.config.simulation", "metabolismgraph.config.tree", "metabolismgraph.config.load")


def test_training_may_read_the_files_that_runs_share():
    suffixes = (".safetensors", ".json")
    assert set(SHARED_FILES) == {name + suffix for name in (OBSERVATIONS_FILE, PHASE1_FILE) for suffix in suffixes}


@pytest.mark.parametrize(("modules", "forbidden"), [(MODULES, FORBIDDEN), (SEALED, (*FORBIDDEN, *SIMULATION))])
def test_importing_training_leaves_the_truth_out(modules, forbidden):
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(n for n in sys.modules if n.startswith('metabolismgraph'))))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(answer.stdout)
    assert "metabolismgraph.homeostasis.fit" in loaded
    assert [name for name in loaded if name.startswith(forbidden)] == []


def test_training_takes_no_truth():
    """Permuting the true types cannot change a weight: no function of training takes them, or could."""
    functions = [
        function
        for name in MODULES
        for _, function in inspect.getmembers(importlib.import_module(name), inspect.isfunction)
        if function.__module__ in MODULES
    ]
    assert len(functions) > 20
    for function in functions:
        named = " ".join(str(p) for p in inspect.signature(function).parameters.values())
        assert "Truth" not in named, function
        assert "Simulat" not in named, function
        assert "Config" not in named or function.__name__ == "fit", function  # it holds the simulation's seed
    hidden = {field.name for field in dataclasses.fields(Truth)} - {"species", "reactions"}
    assert not hidden & {field.name for field in dataclasses.fields(Observations)}


def test_observations_written_for_training_hold_no_labels(small, tmp_path):
    """The same file, byte for byte, whatever the true types are."""
    save_observations(tmp_path / "one", small.observations)
    mixed = small._replace(truth=dataclasses.replace(small.truth, type=np.roll(small.truth.type, 1)))
    save_observations(tmp_path / "two", mixed.observations)
    for kind in ("safetensors", "json"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    assert set(safetensors.numpy.load_file(tmp_path / "one.safetensors")) == {"concentration", "time", "run"}
    written = json.loads((tmp_path / "one.json").read_text())
    assert set(written) == {"sha256", "network", "notes"}
    assert written["notes"] == []
    assert set(json.loads(written["network"])) == {"id", "species", "fixed", "volume", "reactions"}


def test_observations_come_back_as_they_were_written(small, tmp_path):
    save_observations(tmp_path / "observations", small.observations)
    again = load_observations(tmp_path / "observations")
    assert again.network.to_json() == small.observations.network.to_json()
    for name in ("time", "run", "concentration"):
        np.testing.assert_array_equal(getattr(again, name), getattr(small.observations, name))


def test_damaged_observations_are_refused_with_one_line(small, tmp_path):
    with pytest.raises(InputError, match="observations.safetensors: no such file"):
        load_observations(tmp_path / "observations")
    save_observations(tmp_path / "observations", small.observations)
    arrays = tmp_path / "observations.safetensors"
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-1])
    with pytest.raises(InputError, match="does not match its checksum"):
        load_observations(tmp_path / "observations")
    meta = tmp_path / "observations.json"
    meta.write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    arrays.write_bytes(content)
    with pytest.raises(InputError, match="holds no observations .network is missing."):
        load_observations(tmp_path / "observations")


@pytest.fixture(scope="module")
def ruff():
    found = shutil.which("ruff", path=sysconfig.get_path("scripts")) or shutil.which("ruff")
    if not found:
        pytest.skip("ruff is not installed")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "from metabolismgraph.ground_truth.truth import Truth",
        "import metabolismgraph.ground_truth.simulator",
        "import metabolismgraph.evaluation.evaluate",
        "from metabolismgraph import evaluate",
        "def f(): from metabolismgraph.ground_truth.truth import Truth",
    ],
)
@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ("system/scratch.py", True),
        ("reactions/scratch.py", True),
        ("homeostasis/strategies/scratch.py", True),
        ("runs/train_scratch.py", True),
        ("explore/scratch.py", True),
        ("scratch.py", False),
    ],
)
def test_the_linter_refuses_the_truth_in_training(ruff, line, place, refused):
    command = [ruff, "check", "--no-cache", "--select", "TID251", "--stdin-filename", f"src/metabolismgraph/{place}"]
    answer = subprocess.run([*command, "-"], input=f"{line}\n", capture_output=True, text=True, cwd=ROOT, check=False)
    assert ("TID251" in answer.stdout) == refused
    assert answer.returncode == int(refused), answer.stderr
