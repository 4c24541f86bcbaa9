"""More attacks on the wall around training: on the audit hook itself, by libraries in C, on reports and on the parent.

All attacks are made in forks of one process: without walls, where they must work; sealed, and with the audit hook
alone, where the process must end with a report; and behind the kernel's walls alone.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
import types

import pytest

from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.files import remove_folder
from metabolismgraph.runs import results, training
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.sandbox import audit_hook, seccomp

SECRET = "0.7318243551"


@dataclasses.dataclass(frozen=True)
class Attack:
    """Code that leaves what it got in `got`.

    Attributes:
        tried: the event that is reported; None: the kernel ends the process before that.
        code: sees TRUTH, FOLDER, PACKAGE, `switch_off` (disables the hook that a frame belongs to) and `file`, the
            truth.
        wanted: what it is after.
        kernel: whether the kernel alone stops it.
    """

    tried: str
    code: str
    wanted: str = SECRET
    kernel: bool = True


_TAKEN_OUT = audit_hook._TAKEN_OUT
ATTACKS = {
    "a traceback of the hook, by a made-up event": Attack(
        "open",
        """
        try: sys.audit('open', 'x')
        except ValueError as error: switch_off(error.__traceback__.tb_next.tb_frame)
        got = open(file).read()
        """,
    ),
    "a traceback of the hook, by a path that is no text": Attack(
        "open",
        """
        try: open(b'\\xff')
        except (UnicodeDecodeError, OSError) as error: switch_off(error.__traceback__.tb_frame, error.__traceback__)
        got = open(file).read()
        """,
    ),
    "flags that run code in the hook": Attack(
        "open",
        """
        class Flags:
            def __and__(self, _): switch_off(sys._getframe()); return 0
        sys.audit('open', FOLDER + '/x', 'r', Flags())
        got = open(file).read()
        """,
    ),
    "a mode that runs code in the hook": Attack(
        "open",
        """
        class Mode:
            def __iter__(self): switch_off(sys._getframe()); return iter('r')
        sys.audit('open', FOLDER + '/x', Mode(), 0)
        got = open(file).read()
        """,
    ),
    "a descriptor that runs code in the hook": Attack(
        "os.remove",
        """
        class Number:
            def __ne__(self, _): switch_off(sys._getframe()); return False
        sys.audit('os.remove', FOLDER + '/x', Number())
        got = open(file).read()
        """,
    ),
    "a collection of garbage in the hook": Attack(
        "open",
        """
        import gc
        gc.callbacks.append(lambda *_: switch_off(sys._getframe()))
        gc.set_threshold(1)
        for _ in range(50): open(os.devnull).close()
        gc.set_threshold(700)
        got = open(file).read()
        """,
    ),
    "garbage collected although it was switched off": Attack(
        _TAKEN_OUT, "import gc; gc.disable(); gc.enable(); got = open(file).read()"
    ),
    "a signal in the hook": Attack(
        _TAKEN_OUT,
        """
        import _thread, signal
        signal.signal(signal.SIGINT, lambda _, frame: switch_off(frame))
        for _ in range(50): _thread.interrupt_main(); open(os.devnull).close()
        got = open(file).read()
        """,
    ),
    "the end of the stack in the hook": Attack(
        "open",
        """
        def dive():
            try: dive()
            except RecursionError:
                try: open(os.devnull).close()
                except (RecursionError, OSError) as error: switch_off(error.__traceback__.tb_frame, error.__traceback__)
                raise
        try: dive()
        except (RecursionError, OSError): pass
        got = open(file).read()
        """,
    ),
    "a hook of its own": Attack(
        "open",
        """
        def quiet(event, arguments):
            if event == 'open' and SEALED: raise RuntimeError
        sys.addaudithook(quiet)
        got = open(file).read()
        """,
    ),
    "Tcl": Attack(
        "import",
        "import _tkinter; got = _tkinter.create(None, 'x', 'Tk', 0, 0, 0).eval('read [open {' + file + '}]')",
    ),
    "memory that processes share": Attack(
        "import",
        """
        import _posixshmem
        name = f'/attack{os.getpid()}'
        _posixshmem.shm_open(name, os.O_CREAT | os.O_RDWR, mode=0o600); _posixshmem.shm_unlink(name); got = 'shared'
        """,
        "shared",
    ),
    "a semaphore that processes share": Attack(
        "import",
        "import _multiprocessing as m; m.SemLock(1, 1, 1, f'/attack{os.getpid()}', True); got = 'shared'",
        "shared",
    ),
    "passwords": Attack("import", "import spwd; spwd.getspall(); got = 'read'", "read", kernel=False),
    "a group of its own": Attack(_TAKEN_OUT, "os.setpgrp(); got = 'left'", "left"),
    "a terminal of its own": Attack(
        _TAKEN_OUT,
        """
        try: os.login_tty(os.open(os.devnull, os.O_RDWR))
        except OSError: got = 'left' * (os.getsid(0) == os.getpid())
        """,
        "left",
    ),
    "signals on a pipe to its parent": Attack(
        "fcntl.fcntl", "import fcntl; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid()); got = 'sent'", "sent"
    ),
    "a lease that lets others wait": Attack(
        "fcntl.fcntl", "import fcntl; fcntl.fcntl(open(PACKAGE + '/errors.py'), 1024, 0); got = 'leased'", "leased"
    ),
    "notices of changes elsewhere": Attack(
        "fcntl.fcntl", "import fcntl; fcntl.fcntl(os.open(PACKAGE, 0), 1026, 1); got = 'watched'", "watched"
    ),
    "attributes of a file elsewhere": Attack(
        "fcntl.ioctl",
        """
        import fcntl
        try: fcntl.ioctl(open(PACKAGE + '/errors.py'), 0x40086602, bytes(8))
        except OSError: pass
        got = 'asked'
        """,
        "asked",
    ),
    "a lock on a file of others": Attack(
        "fcntl.flock",
        "import fcntl; fcntl.flock(open(PACKAGE + '/errors.py'), fcntl.LOCK_SH); got = 'locked'",
        "locked",
        kernel=False,
    ),
    "no limit of time": Attack(_TAKEN_OUT, "import signal; signal.alarm(0); got = 'off'", "off"),
    "no limit of time, by a timer": Attack(
        _TAKEN_OUT, "import signal; signal.setitimer(signal.ITIMER_REAL, 0); got = 'off'", "off"
    ),
    "the clock": Attack(
        _TAKEN_OUT,
        """
        import time
        try: time.clock_settime(time.CLOCK_MONOTONIC, 1)
        except OSError: got = 'asked'
        """,
        "asked",
    ),
    "stopping for good": Attack(
        _TAKEN_OUT, "import signal; signal.raise_signal(signal.SIGCONT); got = 'sent'", "sent", kernel=False
    ),
    "an end of its own choice": Attack(
        _TAKEN_OUT, "print('GOT ended', flush=True); os._exit(0)", "ended", kernel=False
    ),
    "text of a syntax error": Attack(
        "open",
        """
        try: compile('\\nnonlocal x', file, 'exec')
        except SyntaxError as error: got = error.text
        """,
    ),
    "line of a warning": Attack(
        "open",
        """
        import io, warnings
        sys.stderr = io.StringIO(); warnings.simplefilter('always')
        warnings.warn_explicit('x', UserWarning, file, 2); got = sys.stderr.getvalue()
        """,
    ),
    "line of a traceback": Attack(
        "open",
        """
        import traceback
        try: exec(compile('\\n1 / 0', file, 'exec'))
        except ZeroDivisionError: got = traceback.format_exc()
        """,
    ),
    "source of a module that says it lies there": Attack(
        "open",
        """
        import inspect
        module = types.ModuleType('x'); module.__file__ = PACKAGE + '/ground_truth/simulator.py'
        got = inspect.getsource(module)
        """,
        "def simulate(",
    ),
    "io.open_code": Attack("open", "import io; got = io.open_code(file).read()"),
    "loader of the package": Attack(
        "open", "import metabolismgraph; got = metabolismgraph.__spec__.loader.get_data(file)"
    ),
    "a path of modules": Attack(
        "os.listdir",
        """
        from importlib import machinery
        finder = machinery.FileFinder(TRUTH, (machinery.SourceFileLoader, ['.csv']))
        got = finder.find_spec('reactions').loader.get_data(file)
        """,
    ),
    "pkgutil": Attack(
        "open",
        """
        import pkgutil
        sys.modules['x'] = module = types.ModuleType('x'); module.__file__ = TRUTH + '/x.py'
        module.__spec__ = __import__('importlib.util').util.spec_from_file_location('x', TRUTH + '/x.py')
        got = pkgutil.get_data('x', 'reactions.csv')
        """,
    ),
    "code run from a path": Attack(
        "open",
        """
        import runpy
        try: runpy.run_path(file)
        except SyntaxError as error: got = error.text
        except NameError: got = SECRET
        """,
    ),
    "a finalizer": Attack(
        "open",
        """
        import weakref
        kept, one = [], type('One', (), {})()
        weakref.finalize(one, lambda: kept.append(open(file).read())); del one; got = kept
        """,
    ),
    "numpy.DataSource": Attack("open", "import numpy; got = numpy.lib.npyio.DataSource(FOLDER).open(file).read()"),
    "equinox": Attack(
        "open",
        """
        import equinox
        kept = []
        equinox.tree_deserialise_leaves(file, 0.0, filter_spec=lambda f, x: kept.append(f.read(60)) or x); got = kept
        """,
    ),
    "programs of the compiler elsewhere": Attack(
        "os.mkdir",
        """
        jax.config.update('jax_dump_ir_to', TRUTH + '/ir'); jax.jit(lambda x: x * 2)(1.0)
        got = 'written' * os.path.exists(TRUTH + '/ir'); shutil.rmtree(TRUTH + '/ir')
        """,
        "written",
    ),
    "a call from a compiled program": Attack(
        "open",
        """
        kept = []
        x = jax.numpy.zeros(()); jax.pure_callback(lambda x: kept.append(open(file).read()) or x, x, x); got = kept
        """,
    ),
    "a report that waits for ever": Attack(
        _TAKEN_OUT,
        """
        import threading, time
        r, w = os.pipe(); kept = os.dup(1)
        os.set_blocking(w, False)
        try:
            while True: os.write(w, bytes(4096))
        except BlockingIOError: os.set_blocking(w, True)
        for number in range(1, w):
            if number not in (r, kept): os.dup2(w, number)
        threading.Thread(target=lambda: open(file), daemon=True).start()
        time.sleep(0.2); os.write(kept, b'GOT on'); os._exit(0)
        """,
        "GOT on",
        kernel=False,
    ),
}

PROCESS = """
import gc, json, os, pathlib, shutil, sys, traceback, types
import numpy, jax, equinox, inspect, linecache, weakref
from pathlib import Path
from metabolismgraph.sandbox import audit_hook, landlock, seccomp
given = json.loads(sys.stdin.read())
TRUTH, FOLDER, SECRET = given["truth"], os.getcwd(), given["secret"]
PACKAGE, file = str(Path(audit_hook.__file__).parents[1]), TRUTH + "/reactions.csv"

