"""A benchmark on Slurm whose command and jobs are killed: every case has one row, that of a run without Slurm."""

import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from command_line import QUICK

from metabolismgraph.benchmarks.recovery_report import RecoveryResults
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
from metabolismgraph.benchmarks import jobs, strategies
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

jobs.find_seeds = find_seeds
settings = strategies.Settings(("small",), 1, ("classical", "residual", "contrastive"), (4, 16), sweeps=False)
machine = ClusterSettings(engine="slurm", memory_gb=1.0, poll_seconds=0.2, grace_seconds=1.0)
engine = ClusterEngine(make_scheduler("slurm"), machine, 60.0, (sys.executable, "-c", {JOB!r}))
strategies.run_strategies(settings, Path(sys.argv[1]), 1, Watch(), engine=engine)
"""


def run_and_kill(command, lengths, look=lambda: None):
    """Run a command again and again, and kill it after each length [s]; returns how often it was killed.

    Args:
        look: called twenty times a second.
    """
    lives = 0
    while True:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        moment = time.monotonic() + next(lengths)
        while child.poll() is None and time.monotonic() < moment:
            look()
            time.sleep(0.05)
        if child.poll() is not None:
            errors = child.communicate()[1]
            assert child.returncode == 0, errors
            return lives
        child.kill()
        child.communicate()
        lives += 1


def test_every_case_has_one_row_whatever_is_killed(slurm, tmp_path):
    chance = random.Random(3)
    lengths = (chance.uniform(4, 7) + lives for lives in itertools.count())
    lives = run_and_kill([sys.executable, "-c", COMMAND, str(tmp_path)], lengths)
    rows = StrategyResults.read(tmp_path).cases
    assert Counter(row["error"] for row in rows) == {"not trained": 15}
    assert set(Counter(map(StrategyResults.identity, rows)).values()) == {1}
    assert len(list(tmp_path.glob("killed-*"))) == 3  # each of these jobs has continued
    assert lives >= 1


STRATEGIES = ("strategies", "--seeds=1", "--quick", "--strategies=classical,residual", "--loop=1")
RECOVERY = ("recovery", "--seeds=3", "--repeats=3")
TIMES = ("seconds", "phase1_cold_s", "phase1_s", "phase2_cold_s", "phase2_s")


@pytest.mark.parametrize(
    ("given", "results", "n_cases"),
    [
        pytest.param(STRATEGIES, StrategyResults, 9, id="strategies"),  # 3 checkpoints; rollouts of 2 lengths, and none
        pytest.param(RECOVERY, RecoveryResults, 9, id="recovery"),
    ],
)
def test_the_rows_are_those_of_a_run_without_slurm(slurm, tmp_path, given, results, n_cases):
    command = [sys.executable, "-m", "metabolismgraph", "benchmark", *given, "--configs=small", *QUICK]
    settings = ("minutes=40", "memory_gb=1", "poll_seconds=0.5", "grace_seconds=2")
    there, killed = tmp_path / "there", []

    def kill_a_job():
        if not killed and (written := [p for p in there.glob("jobs/*/a1/rows.jsonl") if b"\n" in p.read_bytes()]):
            killed.append((written[0].parent / "native").read_text().strip())
            subprocess.run(["scancel", "--signal=KILL", "--full", *killed], check=True)

    chance = random.Random(1)
    lengths = (chance.uniform(6, 20) + 3 * lives for lives in itertools.count())
    engine = ["--engine=slurm", *(f"--setting={setting}" for setting in settings), f"--out={there}"]
    lives = run_and_kill([*command, *engine], lengths, kill_a_job)
    threads = f"--workers={os.cpu_count()}"  # one for each process, as on Slurm: their number changes the last digits
    subprocess.run([*command, threads, f"--out={tmp_path / 'here'}"], check=True, capture_output=True)
    here, on_slurm = (results.read(out).cases for out in (tmp_path / "here", there))
    found, expected = ({results.identity(r): r | dict.fromkeys(TIMES) for r in rows} for rows in (on_slurm, here))
    assert found == expected
    assert len(on_slurm) == len(here) == n_cases
    assert not any("error" in row for row in here)
    assert lives >= 1
    assert killed
