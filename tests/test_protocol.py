"""Events of a sealed process: written as lines, read with suspicion."""

import ast
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_architecture import FILES, imported

from metabolismgraph.sandbox.protocol import read_events, write_event

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text().filter(lambda name: name != "stream"), VALUES), max_size=3))
def test_what_is_written_is_read(events):
    stdout = io.BytesIO()
    stream = io.TextIOWrapper(stdout)
    for event in events:
        write_event(stream, **event)
    assert list(read_events(io.BytesIO(stdout.getvalue()))) == events


@given(st.binary())
def test_anything_may_come(junk):
    events = list(read_events(io.BytesIO(junk + b'\n{"event": "leak"}\n')))
    assert events[-1] == {"event": "leak"}
    assert all(isinstance(event, dict) for event in events)


def test_what_is_no_event_is_passed_over():
    lines = [b"text", b"[1]", b"3", b"[" * 100_000, b"1" * 10_000, b'{"a": ', b"\xff\xfe", b"", b'{"event": "passed"}']
    assert list(read_events(io.BytesIO(b"\n".join(lines)))) == [{"event": "passed"}]


class Endless(io.RawIOBase):
    """A line of 300 MB, then an event; only a little of it is in memory at a time."""

    def __init__(self):
        self.left = [b"x" * (1 << 20)] * 300 + [b'{"event": "progress"}\n', b'{"event": "passed"}\n']
        self.taken = 0

    def readline(self, size=-1):
        assert 0 < size <= 1 << 22
        self.taken += 1
        return self.left.pop(0) if self.left else b""


def test_a_line_without_end_is_not_kept():
    stream = Endless()
    assert list(read_events(stream)) == [{"event": "passed"}]
    assert stream.taken > 300


@pytest.mark.parametrize("module", sorted(name for name in FILES if name.startswith("sandbox.")))
def test_the_sandbox_imports_nothing_else(module):
    """It is loaded before the rest, by a process that is not sealed yet."""
    source = FILES[module].read_text()
    assert all(name.startswith("sandbox") for name in imported(source))
    roots = {node.names[0].name.split(".")[0] for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)}
    assert not roots & {"numpy", "jax", "pydantic"}
