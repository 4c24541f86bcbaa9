"""Jobs of a benchmark in the process of the test."""

from __future__ import annotations

import json

import pytest

from metabolismgraph.benchmarks import jobs, simulations
from metabolismgraph.benchmarks.job import run_cases
from metabolismgraph.errors import TrainingLostError
from metabolismgraph.explore.engines.base import Ended, Engine


class Here(Engine):
    """Jobs run in this process, one after the other, when somebody waits for them."""

    def __init__(self, *ends):
        self.waiting, self.ends = [], list(ends)  # what happens to the first jobs instead of their end in order

    def submit(self, job, folder):
        self.waiting.append((job, folder))

    def wait(self, timeout):
        if not self.waiting:
            return []
        number, folder = self.waiting.pop(0)
        description = json.loads((folder / "job.json").read_text())
        try:
            run_cases(description, folder, folder, None)
        except TrainingLostError as error:
            return [Ended(number, str(error), 1.0, "machine")]
        return [self.ends.pop(0)._replace(job=number) if self.ends else Ended(number, None, 1.0)]

    def cancel(self, job):
        raise NotImplementedError

    def close(self):
        self.waiting.clear()


# Options of a benchmark with jobs that are refused at once, on a computer without Slurm, and a part of the reason.
wrong_engines = pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "slrm"), "engine slrm: there is none of that name"),
        (("--setting", "queue=short"), "--cluster and --setting are for clusters"),
        (("--engine", "slurm", "--workers", 2), "for slurm give --setting max_jobs"),
        (("--engine", "slurm"), "squeue: cannot be started"),
    ],
)


def without_processes(monkeypatch) -> None:
    """Jobs run in this process, and nothing is simulated for the seeds."""

    def survey(name, settings):
        yield {"kind": "seeds", "config": name, "seeds": list(range(settings.seeds)), "diverged": []}

    def run(waiting, workers, stored, done=lambda _: None):
        for job in waiting:
            for row in job.call(*job.arguments):
                stored.append(row)
                done(row)

    monkeypatch.setattr(simulations, "survey", survey)
    monkeypatch.setattr(simulations, "run_jobs", run)
    monkeypatch.setattr(jobs, "engine_for", lambda settings, workers, report=None: Here())
