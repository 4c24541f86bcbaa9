"""The git history of accepted strategy files of an exploration.

Only the commits are read. The files in the folder are for people; they are written from the commits. Commits are made
of objects directly, without an index, so that they exist as a whole or not at all, and attributes, filters and hooks
have no effect. A rollback is a new commit; no version is lost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.homeostasis.strategies import custom
from metabolismgraph.processes import run
from metabolismgraph.text import one_line, printable

_BRANCH = "refs/heads/main"
_SETTINGS = (
    *("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.fsync=all", "core.logAllRefUpdates=false"),
    *("commit.gpgSign=false", "log.showSignature=false", "gc.auto=0", "maintenance.auto=false", "color.ui=false"),
)
_WHO = "metabolismgraph"
_FIELDS = ("Action", "Strategy", "Sha256", "Reference")  # of the last paragraph of a message
_LAND, _ROLLBACK = "land", "rollback"
_END = "\x1f"
_MOST_TEXT = 4000  # characters of a rationale


@dataclasses.dataclass(frozen=True)
class Change:
    """One commit.

    Attributes:
        action: land or rollback.
        name: of the strategy.
        digest: sha256 of its source; "" if it was removed.
    """

    commit: str
    time: str
    action: str
    name: str
    digest: str
    rationale: str
    reference: str


class StrategyHistory:
    """A folder of strategy files under git, for one writer.

    Raises:
        InputError: on construction, when git is missing or the folder cannot be used.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._git_dir = self.folder / ".git"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._git("init", "--quiet", "--template=", f"--initial-branch={_BRANCH.rpartition('/')[2]}")
        # Left behind by a killed writer, since only one writes at a time.
        for lock in (*self._git_dir.glob("*.lock"), *(self._git_dir / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        self._write_out()

    def land(self, name: str, source: str, rationale: str, reference: str) -> str:
        """Commit a version of a strategy file; the current version is not committed again.

        Returns:
            sha256 of the source, hexadecimal.

        Raises:
            InputError: the name is not valid, or git fails.
        """
        if not custom.NAME.fullmatch(name):
            raise InputError(f"{one_line(name, 50)}: not a name of a strategy; use small letters, digits and _")
        if self.sources().get(name) != source:
            self._commit(_LAND, name, source, rationale, reference)
        self._write_out()
        return digest_of(source)

    def sources(self) -> dict[str, str]:
        """The committed sources by name.

        Raises:
            InputError: the history is damaged.
        """
        return {name: self._source(blob, name) for name, blob in self._tree().items()}

    def rollback(self, name: str) -> str | None:
        """Restore the version before the current one by a new commit; without an earlier version the file is removed.

        Returns:
            sha256 of the restored source; None if the strategy was removed.

        Raises:
            InputError: the history is damaged, or git fails.
        """
        if name not in self._tree():
            return None
        good: list[str] = []
        for change in self.log():
            if change.name == name and change.action == _LAND:
                good.append(change.commit)
            elif change.name == name:
                good.pop()
        source = self._source(self._tree(good[-2])[name], name) if len(good) > 1 else None
        self._commit(_ROLLBACK, name, source, "back to the version before", "")
        self._write_out()
        return None if source is None else digest_of(source)

    def log(self) -> tuple[Change, ...]:
        """All commits, the oldest first."""
        if self._head() is None:
            return ()
        form = f"--format=%H{_END}%cI{_END}%B"
        stdout = self._git("log", "-z", "--first-parent", "--reverse", form, _BRANCH).decode(errors="replace")
        return tuple(_change(entry) for entry in stdout.split("\0") if entry)

    def _commit(self, action: str, name: str, source: str | None, rationale: str, reference: str) -> None:
        head, tree = self._head(), self._tree()
        tree.pop(name, None)
        if source is not None:
            tree[name] = self._git("hash-object", "-w", "--stdin", given=source.encode()).decode().strip()
        entries = "".join(f"100644 blob {blob}\t{one}.py\n" for one, blob in sorted(tree.items()))
        made = self._git("mktree", given=entries.encode()).decode().strip()
        digest = "" if source is None else digest_of(source)
        fields = zip(_FIELDS, (action, name, digest, one_line(printable(reference)[:_MOST_TEXT])), strict=True)
        about = printable(rationale)[:_MOST_TEXT]
        subject = one_line(f"{action} {name}: {about}", 100)
        message = f"{subject}\n\n{about.strip()}\n\n" + "".join(f"{key}: {text}\n" for key, text in fields)
        parents = ("-p", head) if head else ()
        commit = self._git("commit-tree", made, *parents, given=message.encode()).decode().strip()
        self._git("update-ref", _BRANCH, commit, head or "0" * len(commit))

    def _head(self) -> str | None:
        return self._git("for-each-ref", "--format=%(objectname)", _BRANCH).decode().strip() or None

    def _tree(self, commit: str | None = None) -> dict[str, str]:
        """Blobs of a commit by name of the strategy; by default of the last commit."""
        commit = commit or self._head()
        if commit is None:
            return {}
        found = {}
        for line in self._git("ls-tree", commit).decode().splitlines():
            about, _, file = line.partition("\t")
            found[file.removesuffix(".py")] = about.split()[2]
        return found

    def _source(self, blob: str, name: str) -> str:
        content = self._git("cat-file", "blob", blob)
        # git does not verify the checksum of a blob when it reads one.
        make = hashlib.sha256 if len(blob) > 40 else hashlib.sha1
        if make(b"blob %d\0" % len(content) + content).hexdigest() != blob:
            raise InputError(f"{self.folder}: the committed {name}.py is damaged; restore the folder from a copy")
        return content.decode()

    def _write_out(self) -> None:
        """Write the files of the last commit to the folder."""
        sources = self.sources()
        for path in self.folder.glob("*.py"):
            if path.stem not in sources:
                path.unlink()
        for name, source in sources.items():
            path, content = self.folder / f"{name}.py", source.encode()
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                write_bytes(path, content)

    def _git(self, *arguments: str, given: bytes = b"") -> bytes:
        settings = [part for data in _SETTINGS for part in ("-c", data)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        own = {
            "GIT_DIR": str(self._git_dir),
            "GIT_WORK_TREE": str(self.folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
            **{f"GIT_{who}_{what}": _WHO for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        command = ["git", *settings, "--no-pager", *arguments]
        try:
            completed = run(command, stdin=given, env={**kept, **own}, cwd=self.folder)
        except FileNotFoundError:
            raise InputError("git: no such program; install it, since the history of strategy files needs it") from None
        if completed.code:
            reason = one_line(completed.stderr.decode(errors="replace"), 200)
            raise InputError(f"{self.folder}: git {arguments[0]} failed ({reason})")
        return completed.stdout


def _change(entry: str) -> Change:
    commit, time, message = entry.split(_END, 2)
    body, _, last = message.strip().rpartition("\n\n")
    fields = dict(line.partition(": ")[::2] for line in last.splitlines())
    action, name, digest, reference = (fields.get(key, "").strip() for key in _FIELDS)
    return Change(commit, time, action, name, digest, body.partition("\n\n")[2], reference)


def digest_of(source: str) -> str:
    """Sha256 of a strategy file's source."""
    return hashlib.sha256(source.encode()).hexdigest()
