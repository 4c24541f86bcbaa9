"""A Slurm of its own for tests: one controller and two nodes on this computer, in one folder, without systemd.

Partition `urgent` takes the cores of jobs of `main`, which is the default. The port of the controller is
SLURM_TEST_PORT, or the first free one after it; the nodes have the two ports after that.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
Prolog={folder}/prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmdParameters=config_overrides
MpiDefault=none
SlurmdTimeout=10
InactiveLimit=0
KillWait=2
MinJobAge=10
ReturnToService=2
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=60 State=UP PriorityTier=10
"""
NODES = ("n1", "n2")
# Set by what runs all tests: Slurm must start, and its tests are not left out.
REQUIRED = "METABOLISMGRAPH_REQUIRE_SLURM"


class PrivateSlurm:
    """One Slurm, and what may happen to its parts: `controller`, `n1` and `n2`.

    Args:
        folder: for all its files. Paths of sockets must be short: the folder cannot be deep.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "slurm.conf"
        self._environment = {**os.environ, "SLURM_CONF": str(self.path)}
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        host, port = socket.gethostname().split(".")[0], _free_port()
        self.path.write_text(CONFIGURATION.format(folder=folder, host=host, port=port, first=port + 1, last=port + 2))
        # The build of Debian refuses to start without a plugin for control groups, which is not used here.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.set_prolog("true")
        key = folder / "key"
        key.touch(mode=0o400)
        key.write_bytes(secrets.token_bytes(128))

    def set_prolog(self, command):
        """What a node does before it starts a job."""
        path = self.folder / "prolog"
        path.write_text(f"#!/bin/bash\n{command}\n")
        path.chmod(0o755)

    def ask(self, *command, stdin=""):
        """The output of a command."""
        return subprocess.run(
            command, env=self._environment, input=stdin, capture_output=True, text=True, timeout=30, check=True
        ).stdout

    def start(self, *parts):
        """Start parts that do not run; without arguments, all, and wait for the nodes."""
        options = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        options |= {"seed-file": "munge.seed"}
        munge = ["--force", "--num-threads=2", *(f"--{name}={self.folder / at}" for name, at in options.items())]
        commands = {"munge": ["munged", *munge], "controller": ["slurmctld"]} | {n: ["slurmd", "-N", n] for n in NODES}
        for part in parts or commands:
            if _runs(self._number(part)):
                continue
            done = subprocess.run(
                commands[part], env=self._environment, capture_output=True, text=True, timeout=30, check=False
            )
            assert done.returncode == 0, f"{commands[part][0]}: {done.stderr}"
        if not parts:
            self._wait(lambda: set(self.ask("sinfo", "-hN", "--states=idle", "-o%N").split()) == set(NODES))

    def signal(self, part, number):
        """Send a signal to a part; after SIGKILL, wait until it has ended."""
        os.kill(self._number(part), number)
        if number == signal.SIGKILL:
            self._wait(lambda: not _runs(self._number(part)))

    def steps(self):
        """The processes of Slurm beside those of jobs."""
        return [number for number, command in self._processes() if command.startswith("slurmstepd: ")]

    def stop(self):
        """End the jobs, which end with their nodes otherwise late or not at all, and all parts."""
        with contextlib.suppress(subprocess.SubprocessError, AssertionError):
            for part in ("controller", *NODES):
                if _runs(self._number(part)):
                    self.signal(part, signal.SIGCONT)
            self.ask("scancel", "--quiet", "--me")
            self._wait(lambda: not self.ask("squeue", "--me", "-h", "-tR,CG,S"))
        for part in (*NODES, "controller", "munge"):
            if _runs(number := self._number(part)):
                os.kill(number, signal.SIGTERM)
                with contextlib.suppress(AssertionError):
                    self._wait(lambda number=number: not _runs(number))
        # What is left of jobs that the controller had forgotten, or of parts that do not end.
        for number, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def _processes(self):
        """All processes of this Slurm and its jobs, and their commands."""
        mark = f"\0SLURM_CONF={self.path}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(process.name) != os.getpid() and mark in b"\0" + (process / "environ").read_bytes() + b"\0":
                    yield int(process.name), (process / "cmdline").read_bytes().decode(errors="replace")

    def _number(self, part):
        """The process of a part; 0: it never ran."""
        name = {"controller": "slurmctld", "munge": "munge"}.get(part, f"slurmd.{part}")
        try:
            return int((self.folder / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return 0

    @staticmethod
    def _wait(condition, seconds=30.0):
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "Slurm does not do what it should"
            time.sleep(0.05)


@contextlib.contextmanager
def running_slurm():
    """Start a Slurm; afterwards, end its jobs and itself.

    Where that is not possible, the test is left out; where REQUIRED is set, it fails.
    """
    lack = "ROOT IS NOT THE USER" if os.geteuid() else "" if shutil.which("slurmctld") else "SLURM IS NOT INSTALLED"
    if lack:
        message = f"{lack}: explorations on a real Slurm are NOT TESTED (see docs/developing.md)"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(message)
    folder = Path("/tmp") / f"slurm-{secrets.token_hex(4)}"
    folder.mkdir()
    slurm = PrivateSlurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port():
    """The first of three free ports; not the same for two that start at the same time."""
    wanted = int(os.environ.get("SLURM_TEST_PORT", "0"))
    for port in range(wanted or random.SystemRandom().randrange(20_000, 29_000), 30_000, 3):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise AssertionError("no free ports")


def _runs(number):
    """Whether a process runs; one that nobody has waited for still answers signals."""
    try:
        return number > 0 and "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
