"""The loop under fire: explorers and jobs that are killed, results that are damaged, disks that are full."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import explorer_lives
import psutil
import pytest
from explorer_lives import Asked, explorer, opened

from metabolismgraph.errors import InputError
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.journal import Journal
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.views import render

TIMES = ("time", "seconds")


def events_of(path):
    return ExplorationFolder(path).journal.read()


def untimed(path):
    """A journal without what may differ from one time to the next."""
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def of_kind(path, *kinds):
    return [event for event in events_of(path) if event.event in kinds]


def views(path):
    """The views as they lie there, which must be those of the journal."""
    files = {name: (path / name).read_text(encoding="utf-8") for name in render(events_of(path))}
    assert files == render(events_of(path))
    return files


def left_behind(path, patience=10.0):
    """Command lines of processes that still work in a folder; those that are about to end are waited for."""
    until = time.monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(path) in line and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(line)
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def outcomes(path):
    """Iteration -> every outcome of it in the journal."""
    found = {}
    for event in of_kind(path, "finished", "failed"):
        found.setdefault(event.iteration, []).append(event)
    return found


def completions(path):
    return Counter(int(line) for line in (path / "completions").read_text().split())


# -- the explorer is killed


def fire(tmp_path_factory, **plan):
    path = tmp_path_factory.mktemp("lives")
    plan = {"path": str(path), "iterations": 24, "changes": {}} | plan
    command = [sys.executable, "-P", explorer_lives.__file__, json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"path": path, "said": done.stderr}


@pytest.fixture(scope="module")
def at_random_moments(tmp_path_factory):
    return fire(tmp_path_factory, proposer="asked", kills=50, seed=4)


@pytest.fixture(scope="module")
def at_every_event(tmp_path_factory):
    return fire(tmp_path_factory, proposer="asked", iterations=14, kills="events")


@pytest.fixture(params=["at_random_moments", "at_every_event"])
def fired(request):
    return request.getfixturevalue(request.param)


def test_every_life_but_the_last_was_a_violent_one(at_random_moments, at_every_event):
    for fired in (at_random_moments, at_every_event):
        assert fired["code"] == 0, fired["said"]
        assert fired["said"] == ""
    assert len(at_random_moments["kills"]) == 50
    assert len(at_every_event["kills"]) >= len(untimed(at_every_event["path"] / "undisturbed")) - 1


def test_random_moments_are_of_all_kinds(at_random_moments):
    places = {length for length, _ in at_random_moments["kills"]}
    kinds = {kind for _, kind in at_random_moments["kills"]}
    assert len(places) >= 15, at_random_moments["kills"]
    assert len(kinds) >= 3, at_random_moments["kills"]


def test_events_after_which_it_died_are_of_every_kind(at_every_event):
    kinds = {kind for _, kind in at_every_event["kills"]}
    wanted = {"proposed", "started", "finished", "scored", "remembered", "reviewed", "answered", "refused"}
    assert wanted <= kinds


def test_no_iteration_is_lost_and_the_journal_is_that_of_an_undisturbed_one(fired):
    path = fired["path"]
    assert untimed(path / "disturbed") == untimed(path / "undisturbed")
    assert [e.iteration for e in of_kind(path / "disturbed", "proposed")] == list(range(1, fired["iterations"] + 1))
    assert len(of_kind(path / "disturbed", "finished")) == fired["iterations"]


def test_nothing_runs_twice_to_its_end(fired):
    assert set(completions(fired["path"] / "disturbed").values()) == {1}
    assert set(completions(fired["path"] / "disturbed")) <= set(range(1, fired["iterations"] + 1))


def test_views_are_those_of_an_undisturbed_one(fired):
    assert views(fired["path"] / "disturbed") == views(fired["path"] / "undisturbed")


def test_orphans_end(fired):
    assert left_behind(fired["path"]) == []


def test_an_answer_that_was_written_down_is_not_asked_for_again(at_every_event):
    path = at_every_event["path"]
    asked = [json.loads(line) for line in (path / "disturbed" / "questions").read_text().splitlines()]
    assert asked
    assert not [question for question in asked if question[-1] == "again"]
    known = Counter((e.kind, e.iteration, e.attempt) for e in of_kind(path / "disturbed", "answered"))
    assert set(known.values()) == {1}
    assert set(known) == {tuple(question[:3]) for question in asked}


def test_the_recorded_exploration_had_everything_in_it(at_every_event):
    """Refusals of every kind, an answer that never came, rules that stood in, strategy files that landed."""
    path = at_every_event["path"] / "undisturbed"
    refused = " ".join(event.reason for event in of_kind(path, "refused"))
    for reason in ("simulation.seed", "no JSON object", "hostile"):
        assert reason in refused
    notes = " ".join(event.note for event in of_kind(path, "proposed"))
    assert "gone for lunch" in notes
    assert "answers of asked were refused" in notes
    assert [event.landed is not None for event in of_kind(path, "reviewed")] == [True, False]
    assert any(event.files for event in of_kind(path, "proposed"))
