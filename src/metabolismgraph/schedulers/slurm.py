"""Slurm: sbatch, squeue, scontrol and scancel."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import ClassVar

from metabolismgraph.schedulers.base import Job, Scheduler, Seen, State, answer, rejection

# Words of squeue (slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES); an unknown word means that the job lives.
STATES: Mapping[str, State] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"), "waiting"),
    **dict.fromkeys(("RESV_DEL_HOLD",), "waiting"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "running"),
    "COMPLETED": "completed",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL"), "node"),
    **dict.fromkeys(("PREEMPTED", "REVOKED"), "preempted"),
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "walltime"),
    "OUT_OF_MEMORY": "memory",
}
# Job numbers are never given to squeue: one that is not known any more makes an error of the whole answer.
_LOOK = ("squeue", "--me", "--noheader", "--states=all", "--format=%A|%T|%M|%N|%r|%j")


class Slurm(Scheduler):
    """Jobs by Slurm. Written for version 20.11 and newer, and tested with 22.05."""

    name: ClassVar = "slurm"
    number: ClassVar = "$SLURM_JOB_ID"
    after: ClassVar = "--dependency=afterany:{}"
    unanswered: ClassVar = (
        *("Unable to contact", "Socket timed out", "Connection refused", "Communication connection failure"),
        *("Transport endpoint", "Zero Bytes were transmitted", "temporarily unable", "Protocol authentication error"),
        *("Resource temporarily unavailable", "munge"),
    )
    unknown: ClassVar = ("Invalid job id", "already completing or completed")

    def directives(self, job: Job) -> list[str]:
        wanted = job.settings
        options = [
            f"--job-name={job.name}",
            f'--output="{job.output}"',
            "--open-mode=append",
            # A job that is run again by Slurm looks like a new one, and may run beside the old one.
            "--no-requeue",
            *("--nodes=1", "--ntasks=1", f"--cpus-per-task={wanted.cores}"),
            f"--mem={max(1, round(1000 * wanted.memory_gb))}M",
            f"--time={job.minutes}",
            *([f"--gres=gpu:{wanted.gpus}"] if wanted.gpus else []),
            *([f"--partition={wanted.queue}"] if wanted.queue else []),
            *([f"--account={wanted.account}"] if wanted.account else []),
            *wanted.directives,
        ]
        return [f"#SBATCH {option}" for option in options]

    def submit(self, script: str) -> str:
        done = self._ask(["sbatch", "--parsable", "--export=ALL"], script)
        found = re.search(r"^(\d+)(;.*)?$", answer(done), re.MULTILINE)
        if done.code or found is None:
            raise rejection("sbatch", done)
        return found[1]

    def look(self, natives: Collection[str]) -> dict[str, Seen]:
        return {row[0]: self._seen(*row) for row in self._rows() if row[0] in natives}

    def find(self, name: str) -> list[Seen]:
        found = (self._seen(*row) for row in self._rows() if row[-1] == name)
        return sorted(found, key=lambda seen: int(seen.native))

    def cancel(self, native: str) -> None:
        self._ask_of_jobs(["scancel", native])

    def _rows(self) -> list[list[str]]:
        """What Slurm knows of all jobs of this user: number, state, time on a node, nodes, reason and name."""
        rows = (line.split("|", 5) for line in answer(self._ask_of_jobs(_LOOK)).splitlines())
        return [row for row in rows if len(row) == 6]

    def _seen(self, native: str, word: str, time: str, nodes: str, reason: str, name: str) -> Seen:
        state, words = STATES.get(word, "running"), f"{word} ({reason})" if reason not in {"", "None"} else word
        if state == "cancelled" and nodes:
            # Slurm itself does this to a job that may not be queued again, where its node cannot start it.
            return Seen(native, name, state, f"{words} after {time} on {nodes}", begun=bool(re.search("[1-9]", time)))
        if state != "failed":
            return Seen(native, name, state, words)
        code, signal = self._exit(native)
        # Without an exit code of its own it was killed, or not even started (0:53, no folder for its output).
        state = "failed" if code and not signal else "killed"
        return Seen(native, name, state, f"{words}, exit code {code}:{signal}", -signal if signal else code)

    def _exit(self, native: str) -> tuple[int, int]:
        """Exit code and signal of a job that failed; (1, 0) if they are not known any more."""
        found = re.search(
            r"\bExitCode=(\d+):(\d+)", answer(self._ask_of_jobs(["scontrol", "show", "job", "--oneliner", native]))
        )
        return (int(found[1]), int(found[2])) if found else (1, 0)
