"""Attacks on the wall around training by system calls, as made by code that has taken over the memory of its process.

Every attack works without walls; in a sealed process, and behind the kernel's walls alone, it ends the process with the
signal that the parent process takes for an attempt.
"""

from __future__ import annotations

import json
import platform
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from metabolismgraph.sandbox import audit_hook, seccomp

# Functions of the C library were looked up before the process was sealed.
ATTACKS = {
    "a signal to its parent": "kill(os.getppid(), 0) == 0",
    "a signal to all": "kill(-1, 0) == 0",
    "a signal to its group": "kill(0, 0) == 0",
    "the priority of its parent": "setpriority(0, os.getppid(), os.getpriority(0, os.getppid())) == 0",
    "the priority of its group": "setpriority(1, 0, os.getpriority(1, 0)) == 0",
    "the limits of its parent": "prlimit(os.getppid(), 4, None, room) == 0",
    "its own limits": "prlimit(0, 4, None, room) == prlimit(0, 4, room, None) == 0",
    "the cores of its parent": "sched_getaffinity(os.getppid(), 128, room) >= 0 "
    "and sched_setaffinity(os.getppid(), 128, room) == 0",
    "a session of its own": "setsid() > 0",
    "a group of its own": "setpgid(0, 0) == 0",
    "another process": "fork() >= 0",
    "another program": "execv(b'/bin/echo', (ctypes.c_char_p * 3)(b'echo', b'GOT')) == 0",
    "a connection": "socket(2, 1, 0) >= 0",
    "a connection within the system": "socket(1, 1, 0) >= 0",
    "a pair of sockets": "socketpair(1, 1, 0, room) == 0",
    "memory of a process": "process_vm_readv(os.getpid(), vector, 1, vector, 1, 0) == 8",
    "being traced": "ptrace(0, 0, 0, 0) == 0",
    "a namespace": "unshare(0) == 0",
    "a file in memory": "memfd_create(b'x', 0) >= 0",
    "memory that others share": "shmget(0, 4096, 0o600) >= 0",
    "the time limit": "alarm(0) == 0",
    "the time limit, by a timer": "setitimer(0, room, None) == 0",
    "rights of a file elsewhere": "chmod(OUTSIDE, 0o600) == 0",
    "dates of a file elsewhere": "utimes(OUTSIDE, None) == 0",
    "a link to a file elsewhere": "link(OUTSIDE, INSIDE + b'/hard') == 0",
    "a name for a file elsewhere": "symlink(OUTSIDE, INSIDE + b'/soft') == 0",
    "watching files": "inotify_init1(0) >= 0",
    "another filter": "syscall(SECCOMP, 2, 0, ctypes.byref(ctypes.c_uint32(0x80000000))) == 0",
    "a tracer": "prctl(0x59616D61, 0, 0, 0, 0) in (0, -1)",
    "a file elsewhere, by the C library": "fopen(OUTSIDE, b'w') != 0",
    "a file elsewhere, by an older call": "creat(OUTSIDE, 0o600) >= 0",
    "signals on a pipe to its parent": "fcntl(os.pipe()[0], 8, os.getppid()) == 0",
}
NAMES = sorted({name for code in ATTACKS.values() for name in re.findall(r"(?<![\w.])([a-z_0-9]+)\(", code)} - {"in"})

# Every attack in a fork: what it does to its process does not reach the next.
PROCESS = """
import ctypes, json, os, sys, threading
from pathlib import Path
from metabolismgraph.sandbox import audit_hook, seccomp
given = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
globals().update({name: getattr(libc, name) for name in given["names"]})
room = ctypes.create_string_buffer(128)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)
INSIDE, OUTSIDE, SECCOMP = os.fsencode(Path.cwd()), os.fsencode(given["outside"]), given["seccomp"]

def strike(code, walls):
    r, w = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(w, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if walls in {"kernel", "programs"}:
            sys.addaudithook = lambda _: None
        if walls and not (audit_hook.seal(Path.cwd()) and seccomp.restrict(programs=walls == "programs")):
            os.write(1, b"NO WALLS")
            os._exit(0)
        if walls == "both":
            sys.audit(audit_hook._ACTIVATE)
        if eval(code):
            os.write(1, b"GOT")
        os._exit(0)
    os.close(w)
    with open(r, "rb") as stream:
        printed = stream.read().decode()
    return printed, -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(json.dumps([strike(*one) for one in given["strikes"]]))
"""


