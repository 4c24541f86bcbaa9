"""How long jobs wait for a Slurm that has nothing else to do, and how soon the engine sees their end.

`python tests/cluster_times.py [POLL_SECONDS [JOBS]]` starts a Slurm of its own, and prints seconds: of ten jobs, one
after the other, and of many at once. The jobs do nothing.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from explorer_lives import JOB
from private_slurm import running_slurm

from metabolismgraph.explore.engines.cluster import ClusterEngine
from metabolismgraph.explore.engines.outcome import OUTCOME, START
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

TRAINING = {"strategies": None, "learning_rate_node_homeostasis": 0.01, "homeostasis_time_step": 1}


def measured(poll, numbers, folder):
    """Moments of jobs that are submitted at once: submitted, accepted, begun, ended, and seen to have ended."""
    engine = ClusterEngine(make_scheduler("slurm"), ClusterSettings(memory_gb=0.05, poll_seconds=poll), 60.0, JOB)
    begin, seen = time.time(), {}
    for number in numbers:
        place = folder / "runs" / f"{number:04d}"
        place.mkdir(parents=True)
        (place / "job.json").write_text(json.dumps({"config": {"training": TRAINING}}))
        engine.submit(number, place)
    while len(seen) < len(numbers):
        seen |= {end.job: time.time() for end in engine.wait(0.5)}
    attempts = [folder / "runs" / f"{number:04d}" / "a1" for number in numbers]
    moments = [[(a / name).stat().st_mtime for name in ("submission.json", "native", START, OUTCOME)] for a in attempts]
    return begin, [(*of_job, seen[number]) for number, of_job in zip(numbers, moments, strict=True)]


def main(poll=0.5, many=50):
    with tempfile.TemporaryDirectory() as place, running_slurm() as slurm:
        os.environ["SLURM_CONF"] = str(slurm.path)
        folder = Path(place)
        rows = [measured(poll, [number], folder)[1][0] for number in range(1, 11)]
        for what, first, last in [("submitted to begun", 0, 2), ("ended to seen", 3, 4)]:
            times = [row[last] - row[first] for row in rows]
            print(f"{what}: median {statistics.median(times):.2f} s, longest {max(times):.2f} s (poll {poll:g} s)")
        begin, rows = measured(poll, range(100, 100 + many), folder)
        submitted, seen = (max(row[index] for row in rows) - begin for index in (1, 4))
        late = max(row[4] - row[3] for row in rows)
        print(f"{many} jobs: all submitted after {submitted:.1f} s, all seen to have ended after {seen:.1f} s")
        print(f"{many} jobs: ended to seen, longest {late:.2f} s")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3]))
