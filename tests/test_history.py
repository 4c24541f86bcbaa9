"""The git history of accepted strategy files: what counts is what is committed, and nothing committed is lost."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.explore.review import history
from metabolismgraph.explore.review.history import StrategyHistory

ONE, TWO, THREE = ("x = 1\n", "x = 2  # längere Zeile\n", "x = 3")


def digest(source):
    return hashlib.sha256(source.encode()).hexdigest()


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def kept(tmp_path):
    return StrategyHistory(tmp_path / "strategies")


def test_what_is_landed_is_there(kept):
    assert kept.sources() == {}
    assert kept.log() == ()
    assert kept.land("decay", ONE, "Small weights.\n\nThey are smooth.", "Krogh & Hertz 1991") == digest(ONE)
    assert kept.land("other", TWO, "why", "who") == digest(TWO)
    assert kept.sources() == {"decay": ONE, "other": TWO}
    assert (kept.folder / "decay.py").read_bytes() == ONE.encode()
    first, second = kept.log()
    assert (first.action, first.name, first.digest) == ("land", "decay", digest(ONE))
    assert first.rationale == "Small weights.\n\nThey are smooth."
    assert first.reference == "Krogh & Hertz 1991"
    assert second.name == "other"
    assert first.time
    # For people with git: subject, rationale, reference, and a work tree that agrees.
    assert git(kept.folder, "log", "--format=%s", "--reverse").splitlines()[0].startswith("land decay: Small weights.")
    assert git(kept.folder, "show", "HEAD:decay.py") == ONE
    assert git(kept.folder, "fsck", "--strict") == ""


def test_landing_again_changes_nothing(kept):
    kept.land("decay", ONE, "why", "who")
    log = kept.log()
    assert kept.land("decay", ONE, "another reason", "who") == digest(ONE)
    assert kept.log() == log
    assert StrategyHistory(kept.folder).log() == log


def test_rolling_back_goes_from_version_to_version(kept):
    for source in (ONE, TWO, THREE):
        kept.land("decay", source, "why", "who")
    kept.land("other", ONE, "why", "who")
    assert kept.rollback("decay") == digest(TWO)
    assert kept.sources() == {"decay": TWO, "other": ONE}
    assert (kept.folder / "decay.py").read_bytes() == TWO.encode()
    assert kept.rollback("decay") == digest(ONE)
    kept.land("decay", THREE, "again", "who")
    assert kept.rollback("decay") == digest(ONE)
    assert kept.rollback("decay") is None
    assert kept.sources() == {"other": ONE}
    assert not (kept.folder / "decay.py").exists()
    count = len(kept.log())
    assert kept.rollback("decay") is None  # nothing is left to go back from
    assert kept.rollback("never") is None
    assert [change.action for change in kept.log()] == ["land"] * 4 + ["rollback"] * 2 + ["land"] + ["rollback"] * 2
    assert len(kept.log()) == count == 9  # nothing is rewritten
    kept.land("decay", TWO, "why", "who")
    assert kept.sources()["decay"] == TWO
    assert kept.rollback("decay") is None


@pytest.mark.parametrize("step", ["hash-object", "mktree", "commit-tree", "update-ref", "write"])
def test_a_crash_on_the_way_is_made_good(kept, monkeypatch, step):
    kept.land("decay", ONE, "why", "who")
    whole = StrategyHistory._git

    def crash(self, *arguments, given=b""):
        if arguments[0] == step:
            raise KeyboardInterrupt
        return whole(self, *arguments, given=given)

    def no_write(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StrategyHistory, "_git", crash)
        if step == "write":
            patch.setattr(history, "write_bytes", no_write)
        with pytest.raises(KeyboardInterrupt):
            kept.land("decay", TWO, "why", "who")
    (kept.folder / ".git" / "refs" / "heads" / "main.lock").touch()  # of a git that was killed
    again = StrategyHistory(kept.folder)
    landed = step == "write"
    assert again.sources() == {"decay": TWO if landed else ONE}
    assert (kept.folder / "decay.py").read_text(encoding="utf-8") == (TWO if landed else ONE)
    assert again.land("decay", TWO, "why", "who") == digest(TWO)
    assert again.sources() == {"decay": TWO}
    assert len(again.log()) == 2
    assert again.rollback("decay") == digest(ONE)


def test_the_folder_is_not_believed(kept):
    kept.land("decay", ONE, "why", "who")
    (kept.folder / "decay.py").write_text("import os")
    (kept.folder / "smuggled.py").write_text("import os")
    assert kept.sources() == {"decay": ONE}
    assert kept.land("decay", ONE, "why", "who") == digest(ONE)
    assert {path.name for path in kept.folder.glob("*.py")} == {"decay.py"}
    assert (kept.folder / "decay.py").read_text() == ONE
    (kept.folder / "decay.py").unlink()
    (kept.folder / "decay.py").symlink_to("/etc/hostname")
    StrategyHistory(kept.folder)
    assert not (kept.folder / "decay.py").is_symlink()
    assert len(kept.log()) == 1


def test_a_damaged_object_is_no_source(kept):
    kept.land("decay", ONE, "why", "who")
    blob = git(kept.folder, "rev-parse", "HEAD:decay.py").strip()
    path = kept.folder / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="strategies: git cat-file failed"):
        kept.sources()
    # One object in place of another, which git does not notice.
    kept._git("hash-object", "-w", "--stdin", given=b"import os")
    other = kept._git("hash-object", "--stdin", given=b"import os").decode().strip()
    path.write_bytes((path.parents[1] / other[:2] / other[2:]).read_bytes())
    with pytest.raises(InputError, match="committed decay.py is damaged|git cat-file failed"):
        kept.sources()


def test_inside_of_another_repository(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    kept = StrategyHistory(tmp_path / "out" / "strategies")
    kept.land("decay", ONE, "why", "who")
    assert kept.rollback("decay") is None
    kept.land("decay", TWO, "why", "who")
    assert StrategyHistory(kept.folder).sources() == {"decay": TWO}
    assert len(kept.log()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "out"]
    assert not list((tmp_path / ".git" / "refs" / "heads").iterdir())


def test_a_hostile_configuration_has_no_say(tmp_path, monkeypatch):
    home, trap = tmp_path / "home", tmp_path / "trap"
    hooks, template = home / "hooks", home / "template" / "hooks"
    script = f"#!/bin/sh\ntouch {trap}\nexit 1\n"
    for name in (hooks / "pre-commit", hooks / "reference-transaction", hooks / "post-index-change", template / "x"):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(script)
        name.chmod(0o755)
    config = f"""
