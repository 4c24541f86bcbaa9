"""The real command with real training, killed at random moments, each time followed by the same or `resume` at once."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from command_line import QUICK
from hypothesis import settings
from questions import proposal
from test_explorer_crashes import left_behind
from test_new_strategies import SUBMISSION

from metabolismgraph.config import load_config
from metabolismgraph.explore.folder import ExplorationFolder

KILLS = 20
WORDS = [
    *(*QUICK, "--quiet"),
    *("--set", "training.phase2_steps=20"),
    *("--set", "exploration.n_parallel=2", "--set", "exploration.n_iter_block=4"),
    *("--set", "exploration.until_settled=false"),
]
# Submits its file after the first block; every proposal is a node of its own, which begins with a trial.
AGENT = """
import json, pathlib, random, sys
schema = json.loads(sys.stdin.read().strip().splitlines()[-1])
answers = json.loads(ANSWERS)
if schema["title"] not in answers:
    sys.exit("the rules read")
answer = answers[schema["title"]]
if schema["title"] == "Proposal":
    answer["mutations"] = [{"param": "lr_node_homeo", "old": OLD, "new": round(OLD * random.uniform(0.5, 2.0), 6)}]
if schema["title"] == "Submission" and pathlib.Path(LANDED).exists():
    answer |= {"start": [], "file": None}
print(json.dumps(answer))
"""


def size(path):
    return path.stat().st_size if path.exists() else 0


def agent(folder, out):
    """Words for a proposer that submits a strategy file."""
    landed = out / "strategies" / f"{SUBMISSION['file']['name']}.py"
    answers = json.dumps({"Proposal": proposal(), "Submission": SUBMISSION})
    rate = load_config("small").training.rate_node_homeostasis
    path = folder / "agent.py"
    source = AGENT.replace("ANSWERS", repr(answers)).replace("OLD", repr(rate)).replace("LANDED", repr(str(landed)))
    path.write_text(source)
    command = json.dumps([sys.executable, "-I", str(path)])
    return ["--proposer", "command", "--set", f"exploration.command={command}"]


def begun(out, iterations, words_of_proposer):
    """The explorer, begun or continued, as a process of a session of its own."""
    journal = out / "journal.jsonl"
    words = ["resume", out] if journal.exists() and b"\n" in journal.read_bytes() else ["start", "small", "--out", out]
    options = ["--iterations", iterations, *([*WORDS, *words_of_proposer] if words[0] == "start" else ["--quiet"])]
    command = [sys.executable, "-m", "metabolismgraph", "explore", *map(str, (*words, *options))]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.skipif(settings.get_current_profile_name() != "long", reason="takes minutes: make test-long")
@pytest.mark.parametrize("proposer", ["rules", "files"])
def test_nothing_is_lost_doubled_or_refused_and_no_process_stays(tmp_path, proposer):
    out, rng = tmp_path / "x", random.Random(11)
    proposes = agent(tmp_path, out) if proposer == "files" else ["--set", "training.strategies=[residual]"]
    longer = 3 if proposer == "files" else 1  # reviews and trials, which begin again after a kill
    iterations, kills, refused, journal = 4, [], [], out / "journal.jsonl"
    while len(kills) < KILLS:
        before = size(journal)
        process = begun(out, iterations, proposes)
        # Every other life is killed at any time, the others after their first event, or not at all.
        while len(kills) % 2 and process.poll() is None and size(journal) == before:
            time.sleep(0.01)
        try:
            _, said = process.communicate(timeout=longer * rng.uniform(0.0, 10.0 if len(kills) % 2 else 25.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills.append(size(journal))
        else:
            if process.returncode:
                refused.append(said)
                assert len(refused) < 3, refused
            iterations += 4
    process = begun(out, iterations, proposes)
    _, said = process.communicate()
    orphans = left_behind(out, patience=15.0)
    events = ExplorationFolder(out).journal.read()
    ends = Counter(event.iteration for event in events if event.event in {"finished", "failed"})
    finished = [event.iteration for event in events if event.event == "finished"]
    figures = {
        "kills": len(kills),
        "trials": len(list(out.glob("trials/*.json"))),
        "places": len(set(kills)),
        "iterations": iterations,
        "lost": iterations - len(ends),
        "doubled": sum(number > 1 for number in ends.values()),
        "failed": len(ends) - len(set(finished)),
        "run again": sum(event.event == "lost" for event in events),
        "refused": refused + ([said] if process.returncode else []),
        "orphans": orphans,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    wanted = {"lost": 0, "doubled": 0, "failed": 0, "run again": 0, "refused": [], "orphans": []}
    assert {name: figures[name] for name in wanted} == wanted
    assert (figures["trials"] > 1) == (proposer == "files")