def switch_off(frame, trace=None):
    frames = []
    while frame: frames.append(frame); frame = frame.f_back
    while trace: frames.append(trace.tb_frame); trace = trace.tb_next
    seen = [value for frame in frames if frame.f_code.co_filename.endswith("audit_hook.py")
            for value in frame.f_locals.values()]
    while seen:
        part = seen.pop()
        if not isinstance(part, types.FunctionType): continue
        for name, cell in zip(part.__code__.co_freevars, part.__closure__ or ()):
            if name in ("judge_file", "judge_import"): cell.cell_contents = lambda *_: 0
            elif name in ("judge", "decide"): seen.append(cell.cell_contents)

def strike(code, walls):
    r, w = os.pipe()
    if (child := os.fork()) == 0:
        leave, end = os._exit, 1
        os.dup2(w, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if walls == "kernel": sys.addaudithook = lambda _: None
        if walls == "hook": landlock.confine = lambda _: False; seccomp.restrict = lambda **_: False
        try:
            held = not walls or audit_hook.seal(Path.cwd())
            if "jax." in code: jax.devices()
            if walls == "kernel": held = seccomp.restrict() and held
            elif walls: held = audit_hook.activate() and held
            if not held and walls != "hook":
                os.write(1, b"NO WALLS")
                leave(0)
            space = {**globals(), "SEALED": bool(walls)}
            exec(code, space)
            print("GOT", space.get("got"), flush=True)
        except (ModuleNotFoundError, AttributeError):
            if not walls: print("ABSENT", flush=True)
        finally:
            leave(0)
    os.close(w)
    with open(r, "rb") as stream: printed = stream.read().decode(errors="replace")
    return printed, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(json.dumps([strike(*one) for one in given["strikes"]]))
"""
WALLS = ("", "both", "hook", "kernel")


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    """What every attack printed behind each choice of walls, and the exit code."""
    path = tmp_path_factory.mktemp("more")
    truth, folder = path / "run" / "data" / "truth", path / "run" / "training"
    truth.mkdir(parents=True)
    folder.mkdir()
    (truth / "reactions.csv").write_text(f"k,reaction\nR0,{SECRET}\n")
    keys = [(name, walls) for name in ATTACKS for walls in WALLS]
    strikes = [(textwrap.dedent(ATTACKS[name].code).strip(), walls) for name, walls in keys]
    answer = subprocess.run(
        [sys.executable, "-P", "-c", PROCESS],
        cwd=folder,
        input=json.dumps({"truth": str(truth), "secret": SECRET, "strikes": strikes}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(zip(keys, map(tuple, json.loads(answer.stdout.splitlines()[-1])), strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_without_walls(name, struck):
    printed, _ = struck[name, ""]
    if printed == "ABSENT\n":
        pytest.skip("this interpreter has no such function")
    assert ATTACKS[name].wanted in printed


@pytest.mark.parametrize("walls", ["both", "hook"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_reported(name, walls, struck):
    printed, code = struck[name, walls]
    if printed == "NO WALLS":
        pytest.skip("this kernel has no Landlock or no seccomp")
    if struck[name, ""][0] == "ABSENT\n":
        pytest.skip("this interpreter has no such function")
    assert SECRET not in printed
    if name == "a report that waits for ever":  # its descriptor is lost; the end remains
        assert audit_hook.attempt_of(code)
        return
    assert "GOT" not in printed.replace("GOT ended", "")
    assert code == audit_hook.LEAK
    assert json.loads(printed.splitlines()[-1])["tried"] == ATTACKS[name].tried


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.kernel])
def test_the_kernel_alone_refuses_it_too(name, struck):
    printed, _ = struck[name, "kernel"]
    if printed == "NO WALLS":
        pytest.skip("this kernel has no Landlock or no seccomp")
    assert ATTACKS[name].wanted not in printed.replace("GOT None", "")


def test_exceptions_of_the_hook_hold_no_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hook = audit_hook._hook(audit_hook._bounds(tmp_path))
    site = audit_hook.site.getsitepackages()[0]
    found = []
    for event in (
        ("import", ("contourpy", f"{site}/contourpy/_contourpy.so", None, None, None)),
        ("open", ("/etc/passwd", "r", 0)),
        ("open", (b"\xff", "r", 0)),
        ("open", ("x",)),
    ):
        with pytest.raises((ImportError, PermissionError)) as caught:
            hook(*event)
        assert caught.value.__context__ is None
        trace = caught.value.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename == audit_hook.__file__:
                found += trace.tb_frame.f_locals.values()
            trace = trace.tb_next
    assert found
    assert not [value for value in found if isinstance(value, types.FunctionType | types.CellType)]


@pytest.mark.parametrize("machine", seccomp._MACHINES)
def test_the_descriptor_of_reports_is_guarded(machine):
    from test_firewall_calls import ALLOW, KILL  # noqa: PLC0415

    rules = seccomp.program(machine, 1000, report=7)
    assert len(rules) > len(seccomp.program(machine, 1000))
    assert seccomp.program(machine, 1000, report=7, programs=True) == seccomp.program(machine, 1000, programs=True)
    assert {rule[3] for rule in rules if rule[0] == seccomp._RETURN} >= {ALLOW, KILL}


@pytest.mark.skipif(platform.machine() not in seccomp._MACHINES, reason="not filtered on this architecture")
@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ("os.close(kept)", True),
        ("os.dup2(1, kept)", True),
        ("os.dup2(1, kept, inheritable=False)", True),
        ("os.closerange(3, 100)", True),
        ("os.closerange(kept + 1, 100)", False),
        ("os.close(os.dup(kept))", False),
    ],
)
def test_only_that_descriptor_stays_open(call, ends):
    code = f"""
import os
from metabolismgraph.sandbox import seccomp
kept = os.dup(1)
if not seccomp.restrict(report=kept): os._exit(3)
{call}
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    if answer.returncode == 3:
        pytest.skip("this kernel has no seccomp")
    assert answer.returncode == (-signal.SIGSYS if ends else 0), answer.stderr


# -- the parent

PHASES = {"phase 1": "phase1"}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", load_config("small"), {"command": "run"})


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", "1e13", "1" + "0" * 400])
def test_made_up_durations_are_not_written(seconds, folder, monkeypatch):
    monkeypatch.setattr(training, "is_intact", lambda _: True)
    event = json.loads(f'{{"event": "finished", "stage": "phase 1", "seconds": {seconds}}}')
    assert training._follow([event], folder, PHASES, lambda *_: None) == (None, None)
    assert RunFolder.open(folder.path).manifest["stages"] == {}


@pytest.mark.parametrize("done", ["NaN", "Infinity", "-1", "1e308", "1" + "0" * 400])
def test_made_up_progress_is_not_shown(done, folder):
    event = json.loads(f'{{"event": "progress", "stage": "phase 1", "done": {done}, "message": ""}}')
    shown: list[object] = []
    training._follow([event], folder, PHASES, lambda *arguments: shown.append(arguments))
    assert shown == []


def test_repeated_ends_of_a_stage_are_written_once(folder, monkeypatch):
    written: list[float] = []
    monkeypatch.setattr(training, "is_intact", lambda _: True)
    monkeypatch.setattr(RunFolder, "finish", lambda _, stage, seconds: written.append(seconds))
    events = [{"event": "finished", "stage": "phase 1", "seconds": float(i)} for i in range(1000)]
    training._follow(events, folder, PHASES, lambda *_: None)
    assert written == [0.0]


def test_long_names_of_stages_are_cut(folder):
    shown: list[str] = []
    event = {"event": "progress", "stage": "x\n" * 100_000, "done": 0.5, "message": "y" * 100_000}
    training._follow([event], folder, PHASES, lambda stage, _, message: shown.extend((stage, message)))
    assert [len(text) for text in shown] == [40, 300]


def test_folders_deeper_than_the_stack_are_removed(tmp_path):
    top = tmp_path / "top"
    place = top / "trial"
    place.mkdir(parents=True)
    (top / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    # By short names, since a path of that length is none.
    deep = "import os; [(os.mkdir('a'), os.chdir('a')) for _ in range(1500)]; open('file', 'w')"
    subprocess.run([sys.executable, "-c", deep], cwd=place, check=True)
    remove_folder(top)
    assert not top.exists()
    assert (tmp_path / "kept" / "file").exists()


def test_training_cannot_write_a_file_that_fills_the_memory_of_its_parent(tmp_path):
    """A file with holes costs no disk, until somebody reads it."""
    code = """
import resource, sys
from pathlib import Path
from metabolismgraph.runs import train_process
class Sealed(Exception): pass
def stop(*_, **__): raise Sealed
train_process.audit_hook.seal = stop
try: train_process.main(Path.cwd())
except Sealed: pass
try: open("phase2.json", "wb").truncate(1 << 40)
except OSError as error: print(error.errno == 27)
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stdout == "True\n", answer.stderr


def test_folders_in_place_of_files_are_damaged_checkpoints(folder, monkeypatch):
    (folder.training / "observations.json").mkdir(parents=True)
    (folder.training / "observations.safetensors").mkdir()
    with pytest.raises(InputError, match="observations"):
        results.load_result(folder, folder.config)
    shutil.rmtree(folder.training)
