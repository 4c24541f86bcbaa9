"""Journals that somebody wrote: every command refuses them in one line, or shows them without a terminal escape."""

import io
import json

import journals
import pytest
from command_line import call
from rich.console import Console
from test_explore_display import HOSTILE, answered, refused

from metabolismgraph.cli import options
from metabolismgraph.cli.explore_compare import comparison_page
from metabolismgraph.cli.explore_tables import (
    held_file_page,
    iteration_page,
    status_table,
    tree_text,
    validation_table,
)
from metabolismgraph.errors import InputError
from metabolismgraph.explore.comparison import compare_explorations, compare_nodes
from metabolismgraph.explore.events import Approved, Lost, Paused, Suggested, Validated
from metabolismgraph.explore.state import State
from metabolismgraph.explore.views import render

STEERING = set("\x1b\x07\x9b\u202e\r")
FILE = journals.strategy_file()
COMMANDS = (
    *(("status",), ("show", 2), ("tree",), ("rebuild",), ("compare", 1, 2), ("repeat", 1), ("validate", 1)),
    *(("resume",), ("suggest", "--text", "note"), ("pause",), ("approve",)),
)


def everything():
    """An exploration in which every kind of event has its text."""
    held = journals.strategy_file("other", source="# held\n")
    reviews = {
        1: journals.reviewed(1, n_iter_block=4, file=FILE, reasons=("no",)),
        2: journals.reviewed(2, n_iter_block=4, file=held, held=held.digest, landed=None, note="late"),
    }
    config = journals.Config().replace({"exploration.n_iter_block": 4, "exploration.n_parallel": 2})
    events = journals.exploration(9, config=config, failing={3: "broke"}, reviews=reviews, in_flight=1)
    fresh = {"number": 0, "seed": 1042, "metrics": {}, "reason": "broke", "seconds": 1.0, "state": "failed"}
    return [
        *events,
        Lost(iteration=9, seconds=1.0, reason="gone"),
        Validated(node=1, reward=0.0, classification="failed", **fresh),
        answered(10, error="lunch"),
        refused(10, "out of range"),
        journals.warned("it broke"),
        Suggested(id="1", by="ada", text="a note"),
        Suggested(id="2", by="ada", proposal=journals.proposal(1, {"batch_size": (8, 16)})),
        Approved(id="3", by="ada", name="nothing", digest="0", accepted=True),
        Paused(id="4", by="ada", on=True),
    ]


def texts_of(value, at=()):
    """The place of every text in a JSON value."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_of(inner, (*at, key))


def places(lines):
    """The places of each kind of text; of the configuration, one text of each section."""
    found = {}
    for number, line in enumerate(lines):
        for at in texts_of(line):
            kind = (line["event"], *(key for key in at if isinstance(key, str)))
            if at[0] == "config":
                found.setdefault(kind[:3], [(number, at)])
            elif at[0] not in {"event", "chain"}:
                found.setdefault(kind, []).append((number, at))
    return found


def shown(state, other, folder):
    """All that commands show."""
    yield status_table(state, iterations=9)
    yield tree_text(state)
    yield from (iteration_page(state, i.number, folder) for i in state.iterations)
    yield from (validation_table(state, node) for node in (1, 2))
    yield from (held_file_page(state, review) for review in state.held)
    yield comparison_page(compare_nodes(state, 1, 2))
    yield comparison_page(compare_explorations(folder, other))


def hostile(made, original, where):
    """The journal with somebody else's words at these places."""

    def put(lines):
        for number, at in where:
            inner = lines[number]
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = HOSTILE

    made.path.write_text(original)
    return journals.changed(made, put)


def test_no_text_of_a_journal_steers_a_terminal(tmp_path, capsys):
    made = journals.journal(tmp_path / "x", everything())
    journals.journal(tmp_path / "y", journals.exploration(4))
    original = made.path.read_text()
    kinds = places([json.loads(line) for line in original.splitlines()])
    refused, taken = [], []
    for kind, where in kinds.items():
        try:
            views = render(hostile(made, original, where).read())
        except InputError as error:
            refused.append(kind)
            options.say(f"error: {error}")
            said = capsys.readouterr().err
            assert not set(said) & STEERING, kind
            assert said.count("\n") == 1
        else:
            taken.append(kind)
            assert not set("".join(views.values())) & STEERING, kind
    assert {("scored", "classification"), ("proposed", "code"), ("opened", "primary")} <= {*refused}
    assert {("remembered", "memory"), ("failed", "reason"), ("paused", "by"), ("proposed", "by")} <= {*taken}
    # Together, since pages take longer.
    hostile(made, original, [place for kind in taken for place in kinds[kind]])
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    for each in shown(State.of(made.read()), tmp_path / "y", made.path.parent):
        console.print(each)
    assert "[bold red]x[/]" in out.getvalue()
    assert not set(out.getvalue()) & STEERING


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_command_names_the_changed_line(tmp_path, monkeypatch, capsys, words):
    made = journals.journal(tmp_path / "x", everything())
    before = {path: path.read_bytes() for path in made.path.parent.iterdir()}
    made.path.write_bytes(before[made.path].replace(b'"reason":"broke"', b'"reason":"\\u001b[2J"'))
    changed = made.path.read_bytes()
    assert call(monkeypatch, "explore", words[0], tmp_path / "x", *words[1:]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    line = next(n for n, text in enumerate(changed.splitlines(), 1) if b"u001b" in text)
    assert f"journal.jsonl, line {line}: damaged (its digest does not follow" in said
    assert made.path.read_bytes() == changed
    assert set(made.path.parent.iterdir()) == {*before}


@pytest.mark.parametrize("how", ["continue", "record", "compare"])
def test_a_changed_journal_is_no_beginning_of_another_exploration(tmp_path, monkeypatch, capsys, how):
    made = journals.journal(tmp_path / "x", everything())
    made.path.write_bytes(made.path.read_bytes().replace(b'"reason":"broke"', b'"reason":"gone"'))
    words = {
        "continue": ["start", "small", "--continue", tmp_path / "x", "--out", tmp_path / "new"],
        "record": ["start", "small", "--proposer", "replay", "--record", tmp_path / "x", "--out", tmp_path / "new"],
        "compare": ["compare", tmp_path / "y", tmp_path / "x"],
    }[how]
    journals.journal(tmp_path / "y", journals.exploration(4))
    assert call(monkeypatch, "explore", *words) == 2
    assert "its digest does not follow" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_messages_are_printable(capsys):
    options.say(f"error: {HOSTILE}")
    assert not set(capsys.readouterr().err) & STEERING
