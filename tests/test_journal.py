"""The journal: what is on the disk after a crash, on a full disk, or with a second explorer about."""

import contextlib
import errno
import json
import os
import re
import resource
import subprocess
import sys

import journals
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metabolismgraph import json_lines as module
from metabolismgraph.errors import InputError
from metabolismgraph.explore import journal as journal_module
from metabolismgraph.explore.events import EVENT, Failed, Validated
from metabolismgraph.explore.journal import Journal
from metabolismgraph.explore.state import State

FOUR = journals.exploration(4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No waiting for the disk, save where a test looks at that."""
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: None)


@pytest.fixture
def made(tmp_path):
    """A journal of four iterations."""
    return journals.journal(tmp_path / "exploration", FOUR)


def untimed(events):
    return [event.model_copy(update={"time": ""}) for event in events]


@contextlib.contextmanager
def room_for(size):
    """No file may grow beyond that: a full disk that needs no disk. What fits is written, and the next call fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- what is written is read


def test_events_come_back_in_their_order(made):
    assert untimed(made.read()) == FOUR
    assert all(event.time for event in made.read())
    assert made.path.read_bytes().count(b"\n") == len(FOUR)


def test_what_append_returns_is_what_is_read(made):
    stamped = made.append(journals.warned("nothing"))
    assert made.read()[-1] == stamped
    assert stamped.time > made.read()[-2].time or stamped.time == made.read()[-2].time


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_is_none_in_the_next_life(tmp_path, number):
    written = journals.finished(1, 0.5, odd=number)
    made = journals.journal(tmp_path, [journals.opened(), journals.proposed(1), journals.begun(1), written])
    assert made.read()[-1].metrics["odd"] is None


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_a_line(tmp_path_factory, text):
    """Line and paragraph separators, carriage returns and NUL are characters like any other."""
    odd = f"{text}\u2028\u2029\x85\x0b\x0c\x1c\r\n\0{text}"
    folder = tmp_path_factory.mktemp("odd")
    made = journals.journal(folder, [journals.warned(odd), journals.warned("after")])
    assert [event.reason for event in made.read()] == [odd, "after"]


def test_every_kind_of_event_survives(tmp_path):
    events = journals.exploration(
        12, failing={3: "broke"}, reviews={1: journals.reviewed(1, file=journals.strategy_file())}
    )
    made = journals.journal(tmp_path, events)
    assert untimed(made.read()) == events
    assert {event.event for event in made.read()} >= {"opened", "proposed", "started", "finished", "failed", "reviewed"}
    for event in made.read():
        assert EVENT.validate_json(event.model_dump_json()) == event


def test_a_line_is_on_the_disk_before_append_returns(made, monkeypatch):
    """Not in the memory of this process or of the kernel only: fsync sees the whole line."""
    seen = []

    def fsync(descriptor):
        seen.append(os.fstat(descriptor).st_size)
        seen.append(made.path.stat().st_size)

    monkeypatch.setattr(module.os, "fsync", fsync)
    before = made.path.stat().st_size
    made.append(journals.failed(4))
    after = made.path.stat().st_size
    assert after > before
    assert seen
    assert set(seen) == {after}


# -- torn and damaged


def test_a_last_line_torn_anywhere_is_as_if_never_written(made):
    whole = made.path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(start, len(whole)):
        made.path.write_bytes(whole[:length])
        assert untimed(made.read()) == FOUR[:-1], length


def test_what_is_appended_after_a_torn_line_stands_alone(made):
    whole = made.path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(start, len(whole)):
        made.path.write_bytes(whole[:length])
        made.append(journals.warned("went on"))
        events = made.read()
        assert untimed(events[:-1]) == FOUR[:-1], length
        assert events[-1].reason == "went on"
        assert made.path.read_bytes().startswith(whole[:start])


def test_a_torn_line_longer_than_any_buffer_is_cut_off(made):
    whole = made.path.read_bytes()
    made.path.write_bytes(whole + b'{"event": "failed", "reason": "' + b"x" * 1_000_000)
    assert untimed(made.read()) == FOUR
    made.append(journals.warned("went on"))
    assert made.path.read_bytes().startswith(whole + b'{"time"')
    assert made.read()[-1].reason == "went on"


def test_a_journal_torn_in_its_first_line_holds_nothing(tmp_path):
    made = Journal(tmp_path / "journal.jsonl")
    made.path.write_bytes(b'{"event": "ope')
    assert made.read() == ()
    with pytest.raises(InputError, match="does not begin with"):
        State.of(made.read())
    made.append(journals.opened())
    assert State.of(made.read()).iterations == ()


DAMAGES = {
    "cut": lambda line: line[: len(line) // 2],
    "empty": lambda line: b"",
    "not text": lambda line: b"\xff\xfe" + line,
    "other JSON": lambda line: b'["proposed"]',
    "a number": lambda line: b"3",
    "unknown event": lambda line: line.replace(b'"event":"', b'"event":"un'),
    "unknown field": lambda line: line[:-1] + b',"cheat":1}',
    "missing field": lambda line: b'{"event":"scored"}',
    "two lines in one": lambda line: line + line,
    "nested without end": lambda line: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("number", [1, 5, len(FOUR)])
def test_a_damaged_line_is_named_by_its_number(made, damage, number):
    lines = made.path.read_bytes().split(b"\n")
    lines[number - 1] = damage(lines[number - 1])
    made.path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError) as error:
        made.read()
    said = str(error.value)
    assert f"line {number}:" in said
    assert str(made.path) in said
    assert "\n" not in said


def test_no_journal_and_an_unreadable_one_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no exploration here"):
        Journal(tmp_path / "journal.jsonl").read()
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        Journal(tmp_path / "journal.jsonl").read()
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "journal.jsonl").append(journals.failed(1))


# -- changed by hand


EDITS = {
    "a reward": lambda lines: [line.replace(b'"reward":0.', b'"reward":0.9') for line in lines],
    "an outcome deleted": lambda lines: [line for line in lines if b'"finished"' not in line],
    "an outcome doubled": lambda lines: [each for line in lines for each in (line,) * (1 + (b'"finished"' in line))],
    "two lines swapped": lambda lines: [*lines[:8], lines[9], lines[8], *lines[10:]],
    "a line put in": lambda lines: [*lines[:8], journals.warned("it").model_dump_json().encode(), *lines[8:]],
    "the first line": lambda lines: [lines[0].replace(b'"name":"demo"', b'"name":"domo"'), *lines[1:]],
    "the last line": lambda lines: [*lines[:-1], lines[-1].replace(b"rates move", b"rates do not move")],
    "the time of a line": lambda lines: [*lines[:3], lines[3].replace(b'"time":"2', b'"time":"1'), *lines[4:]],
    "digests taken away in the middle": lambda lines: [
        *lines[:6],
        *(line.partition(b',"chain"')[0] + b"}" for line in lines[6:]),
    ],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_line_changed_by_hand_is_named(made, edit):
    lines = made.path.read_bytes().splitlines()
    after = edit(lines)
    first = next(number for number, (one, other) in enumerate(zip(lines, after, strict=False), 1) if one != other)
    made.path.write_bytes(b"".join(line + b"\n" for line in after))
    with pytest.raises(
        InputError, match=rf"journal.jsonl, line {first}: damaged \(it[^\n]*digest[^\n]*delete that line"
    ):
        made.read()


def test_a_journal_cut_after_any_line_is_read_and_goes_on(made):
    """As a researcher may do with a damaged one; also what a crash leaves."""
    lines = made.path.read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        made.path.write_bytes(b"".join(lines[:number]))
        made.append(journals.warned("went on"))
        assert untimed(made.read()) == [*FOUR[:number], journals.warned("went on")]


def test_an_older_journal_is_read_with_a_warning_until_a_line_is_appended(made):
    journals.changed(made, lambda lines: None, digests=False)
    with pytest.warns(UserWarning, match=r"journal.jsonl: written by an earlier version, without digests"):
        assert untimed(made.read()) == FOUR
    made.append(journals.warned("went on"))
    assert made.read()[-1].reason == "went on"  # without a warning
    made.path.write_bytes(made.path.read_bytes().replace(b'"name": "demo"', b'"name": "domo"'))
    with pytest.raises(InputError, match=rf"line {len(FOUR) + 1}: damaged \(its digest does not follow"):
        made.read()


def test_digests_are_as_described(made):
    """By another program, from the description alone."""
    before = made.path.read_bytes()
    journals.changed(made, lambda lines: None)
    assert [json.loads(line) for line in before.splitlines()] == [
        json.loads(line) for line in made.path.read_bytes().splitlines()
    ]


def put(kind, **fields):
    """A change of the first event of a kind."""
    return lambda lines: next(line for line in lines if line["event"] == kind).update(fields)


def again(kind):
    """The first event of a kind, twice."""
    return lambda lines: lines.insert(*next((n, dict(line)) for n, line in enumerate(lines) if line["event"] == kind))


def without(kind):
    return lambda lines: lines.remove(next(line for line in lines if line["event"] == kind))


FILE = journals.strategy_file()
CONTRADICTIONS = {
    "a reward of 5": (put("scored", reward=5.0), "a reward of 5 in state scored"),
    "a reward below zero": (put("scored", reward=-0.5), "a reward of -0.5"),
    "a reward that is no number": (put("scored", reward=float("nan")), "a reward of nan"),
    "a part of 2": (put("scored", parts=[2.0]), "a reward of 2"),
    "a reward of a failure": (put("scored", state="nan"), "in state nan"),
    "a failure with metrics": (put("scored", state="failed", reward=0.0), "the run has metrics, but is failed"),
    "iteration -1": (put("proposed", iteration=-1), "iteration -1 is proposed where 1 is the next one"),
    "iteration 7": (put("proposed", iteration=7), "iteration 7 is proposed where 1 is the next one"),
    "an iteration proposed twice": (again("proposed"), "iteration 1 is proposed where 2 is the next one"),
    "an iteration left out": (without("proposed"), "iteration 2 is proposed where 1 is the next one"),
    "a run that never began": (without("started"), "iteration 1 is ended, but was proposed before"),
    "a run that began twice": (again("started"), "iteration 1 is started, but was started before"),
    "an outcome left out": (without("finished"), "iteration 1 is scored, but was started before"),
    "an outcome twice": (again("finished"), "iteration 1 is ended, but was ended before"),
    "a verdict twice": (again("scored"), "iteration 1 is scored, but was scored before"),
    "a verdict left out": (without("scored"), "iteration 1 is read, but has no verdict"),
    "an outcome of no iteration": (put("finished", iteration=9), "iteration 9 is ended, but was not proposed before"),
    "a reading twice": (again("remembered"), "iteration 4 was read before"),
    "another seed of the data": (put("proposed", changes={"simulation.seed": 1}), "changes names simulation.seed"),
    "another variation": (put("proposed", variation={"training.batch_size": 1}), "variation names"),
    "a node of the future": (put("proposed", node=3), "there is no node 3"),
    "a parent of the future": (put("proposed", parent=3), "there is no node 3 as a parent"),
    "a file that never landed": (put("proposed", files={"mine": "a" * 64}), "a strategy file that was not accepted"),
    "seconds below zero": (put("finished", seconds=-1.0), "greater than or equal to 0"),
    "two beginnings": (again("opened"), "an exploration begins only once"),
    "a reward that the space lacks": (put("opened", primary="best"), "the search space has no reward best"),
    "a configuration of something else": (put("opened", config={"training": 3}), "config: "),
    "a space of something else": (put("opened", space={}), "space: "),
    "another file than the one that landed": (put("reviewed", landed="b" * 64), "digest is not that of the file"),
    "a file landed without a file": (put("reviewed", submission={"rationale": "none"}), "digest is not that of the"),
    "a block twice": (again("reviewed"), "block 1 begins after block 1"),
    "a block that starts elsewhere": (put("reviewed", changes={"simulation.seed": 1}), "changes names simulation.seed"),
    "a run of a node that is none": (put("validated", node=99), "there is no node 99"),
    "a reward of 5 with a fresh seed": (put("validated", reward=5.0), "a reward of 5"),
}


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
@pytest.mark.parametrize("digests", [True, False])
def test_a_contradiction_is_named_by_its_line_whatever_the_digests_say(tmp_path, change, said, digests):
    fresh = {"number": 0, "seed": 1042, "metrics": {}, "reason": "broke", "seconds": 1.0, "state": "failed"}
    events = journals.exploration(9, reviews={1: journals.reviewed(1, file=FILE)})
    events.append(Validated(node=1, reward=0.0, classification="failed", **fresh))
    made = journals.journal(tmp_path, events)
    assert untimed(made.read()) == events
    journals.changed(made, change, digests=digests)
    with pytest.raises(InputError, match=rf"^[^\n]*journal.jsonl, line \d+: damaged \([^\n]*{re.escape(said)}[^\n]*$"):
        made.read()


# -- a full disk


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_the_journal_whole(made):
    """With room for every number of bytes less than the line: neither its head nor its tail stays behind."""
    whole = made.path.read_bytes()
    extra = journals.warned("x" * 60)
    made.append(extra)
    length = made.path.stat().st_size - len(whole)
    made.path.write_bytes(whole)
    for room in range(length):
        with room_for(len(whole) + room), pytest.raises(InputError, match=r"^[^\n]*cannot be written[^\n]*$"):
            made.append(extra)
        assert made.path.read_bytes() == whole, room
    with room_for(len(whole) + length):
        made.append(extra)
    assert len(made.read()) == len(FOUR) + 1


def test_a_line_longer_than_any_buffer_on_a_full_disk(made):
    whole = made.path.read_bytes()
    with room_for(len(whole) + 70_000), pytest.raises(InputError, match="cannot be written"):
        made.append(journals.failed(4, "x" * 200_000))
    assert made.path.read_bytes() == whole


def test_a_line_that_cannot_be_forced_to_the_disk_does_not_count(made, monkeypatch):
    """Some file systems find out at fsync that there is no room."""
    whole = made.path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device.*explore resume"):
            made.append(journals.failed(4))
    assert made.path.read_bytes() == whole
    made.append(journals.warned("went on"))
    assert made.read()[-1].reason == "went on"


# -- two explorers


def test_a_second_explorer_is_refused(made):
    with made.held(), pytest.raises(InputError, match="another explorer is running there"), Journal(made.path).held():
        pytest.fail("got in")
    with made.held():
        pass  # given back


HOLDER = """
import fcntl, sys, time
stream = open(sys.argv[1], "a")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_process_that_was_killed_is_free(made):
    command = [sys.executable, "-I", "-S", "-c", HOLDER, str(made.path.with_suffix(".lock"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(InputError, match="another explorer"), made.held():
            pytest.fail("got in")
        holder.kill()
        holder.wait()
    with made.held():
        made.append(journals.warned("went on"))


def test_a_lock_that_ends_in_a_moment_is_waited_for(made):
    """A child that is forked and has not begun its program holds the lock of an explorer that was just killed."""
    command = [sys.executable, "-I", "-S", "-c", HOLDER.replace("60", "0.2"), str(made.path.with_suffix(".lock"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with made.held():
            made.append(journals.warned("went on"))


def test_the_lock_of_an_explorer_that_has_ended_is_waited_for_longer(made, monkeypatch):
    """Its child holds the lock longer than the patience with an explorer that runs."""
    monkeypatch.setattr(journal_module, "_LOCK_PATIENCE", 0.0)
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    lock = made.path.with_suffix(".lock")
    command = [sys.executable, "-I", "-S", "-c", HOLDER.replace("60", "1"), str(lock)]
    for number, message in ((gone.pid, ""), (os.getpid(), "another explorer"), ("no number", "another explorer")):
        lock.write_text(str(number))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            if message:
                with pytest.raises(InputError, match=message), made.held():
                    pytest.fail("got in")
            else:
                with made.held():
                    assert lock.read_text() == str(os.getpid())


def test_children_do_not_keep_the_lock(made):
    """What an explorer started, and what may outlive it, does not stand for it."""
    with made.held():
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        with made.held():
            pass
    finally:
        child.kill()
        child.wait()


def test_where_no_lock_can_be_made_it_says_so(tmp_path):
    for journal in (Journal(tmp_path / "missing" / "journal.jsonl"), Journal(tmp_path / "file" / "journal.jsonl")):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be"), journal.held():
            pytest.fail("got in")


def test_events_are_json_that_others_can_read(made):
    for line in made.path.read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["event"]
    assert isinstance(EVENT.validate_python(json.loads(made.append(journals.failed(4)).model_dump_json())), Failed)
