"""Jobs of a benchmark that train nothing, on Slurm: the command and jobs are killed, and every case has one row."""

import random
import subprocess
import sys
import time
from collections import Counter

import pytest

from metabolismgraph.benchmarks.strategy_report import StrategyResults

pytestmark = pytest.mark.on_demand

JOB = """
import os, signal, sys, time
from pathlib import Path
from metabolismgraph.benchmarks import job, strategies

def results_of(group, settings, out):
    for number, case in enumerate(group.cases):
        time.sleep(0.3)
        once = out / f"killed-{group.checkpoint}"
        if number == 1 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield case.row() | {"error": "not trained"}

strategies.results_of = results_of
sys.exit(job.main(Path(sys.argv[1]), *map(float, sys.argv[2:])))
"""
COMMAND = f"""
import sys
from pathlib import Path
from metabolismgraph.benchmarks import strategies
from metabolismgraph.benchmarks.results_file import ResultsFile
from metabolismgraph.explore.engines.cluster import ClusterEngine
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

class Watch:
    def begin(self, planned, done): pass
    def add(self, row): pass

def find_seeds(settings, workers, stored):
    if not stored.seeds:
        stored.append({{"kind": "seeds", "config": "small", "seeds": [0], "diverged": []}})

strategies.find_seeds = find_seeds
settings = strategies.Settings(("small",), 1, ("classical", "residual", "contrastive"), (4, 16), sweeps=False)
machine = ClusterSettings(engine="slurm", memory_gb=1.0, poll_seconds=0.2, grace_seconds=1.0)
engine = ClusterEngine(make_scheduler("slurm"), machine, 60.0, (sys.executable, "-c", {JOB!r}))
strategies.run_strategies(settings, Path(sys.argv[1]), 1, Watch(), engine=engine)
"""


def test_every_case_has_one_row_whatever_is_killed(slurm, tmp_path):
    chance, lives = random.Random(3), 0
    while True:
        child = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        moment = time.monotonic() + chance.uniform(4, 7) + lives
        while child.poll() is None and time.monotonic() < moment:
            time.sleep(0.05)
        if child.poll() is not None:
            errors = child.communicate()[1]
            assert child.returncode == 0, errors
            break
        child.kill()
        child.communicate()
        lives += 1
    rows = StrategyResults.read(tmp_path).cases
    assert Counter(row["error"] for row in rows) == {"not trained": 15}
    assert set(Counter(map(StrategyResults.identity, rows)).values()) == {1}
    assert len(list(tmp_path.glob("killed-*"))) == 3  # each of these jobs has continued
    assert lives >= 1
