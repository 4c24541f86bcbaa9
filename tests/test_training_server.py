"""Trainings in forks of a server: the same as in programs of their own, and as well sealed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import strategy_files

from metabolismgraph.processes import environment
from metabolismgraph.runs import train_process, training_server
from metabolismgraph.runs.training_server import ForkedTraining, TrainingServer
from metabolismgraph.sandbox import audit_hook
from metabolismgraph.sandbox.protocol import read_events
from metabolismgraph.system.threads import ONE_THREAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libraries do not survive a fork")
PATIENCE = 60.0  # seconds
INERT = strategy_files.written()
LOOKS_AROUND = """
import json, os, sys
def _opens(number):
    try: return os.fstat(number) is not None
    except OSError: return False
seen = {"open": [n for n in range(256) if _opens(n)], "env": dict(os.environ), "modules": sorted(sys.modules),
        "argv": sys.argv, "path": sys.path}
open("seen.json", "w").write(json.dumps(seen))
"""
ATTACKS = {
    "the truth": "open('../data/truth/reactions.csv')",
    "the server": "import os; os.kill(os.getppid(), 9)",
    "its memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
    "a fork of its own": "import os; os.fork()",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = strategy_files.base_run(tmp_path_factory.mktemp("base") / "run", "training.data_augmentation_loop=5")
    settings = json.loads((folder / "settings.json").read_text())
    settings["training"]["strategies"] = ["mine"]
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


SERVES = """
import os, socket, sys
import metabolismgraph.explore.engines.worker
from metabolismgraph.runs import training_server
variables = training_server._import()
sys.exit(training_server._serve(socket.socket(fileno=os.dup(0)), int(sys.argv[1]), variables))
"""


@pytest.fixture
def server():
    """A server like that of a worker; this process is too large to fork one."""
    ours, theirs = training_server._channel()
    command = (sys.executable, "-P", "-c", SERVES, str(os.getpid()))
    with theirs:
        program = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, env=environment(**ONE_THREAD))
    found = TrainingServer(ours, program.pid, runs_files=True)
    training_server._servers[:] = [found]
    yield found
    found.close()
    program.wait()


def prepared(base, folder, strategy=INERT):
    """A folder for Phase 2 on the data of another one, with a strategy file."""
    (folder / "strategies").mkdir(parents=True)
    shutil.copy(base / "settings.json", folder)
    (folder / "strategies" / "mine.py").write_text(strategy)
    return folder


def started(folder, base, **more):
    return training_server.start_training(folder, base, kernel=False, env=environment(**ONE_THREAD, **more), stderr=2)


def trained(folder, base):
    """Exit code of a training, and its events."""
    with started(folder, base) as training:
        events = list(read_events(training.stdout))
        return training.wait(), events


def content(folder):
    return (folder / "phase2.safetensors").read_bytes()


def test_a_fork_learns_what_a_program_learns(base, tmp_path, server):
    one, other, program = (prepared(base, tmp_path / name) for name in "abc")
    for folder in (one, other):
        code, events = trained(folder, base)
        assert code == 0
        assert [event["stage"] for event in events if event["event"] == "finished"] == ["phase 1", "phase 2"]
    server.close()
    training = started(program, base)
    assert not isinstance(training, ForkedTraining)
    with training:
        assert [event["event"] for event in read_events(training.stdout)] == [event["event"] for event in events]
        assert training.wait() == 0
    assert content(one) == content(other) == content(program)


def test_a_fork_holds_no_more_than_a_program(base, tmp_path, server, monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", "of somebody else")
    seen = []
    for name in ("fork", "program"):
        folder = prepared(base, tmp_path / name, INERT.replace("import jax\n", f"import jax\n{LOOKS_AROUND}"))
        # Training runs in no folder in particular; the file is written to its own.
        text = (folder / "strategies" / "mine.py").read_text().replace('"seen.json"', repr(str(folder / "seen.json")))
        (folder / "strategies" / "mine.py").write_text(text)
        assert trained(folder, base)[0] == 0
        seen.append(json.loads((folder / "seen.json").read_text()))
        server.close()
    fork, program = seen
    assert fork["open"] == program["open"]
    # threadpoolctl sets a variable for libraries of Intel, which are not there.
    for held in (fork, program):
        assert held["env"].pop("TMPDIR").startswith(str(tmp_path))
        held["env"].pop("KMP_DUPLICATE_LIB_OK", None)
    assert fork["env"] == program["env"]
    assert {name.partition(".")[0] for name in fork["modules"]} & audit_hook.READERS == set()
    of_package = {name for name in fork["modules"] if name.startswith("metabolismgraph")}
    of_server = {"processes", "runs.train_process", "runs.training_server", "system.compilation"}
    of_server |= {"explore", "explore.engines", "explore.engines.base", "explore.engines.worker"}
    assert of_package - set(program["modules"]) == {f"metabolismgraph.{name}" for name in of_server}
    assert str(tmp_path) not in " ".join((*fork["argv"], *fork["path"]))
    assert fork["path"] == program["path"]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_fork_is_sealed(base, tmp_path, server, name):
    folder = prepared(base, tmp_path / "attack", f"{INERT}\n{ATTACKS[name]}\n")
    code, events = trained(folder, base)
    assert code in {audit_hook.LEAK, -signal.SIGKILL}
    assert [event for event in events if event["event"] == "leak"]
    assert not (folder / "phase2.safetensors").exists()
    assert trained(prepared(base, tmp_path / "next"), base)[0] == 0


def _busy(base, folder):
    return prepared(base, folder, f"{INERT}\nimport time\ntime.sleep({PATIENCE})\n")


def _first_event(training):
    return next(iter(read_events(training.stdout)))


def _of(training):
    """The process of a training in a fork."""
    (process,) = [p for p in psutil.Process().children(recursive=True) if p.parent().pid != os.getpid()][:1]
    return process


def _gone(process):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def test_a_fork_that_is_killed_says_so_and_the_next_one_runs(base, tmp_path, server):
    with started(_busy(base, tmp_path / "busy"), base) as training:
        assert _first_event(training)["event"] == "sealed"
        _of(training).kill()
        assert training.wait() == -signal.SIGKILL
    assert trained(prepared(base, tmp_path / "next"), base)[0] == 0


def test_who_leaves_early_leaves_no_training_behind(base, tmp_path, server):
    with started(_busy(base, tmp_path / "busy"), base) as training:
        _first_event(training)
        process = _of(training)
    assert _gone(process)
    assert trained(prepared(base, tmp_path / "next"), base)[0] == 0


def test_a_training_ends_with_its_server_and_the_next_one_is_a_program(base, tmp_path, server):
    with started(_busy(base, tmp_path / "busy"), base) as training:
        _first_event(training)
        process = _of(training)
        process.parent().kill()
        assert training.wait() == -signal.SIGKILL
        assert _gone(process)
    again = started(prepared(base, tmp_path / "next"), base)
    assert not isinstance(again, ForkedTraining)
    with again:
        assert len(list(read_events(again.stdout))) > 1
        assert again.wait() == 0


FORKS = """
import json, os, sys
from pathlib import Path
from metabolismgraph.runs import training_server
before = dict(os.environ)
training_server.fork_server()
assert dict(os.environ).items() >= before.items() and "OPENBLAS_NUM_THREADS" not in os.environ
import psutil
from metabolismgraph.sandbox.protocol import read_events
folder, base = map(Path, sys.argv[1:])
with training_server.start_training(folder, base, kernel=False, env=before, stderr=2) as training:
    events = read_events(training.stdout)
    first = next(events)
    children = psutil.Process().children(recursive=True)
    places = [Path(f"/proc/{child.pid}/fd") for child in children]
    held = sorted({os.readlink(fd) for place in places for fd in place.iterdir() if "/" in os.readlink(fd)})
    print(json.dumps([type(training).__name__, first["event"], len(list(events)) > 1, training.wait(), held]))
