"""What code in C and C++ opens or changes is reported as well, with Landlock and without."""

import ctypes
import io
import json
import os
import subprocess
import sys

import pytest

from metabolismgraph.sandbox import seccomp
from metabolismgraph.sandbox.landlock import Allowed
from metabolismgraph.sandbox.protocol import read_events
from metabolismgraph.sandbox.watcher import CALLS, refused, resolve

SECRET = "0.1234567890"
# Functions of libraries that training needs itself; Python sees none of the files.
ATTACKS = {
    "message of the compiler": (
        """
text = 'module { func.func public @main(%a: tensor<2xf32>) -> tensor<2xf32> { %0 = "stablehlo.add"(%a) : '
text += '(tensor<2xf32>) -> tensor<2xf32> loc("' + TRUTH + '/reactions.csv":2:1)\\n return %0 : tensor<2xf32> } }'
try: client.compile_and_load(text.encode(), client.devices()[:1])
except Exception as error: got = str(error)
""",
        ("openat", "reactions.csv"),
    ),
    "programs of the compiler": (
        """
jax.jit(lambda x: 2 * x, compiler_options={'xla_dump_to': TRUTH + '/programs'})(1.0)
""",
        ("mkdir", "programs"),
    ),
    "text of a program": (
        """
with mlir.make_ir_context(): ir.Module.parse('module {}').operation.print(file=TRUTH + '/programs')
""",
        ("openat", "programs"),
    ),
    "bytes of a program": (
        """
with mlir.make_ir_context(): ir.Module.parse('module {}').operation.write_bytecode(TRUTH + '/programs')
""",
        ("openat", "programs"),
    ),
}
PROCESS = """
import json, os, sys
from pathlib import Path
from metabolismgraph.sandbox import audit_hook, landlock
given = json.loads(sys.stdin.read())
TRUTH, SEALED = given["truth"], given["walls"] != "none"
if given["walls"] == "hook": landlock.confine = lambda _: False
held = audit_hook.seal(Path.cwd()) if SEALED else False
import jax
from jax._src.interpreters import mlir
from jaxlib.mlir import ir
client, got = jax.devices()[0].client, None
jax.jit(lambda x: x + 1)(1.0)
if SEALED: audit_hook.activate()
Path("own").write_text("mine")
(Path("own").read_text(), Path("own").rename("renamed"), os.listdir(), Path("renamed").unlink())
exec(given["code"])
print(json.dumps({"event": "went on", "got": got, "kernel": held}), flush=True)
"""
pytestmark = pytest.mark.skipif(not seccomp.asked(), reason="the kernel cannot ask on this machine")


@pytest.fixture
def struck(tmp_path):
    """The events of an attack, the exit code, and the folder of the truth."""

    def inner(code, walls):
        truth, folder = tmp_path / "run" / "data" / "truth", tmp_path / "run" / "training"
        truth.mkdir(parents=True)
        folder.mkdir()
        (truth / "reactions.csv").write_text(f"k,reaction\nR0,{SECRET}\n")
        answer = subprocess.run(
            [sys.executable, "-P", "-c", PROCESS],
            cwd=folder,
            input=json.dumps({"truth": str(truth), "walls": walls, "code": code}).encode(),
            capture_output=True,
            timeout=300,
            check=False,
        )
        return list(read_events(io.BytesIO(answer.stdout))), answer, truth

    return inner


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_without_walls(name, struck):
    events, _, truth = struck(ATTACKS[name][0], "none")
    assert SECRET in str(events[-1]["got"]) or (truth / "programs").exists()


@pytest.mark.parametrize("walls", ["both", "hook"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_reported(name, walls, struck):
    code, (call, file) = ATTACKS[name]
    events, answer, truth = struck(code, walls)
    assert answer.returncode < 0, answer.stderr
    assert events == [{"event": "leak", "tried": call, "on": str(truth / file)}]
    assert SECRET.encode() not in answer.stdout + answer.stderr
    assert not (truth / "programs").exists()


def test_files_of_the_folder_and_of_libraries_are_opened(struck):
    events, answer, _ = struck("got = float(len(open(os.__file__).read()) + jax.jit(lambda x: x * 2)(1.0))", "both")
    assert [event["event"] for event in events] == ["went on"], answer.stderr


def test_paths_are_those_that_the_process_means(tmp_path):
    own, thread = os.getpid(), os.getpid()
    (tmp_path / "link").symlink_to("folder/../file")
    (tmp_path / "endless").symlink_to("endless")
    assert resolve(f"{tmp_path}/link", own, thread) == f"{tmp_path.resolve()}/file"
    assert resolve(f"{tmp_path}/endless", own, thread) is None
    assert resolve("/proc/self/status", own, thread) == f"/proc/{own}/status"
    assert resolve("/dev/fd/../status", own, thread) == f"/proc/{own}/status"
    assert resolve("/proc/thread-self/root/etc", own, thread) == "/etc"
    assert resolve("//a/./b//", own, thread) == "/a/b"


def test_calls_are_judged_by_the_memory_of_the_process(tmp_path):
    own = os.getpid()
    allowed = Allowed(readable=("/usr",), writable=(str(tmp_path / "own"),), listed=("/opt/",), devices=())
    place = tmp_path.resolve()
    (place / "own").mkdir()
    (place / "other").write_text("")
    held = []

    def judged(name, path, flags=0, folder=-100):
        text = ctypes.create_string_buffer(os.fsencode(path))
        held.append(text)
        at, call = ctypes.addressof(text), CALLS[name]
        arguments = [0] * 6
        for where, what in call.names:
            arguments[what] = at
            if where is not None:
                arguments[where] = folder & 0xFFFFFFFFFFFFFFFF
        if call.flags is not None:
            arguments[call.flags] = flags
        return refused(call, arguments, allowed, own, own)

    assert judged("open", "/usr/bin") is None
    assert judged("open", "/usr/bin", os.O_RDWR) == resolve("/usr/bin", own, own)
    assert judged("open", f"{place}/other") == f"{place}/other"
    assert judged("open", f"{place}/missing") is None
    assert judged("open", f"{place}/missing", os.O_CREAT) == f"{place}/missing"
    assert judged("open", f"{place}/own/new", os.O_CREAT) is None
    assert judged("open", f"{place}/ownership", os.O_CREAT) == f"{place}/ownership"
    assert judged("open", "/opt") is None
    folder = os.open(place, os.O_PATH)
    try:
        assert judged("openat", "other", folder=folder) == f"{place}/other"
        assert judged("openat", "own", folder=folder) is None
    finally:
        os.close(folder)
    assert judged("renameat", f"{place}/other") == f"{place}/other"
    assert judged("unlink", f"{place}/own/../other") == f"{place}/other"
    assert refused(CALLS["open"], [0] * 6, allowed, own, own) is None  # no address
