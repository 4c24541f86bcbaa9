"""A Slurm of its own for tests: one controller and two nodes on this computer, in one folder, without systemd."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

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
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
SlurmdTimeout=10
InactiveLimit=0
KillWait=2
MinJobAge=10
ReturnToService=2
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 State=UP
"""


@contextlib.contextmanager
def running_slurm(folder: Path):
    """Start a Slurm in a folder and yield the path of its configuration; afterwards, end its jobs and itself.

    Paths of sockets must be short: the folder cannot be deep.
    """
    for name in ("state", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    host, port = socket.gethostname().split(".")[0], _free_port()
    path = folder / "slurm.conf"
    path.write_text(CONFIGURATION.format(folder=folder, host=host, port=port, first=port + 1, last=port + 2))
    # The build of Debian refuses to start without a plugin for control groups, which is not used here.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    key = folder / "key"
    key.touch(mode=0o400)
    key.write_bytes(secrets.token_bytes(128))
    environment = {**os.environ, "SLURM_CONF": str(path)}
    munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    munge |= {"seed-file": "munge.seed"}
    try:
        _start(
            ["munged", "--force", "--num-threads=2", *(f"--{k}={folder / v}" for k, v in munge.items())], environment
        )
        _start(["slurmctld"], environment)
        for node in ("n1", "n2"):
            _start(["slurmd", "-N", node], environment)
        _wait_for_nodes(environment)
        yield path
    finally:
        if shutil.which("scancel"):
            subprocess.run(["scancel", "--quiet", "--me"], env=environment, check=False, timeout=20)
        for name in ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munged.pid"):
            _end(folder / name)


def _start(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"


def _wait_for_nodes(environment):
    ask = ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"]
    for _ in range(300):
        idle = subprocess.run(ask, env=environment, capture_output=True, text=True, timeout=20, check=False).stdout
        if set(idle.split()) == {"n1", "n2"}:
            return
        time.sleep(0.1)
    raise AssertionError("the nodes of Slurm are not idle")


def _free_port():
    """The first of three free ports."""
    for port in range(26817, 27817, 3):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise AssertionError("no free ports")


def _end(pid_file):
    """End a daemon by its pid file, and wait until it has ended."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    for _ in range(100):
        # A process that nobody has waited for still answers signals.
        with contextlib.suppress(FileNotFoundError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.1)
                continue
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