"""


def forked(folder, base, *, runs_files=False, **more):
    """What comes of a training in a process that has forked a server from itself."""
    code = FORKS.replace("fork_server()", f"fork_server(runs_files={runs_files})")
    command = [sys.executable, "-P", "-c", code, str(folder), str(base)]
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env, **more).stdout)


def test_a_process_with_little_in_it_forks_a_server_from_itself(base, tmp_path):
    folder, secret = prepared(base, tmp_path / "own"), tmp_path / "of somebody else"
    settings = json.loads((folder / "settings.json").read_text())
    settings["training"]["strategies"] = []
    (folder / "settings.json").write_text(json.dumps(settings))
    shutil.rmtree(folder / "strategies")
    with secret.open("w") as stream:
        kind, *said, held = forked(folder, base, pass_fds=[stream.fileno()])
    assert (kind, said) == ("ForkedTraining", ["sealed", True, 0])
    assert str(secret) not in held
    training_server.fork_server()  # here JAX is loaded, and may have threads
    assert not training_server._servers


@pytest.mark.parametrize("runs_files", [False, True])
def test_strategy_files_are_executed_only_in_forks_that_may(base, tmp_path, runs_files):
    kind, *said, _ = forked(prepared(base, tmp_path / "own"), base, runs_files=runs_files)
    assert (kind, said) == ("ForkedTraining" if runs_files else "Child", ["sealed", True, 0])


def test_a_fork_that_executes_strategy_files_is_sealed(base, tmp_path):
    folder = prepared(base, tmp_path / "attack", f"{INERT}\n{ATTACKS['the truth']}\n")
    kind, *said, _ = forked(folder, base, runs_files=True)
    assert (kind, said) == ("ForkedTraining", ["sealed", True, audit_hook.LEAK])
    assert not (folder / "phase2.safetensors").exists()


@pytest.mark.parametrize("what", ["pidfd_open", "fork"])
def test_where_no_process_can_be_forked_there_is_no_server(what):
    code = (
        "import os\ndef refuse(*_): raise OSError(38, 'Function not implemented')\n"
        f"os.{what} = refuse\n"
        "from metabolismgraph.runs import training_server\n"
        "training_server.fork_server()\nprint(training_server._servers)"
    )
    answer = subprocess.run([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_the_command_line_trains_in_a_fork(tmp_path):
    command = [sys.executable, "-m", "metabolismgraph", "run", "small", "--quiet", "--out", "x", "--set"]
    with subprocess.Popen([*command, "training.data_augmentation_loop=100000"], cwd=tmp_path) as process:
        seen = set()
        while process.poll() is None and not seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                below = psutil.Process(process.pid).children(recursive=True)
                seen = {" ".join(child.cmdline()[-3:-1]) for child in below if child.parent().pid != process.pid}
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert seen
    assert not [text for text in seen if "train_process" in text]
    assert train_process.command(tmp_path)[3] == "metabolismgraph.runs.train_process"
