"""Child processes: their limits, their ends, and that no other module starts one."""

import ast
import os
import signal
import sys
import time

import psutil
import pytest
from test_architecture import FILES

from metabolismgraph.processes import PIPE, Child, describe_exit, environment, excerpt, last_line, run

SLEEPER = "import time; time.sleep(60)"
PARENT = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-S", "-c", "{SLEEPER}"]).pid, flush=True)
"""


def python(code):
    return [sys.executable, "-S", "-c", code]


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends(pid):
    until = time.monotonic() + 10
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not lives(pid)


def started_elsewhere(source):
    """What some source uses of the ways to start a process."""
    ways = {"Popen", "check_call", "check_output", "getoutput", "getstatusoutput", "posix_spawn", "popen", "system"}
    modules = {"subprocess", "os", "asyncio", "pty"}
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name == "subprocess"}
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            found |= {alias.name for alias in node.names if node.module == "subprocess" or alias.name in ways}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found |= {node.attr} & ways
    return found


@pytest.mark.parametrize("module", sorted(set(FILES) - {"processes"}))
def test_no_other_module_starts_a_process(module):
    assert started_elsewhere(FILES[module].read_text()) == set()


def test_a_start_elsewhere_is_seen():
    assert started_elsewhere("def f():\n    import subprocess\n    subprocess.Popen([])") == {"subprocess", "Popen"}
    assert started_elsewhere("from subprocess import run") == {"run"}
    assert started_elsewhere("import os\nos.system('ls')") == {"system"}
    assert started_elsewhere(FILES["processes"].read_text())


def test_input_and_both_outputs():
    ended = run(python("import sys; print(sys.stdin.read()[::-1]); sys.stderr.write('oh'); sys.exit(3)"), stdin=b"abc")
    assert ended == (3, None, b"cba\n", b"oh")


def test_time_is_limited_and_nothing_lives_on():
    ended = run(python(f"{PARENT}\n{SLEEPER}"), seconds=1.0)
    assert (ended.code, ended.limit) == (-signal.SIGKILL, "time")
    assert ends(int(ended.stdout))


def test_what_a_program_leaves_behind_is_killed():
    ended = run(python(PARENT))
    assert (ended.code, ended.limit) == (0, None)
    assert ends(int(ended.stdout))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_limited_and_so_is_what_is_kept_of_it(stream):
    ended = run(python(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)"), output=5000)
    assert ended.limit == "output"
    assert max(len(ended.stdout), len(ended.stderr)) == 5000


@pytest.mark.parametrize("own_group", [True, False])
def test_an_interrupt_kills_the_child(own_group):
    child = Child(python(SLEEPER), own_group=own_group)
    assert child.poll() is None
    with pytest.raises(KeyboardInterrupt), child:
        raise KeyboardInterrupt
    assert not psutil.pid_exists(child.pid)
    assert child.wait() == -signal.SIGKILL
    child.kill()  # a second time it does nothing


@pytest.mark.parametrize("own_group", [True, False])
def test_the_group_is_its_own_or_ours(own_group):
    with Child(python(SLEEPER), own_group=own_group) as child:
        assert os.getpgid(child.pid) == (child.pid if own_group else os.getpgrp())


def test_a_child_ends_with_its_parent():
    child = "from metabolismgraph.processes import end_with_parent; import time; end_with_parent(); time.sleep(60)"
    parent = f"""
import sys, time
from metabolismgraph.processes import PIPE, Child
child = Child([sys.executable, "-c", {child!r}], stdin=PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""
    with Child([sys.executable, "-c", parent], stdout=PIPE) as process:
        pid = int(process.stdout.readline())
        assert lives(pid)
    assert ends(pid)


def test_an_environment_without_secrets(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "METABOLISMGRAPH_KEY", "JAX_TOKEN", "AWS_SESSION", "DATABASE_URL"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    few = environment(OPENBLAS_NUM_THREADS="1")
    assert "canary" not in few.values()
    assert few.items() >= {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "PATH": os.environ["PATH"]}.items()
    # Only a benchmark, which runs nothing of others, passes on the whole environment.
    assert [name for name, file in FILES.items() if "**os.environ" in file.read_text()] == ["benchmarks.cold_run"]
    shown = run([sys.executable, "-c", "import os; print(dict(os.environ))"], env=few).stdout
    assert b"canary" not in shown


def test_ends_in_words():
    assert describe_exit(3) == "ended with code 3"
    assert describe_exit(-signal.SIGKILL) == "was killed by SIGKILL"
    assert describe_exit(-(signal.SIGRTMIN + 1)) == f"was killed by signal {signal.SIGRTMIN + 1}"


def test_last_line_of_output_or_of_a_file(tmp_path):
    content = b"first\n" + b"x" * 50_000 + b"\nlast \xff\n\n"
    (tmp_path / "stdout.txt").write_bytes(content)
    assert last_line(content) == last_line(tmp_path / "stdout.txt") == "last �"
    assert last_line(b" \n") == last_line(tmp_path / "missing") == ""


def test_of_long_output_the_beginning_and_the_end_are_kept(tmp_path):
    program = "import sys; sys.stderr.write('first\\n' + 'x' * 3_000_000 + '\\nlast\\n')"
    with (
        excerpt(tmp_path / "kept", most=1000) as stderr,
        Child([sys.executable, "-c", program], stderr=stderr) as child,
    ):
        assert child.wait() == 0
    kept = (tmp_path / "kept").read_bytes()
    assert kept.startswith(b"first\nxxx")
    assert kept.endswith(b"x\nlast\n")
    assert b"bytes are left out" in kept
    assert len(kept) < 30_000


@pytest.mark.parametrize("text", ["", "one\n", "y" * 999, "y" * 1000, "y" * 1001, "y" * 20_000])
def test_short_output_is_kept_as_it_is(tmp_path, text):
    program = f"import sys; sys.stderr.write({text!r})"
    with (
        excerpt(tmp_path / "kept", most=1000) as stderr,
        Child([sys.executable, "-c", program], stderr=stderr) as child,
    ):
        assert child.wait() == 0
    assert (tmp_path / "kept").read_text() == text
