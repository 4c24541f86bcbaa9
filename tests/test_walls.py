"""The last wall: whatever goes wrong in a command is one line, and nothing is written where it should not be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from command_line import call, refused

from metabolismgraph import memory
from metabolismgraph.cli.walls import one_line_errors
from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.size import check_size

PROGRAM = [sys.executable, "-m", "metabolismgraph"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("a\nb\x1b[31m"), 2, "error: a b [31m"),
        (MemoryError(), 2, "memory"),
        (RecursionError(), 2, "nested too deeply"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left"),
        (OSError(errno.EACCES, "Permission denied", "there"), 2, "there: cannot be"),
        (InputError("x" * 100_000), 2, "xxx..."),
    ],
)
def test_an_error_is_one_line(capsys, error, code, words):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == code
    written = capsys.readouterr().err
    assert words in written
    assert written.count("\n") == 1
    assert written.startswith("error: ")
    assert len(written) < 2000


def test_a_name_in_several_lines_does_not_make_an_error_of_several():
    assert str(InputError("m.xml: species a\nb\u2028c: no such species")) == "m.xml: species a b c: no such species"


def test_a_program_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0


@pytest.mark.parametrize(
    "words",
    [("run", "small", "--bogus"), ("bogus",), ("explore", "bogus"), ("simulate-model",), ("identify", "--json=3", "m")],
)
def test_wrong_words_are_refused_with_one_line(monkeypatch, capsys, words):
    assert "--help" in refused(monkeypatch, capsys, *words)


@pytest.mark.parametrize("command", ["run", "fit"])
def test_resume_and_overwrite_contradict_each_other(monkeypatch, capsys, tmp_path, command):
    words = {"run": ("small",), "fit": ("m.xml", "t.csv")}[command]
    message = refused(monkeypatch, capsys, command, *words, "--out", tmp_path / "o", "--resume", "--overwrite")
    assert "--resume and --overwrite" in message
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has such a device")  # noqa: PTH110
def test_full_standard_output_is_an_error():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*PROGRAM, "configs"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_closed_standard_output_takes_no_file(tmp_path):
    command = f"{sys.executable} -m metabolismgraph simulate small --set simulation.n_frames=20 --out {tmp_path}/o >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["network.xml", "timeseries.csv.gz", "truth"]


def test_a_system_that_does_not_fit_the_memory_is_refused_before_it_is_drawn(monkeypatch, capsys, tmp_path):
    for key in ("n_metabolites", "n_reactions", "n_frames", "n_runs"):
        given = ("--set", f"simulation.{key}=1000000000")
        message = refused(monkeypatch, capsys, "simulate", "small", "--out", tmp_path / "o", *given)
        assert "GB" in message
        assert f"lower simulation.{key}" in message or key in message.split("lower")[1]
        assert not (tmp_path / "o").exists()


def test_memory_is_compared_with_that_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 10**9)
    memory.check_memory(10**9, "work", "lower it")
    with pytest.raises(InputError, match="work needs about 2.5 GB of memory, and this machine has 1 GB; lower it"):
        memory.check_memory(25 * 10**8, "work", "lower it")
    check_size(load_config("small").simulation)


def test_memory_of_the_machine_is_at_most_its_limits(monkeypatch):
    whole = memory.memory_of_machine()
    assert 2**20 < whole < 2**60
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (12345678, memory.resource.RLIM_INFINITY))
    assert memory.memory_of_machine() == 12345678


@pytest.mark.parametrize(
    "change",
    [
        "simulation.seed=9223372036854775808",
        "simulation.n_frames=3000000000",
        "exploration.time_steps=[4, 99999999999]",
    ],
)
def test_whole_numbers_are_not_larger_than_arrays_and_generators_take(monkeypatch, capsys, change):
    assert "at most" in refused(monkeypatch, capsys, "configs", "--show", "small", "--set", change)


def test_a_data_set_that_cannot_be_written_leaves_the_one_before(monkeypatch, capsys, tmp_path):
    words = ("simulate", "small", "--set", "simulation.n_frames=20", "--quiet", "--out", tmp_path / "o")
    assert call(monkeypatch, *words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    from metabolismgraph.ground_truth.truth import Truth  # noqa: PLC0415

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Truth, "save", fail)
    assert "No space left" in refused(monkeypatch, capsys, *words, "--overwrite", "--set", "simulation.seed=7")
    assert {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
