"""Keys in the environment, and programs that say them: no file of an exploration has them."""

import json
import sys

import explorer_lives
import pytest
from command_line import call, refused
from explorer_lives import opened

from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.events import Answered, Refused, Warned
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.proposers import make_proposer
from metabolismgraph.explore.state import State
from metabolismgraph.processes import environment, without_secrets

CANARIES = {
    "ANTHROPIC_API_KEY": "canary-anthropic-0123456789",
    "OPENAI_API_KEY": "canary-openai-0123456789",
    "HF_TOKEN": "canary-token-0123456789",
    "AWS_SECRET_ACCESS": "canary/secret+0123456789",
    "DB_PASSWORD": "canary-password-0123456789",
}
# A program that says all it knows: in answers, valid and invalid, and where it fails.
AGENT = """
import json, os, sys
asked = sys.stdin.read()
said = " ".join(value for value in os.environ.values() if value.startswith("canary"))
assert said.count("canary") == 5
count = os.path.getsize(sys.argv[1])
open(sys.argv[1], "a").write(".")
if count % 4 == 0:
    print(json.dumps({"parent": None, "mode": "explore", "mutations": [], "hypothesis": said}))
elif count % 4 == 1:
    print("not JSON: " + said)
elif count % 4 == 2:
    print(json.dumps({"rationale": said, said: said}))
else:
    sys.exit("the server does not know " + said)
"""
HOOK = "import os, sys; sys.exit(' '.join(v for v in os.environ.values() if v.startswith('canary')))"


@pytest.fixture
def canaries(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def test_a_whole_exploration_keeps_no_key(tmp_path, canaries, monkeypatch, capsys, caplog):
    path = tmp_path / "x"
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "count").touch()
    python = [sys.executable, "-I", "-S"]
    agent = (*python, str(tmp_path / "agent.py"), str(tmp_path / "count"))
    hooks = {name: [*python, "-c", HOOK] for name in ("on_iteration", "on_best", "on_end")}
    opened(path, "command", n_parallel=2, n_iter_block=4, command=agent, hooks=hooks)
    state = State.of(ExplorationFolder(path).journal.read())
    proposer = make_proposer("command", state.settings, path)
    caplog.set_level("DEBUG")
    Explorer(ExplorationFolder(path), ProcessEngine(2, 60.0, explorer_lives.JOB), proposer).run(6)
    events = ExplorationFolder(path).journal.read()
    answered = [event for event in events if isinstance(event, Answered)]
    assert any("[HF_TOKEN]" in (event.answer or "") for event in answered)
    assert any("[HF_TOKEN]" in (event.error or "") for event in answered)
    assert any("[HF_TOKEN]" in event.reason for event in events if isinstance(event, Refused | Warned))
    for words in (("status",), ("show", 1), ("tree",)):
        assert call(monkeypatch, "explore", words[0], path, *words[1:]) == 0
    printed = capsys.readouterr()
    assert "canary" not in printed.out + printed.err + caplog.text
    files = [file for file in path.rglob("*") if file.is_file()]
    kinds = {file.name for file in files}
    assert kinds >= {"journal.jsonl", "job.json", "stdout.txt", "outcome.json", "explore_rank50_analysis.md"}
    assert any(file.parent.name == "questions" for file in files)
    assert [str(file) for file in files if any(each.encode() in file.read_bytes() for each in CANARIES.values())] == []


def test_jobs_do_not_know_the_programs_of_the_explorer(tmp_path):
    path = tmp_path / "x"
    opened(path, command=("agent", "--token", "s3cret"), hooks={"on_end": ["true", "s3cret"]})
    explorer_lives.explorer(path).run(1)
    job = (ExplorationFolder(path).job(1) / "job.json").read_text()
    assert "s3cret" not in job
    assert json.loads(job)["config"]["exploration"]["command"] == []


@pytest.mark.parametrize("key", ["command", "hooks.on_end"])
def test_a_key_among_the_arguments_is_refused_before_anything_is_written(tmp_path, canaries, monkeypatch, capsys, key):
    name, _, hook = key.partition(".")
    words = f"['true', --key={CANARIES['HF_TOKEN']}]"
    given = f"exploration.{name}={f'{{{hook}: {words}}}' if hook else words}"
    said = refused(monkeypatch, capsys, "explore", "start", "small", "--out", tmp_path / "x", "--set", given)
    assert f"exploration.{key} holds the value of a secret environment variable" in said
    assert "canary" not in said
    assert not (tmp_path / "x").exists()


def test_only_values_of_secrets_are_replaced(canaries, monkeypatch):
    monkeypatch.setenv("HOME_OF_KEY", "/home/somebody/keys")
    monkeypatch.setenv("SHORT_KEY", "word")
    monkeypatch.setenv("PLAIN", "nothing to hide here")
    text = "word in /home/somebody/keys, nothing to hide here"
    assert without_secrets(text) == text
    assert without_secrets(f"a {CANARIES['DB_PASSWORD']} b") == "a [DB_PASSWORD] b"
    assert not any("canary" in value for value in environment().values())
