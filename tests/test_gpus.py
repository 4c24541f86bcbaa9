"""One GPU per worker, for jobs as processes of this computer."""

import sys

import pytest

from metabolismgraph.explore.engines.local import ProcessEngine, gpus

LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-6c2e1c7a-0000-1111-2222-333344445555)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-7d3f2d8b-0000-1111-2222-333344445555)
  MIG 1g.10gb     Device  0: (UUID: MIG-aaaa1111-0000-1111-2222-333344445555)
"""
SHOW = "import os; print([os.environ.get(n) for n in ('CUDA_VISIBLE_DEVICES', 'XLA_PYTHON_CLIENT_PREALLOCATE')])"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A computer of its own: nothing is set, and there are no programs but those in a folder."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin" / "nvidia-smi"


def install(path, code):
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0,1", ["0", "1"]), ("GPU-6c2e, 2", ["GPU-6c2e", "2"]), ("", []), ("-1", []), ("1,-1,0", ["1"])],
)
def test_gpus_that_the_user_names(bare, monkeypatch, given, expected):
    install(bare, "exit 1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus() == expected


def test_gpus_that_are_found(bare):
    assert gpus() == []
    install(bare, f"while read -r line; do echo \"$line\"; done <<'END'\n{LISTED}END")
    assert gpus() == ["GPU-6c2e1c7a-0000-1111-2222-333344445555", "GPU-7d3f2d8b-0000-1111-2222-333344445555"]
    install(bare, "echo 'NVIDIA-SMI has failed because it could not communicate with the driver' && exit 9")
    assert gpus() == []


def workers_see(tmp_path, number):
    """What the environment of each worker says."""
    engine = ProcessEngine(number, 60.0, (sys.executable, "-I", "-S", "-c", f"{SHOW}; import time; time.sleep(0.5)"))
    for job in range(number):
        (tmp_path / str(job)).mkdir()
        engine.submit(job, tmp_path / str(job))
    left = number
    while left:
        left -= len(engine.wait(1.0))
    engine.close()
    return [eval((tmp_path / str(job) / "stdout.txt").read_text()) for job in range(number)]


def test_workers_get_gpus_in_turn(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert workers_see(tmp_path, 3) == [["3", "false"], ["5", "false"], ["3", "false"]]


def test_a_gpu_of_its_own_is_used_as_always(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert workers_see(tmp_path, 2) == [["3", None], ["5", None]]


def test_nothing_changes_without_gpus(tmp_path):
    assert workers_see(tmp_path, 2) == [[None, None]] * 2
