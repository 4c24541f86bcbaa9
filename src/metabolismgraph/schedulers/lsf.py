"""LSF: bsub, bjobs and bkill."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from metabolismgraph.schedulers.base import Job, Scheduler, Seen, SilentError, State, answer, error_output, rejection

# Words of bjobs (IBM Spectrum LSF, bjobs -o); an unknown word means that the job lives. UNKWN is a node that does not
# answer: its jobs come back.
STATES: Mapping[str, State] = {
    **dict.fromkeys(("PEND", "PSUSP", "PROV", "WAIT"), "waiting"),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP", "UNKWN"), "running"),
    "DONE": "completed",
    "EXIT": "failed",
    "ZOMBI": "node",
}
# Beginnings of the reason for which LSF ended a job.
_REASONS: Mapping[str, State] = {
    "TERM_OWNER": "cancelled",
    "TERM_ADMIN": "cancelled",
    "TERM_FORCE_OWNER": "cancelled",
    "TERM_FORCE_ADMIN": "cancelled",
    "TERM_RUNLIMIT": "walltime",
    "TERM_DEADLINE": "walltime",
    "TERM_CPULIMIT": "walltime",
    "TERM_MEMLIMIT": "memory",
    "TERM_SWAP": "memory",
    "TERM_PREEMPT": "preempted",
    "TERM_WINDOW": "preempted",
    "TERM_REQUEUE_OWNER": "preempted",
    "TERM_REQUEUE_ADMIN": "preempted",
    "TERM_ZOMBIE": "node",
    "TERM_ORPHAN_SYSTEM": "node",
}
_SIGNALS = 128  # exit codes above it are those of signals
_UNITS = {"KB": 1e6, "MB": 1e3, "GB": 1.0}  # in one GB
_FIELDS = "jobid stat exit_code exit_reason job_name delimiter='^'"


class LSF(Scheduler):
    """Jobs by IBM Spectrum LSF 10. Tested with a stand-in for its commands only."""

    name: ClassVar = "lsf"
    number: ClassVar = "$LSB_JOBID"
    after: ClassVar = '-w "ended({})"'
    unanswered: ClassVar = (
        *("LSF is down", "not responding", "Please wait", "Cannot connect to LSF", "Communication time out"),
        *("Failed in an LSF library call", "Failed in sending/receiving a message", "LIM is down"),
    )
    unknown: ClassVar = ("is not found", "No job found", "No unfinished job found", "No matching job found", "already")

    def directives(self, job: Job) -> list[str]:
        wanted = job.settings
        memory = wanted.memory_gb * _UNITS[wanted.memory_unit] / (wanted.cores if wanted.memory_per_slot else 1)
        amount = max(1, round(memory))
        options = [
            f"-J {job.name}",
            f'-o "{job.output}"',
            "-rn",  # a job that LSF runs again may run beside the old one
            f"-n {wanted.cores}",
            # The first reserves memory, the second is a limit.
            f'-R "span[hosts=1] rusage[mem={amount}]"',
            f"-M {amount}",
            f"-W {job.minutes // 60}:{job.minutes % 60:02d}",
            *([f'-gpu "num={wanted.gpus}"'] if wanted.gpus else []),
            *([f"-q {wanted.queue}"] if wanted.queue else []),
            *([f"-P {wanted.account}"] if wanted.account else []),
            *wanted.directives,
        ]
        return [f"#BSUB {option}" for option in options]

    def submit(self, script: str) -> str:
        done = self._ask(["bsub"], script)
        # Programs of a site may write lines of their own before this one.
        found = re.search(r"Job <(\d+)> is submitted", answer(done))
        if found is None:
            raise rejection("bsub", done)
        return found[1]

    def look(self, natives: Collection[str]) -> dict[str, Seen]:
        if not natives:
            return {}
        found, message = self._jobs(sorted(natives))
        known = {seen.native: seen for seen in found}
        if silent := [native for native in natives if native not in known and f"<{native}>" not in message]:
            raise SilentError(f"bjobs says nothing of job {min(silent)}")
        return known

    def find(self, name: str) -> list[Seen]:
        found = (seen for seen in self._jobs(["-J", name])[0] if seen.name == name)
        return sorted(found, key=lambda seen: int(seen.native))

    def cancel(self, native: str) -> None:
        self._ask_of_jobs(["bkill", native])

    def _jobs(self, which: Sequence[str]) -> tuple[list[Seen], str]:
        """Jobs, and what bjobs says of those that are not found."""
        done = self._ask_of_jobs(["bjobs", "-a", "-noheader", "-o", _FIELDS, *which])
        rows = (line.split("^") for line in answer(done).splitlines())
        return [_seen(*row) for row in rows if len(row) == 5 and row[0].isdigit()], error_output(done)


def _seen(native: str, word: str, code: str, reason: str, name: str) -> Seen:
    state = STATES.get(word, "running")
    words = word if reason in {"", "-"} else f"{word} ({reason})"
    if word != "EXIT":
        return Seen(native, name, state, words)
    number = int(code) if code.isdigit() else None
    killed = number is not None and number > _SIGNALS
    state = _REASONS.get(reason.partition(":")[0].strip(), "killed" if killed else "failed")
    return Seen(native, name, state, f"{words}, exit code {code}", _SIGNALS - number if killed and number else number)
