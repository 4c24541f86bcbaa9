"""Valid files changed by Hypothesis, read by each reader in turn: `python tests/malformed/fuzz.py READER --minutes 10`.

A reader may accept a changed file, or refuse it with an InputError. Anything else is a fault, is printed with the file
that caused it, and ends the run with code 1. A crash of a library ends the process; the last file is `fuzz_last` then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).parents[1])]

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed.models import model
from malformed.petab import PROBLEM
from malformed.runner import make_templates
from malformed.tables import _PLAIN

from metabolismgraph.errors import FirewallError, InputError

Reader = Callable[[Path], object]
EXAMPLES = 200  # between two looks at the clock
LONGEST = 30.0  # seconds of the processor
FINE = {"accepted", "refused"}
_WORDS = [
    b"",
    b"\0",
    b"-",
    b"1e300",
    b"nan",
    b"-1",
    b"999999999999999999999",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"<",
    b"</a>",
    b"\xff",
    b"\x1b[2J",
    b"\r",
    b"\n",
    b",",
    b"e",
    b"&#0;",
]


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """Content with one to eight changes: of bytes, or of numbers and words, left out, repeated or replaced."""
    place = st.integers(0, len(content))
    word = st.sampled_from(_WORDS) | st.binary(max_size=6)
    change = st.tuples(place, st.integers(0, 30), word) | st.tuples(
        place, st.just(0), place.map(lambda p: content[p : p + 40])
    )

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        found = content
        for where, length, new in changes:
            found = found[:where] + new + found[where + length :]
        return found

    return st.lists(change, min_size=1, max_size=8).map(apply)


def _sbml(folder: Path, _: Path) -> tuple[str, bytes, Reader]:
    from metabolismgraph.formats.sbml import read_sbml
    from metabolismgraph.kinetic_models.from_sbml import ModelFile

    def read(path: Path) -> None:
        read_sbml(path)
        ModelFile(path).model()

    return "m.xml", model().encode(), read


def _csv(folder: Path, _: Path) -> tuple[str, bytes, Reader]:
    from metabolismgraph.formats import read

    (folder / "m.xml").write_text(model())
    return "t.csv", _PLAIN.encode(), lambda path: read(folder / "m.xml", path)


def _yaml(folder: Path, _: Path) -> tuple[str, bytes, Reader]:
    from metabolismgraph.config import load_config

    text = load_config("small").to_yaml()
    return "c.yaml", text.encode(), lambda path: load_config(path).to_yaml()


def _journal(folder: Path, templates: Path) -> tuple[str, bytes, Reader]:
    from metabolismgraph.explore.journal import Journal
    from metabolismgraph.explore.state import State
    from metabolismgraph.explore.tree import best

    content = (templates / "exploration" / "journal.jsonl").read_bytes()
    return "journal.jsonl", content, lambda path: best(State.of(Journal(path).read()))


def _manifest(folder: Path, templates: Path) -> tuple[str, bytes, Reader]:
    from metabolismgraph.runs.folder import RunFolder

    return "manifest.json", (templates / "run" / "manifest.json").read_bytes(), lambda path: RunFolder.open(path.parent)


def _meta(name: str) -> Callable[[Path, Path], tuple[str, bytes, Reader]]:
    """The JSON file of a checkpoint, whose digest stays right."""

    def make(folder: Path, templates: Path) -> tuple[str, bytes, Reader]:
        from metabolismgraph.config import load_config
        from metabolismgraph.runs import checkpoint

        training = templates / "run" / "training"
        shutil.copy(training / f"{name}.safetensors", folder)
        graph_model = load_config("small").graph_model
        readers = {"phase1": checkpoint.load_phase1, "phase2": checkpoint.load_phase2}
        content = (training / f"{name}.json").read_bytes()
        return f"{name}.json", content, lambda path: readers[name](path, graph_model)

    return make


def _arrays(name: str) -> Callable[[Path, Path], tuple[str, bytes, Reader]]:
    """The arrays of a checkpoint, whose digest is made right again."""

    def make(folder: Path, templates: Path) -> tuple[str, bytes, Reader]:
        file, meta, read = _meta(name)(folder, templates)
        content = (folder / f"{name}.safetensors").read_bytes()

        def read_signed(path: Path) -> None:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            (folder / file).write_text(json.dumps(json.loads(meta) | {"sha256": digest}))
            read(path)

        return f"{name}.safetensors", content, read_signed

    return make


def _petab(name: str) -> Callable[[Path, Path], tuple[str, bytes, Reader]]:
    """One of the files of a PEtab problem."""

    def make(folder: Path, _: Path) -> tuple[str, bytes, Reader]:
        from metabolismgraph.formats.petab import read_petab

        for file, content in PROBLEM.items():
            (folder / file).write_text(content)
        return name, PROBLEM[name].encode(), lambda path: read_petab(path.parent / "problem.yaml")

    return make


READERS = {
    "sbml": _sbml,
    "csv": _csv,
    "yaml": _yaml,
    "journal": _journal,
    "manifest": _manifest,
    "phase1": _meta("phase1"),
    "phase2": _meta("phase2"),
    "phase1-arrays": _arrays("phase1"),
    "phase2-arrays": _arrays("phase2"),
    **{f"petab-{name.partition('.')[0]}": _petab(name) for name in PROBLEM if name != "model.xml"},
}


def _judge(read: Reader, path: Path) -> tuple[str, str]:
    """What became of a file, in words, and the message."""
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
        kind, message = "accepted", ""
    except (InputError, FirewallError) as error:
        kind, message = "several lines" if "\n" in str(error) else "refused", str(error)
    except Exception as error:
        kind, message = f"fault {type(error).__name__}", str(error)
    return ("slow", message) if time.process_time() - started > LONGEST else (kind, message)


def fuzz(name: str, minutes: float, templates: Path, last: Path) -> Counter[str]:
    """Read changed files for so long; returns how many were accepted, refused, and faults by kind."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file, content, read = READERS[name](folder, templates)
        path = folder / file
        path.write_bytes(content)
        read(path)  # as it is, it is right

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(changed(content))
        def check(given_content: bytes) -> None:
            path.write_bytes(given_content)
            last.write_bytes(given_content)
            kind, message = _judge(read, path)
            counts[kind] += 1
            if kind not in FINE and counts[kind] == 1:
                kept = last.with_name(f"{last.name}_{name}_{kind.replace(' ', '_')}")
                kept.write_bytes(given_content)
                print(f"{name}: {kind}: {message[:200]!r}; the file is {kept}", flush=True)

        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            check()
    return counts


def main() -> int:
    """Exit code: 0 without faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=list(READERS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--last", type=Path, default=Path("fuzz_last"))
    given_options = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory() as made:
        templates = make_templates(given_options.templates or Path(made))
        for name in given_options.readers:
            counts = fuzz(name, given_options.minutes, templates, given_options.last)
            print(name, sum(counts.values()), dict(counts), flush=True)
            wrong |= not counts.keys() <= FINE
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
