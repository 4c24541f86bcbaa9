"""Slurm and LSF through their commands: what is asked, what the answers mean, and a whole check of a cluster."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from command_line import call, refused

from metabolismgraph.errors import InputError
from metabolismgraph.processes import environment
from metabolismgraph.schedulers import SCHEDULERS, lsf, make_scheduler, slurm
from metabolismgraph.schedulers.base import (
    LOST,
    Job,
    RejectedError,
    SilentError,
    command_environment,
    ran_out_of_memory,
)
from metabolismgraph.schedulers.settings import ClusterSettings, read_settings


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Commands that give fixed answers and record how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def command(name, stdout="", stderr="", code=0, before=""):
        path = folder / name
        (folder / f"{name}.out").write_text(stdout)
        (folder / f"{name}.err").write_text(stderr)
        path.write_text(
            f'#!/bin/bash\n{before}\nprintf "%s\\n" "$@" > {folder}/{name}.called\ncat > {folder}/{name}.given\n'
            f"cat {folder}/{name}.out\ncat {folder}/{name}.err >&2\nexit {code}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return folder

    return command


def job(**changes):
    settings = ClusterSettings(**changes)
    return Job("mg-ab12-7-1", Path("/shared/a b"), Path("/shared/a b/out.txt"), 95, ["python", "-c", "x y"], settings)


# Scripts


def test_a_script_for_slurm():
    script = slurm.Slurm().script(
        job(queue="gpu", account="lab", cores=3, memory_gb=1.5, gpus=1, directives=("--qos=long",), setup=("module x",))
    )
    assert script.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=mg-ab12-7-1",
        '#SBATCH --output="/shared/a b/out.txt"',
        "#SBATCH --open-mode=append",
        "#SBATCH --no-requeue",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=1500M",
        "#SBATCH --time=95",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=lab",
        "#SBATCH --qos=long",
        "cd '/shared/a b' || exit 1",
        "{ true; } || exit 0",
        "export OMP_NUM_THREADS=3",
        "export OPENBLAS_NUM_THREADS=3",
        "export MKL_NUM_THREADS=3",
        "export NPROC=3",
        "module x",
        "exec python -c 'x y' </dev/null",
    ]


@pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ({}, "8000"),
        ({"memory_unit": "GB"}, "8"),
        ({"memory_unit": "KB"}, "8000000"),
        ({"memory_per_slot": True}, "2000"),
    ],
)
def test_a_script_for_lsf(settings, memory):
    script = lsf.LSF().script(job(memory_gb=8, cores=4, queue="long", account="p", gpus=2, **settings))
    assert script.splitlines()[1:12] == [
        "#BSUB -J mg-ab12-7-1",
        '#BSUB -o "/shared/a b/out.txt"',
        "#BSUB -rn",
        "#BSUB -n 4",
        f'#BSUB -R "span[hosts=1] rusage[mem={memory}]"',
        f"#BSUB -M {memory}",
        "#BSUB -W 1:35",
        '#BSUB -gpu "num=2"',
        "#BSUB -q long",
        "#BSUB -P p",
        "cd '/shared/a b' || exit 1",
    ]


@pytest.mark.parametrize("name", ["/a/100%", '/a/"b"', "/a/\n", "/a/\\n"])
def test_names_with_a_meaning_for_schedulers_are_refused(name):
    with pytest.raises(InputError, match="choose another folder"):
        Job("a", Path(name), Path("/a/out"), 1, ["true"], ClusterSettings())


# What answers mean


@pytest.mark.parametrize(
    ("word", "state"),
    [
        *((word, state) for word, state in slurm.STATES.items() if state != "failed"),
        ("A_WORD_OF_A_NEWER_VERSION", "running"),
    ],
)
def test_words_of_slurm(answers, word, state):
    reason = "ReqNodeNotAvail, UnavailableNodes:n1"
    answers("squeue", f"11|{word}|0:00||{reason}|mg-a\n12|PENDING|0:00||None|mg-ab\nbroken line\n")
    found = slurm.Slurm().look({"11", "13"})
    assert {native: (seen.name, seen.state) for native, seen in found.items()} == {"11": ("mg-a", state)}
    assert found["11"].words == f"{word} (ReqNodeNotAvail, UnavailableNodes:n1)"


@pytest.mark.parametrize(
    ("code", "state"),
    [("1:0", "failed"), ("0:9", "killed"), ("0:53", "killed"), ("0:125", "killed"), (None, "failed")],
)
def test_failures_of_slurm(answers, code, state):
    answers("squeue", "11|FAILED|0:01|n1|NonZeroExitCode|mg-a\n12|FAILED|0:01|n1|NonZeroExitCode|another\n")
    folder = answers("scontrol", f"JobId=11 ExitCode={code} Reason=X" if code else "", "" if code else "invalid id", 0)
    seen = slurm.Slurm().look(["11"])["11"]
    assert seen.state == state
    assert (folder / "scontrol.called").read_text().split() == ["show", "job", "--oneliner", "11"]


@pytest.mark.parametrize(
    ("row", "begun"),
    [
        ("0:00||Priority", None),  # while it waited
        ("0:00|n1|None", False),  # its node could not start it, and Slurm may not queue it again
        ("0:10|n1|None", True),
        ("1-00:00:00|n[1-2]|None", True),
    ],
)
def test_cancelled_jobs_of_slurm(answers, row, begun):
    answers("squeue", f"11|CANCELLED|{row}|mg-a\n")
    seen = slurm.Slurm().look(["11"])["11"]
    assert (seen.state, seen.begun) == ("cancelled", begun)


@pytest.mark.parametrize(
    ("row", "state"),
    [
        *((f"7^{word}^-^-^mg-a", state) for word, state in lsf.STATES.items() if word != "EXIT"),
        ("7^NEW^-^-^mg-a", "running"),
        ("7^EXIT^1^-^mg-a", "failed"),
        ("7^EXIT^137^-^mg-a", "killed"),
        ("7^EXIT^130^TERM_OWNER: job killed by owner^mg-a", "cancelled"),
        ("7^EXIT^140^TERM_RUNLIMIT: job killed after reaching LSF run time limit^mg-a", "walltime"),
        ("7^EXIT^137^TERM_MEMLIMIT: job killed after reaching LSF memory usage limit^mg-a", "memory"),
        ("7^EXIT^137^TERM_PREEMPT: job killed after preemption^mg-a", "preempted"),
        ("7^EXIT^^TERM_ZOMBIE: job exited while LSF is not available^mg-a", "node"),
    ],
)
def test_words_of_lsf(answers, row, state):
    answers("bjobs", f"{row}\n", "Job <8> is not found\n", 255)
    found = lsf.LSF().look(["7", "8"])
    assert {native: seen.state for native, seen in found.items()} == {"7": state}
    assert found["7"].has_ended == (state not in {"waiting", "running"})
    assert (state in LOST) == (state in {"node", "preempted", "walltime", "memory", "killed"})


def test_lsf_is_not_asked_for_nothing():
    assert lsf.LSF().look([]) == {}


@pytest.mark.parametrize(("kind", "command"), [(slurm.Slurm, "squeue"), (lsf.LSF, "bjobs")])
def test_a_job_is_found_by_its_exact_name(answers, kind, command):
    rows = {"squeue": "{}|RUNNING|0:01|n1|None|{}\n", "bjobs": "{}^RUN^-^-^{}\n"}[command]
    answers(
        command, "".join(rows.format(*row) for row in [(12, "mg-a-1"), (10, "mg-a-10"), (9, "mg-a-1"), (8, "mg-a")])
    )
    assert [seen.native for seen in kind().find("mg-a-1")] == ["9", "12"]


# Submission


def test_the_number_of_a_submitted_job(answers):
    folder = answers("sbatch", "sbatch: Welcome\n4711;cluster\n")
    assert slurm.Slurm().submit("#!/bin/bash\n") == "4711"
    assert (folder / "sbatch.given").read_text() == "#!/bin/bash\n"
    answers("bsub", "Checking your project ...\nJob <815> is submitted to default queue <normal>.\n")
    assert lsf.LSF().submit("x") == "815"


def test_what_a_scheduler_refuses_is_told_in_its_words(answers):
    answers("sbatch", "", "sbatch: error: Batch job submission failed: Invalid partition name specified\n", 1)
    with pytest.raises(RejectedError, match="sbatch refuses the job: .*Invalid partition name"):
        slurm.Slurm().submit("x")
    answers("bsub", "", "normal2: No such queue. Job not submitted.\x1b[0m\n", 255)
    with pytest.raises(
        RejectedError, match="bsub refuses the job: normal2: No such queue. Job not submitted."
    ) as caught:
        lsf.LSF().submit("x")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "commands", "message"),
    [
        (slurm.Slurm, ("sbatch", "squeue", "scancel"), "error: Unable to contact slurm controller (connect failure)"),
        (
            slurm.Slurm,
            ("sbatch", "squeue", "scancel"),
            "slurm_load_jobs error: Socket timed out on send/recv operation",
        ),
        (lsf.LSF, ("bsub", "bjobs", "bkill"), "LSF is down. Please wait ..."),
        (lsf.LSF, ("bsub", "bjobs", "bkill"), "batch system daemon not responding ... still trying"),
    ],
)
def test_silence_is_no_answer(answers, kind, commands, message):
    for command in commands:
        answers(command, "", f"{message}\n", 1)
    scheduler = kind()
    for ask in (
        lambda: scheduler.submit("x"),
        lambda: scheduler.look(["1"]),
        lambda: scheduler.find("a"),
        lambda: scheduler.cancel("1"),
    ):
        with pytest.raises(SilentError):
            ask()


@pytest.mark.parametrize("kind", [slurm.Slurm, lsf.LSF])
def test_a_command_that_goes_wrong_is_no_answer(answers, kind):
    """Jobs are not unknown because a command crashed: they would be submitted again."""
    scheduler = kind()
    for end in ("exit 1", "kill -KILL $$"):
        for command in ("squeue", "scancel", "bjobs", "bkill"):
            answers(command, before=f"echo 'symbol lookup error: libc' >&2; {end}")
        for ask in (lambda: scheduler.look(["1"]), lambda: scheduler.find("a"), lambda: scheduler.cancel("1")):
            with pytest.raises(SilentError, match="symbol lookup error: libc"):
                ask()


def test_a_failed_job_is_not_judged_without_an_answer(answers):
    answers("squeue", "11|FAILED|0:01|n1|NonZeroExitCode|mg-a\n")
    answers("scontrol", "", "Segmentation fault\n", 139)
    with pytest.raises(SilentError, match="Segmentation fault"):
        slurm.Slurm().look(["11"])


@pytest.mark.parametrize(("kind", "command"), [(slurm.Slurm, "sbatch"), (lsf.LSF, "bsub")])
def test_a_killed_submission_may_have_arrived(answers, kind, command):
    answers(command, before="kill -KILL $$")
    with pytest.raises(SilentError, match=f"{command}: was killed by SIGKILL"):
        kind().submit("x")


def test_lsf_says_which_jobs_are_unknown(answers):
    answers("bjobs", "7^RUN^-^-^mg-a\n", "Job <9> is not found\n", 255)
    assert list(lsf.LSF().look(["7", "9"])) == ["7"]
    with pytest.raises(SilentError, match="bjobs says nothing of job 8"):
        lsf.LSF().look(["7", "8", "9"])


@pytest.mark.parametrize(
    ("kind", "command", "message"),
    [
        (slurm.Slurm, "scancel", "scancel: error: Kill job error on job id 7: Invalid job id specified"),
        (lsf.LSF, "bkill", "Job <7>: No matching job found"),
        (lsf.LSF, "bkill", "Job <7>: Job has already finished"),
    ],
)
def test_a_job_that_has_ended_needs_no_cancelling(answers, kind, command, message):
    answers(command, "", f"{message}\n", 1)
    kind().cancel("7")


def test_a_command_that_hangs_is_no_answer(answers, monkeypatch):
    monkeypatch.setattr("metabolismgraph.schedulers.base._SECONDS", 0.3)
    answers("squeue", "11|RUNNING|0:01|n1|None|mg-a\n", before="sleep 60")
    with pytest.raises(SilentError, match="squeue has taken more than"):
        slurm.Slurm().look(["11"])


def test_a_computer_without_a_scheduler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch: cannot be started .*is this a computer of a slurm cluster"):
        slurm.Slurm().submit("x")


def test_jobs_get_no_keys_and_nothing_of_a_surrounding_job(monkeypatch):
    wanted = {"SLURM_CONF": "/etc/slurm.conf", "LSF_ENVDIR": "/lsf", "JAX_PLATFORMS": "cpu"}
    surrounding = {"SLURM_MEM_PER_CPU": "100", "SLURM_JOB_ID": "1", "LSB_JOBID": "2", "TMPDIR": "/scratch/1"}
    keys = {"OPENAI_API_KEY": "canary", "LSF_TOKEN": "canary"}
    for name, value in (wanted | surrounding | keys).items():
        monkeypatch.setenv(name, value)
    kept = command_environment()
    assert wanted.items() <= kept.items()
    assert not (surrounding | keys).keys() & kept.keys()
    assert kept["LC_ALL"] == "C"


def test_what_a_job_starts_keeps_to_its_threads(monkeypatch):
    names = [name for name, _ in re.findall(r"^export (\w+)=(\d+)$", slurm.Slurm().script(job(cores=3)), re.MULTILINE)]
    for name in names:
        monkeypatch.setenv(name, "3")
    assert len(names) == 4
    assert [environment().get(name) for name in names] == ["3"] * 4


@pytest.mark.parametrize(
    ("output", "memory"),
    [
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch", True),
        ("slurmstepd: error: Job 5 exceeded memory limit (300000 > 204800), being killed", True),
        ("Killed", False),
        ("", False),
    ],
)
def test_what_tells_of_too_much_memory(output, memory):
    assert ran_out_of_memory(output) == memory


# Settings


def test_settings_of_a_file_and_of_the_command_line(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("queue: long\nmemory_gb: 16\nsetup: [module load python]\n")
    found = read_settings(path, ["queue=short", "gpus=1"])
    assert (found.queue, found.memory_gb, found.gpus, found.setup) == ("short", 16.0, 1, ("module load python",))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("- a\n", [], "expected lines such as `queue: short`"),
        ("queu: a\n", [], "setting queu of the cluster: there is no such setting"),
        ("cores: 0\n", [], "setting cores of the cluster: Input should be greater than or equal to 1"),
        ("", ["cores"], "--setting cores: expected key=value, such as queue=short"),
        ("", ['queue="a\\nrm -r x"'], "must be one line of printable characters"),
        ("", ['setup=["a\\u2028b"]'], "must be one line of printable characters"),
    ],
)
def test_wrong_settings(tmp_path, text, changes, message):
    path = tmp_path / "cluster.yaml"
    path.write_text(text or "{}")
    with pytest.raises(InputError) as caught:
        read_settings(path, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# A whole check


def test_schedulers_by_name():
    names = {name: type(make_scheduler(name)).name for name in SCHEDULERS}
    assert names == {"slurm": "slurm", "lsf": "lsf", "dask": "dask"}
    with pytest.raises(InputError, match=r"scheduler pbs: there is none of that name \(all: slurm, lsf, dask\)"):
        make_scheduler("pbs")


CHECK = ("explore", "check-cluster", "lsf", "--poll", "0.1")


@pytest.mark.on_demand
def test_a_check_of_lsf(lsf, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, *CHECK, "--out", tmp_path / "out", "--setting", "cores=2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "#BSUB -n 2" in lines
    assert any(line.startswith("job 1001: DONE") for line in lines)
    assert any(line.startswith("outcome: computer ") and line.endswith("threads 2") for line in lines)
    assert any(line.startswith("job 1002: EXIT (TERM_OWNER") for line in lines)
    assert json.loads((tmp_path / "out" / "a" / "outcome.json").read_text())["threads"] == "2"
    assert "not empty" in refused(monkeypatch, capsys, *CHECK, "--out", tmp_path / "out")


def test_a_job_that_dies_is_reported_with_its_last_words(lsf, tmp_path, monkeypatch, capsys):
    setup = ("--setting", 'setup=["echo no such module; exit 3"]')
    message = refused(monkeypatch, capsys, *CHECK, "--out", tmp_path / "out", *setup)
    assert message == "error: job 1001 ended without an outcome: EXIT, exit code 3 (no such module)"


def test_a_scheduler_that_falls_silent(lsf, tmp_path, monkeypatch, capsys):
    (tmp_path / "lsf").mkdir()
    (tmp_path / "lsf" / "down").touch()
    message = refused(monkeypatch, capsys, *CHECK, "--out", tmp_path / "out")
    assert message.startswith("error: lsf does not answer (bjobs: LSF is down.")


def test_a_check_of_slurm(slurm, monkeypatch, capsys, tmp_path):
    options = ("--poll", "0.2", "--setting", "memory_gb=0.5")
    assert call(monkeypatch, "explore", "check-cluster", "slurm", "--out", tmp_path / "out", *options) == 0
    shown = capsys.readouterr().out
    assert "COMPLETED" in shown
    assert "CANCELLED" in shown
    assert "devices cpu" in shown
    wrong = ("--out", tmp_path / "other", "--setting", "queue=nowhere")
    message = refused(monkeypatch, capsys, "explore", "check-cluster", "slurm", *wrong)
    assert "sbatch refuses the job" in message
    assert "nvalid partition" in message
