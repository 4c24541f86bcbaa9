"""A Dask of its own for tests: a scheduler and workers of this computer, each a process that can be killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


class PrivateDask:
    """Its processes write to files in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.workers = folder, []
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.start_scheduler()

    def start_scheduler(self):
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show")
        self.scheduler = self._start("scheduler", *options)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError(f"no scheduler: {(self.folder / 'scheduler.txt').read_text()}")

    def add_worker(self, threads=2):
        options = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        options += ("--local-directory", str(self.folder), "--death-timeout", "60")
        self.workers.append(self._start("worker", self.address, *options))
        return self.workers[-1]

    def _start(self, kind, *options):
        with (self.folder / f"{kind}.txt").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *options],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"},
            )

    @staticmethod
    def kill(process):
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self):
        for process in (*self.workers, self.scheduler):
            self.kill(process)
