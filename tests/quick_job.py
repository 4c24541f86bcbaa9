"""The process of a slot without its training: the real `job.main`, with metrics made up from job.json.

`python -I -S quick_job.py FOLDER` starts in hundredths of a second, since it leaves out the package's own imports.
Environment: METABOLISMGRAPH_SOURCE, the package's folder. `faults.json` in the folder of the exploration says what is
to go wrong, by iteration; `completions` there gets one line for every outcome that was written.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path


def metrics_of(config):
    """A landscape: pure in the configuration, best at a rate of 0.05 with residual supervision, with some noise."""
    training = config["training"]
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in training["strategies"] or ()]
    digest = hashlib.sha256(json.dumps([training, names], sort_keys=True).encode()).digest()
    rate = training["learning_rate_node_homeostasis"]
    near = 1 / (1 + abs(rate - 0.05) / 0.05) * (0.95 if "residual" in names else 0.5 if names else 0.2)
    fixed = os.environ.get("METABOLISMGRAPH_TEST_REWARD")
    ratios = [near * (0.95 + 0.1 * digest[t] / 255) for t in range(2)] if fixed is None else [float(fixed)] * 2
    return {
        "training_time_min": 0.5,
        **{f"MLP_node_slope_ratio_{t}": ratio for t, ratio in enumerate(ratios)},
        "avg_slope_ratio": sum(ratios) / 2,
        "embedding_n_clusters": 2 if "contrastive" in names else 1,
        "embedding_cluster_acc": 0.5 + digest[2] / 512,
        "rate_constants_R2": 0.87,
    }, digest[3] / 255


def job_of(folder):
    """The folder of the job, which is above that of an attempt on a cluster."""
    return folder if (folder / "job.json").exists() else folder.parent


def run_job(folder):
    """What a fault says; otherwise metrics, after up to a fortieth of a second."""
    job = job_of(folder)
    config = json.loads((job / "job.json").read_text())["config"]
    metrics, share = metrics_of(config)
    pace = float(os.environ.get("METABOLISMGRAPH_TEST_PACE", "0"))  # seconds per frame of a rollout
    time.sleep(0.025 * share + pace * config["training"]["homeostasis_time_step"])
    faults = job.parents[1] / "faults.json"
    fault = json.loads(faults.read_text()).get(str(int(job.name))) if faults.exists() else None
    if fault is not None and (not fault.endswith(" once") or not (job / "once").exists()):
        (job / "once").touch()
        FAULTS[fault.removesuffix(" once")](folder, metrics)
    return metrics


def _killed(folder, metrics):
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_by_a_nameless_signal(folder, metrics):
    os.kill(os.getpid(), signal.SIGRTMIN + 1)


def _crashed(folder, metrics):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def _silent(folder, metrics):
    os._exit(0)


def _left(change):
    def leave(folder, metrics):
        jobs.write_outcome(folder, jobs.Outcome(metrics, None, 1.0))
        path = folder / "outcome.json"
        path.write_bytes(change(path.read_bytes()))
        os._exit(0)

    return leave


def _late(folder, metrics):
    # A trainer that does not end either, and would outlive a job that is killed alone.
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import time; time.sleep(60) # {folder}"], check=False)


def _held(folder, metrics):
    while not (job_of(folder) / "go").exists():
        time.sleep(0.02)


def _greedy(folder, metrics):
    # What Slurm and LSF leave of the kernel's words.
    sys.stdout.write("Detected 1 oom-kill event(s) in StepId=5.batch\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def _hungry(folder, metrics):
    # More than the cluster gives it, until it is stopped.
    taken = bytearray(300_000_000)
    time.sleep(60)
    del taken


def _slow(folder, metrics):
    time.sleep(1.5)


def _chatty(folder, metrics):
    for _ in range(8):
        sys.stdout.write("x" * 1_000_000)
    sys.stdout.write("\nlast\twords  of it\n")
    sys.stdout.flush()
    os._exit(3)


def _chatty_but_well(folder, metrics):
    for _ in range(8):
        sys.stdout.write("\n" * 1_000_000)


def _mute(folder, metrics):
    os.close(1)
    os.close(2)
    os._exit(3)


def _raises(error):
    def leave(folder, metrics):
        raise error

    return leave


def _raises_of_the_package(name, message):
    def leave(folder, metrics):
        raise getattr(jobs, name)(message)

    return leave


def _terminated(folder, metrics):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def _no_room(folder, metrics):
    # From here on no file may grow: a full disk for this process alone. It cannot say so either.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _no_room_for_the_outcome(folder, metrics):
    size = (folder / "stdout.txt").stat().st_size + 5000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    metrics["padding"] = "x" * 10_000


FAULTS = {
    "killed": _killed,
    "nameless signal": _killed_by_a_nameless_signal,
    "crashed": _crashed,
    "silent": _silent,
    "truncated": _left(lambda content: content[: len(content) // 2]),
    "empty": _left(lambda content: b""),
    "garbled": _left(lambda content: content.replace(b"0.87", b"0.97")),
    "nested": _left(lambda content: b"[" * 100_000),
    "other": _left(lambda content: b'{"metrics": {"MLP_node_slope_ratio_0": 1.0}, "reason": null, "seconds": 1.0}'),
    "late": _late,
    "slow": _slow,
    "held": _held,
    "greedy": _greedy,
    "hungry": _hungry,
    "chatty": _chatty,
    "chatty but well": _chatty_but_well,
    "mute": _mute,
    "full": _raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "read-only": _raises(OSError(errno.EROFS, os.strerror(errno.EROFS), "/there/settings.json")),
    "no room": _no_room,
    "no room for the outcome": _no_room_for_the_outcome,
    "terminated": _terminated,
    "training lost": _raises_of_the_package("TrainingLostError", "training was killed by SIGKILL"),
    "training failed": _raises_of_the_package("TrainingFailedError", "training ended with code 1"),
    "refused": _raises_of_the_package("InputError", "the loss is not finite; lower the learning rates"),
    "leak": _raises_of_the_package("FirewallError", "training tried to reach outside its folder (open /truth)"),
    "broken": _raises(ZeroDivisionError("a message\nof more\n\nthan one line")),
}

if __name__ == "__main__":
    package = types.ModuleType("metabolismgraph")
    package.__path__ = [os.environ["METABOLISMGRAPH_SOURCE"]]
    sys.modules["metabolismgraph"] = package
    jobs = importlib.import_module("metabolismgraph.explore.engines.job")
    write_outcome = jobs.write_outcome

    def write_and_count(folder, outcome):
        write_outcome(folder, outcome)
        job = job_of(folder)
        with (job.parents[1] / "completions").open("a") as stream:
            stream.write(f"{int(job.name)}\n")

    jobs.run_job, jobs.write_outcome = run_job, write_and_count
    sys.exit(jobs.main(Path(sys.argv[1]), *map(float, sys.argv[2:])))