@pytest.fixture(scope="module")
def strike(tmp_path_factory):
    """Runs pairs of code and walls; returns what each printed and the signal that ended it."""
    path = tmp_path_factory.mktemp("calls")
    folder = path / "run" / "training"
    folder.mkdir(parents=True)
    (path / "outside").touch()

    def inner(strikes: list[tuple[str, str]]) -> list[tuple[str, int]]:
        seccomp_number = seccomp._MACHINES.get(platform.machine(), (0, 0))[1]
        given = {"names": NAMES, "strikes": strikes, "outside": str(path / "outside"), "seccomp": seccomp_number}
        command = [sys.executable, "-P", "-c", PROCESS, json.dumps(given)]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert answer.returncode == 0, answer.stderr
        return [tuple(one) for one in json.loads(answer.stdout.splitlines()[-1])]

    return inner


@pytest.fixture(scope="module")
def struck(strike):
    keys = [(name, walls) for name in ATTACKS for walls in ("", "both", "kernel")]
    return dict(zip(keys, strike([(ATTACKS[name], walls) for name, walls in keys]), strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_call_works_without_walls(name, struck):
    printed, ended_by = struck[name, ""]
    assert "GOT" in printed
    assert ended_by == 0


@pytest.mark.parametrize("walls", ["both", "kernel"])
@pytest.mark.parametrize("name", ATTACKS)
def test_call_ends_the_process(name, walls, struck):
    printed, ended_by = struck[name, walls]
    if printed == "NO WALLS":
        pytest.skip("this kernel has no Landlock or no seccomp")
    assert (printed, ended_by) == ("", signal.SIGSYS)


def test_the_parent_process_takes_the_signal_for_an_attempt():
    assert audit_hook.attempt_of(-signal.SIGSYS) == "a system call that training does not make"
    assert audit_hook.attempt_of(audit_hook.LEAK) == "an unreported attempt"
    assert [audit_hook.attempt_of(code) for code in (0, 1, 2, -signal.SIGKILL)] == [None] * 4


FINE = {
    "threads": "threading.Thread(target=os.getpid).start() or True",
    "a signal to itself": "kill(os.getpid(), 0) == 0",
    "reading its limits": "prlimit(0, 4, None, room) == prlimit(os.getpid(), 4, None, room) == 0",
    "its own cores": "sched_getaffinity(0, 128, room) >= 0 and sched_setaffinity(0, 128, room) == 0",
    "its name": "prctl(15, b'worker', 0, 0, 0) == 0",
    "flags of a descriptor": "fcntl(1, 1) >= 0",
    "reading by the C library": "fopen(b'/proc/cpuinfo', b'r') != 0",
    "a file of its own": "os.write(os.open(INSIDE + b'/own', os.O_CREAT | os.O_WRONLY), b'x') == 1",
}


def test_what_training_needs_is_not_filtered(strike):
    for name, (printed, ended_by) in zip(FINE, strike([(code, "kernel") for code in FINE.values()]), strict=True):
        assert (printed, ended_by) in (("GOT", 0), ("NO WALLS", 0)), name


def test_compilers_of_accelerators_are_programs_that_may_be_started(strike):
    for code in ("os.system('exit 0') == 0", "memfd_create(b'x', 0) >= 0"):
        assert strike([(code, "programs")]) in ([("GOT", 0)], [("NO WALLS", 0)])


@pytest.mark.skipif(platform.machine() not in seccomp._MACHINES, reason="not filtered on this architecture")
def test_every_listed_call_ends_the_process(strike):
    numbers = seccomp.refused(platform.machine())
    found = strike([(f"syscall({number}, 0, 0, 0, 0, 0, 0)", "kernel") for number in numbers.values()])
    if ("NO WALLS", 0) in found:
        pytest.skip("this kernel has no Landlock or no seccomp")
    assert {name: one for name, one in zip(numbers, found, strict=True) if one != ("", signal.SIGSYS)} == {}


# -- the filter itself, for every architecture


def _action(machine: str, number: int, *arguments: int, own: int = 1000, architecture: int = 0, **more: bool) -> int:
    """What a kernel does that runs the filter."""
    architecture = architecture or seccomp._MACHINES[machine][0]
    given = [one % 2**64 for one in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<iIQ6Q", number, architecture, 0, *given)
    program, at, value = seccomp.program(machine, own, **more), 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == seccomp._LOAD:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == seccomp._RETURN:
            return k
        else:
            tests = {seccomp._IF_EQUAL: value == k, seccomp._IF_AT_LEAST: value >= k, seccomp._IF_ANY_BIT: value & k}
            at += if_true if tests[code] else if_false


MACHINES = {"x86_64": 0, "aarch64": 1}
KILL, ALLOW, ABSENT = seccomp._KILL_PROCESS, seccomp._ALLOW, seccomp._NO_SUCH_CALL


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_ends_every_listed_call_and_lets_others_pass(machine):
    numbers = seccomp.refused(machine)
    assert {_action(machine, number) for number in numbers.values()} == {KILL}
    ruled = {*numbers.values(), seccomp._CLONE[MACHINES[machine]], seccomp._CLONE3[MACHINES[machine]]}
    ruled |= {numbers[MACHINES[machine]] for numbers, _ in seccomp._WITH.values()} | {
        seccomp._PRLIMIT[MACHINES[machine]]
    }
    rest = set(range(seccomp._UNKNOWN)) - ruled
    assert {_action(machine, number) for number in rest} == {ALLOW}
    assert len(set(numbers.values())) == len(numbers)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_looks_at_arguments(machine):
    at = MACHINES[machine]
    clone, prlimit, opening, own = seccomp._CLONE[at], seccomp._PRLIMIT[at], seccomp._OPEN[1][0][at], 1000
    kill, priority = seccomp._WITH["kill"][0][at], seccomp._WITH["setpriority"][0][at]
    cores, fcntl = seccomp._WITH["sched_setaffinity"][0][at], seccomp._WITHOUT["fcntl"][0][at]
    expected = {
        (clone, 0x3D0F00): ALLOW,  # a thread
        (clone, signal.SIGCHLD): KILL,
        (clone, 0x4111): KILL,  # vfork
        (kill, own): ALLOW,
        (kill, own + 1): KILL,
        (kill, 0): KILL,
        (kill, -1): KILL,
        (priority, 0, 0): ALLOW,
        (priority, 0, own + 1): KILL,
        (priority, 1, 0): KILL,
        (cores, 0): ALLOW,
        (cores, own): ALLOW,
        (cores, 1): KILL,
        (prlimit, 0, 4, 0, 9): ALLOW,
        (prlimit, own, 4, 0, 9): ALLOW,
        (prlimit, 1, 4, 0, 9): KILL,
        (prlimit, 0, 4, 9): KILL,
        (prlimit, 0, 4, 2**40): KILL,
        (opening, 0, 0, 0o101): KILL,  # fopen
        (opening, 0, 0, 0o2000101): ALLOW,
        (opening, 0, 0, 0o2): ALLOW,
        (fcntl, 1, 2): ALLOW,
        (fcntl, 1, 8): KILL,
        (seccomp._CLONE3[at],): ABSENT,
        (seccomp._UNKNOWN,): ABSENT,
    }
    for call, action in expected.items():
        assert _action(machine, *call) == action, call
    assert _action(machine, clone, signal.SIGCHLD, programs=True) == ALLOW
    assert _action(machine, kill, 1, programs=True) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_architecture_end_the_process(machine):
    assert _action(machine, 0, architecture=0x40000003) == KILL  # 32 bits
    assert _action(machine, 0x40000000) == KILL


HEADERS = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel(machine):
    header = Path("/usr/include", HEADERS[machine])
    if not header.exists():
        pytest.skip("no headers of the kernel are installed")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    at = MACHINES[machine]
    listed = {**seccomp._NEVER, **seccomp._OF_PROGRAMS, "clone": seccomp._CLONE, "clone3": seccomp._CLONE3}
    listed |= {name: numbers for name, (numbers, *_) in {**seccomp._WITH, **seccomp._WITHOUT}.items()}
    listed |= {"prlimit64": seccomp._PRLIMIT, "open": seccomp._OPEN[0][0], "openat": seccomp._OPEN[1][0]}
    found = {name: int(known[name]) for name in listed if name in known}
    assert len(found) > 100
    assert found == {name: listed[name][at] for name in found}


def test_unknown_architectures_are_not_filtered(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    assert seccomp.restrict() is False
