import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from questions import SmallLoop, metrics, opened, proposal, reading, submission
from test_asking import figures_of

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Answered, Proposed
from metabolismgraph.explore.proposers.asking import MOST_CHARACTERS, AskingProposer
from metabolismgraph.explore.proposers.base import UnavailableError
from metabolismgraph.explore.proposers.command import CommandTransport
from metabolismgraph.explore.proposers.prompt import for_proposal
from metabolismgraph.explore.proposers.replay import ReplayProposer
from metabolismgraph.explore.state import State


@pytest.fixture
def prompt():
    return for_proposal(State.of([opened()]), 1, 0, ())


def program(tmp_path, source):
    path = tmp_path / "agent.py"
    path.write_text(f"import json, os, sys, time\n{source}")
    return (sys.executable, "-I", str(path))


def unavailable(command, prompt, timeout_s=20.0):
    with pytest.raises(UnavailableError) as error:
        CommandTransport(command, timeout_s).ask(prompt)
    reason = str(error.value)
    assert "\n" not in reason
    assert error.value.exchange.error == reason
    assert error.value.exchange.answer is None
    return reason


AGENT = """
asked = sys.stdin.read()
schema = json.loads(asked.strip().splitlines()[-1])
with open(os.environ["ASKED"], "a") as stream:
    stream.write(json.dumps(asked) + "\\n")
print("thinking", file=sys.stderr)
answers = json.load(open(os.environ["ANSWERS"]))
answer = answers[schema["title"]].pop(0)
json.dump(answers, open(os.environ["ANSWERS"], "w"))
print("Here it is:\\n```json\\n" + json.dumps(answer) + "\\n```")
"""


def test_an_exploration_with_a_program(tmp_path, monkeypatch):
    answers = {
        "Proposal": [proposal(), proposal(mutations=[{"param": "batch_sise", "old": 64, "new": 32}])]
        + [proposal(mutations=[{"param": "lr_node_homeo", "old": 0.01, "new": 0.02}])] * 2,
        "Reading": [reading([1, 2]), reading([3])],
        "Submission": [submission()],
    }
    asked = tmp_path / "asked"
    (tmp_path / "answers").write_text(json.dumps(answers))
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("ANSWERS", str(tmp_path / "answers"))
    shown = figures_of(tmp_path, 1)[1:]  # not that of MLP_node
    transport = CommandTransport(program(tmp_path, AGENT), 20.0)
    begin = opened(n_iter_block=2)
    loop = SmallLoop(begin, AskingProposer(transport, tmp_path)).run(4)
    loop.assert_sound(4)
    assert transport.name == f"command ({Path(sys.executable).name})"
    prompts = [json.loads(line) for line in asked.read_text().splitlines()]
    # The last proposal finds nothing left: IndexError. So does the reading that has gone wrong once.
    assert loop.questions == len(prompts) == len(loop.of(Answered)) == 9
    assert [p.by for p in loop.of(Proposed)] == [transport.name] * 3 + ["steady"]
    assert loop.of(Proposed)[3].note.endswith("ended with exit code 1: IndexError: pop from empty list")
    assert "batch_sise is not a parameter; did you mean batch_size?" in prompts[2]
    assert all(str(path.resolve()) in prompts[3] for path in shown)
    assert '"title": "Reading"' in prompts[3]

    again = SmallLoop(begin, ReplayProposer(loop.events)).run(4)
    assert [e.model_dump(exclude={"seconds"}) for e in again.events] == [
        e.model_dump(exclude={"seconds"}) for e in loop.events
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sys.exit('no credit\\nleft')", "ended with exit code 1: left"),
        ("os._exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('  ')", "ended without output"),
        ("", "ended without output"),
    ],
)
def test_a_program_that_fails_gives_no_answer(tmp_path, prompt, source, expected):
    assert expected in unavailable(program(tmp_path, source), prompt)


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path, prompt):
    source = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    started = time.perf_counter()
    assert "gave no answer within 1 s" in unavailable(program(tmp_path, source), prompt, 1.0)
    assert time.perf_counter() - started < 5
    assert ended(int((tmp_path / "child").read_text()))


def test_what_a_program_leaves_behind_is_ended_too(tmp_path, prompt):
    source = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(json.dumps({"child": child.pid}))
"""
    started = time.perf_counter()
    exchange = CommandTransport(program(tmp_path, source), 20.0).ask(prompt)
    assert time.perf_counter() - started < 5
    assert ended(json.loads(exchange.answer)["child"])


def ended(pid):
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_program_that_never_stops_writing_is_ended(tmp_path, prompt, stream):
    source = f"while True: sys.{stream}.write('x' * 1000)"
    assert "wrote more than" in unavailable(program(tmp_path, source), prompt)


def test_a_long_answer_is_cut_and_refused(tmp_path):
    source = f"print('y' * {MOST_CHARACTERS * 2})"
    loop = SmallLoop(opened(attempts=1), AskingProposer(CommandTransport(program(tmp_path, source), 20.0), tmp_path))
    loop.propose(1)
    assert len(loop.of(Answered)[0].answer) == MOST_CHARACTERS + 1
    assert loop.of(Proposed)[0].by == "steady"


def test_output_that_is_no_text_is_recorded_as_text(tmp_path, prompt):
    source = "sys.stdout.buffer.write(bytes([123, 255, 125]))"
    exchange = CommandTransport(program(tmp_path, source), 20.0).ask(prompt)
    assert exchange.answer == "{\\xff}"


def test_a_program_need_not_read_its_input(tmp_path):
    state = SmallLoop(opened(), None, metrics).state
    memory = "m" * 40_000
    prompt = for_proposal(state, 1, 0, [memory])
    exchange = CommandTransport(program(tmp_path, "print('{}')"), 20.0).ask(prompt)
    assert exchange.answer.strip() == "{}"


def test_a_program_that_is_gone_gives_no_answer(tmp_path, prompt):
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\necho {}\n")
    agent.chmod(0o755)
    transport = CommandTransport((str(agent),), 20.0)
    assert transport.ask(prompt).answer == "{}\n"
    agent.unlink()
    with pytest.raises(UnavailableError, match="could not be run: No such file"):
        transport.ask(prompt)


def test_commands_that_cannot_be_run_are_errors_at_once(tmp_path):
    for wrong, expected in (
        ((), "exploration.command is empty"),
        (("",), "exploration.command is empty"),
        (("no-such-program-here",), "there is no program no-such-program-here"),
        ((str(tmp_path),), "there is no program"),
    ):
        with pytest.raises(InputError, match=expected):
            CommandTransport(wrong, 1.0)


def test_nothing_is_left_open(tmp_path, prompt):
    before = psutil.Process().num_fds()
    CommandTransport(program(tmp_path, "print('{}')"), 20.0).ask(prompt)
    unavailable(program(tmp_path, "time.sleep(60)"), prompt, 0.2)
    assert psutil.Process().num_fds() == before


def test_without_figures_none_are_named(prompt):
    assert "Files of the figures" not in prompt.in_words()
