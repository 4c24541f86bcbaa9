"""Run folders, checkpoints and explorations with digests that are right, and content that is not."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from malformed.case import Case
from malformed.mutations import mutated

_WORDS: tuple[Any, ...] = (None, 3, "word", [], {}, [1], {"a": 1}, 1e300, -1.5, True, "\x1b[31m", "x" * 100_000, [[]])


def _copy(what: str) -> Callable[[Path, Path], None]:
    def prepare(folder: Path, templates: Path) -> None:
        shutil.copytree(templates / what, folder / what)

    return prepare


def _changed_json(name: str, change: Callable[[Any], Any], what: str = "run") -> Callable[[Path, Path], None]:
    """A copy with another content of a JSON file."""

    def prepare(folder: Path, templates: Path) -> None:
        _copy(what)(folder, templates)
        path = folder / what / name
        value = json.loads(path.read_text())
        path.write_text(json.dumps(change(value)))

    return prepare


def _changed_bytes(name: str, change: Callable[[bytes], bytes], what: str = "run") -> Callable[[Path, Path], None]:
    def prepare(folder: Path, templates: Path) -> None:
        _copy(what)(folder, templates)
        path = folder / what / name
        path.write_bytes(change(path.read_bytes()))

    return prepare


def _set(*keys: str, to: Any) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        return value

    return change


def _without(*keys: str) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return value

    return change


_EVALUATE = ("evaluate", "run", "--quiet")


def run_folders() -> Iterator[Case]:
    """Manifests, truth and other files of a finished run."""
    yield Case("nothing changed", _EVALUATE, prepare=_copy("run"), right=True)
    for i, word in enumerate(_WORDS):
        yield Case(f"manifest is {i}", _EVALUATE, prepare=_changed_json("manifest.json", lambda _, word=word: word))
        for key in ("config", "stages", "observations", "source", "base", "leak"):
            # Other observations, and an attempt to leave the folder, are failures.
            prepare = _changed_json("manifest.json", _set(key, to=word))
            yield Case(f"manifest {key} is {i}", _EVALUATE, prepare=prepare, fails=key in {"observations", "leak"})
        yield Case(
            f"a stage is {i}", _EVALUATE, prepare=_changed_json("manifest.json", _set("stages", "phase 2", to=word))
        )
        yield Case(
            f"seconds of a stage are {i}",
            _EVALUATE,
            prepare=_changed_json("manifest.json", _set("stages", "phase 2", "seconds", to=word)),
        )
        yield Case(
            f"a section of the manifest is {i}",
            _EVALUATE,
            prepare=_changed_json("manifest.json", _set("config", "training", to=word)),
        )
    for key in ("config", "stages", "observations"):
        prepare = _changed_json("manifest.json", _without(key))
        yield Case(f"manifest without {key}", _EVALUATE, prepare=prepare, fails=key == "observations")
    deep = b'{"config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for name, content in {"deep": deep, "binary": bytes(range(256)), "empty": b"", "number": b"9" * 100_000}.items():
        yield Case(f"manifest {name}", _EVALUATE, prepare=_changed_bytes("manifest.json", lambda _, c=content: c))
        yield Case(
            f"checkpoint json {name}", _EVALUATE, prepare=_changed_bytes("training/phase2.json", lambda _, c=content: c)
        )
        yield Case(
            f"reactions.csv {name}",
            _EVALUATE,
            prepare=_changed_bytes("data/truth/reactions.csv", lambda _, c=content: c),
        )
    for file, cells in {"reactions.csv": ("k",), "metabolites.csv": ("lambda", "c_baseline", "type")}.items():
        for column in cells:
            for value in ("nan", "inf", "-1", "1e300", "word", "", "1e999", "99999999999999999999"):
                yield Case(
                    f"truth {column} {value[:8]}",
                    _EVALUATE,
                    prepare=_changed_bytes(f"data/truth/{file}", _cell(column, value)),
                )
        yield Case(
            f"{file} of one line", _EVALUATE, prepare=_changed_bytes(f"data/truth/{file}", lambda c: c.split(b"\n")[0])
        )
        yield Case(
            f"{file} twice", _EVALUATE, prepare=_changed_bytes(f"data/truth/{file}", lambda c: c + c.split(b"\n", 1)[1])
        )
    law = b"order,concentration,f\n1,1,nan\n1,2,inf\n"
    for name, content in {
        "nan": law,
        "one": law[:20],
        "orders": b"order,concentration,f\n7,1,1\n7,2,2\n",
        "negative": b"order,concentration,f\n1,-1,1\n1,-2,-2\n",
        "falling": b"order,concentration,f\n1,2,1\n1,1,2\n",
    }.items():

        def prepare(folder: Path, templates: Path, content: bytes = content) -> None:
            _copy("run")(folder, templates)
            (folder / "run/data/truth/rate_law.csv").write_bytes(content)

        yield Case(f"rate_law.csv {name}", _EVALUATE, prepare=prepare)
    for seed in range(15):
        yield Case(
            f"manifest mutation {seed}",
            _EVALUATE,
            fails=True,
            prepare=_changed_bytes("manifest.json", lambda c, s=seed: mutated(c, s)),
        )
        yield Case(
            f"metabolites.csv mutation {seed}",
            _EVALUATE,
            prepare=_changed_bytes("data/truth/metabolites.csv", lambda c, s=seed: mutated(c, s)),
        )


_REPORT = ("report", "run")


def pages() -> Iterator[Case]:
    """Files of a finished run that its page shows."""
    yield Case("nothing changed", _REPORT, prepare=_copy("run"), right=True)
    manifest = (
        "stages",
        "source",
        "versions",
        "host",
        "started",
        "git_commit",
        "sandbox",
        "observations",
        "notes",
        "leak",
    )
    for i, word in enumerate(_WORDS):
        for key in manifest:
            yield Case(f"manifest {key} is {i}", _REPORT, prepare=_changed_json("manifest.json", _set(key, to=word)))
        for key in ("notes", "why_not", "trustworthy", "n_unidentifiable", "derivative_rule", "rate_constants_R2"):
            yield Case(f"metric {key} is {i}", _REPORT, prepare=_changed_json("metrics.json", _set(key, to=word)))
        yield Case(f"metrics are {i}", _REPORT, prepare=_changed_json("metrics.json", lambda _, word=word: word))
    tables = {
        "rate_constants.csv": (
            *("reaction", "equation", "k", "log10_k", "standard_error", "identifiable", "combination", "reason"),
        ),
        "homeostasis.csv": ("species", "slope", "slope_error", "baseline", "resolved", "type"),
    }
    for file, columns in tables.items():
        for name, content in {"empty": b"", "binary": bytes(range(256)), "long": b"9" * 100_000}.items():
            yield Case(f"{file} {name}", _REPORT, prepare=_changed_bytes(file, lambda _, c=content: c))
        yield Case(f"{file} of one line", _REPORT, prepare=_changed_bytes(file, lambda c: c.split(b"\n")[0]))
        for column in columns:
            for value in ("nan", "inf", "-1", "1e300", "word", "", "<b>", "99999999999999999999"):
                prepare = _changed_bytes(file, _cell(column, value))
                yield Case(f"{file} {column} {value[:8]}", _REPORT, prepare=prepare)
    for name in ("metrics.json", "rate_constants.csv", "training/phase1.json", "training/observations.safetensors"):
        deep = b"[" * 100_000
        yield Case(f"{name} is deep", _REPORT, prepare=_changed_bytes(name, lambda _, deep=deep: deep))
    for name, change in {
        "empty": lambda _: b"",
        "text": lambda _: b"not netCDF",
        "half": lambda content: content[: len(content) // 2],
        "zeros": lambda content: content[:2000] + bytes(2000) + content[4000:],
    }.items():
        yield Case(f"evaluation.nc {name}", _REPORT, prepare=_changed_bytes("evaluation.nc", change))
    yield Case("a picture is not one", _REPORT, prepare=_changed_bytes("figures/summary.png", lambda _: b"<script>"))


def _cell(column: str, value: str) -> Callable[[bytes], bytes]:
    """Another value in the first row of a CSV file."""

    def change(content: bytes) -> bytes:
        header, first, *rest = content.decode().split("\n")
        cells = first.split(",")
        cells[header.split(",").index(column)] = value
        return "\n".join([header, ",".join(cells), *rest]).encode()

    return change


# -- checkpoints


def _signed(
    name: str, arrays: Callable[[dict[str, np.ndarray]], Any] = lambda a: a, meta: Callable[[Any], Any] = lambda m: m
) -> Callable[[Path, Path], None]:
    """A copy of the run with another content of a checkpoint, and its right digest; also in the manifest."""

    def prepare(folder: Path, templates: Path) -> None:
        _copy("run")(folder, templates)
        base = folder / "run" / "training" / name
        content = arrays(safetensors.numpy.load(base.with_suffix(".safetensors").read_bytes()))
        content = content if isinstance(content, bytes) else safetensors.numpy.save(content)
        base.with_suffix(".safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        value = meta(json.loads(base.with_suffix(".json").read_text()))
        if isinstance(value, dict):
            value["sha256"] = digest
        base.with_suffix(".json").write_text(json.dumps(value))
        if name == "observations":
            path = folder / "run" / "manifest.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"observations": digest}))

    return prepare


def _each(change: Callable[[str, np.ndarray], np.ndarray | None]) -> Callable[[dict[str, np.ndarray]], Any]:
    def apply(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        changed = {name: change(name, array) for name, array in arrays.items()}
        return {name: np.ascontiguousarray(array) for name, array in changed.items() if array is not None}

    return apply


def _one(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[dict[str, np.ndarray]], Any]:
    return _each(lambda other, array: change(array) if other == name else array)


def _filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.full_like(array, value) if array.dtype.kind == "f" else array


_ARRAYS = {
    "phase1": (
        *("log_k", "log_k_error", "upper", "mass_action", "slope", "offset", "slope_error", "offset_error"),
        *("slope_offset_covariance", "noise", "keep", "losses", "identifiability.identifiable"),
        *("identifiability.null_space", "identifiability.eigenvalues", "mlp_sub.reference"),
        "mlp_sub.perceptron.weights.0",
    ),
    "phase2": (
        *("losses", "model.embeddings", "model.log_k", "model.mlp_node.perceptron.weights.0"),
        *("model.mlp_node.perceptron.biases.0", "model.mlp_sub.perceptron.weights.0"),
    ),
    "observations": ("time", "run", "concentration"),
}
_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "NaN": _filled(np.nan),
    "inf": _filled(np.inf),
    "1e300": _filled(1e300),
    "-1e300": _filled(-1e300),
    "missing": lambda _: None,
    "shorter": lambda a: a[:-1] if a.ndim else a,
    "of one more dimension": lambda a: a[None],
    "empty": lambda a: a.reshape(-1)[:0],
    "of whole numbers": lambda a: np.ones(a.shape, dtype=np.int64),
    "of bytes": lambda a: np.ones(a.shape, dtype=np.uint8),
    "negative": lambda a: -np.ones(a.shape),
    "half precision": lambda a: a.astype(np.float16),
    "one NaN": lambda a: _with_first(a, np.nan),
    "one 1e300": lambda a: _with_first(a, 1e300),
}


def _with_first(array: np.ndarray, value: float) -> np.ndarray:
    if array.dtype.kind != "f" or not array.size:
        return array
    changed = array.copy()
    changed.reshape(-1)[0] = value
    return changed


def checkpoints() -> Iterator[Case]:
    """Checkpoints and observations of a finished run, which evaluate reads."""
    for checkpoint in _ARRAYS:
        yield Case(f"{checkpoint} is only signed again", _EVALUATE, prepare=_signed(checkpoint), right=True)
    for checkpoint, names in _ARRAYS.items():
        for array in names:
            for what, change in _CHANGES.items():
                # What Phase 2 must not change is compared with Phase 1, and a difference is a failure.
                frozen = array.removeprefix("model.").startswith(("log_k", "mlp_sub"))
                prepare = _signed(checkpoint, _one(array, change))
                yield Case(f"{checkpoint} {array} {what}", _EVALUATE, prepare=prepare, fails=frozen)
        yield Case(f"{checkpoint} without arrays", _EVALUATE, prepare=_signed(checkpoint, lambda _: {}))
        yield Case(f"{checkpoint} of garbage", _EVALUATE, prepare=_signed(checkpoint, lambda _: b"\xff" * 1000))
        yield Case(
            f"{checkpoint} with a huge header",
            _EVALUATE,
            prepare=_signed(checkpoint, lambda _: (1 << 62).to_bytes(8, "little") + b"{}"),
        )
        yield Case(
            f"{checkpoint} with a further array",
            _EVALUATE,
            prepare=_signed(checkpoint, lambda a: a | {"snapshot.x.y": np.ones(3)}),
        )
        yield Case(
            f"{checkpoint} with a huge step",
            _EVALUATE,
            prepare=_signed(checkpoint, lambda a: a | {f"snapshot.{'9' * 5000}.y": np.ones(3)}),
        )
        for i, word in enumerate(_WORDS):
            yield Case(f"{checkpoint} json is {i}", _EVALUATE, prepare=_signed(checkpoint, meta=lambda _, w=word: w))
    keys = {
        "phase1": (
            *("seconds", "converged", "rule", "law_fails", "reasons", "notes", "alpha", "groups", "combinations"),
            *("trajectories", "windows"),
        ),
        "phase2": ("seconds", "node_magnitude", "loss_unit", "notes"),
        "observations": ("network", "notes"),
    }
    for checkpoint, names in keys.items():
        for key in names:
            yield Case(
                f"{checkpoint} without {key}",
                _EVALUATE,
                prepare=_signed(checkpoint, meta=_without(key)) if key in _present(checkpoint) else _copy("run"),
            )
            for i, word in enumerate(_WORDS):
                yield Case(
                    f"{checkpoint} {key} is {i}", _EVALUATE, prepare=_signed(checkpoint, meta=_set(key, to=word))
                )
    networks = {
        "empty": "{}",
        "deep": "[" * 100_000,
        "no reactions": '{"id": "a", "species": ["A"], "fixed": [], "reactions": []}',
        "other species": '{"id": "a", "species": ["A"], "fixed": [], "reactions": [{"id": "R", "substrates": {"A": 1}, "net": {"A": -1}}]}',
        "wrong kinds": '{"id": 3, "species": 3, "fixed": 3, "reactions": 3}',
        "reactions of numbers": '{"id": "a", "species": ["A"], "fixed": [], "reactions": [3]}',
        "unknown keys": '{"id": "a", "species": ["A"], "fixed": [], "reactions": [{"idd": 3}]}',
    }
    for name, text in networks.items():
        yield Case(f"network {name}", _EVALUATE, prepare=_signed("observations", meta=_set("network", to=text)))
    for what, change in (("NaN", np.nan), ("1e300", 1e300), ("inf", np.inf)):
        start = (
            "fit",
            "run/data/network.xml",
            "run/data/timeseries.csv.gz",
            "--out",
            "out",
            "--checkpoint",
            "run",
            "--quiet",
        )
        for array in ("log_k", "slope", "mlp_sub.perceptron.weights.0"):
            yield Case(f"start from {array} {what}", start, prepare=_signed("phase1", _one(array, _filled(change))))
        yield Case(
            f"resume with all arrays {what}",
            ("evaluate", "run", "--quiet"),
            prepare=_signed("phase2", _each(lambda _, a, v=change: _filled(v)(a))),
        )


def _present(checkpoint: str) -> tuple[str, ...]:
    always = (
        "seconds",
        "converged",
        "rule",
        "law_fails",
        "reasons",
        "notes",
        "alpha",
        "groups",
        "combinations",
        "trajectories",
    )
    return {
        "phase1": always,
        "phase2": ("seconds", "node_magnitude", "loss_unit", "notes"),
        "observations": ("network", "notes"),
    }[checkpoint]


# -- explorations


def explorations() -> Iterator[Case]:
    """Journals and folders of explorations."""
    for words in (("status", "exploration"), ("show", "exploration", "1"), ("compare", "exploration", "1", "2")):
        yield Case(f"nothing changed {words[0]}", ("explore", *words), prepare=_copy("exploration"), right=True)
    commands = (
        ("explore", "status", "exploration"),
        ("explore", "show", "exploration", "1"),
        ("explore", "compare", "exploration", "1", "2"),
        ("explore", "resume", "exploration", "--iterations", "6", "--quiet"),
        ("explore", "pause", "exploration"),
    )
    lines = {
        "empty": b"",
        "one empty line": b"\n",
        "garbage": bytes(range(256)) * 10 + b"\n",
        "numbers": b"1\n2\n3\n",
        "lists": b"[]\n[]\n",
        "null": b"null\n",
        "unknown event": b'{"event": "magic"}\n',
        "no event": b"{}\n",
        "deep": b"[" * 100_000 + b"\n",
        "long": b'"' + b"x" * 5_000_000 + b'"\n',
        "nan": b"NaN\n",
        "huge number": b"9" * 100_000 + b"\n",
    }
    for name, content in lines.items():
        for command in commands[:2]:
            yield Case(
                f"journal {name} {command[1]}",
                command,
                prepare=_changed_bytes("journal.jsonl", lambda _, c=content: c, "exploration"),
            )
            yield Case(
                f"journal ends with {name} {command[1]}",
                command,
                prepare=_changed_bytes("journal.jsonl", lambda old, c=content: old + c, "exploration"),
            )
    for number, command in enumerate(commands):
        for seed in range(12 if command[1] != "resume" else 0):  # which would run what is missing
            yield Case(
                f"journal mutation {seed} {command[1]}",
                command,
                prepare=_changed_bytes("journal.jsonl", lambda c, s=seed + 100 * number: mutated(c, s), "exploration"),
            )
            yield Case(
                f"journal with another order {seed} {command[1]}",
                command,
                prepare=_changed_bytes(
                    "journal.jsonl", lambda c, s=seed + 100 * number: _shuffled(c, s), "exploration"
                ),
            )
    for i, word in enumerate(_WORDS):
        for key in ("iteration", "node", "changes", "config", "primary", "metrics", "seed", "time"):
            yield Case(
                f"every {key} is {i}",
                commands[i % 2],
                prepare=_changed_bytes("journal.jsonl", lambda c, k=key, w=word: _every(c, k, w), "exploration"),
            )
    for name, content in lines.items():

        def prepare(folder: Path, templates: Path, content: bytes = content) -> None:
            _copy("exploration")(folder, templates)
            for place in ("inbox/1.json", "runs/0001/job.json", "runs/0001/outcome.json", "strategies/x.py"):
                path = folder / "exploration" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        for command in commands[:2]:
            yield Case(f"files of {name} {command[1]}", command, prepare=prepare)
        yield Case(
            f"suggestion {name}",
            ("explore", "suggest", "exploration", "s.yaml"),
            {"s.yaml": content},
            prepare=_copy("exploration"),
        )
        yield Case(f"imported {name}", ("explore", "import", "log.md", "out"), {"log.md": content})
        yield Case(f"journal is {name} alone", ("explore", "status", "."), {"journal.jsonl": content})

    def folder_for_journal(folder: Path, templates: Path) -> None:
        (folder / "exploration" / "journal.jsonl").mkdir(parents=True)

    yield Case("journal is a folder", ("explore", "status", "exploration"), prepare=folder_for_journal)


def _shuffled(content: bytes, seed: int) -> bytes:
    """Lines left out, repeated or in another order."""
    rng = random.Random(seed)
    lines = content.splitlines(keepends=True)
    kind = seed % 3
    if kind == 0:
        del lines[rng.randrange(len(lines))]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[rng.randrange(len(lines))])
    else:
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _every(content: bytes, key: str, word: Any) -> bytes:
    """Another value of a key in every line that has it."""
    lines = [json.loads(line) for line in content.splitlines()]
    return b"".join(json.dumps(line | {key: word} if key in line else line).encode() + b"\n" for line in lines)