[user]
  name = Mallory
[core]
  hooksPath = {hooks}
  fsmonitor = {hooks}/pre-commit
  autocrlf = true
  attributesFile = {home}/attributes
[init]
  templateDir = {template.parent}
  defaultBranch = elsewhere
[commit]
  gpgSign = true
[gpg]
  program = {hooks}/pre-commit
[log]
  showSignature = true
[filter "evil"]
  clean = {hooks}/pre-commit
"""
    (home / ".gitconfig").write_text(config)
    (home / "attributes").write_text("*.py filter=evil\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hooks))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Mallory")
    kept = StrategyHistory(tmp_path / "strategies")
    # As bad, in the repository itself.
    with (kept.folder / ".git" / "config").open("a") as stream:
        stream.write(config)
    (kept.folder / ".gitattributes").write_text("*.py filter=evil\n")
    kept.land("decay", "x = 1\r\ny = 2\n", "why", "who")
    assert kept.sources() == {"decay": "x = 1\r\ny = 2\n"}
    assert kept.rollback("decay") is None
    assert not trap.exists()
    monkeypatch.undo()
    assert set(git(kept.folder, "-c", "log.showSignature=false", "log", "--format=%an %cn").split()) == {
        "metabolismgraph"
    }


def test_texts_of_strangers_stay_texts(kept):
    rationale = "good\n\nAction: rollback\nStrategy: other\nSha256: 0\n\x1f\x00\x1b[31m\n\nReference: none"
    kept.land("decay", ONE, rationale, "who\n\nAction: rollback\n\nStrategy: other")
    (change,) = kept.log()
    assert (change.action, change.name, change.digest) == ("land", "decay", digest(ONE))
    assert "\x1b" not in change.rationale
    assert change.reference == "who Action: rollback Strategy: other"
    assert kept.rollback("decay") is None
    assert [change.action for change in kept.log()] == ["land", "rollback"]


@pytest.mark.parametrize("name", ["../decay", "a/b", ".git", "Decay", "", "x y", "-n"])
def test_names_that_are_none(kept, name):
    with pytest.raises(InputError, match="not a name of a strategy"):
        kept.land(name, ONE, "why", "who")
    assert kept.log() == ()


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="^git: no such program; install it, since the history"):
        StrategyHistory(tmp_path / "strategies")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(InputError, match="git init failed"):
        StrategyHistory(Path(tmp_path / "strategies"))
