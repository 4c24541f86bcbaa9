"""Dask: tasks of a scheduler that somebody has started, each of which runs a script (extra `dask`)."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import re
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from metabolismgraph.errors import InputError
from metabolismgraph.processes import PIPE, STDOUT, Child, environment
from metabolismgraph.schedulers.base import Job, Scheduler, Seen, SilentError, State
from metabolismgraph.text import one_line

T = TypeVar("T")
_SECONDS, _CONNECT = 30.0, 10.0  # time limits of a question, and of its beginning
_TICK = 0.1  # seconds between two looks of a worker at its script
_BEGUN = "begun"  # made by the first worker that runs a job
_AGAIN = 75  # exit code of a script that another worker has begun before
# States of tasks (distributed.scheduler.TaskState); in others they wait. Tasks that nobody wants any more are unknown.
_STATES: dict[str, State] = {"processing": "running", "memory": "completed", "erred": "killed"}
# A worker that is killed takes its script along: the end of the pipe from it ends the whole group.
_WATCHED = "{ read -r; kill -KILL 0; } <&0 &\n"


class Dask(Scheduler):
    """Tasks by Dask. Tested with distributed 2026.8.

    A job is a task with its name as key. Dask forgets a task that has ended; how it has ended is an event at the
    scheduler, with that name as topic.
    """

    name: ClassVar = "dask"
    unanswered: ClassVar = ()
    number: ClassVar = "$METABOLISMGRAPH_JOB"

    def check(self) -> None:
        _distributed()
        if not re.fullmatch(r"\w+://\S+", self.address):
            raise InputError(
                f"engine dask: address {self.address!r} is not that of a scheduler, such as tcp://host:8786; "
                "give --setting address=..."
            )

    def directives(self, job: Job) -> list[str]:
        options = [*([f"GPU={job.settings.gpus}"] if job.settings.gpus else []), *job.settings.directives]
        return [
            f"#DASK name {job.name}",
            f"#DASK output {job.output}",
            f"#DASK minutes {job.minutes}",
            *(f"#DASK resource {option}" for option in options),
        ]

    def script(self, job: Job) -> str:
        # Dask runs the task of a lost worker again, which may still live where the scheduler does not see it.
        once = f"{{ (set -o noclobber; : > {_BEGUN}) || exit {_AGAIN}; }}"
        return super().script(dataclasses.replace(job, guard=f"{job.guard} && {once}"))

    def submit(self, script: str) -> str:
        name, output, minutes = (_option(script, what)[0] for what in ("name", "output", "minutes"))
        pairs = [option.partition("=") for option in _option(script, "resource")]
        try:
            resources = {resource: float(number) for resource, _, number in pairs}
        except ValueError:
            raise InputError(f"directives {_option(script, 'resource')}: expected resources such as slot=1") from None

        async def submit(client: Any) -> None:
            arguments = (name, script, output, float(minutes))
            future = client.submit(run_script, *arguments, key=name, pure=False, retries=0, resources=resources)
            _distributed().fire_and_forget(future)
            while not await _seen(client, [name]):  # noqa: ASYNC110 (it is on its way)
                await asyncio.sleep(_TICK)

        self._with_client(submit)
        return name

    def look(self, natives: Collection[str]) -> dict[str, Seen]:
        return self._with_client(lambda client: _seen(client, natives))

    def find(self, name: str) -> list[Seen]:
        return [*self.look([name]).values()]

    def cancel(self, native: str) -> None:
        async def cancel(client: Any) -> None:
            if not all(seen.has_ended for seen in (await _seen(client, [native])).values()):
                await client.log_event(native, {"state": "cancelled", "code": None})
                await client.cancel([_distributed().Future(native, client)], force=True)

        self._with_client(cancel)

    def _with_client(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        """Ask the scheduler.

        Raises:
            InputError: the extra is not installed, or there is no usable address.
            SilentError: no answer.
        """
        self.check()
        made = _distributed().Client

        async def answer() -> T:
            async with made(self.address, asynchronous=True, set_as_default=False, timeout=_CONNECT) as client:
                return await ask(client)

        try:
            return asyncio.run(asyncio.wait_for(answer(), _SECONDS))
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            reason = one_line(error) or f"no answer for {_SECONDS:g} s"
            raise SilentError(f"{self.address}: {reason}") from None


def _option(script: str, what: str) -> list[str]:
    return re.findall(rf"^#DASK {what} (.+)$", script, re.MULTILINE)


def _distributed() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise InputError("engine dask needs distributed; pip install 'metabolismgraph[dask]'") from None


async def _seen(client: Any, names: Collection[str]) -> dict[str, Seen]:
    """What the scheduler knows of jobs; one that it has forgotten without an event is missing."""
    found = {}
    for name, word in (await client.scheduler.get_task_status(keys=sorted(names))).items():
        if word is not None:
            found[name] = Seen(name, name, _STATES.get(word, "waiting"), word)
        elif events := await client.get_events(name):
            state, code = events[0][1]["state"], events[0][1]["code"]
            found[name] = Seen(name, name, state, state if code is None else f"{state}, exit code {code}", code)
    return found


# -- in a worker


def run_script(name: str, script: str, output: str, minutes: float) -> None:
    """Run the script of a job, and tell the scheduler how it has ended.

    Args:
        name: of the job.
        output: file for its output and errors.
        minutes: after which it is killed.
    """
    worker, until, state = _distributed().get_worker(), time.monotonic() + 60 * minutes, None
    with (
        Path(output).open("ab") as out,
        Child(
            ["bash", "-c", _WATCHED + script],
            stdin=PIPE,
            stdout=out,
            stderr=STDOUT,
            env=environment(METABOLISMGRAPH_JOB=name),
        ) as child,
    ):
        while (code := child.poll()) is None and state is None:
            task = worker.state.tasks.get(name)
            if task is None or task.state not in {"executing", "long-running"}:
                state = "cancelled"
            elif time.monotonic() > until:
                state = "walltime"
            else:
                time.sleep(_TICK)
    if state is None:
        words = {0: "completed", _AGAIN: "node"}
        state = words.get(code or 0, "killed" if code is not None and code < 0 else "failed")
    worker.log_event(name, {"state": state, "code": code})
