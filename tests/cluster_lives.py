"""Explorations on clusters for tests: their explorers, faults and ends."""

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter

from explorer_lives import JOB, explorer, opened

from metabolismgraph.explore.engines.cluster import ClusterEngine
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

TIMES = ("time", "seconds", "started", "waited", "queued", "chain")
PATIENCE = 180.0  # seconds; the processors may be busy with something else
SETTINGS = {"memory_gb": 0.1, "poll_seconds": 0.1, "grace_seconds": 0.5}


def events_of(path, *kinds):
    events = ExplorationFolder(path).journal.read()
    return [event for event in events if not kinds or event.event in kinds]


def untimed(path):
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def completions(path):
    found = path / "completions"
    return Counter(int(line) for line in found.read_text().split()) if found.exists() else Counter()


def faulty(path, **faults):
    (path / "faults.json").write_text(json.dumps({name[1:]: fault for name, fault in faults.items()}))


def wait_for(what):
    until = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)
    return found


def engine(name, limit=60.0, **changes):
    return ClusterEngine(make_scheduler(name), ClusterSettings(**(SETTINGS | changes)), limit, JOB)


def ends_of(path, iteration):
    """What happened to an iteration: kinds of losses, and its end."""
    losses = [event.kind for event in events_of(path, "lost") if event.iteration == iteration]
    (end,) = (event for event in events_of(path, "finished", "failed") if event.iteration == iteration)
    return losses, end


def begin_explorer(path, made, iterations=4):
    """An explorer in a process of its own, which needs no time to start; its number."""
    with warnings.catch_warnings():  # of threads, which the child does not use
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        return pid
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    try:
        explorer(path, engine=made).run(iterations)
        code = 0
    except BaseException:  # the fork of a test must not return into its suite
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def begun(path, iteration, attempt=1):
    """The number of a job, once it works."""
    folder = path / "runs" / f"{iteration:04d}"
    wait_for((folder / "once").exists)
    return (folder / f"a{attempt}" / "native").read_text().strip()


def killed_while_jobs_work(path, name, **faults):
    """An exploration whose explorer was killed while its jobs work."""
    opened(path)
    faulty(path, **faults)
    explorers_number = begin_explorer(path, engine(name))
    numbers = [begun(path, int(key[1:])) for key in faults]
    wait_for(lambda: len(list(path.glob("runs/*/a1/native"))) == 4)  # all are submitted, one after the other
    os.kill(explorers_number, signal.SIGKILL)
    os.waitpid(explorers_number, 0)
    return numbers
