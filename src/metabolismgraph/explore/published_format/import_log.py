"""Import of analysis logs in the published format, from other programs or by hand, into a journal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Event, Imported, Opened
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.published_format.analysis import BEFORE, LABELS, NEXT, STATUS, TEXT, number_as_read
from metabolismgraph.explore.published_format.lines import parent_of
from metabolismgraph.explore.views import write_views
from metabolismgraph.files import read_bytes
from metabolismgraph.text import one_line

_STATUS = re.compile(r"(?<!not )\b(converged|partial|failed)(?=\b|ly\b)")
# "## Iter 5: partial (NEW BEST!)", "### **Iter 5**: Partial"; not "### Iter 5-8 summary" or "## Iterations so far".
_HEADING = re.compile(r"\s{0,3}#{2,}[\s*_]*Iter(?:ation)?\b[\s*_.#]*(?P<rest>.*)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<number>[0-9]{1,9})[\s*_]*(?:$|:|[-–—](?=\s)|(?=\())[\s*_]*(?P<status>.*)")
_SEVERAL = re.compile(r"[0-9]+\s*(?:[-–—,/&+]|to\b|and\b)")
_UNNUMBERED = re.compile(r"\S*\s*:|$|converged\b|partial\b|failed\b", re.IGNORECASE)
# Ends of the lines of an entry: another heading, a rule, a note of a block boundary.
_END = re.compile(r"\s{0,3}(?:#{1,6}\s|(?:-\s*){3,}$|(?:\*\s*){3,}$|(?:_\s*){3,}$|>>>)")
_FIELD = re.compile(r"\s*(?:[-*+•]\s+)?[*_]{0,3}(?P<label>[A-Za-z][\w /.()-]{0,40}?)[*_]{0,3}\s*:[*_]{0,3}(?P<text>.*)")
_KNOWN = {label.casefold(): label for label in (*LABELS, NEXT, "Parent rule")}
_PARENT = r"\bparent\s*=\s*(?P<parent>[0-9]{1,9}|root|none|null)\b"
_ID = re.compile(r"\bid\s*=\s*(?P<id>[0-9]{1,9})\b", re.IGNORECASE)
_PARENT_IN_LINE = re.compile(_PARENT, re.IGNORECASE)
_NAME = r"[A-Za-z_][\w.]*"
_METRIC = re.compile(rf"(?P<name>{_NAME})\s*=\s*(?P<value>.*?)(?=(?:[,;]|\s)\s*{_NAME}\s*=|$)")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^][]*\]|\{[^{}]*\}")
_NUMBER = re.compile(r"(?P<number>[-+−]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+−]?[0-9]+)?)(?=$|[\s(±*])")
_SUFFIXES = re.compile(r"(_analysis)?(\.(md|txt|log))?(\.gz)?$")
_BLOCK = re.compile(r"\s{0,3}#{1,6}\s*Block\s+(?P<number>[0-9]{1,6})\b", re.IGNORECASE)
_RATIO = "avg_slope_ratio"
_REWARDS = (_RATIO, "rate_constants_R2")
_USUAL_BLOCK = 8
_WHOLE = 15  # digits of an integer that a float holds exactly


@dataclasses.dataclass
class _Entry:
    """An entry as written: heading and status, labelled lines, and the text around them."""

    iteration: int
    status: str
    fields: dict[str, list[str]]
    text: list[str]
    open: bool = True


def read_log(path: Path) -> tuple[Imported, ...]:
    """The entries of an analysis log, in the order of the file.

    Headings have two or more #, in upper or lower case, and may have text after the status; labels may be bold or
    follow a bullet; lines may be missing. Lines in another notation, and lines without a known label, are kept in
    `fields`: by label, or as text before, after and in between. An iteration that is logged twice is
    returned twice; a look-up by number gives the later one.

    Raises:
        InputError: the file is not text, has no entry, or an entry has no number.
    """
    before, entries = _entries(path)
    if not entries:
        raise InputError(f"{path}: has no entry; a log has headings such as `## Iter 1: converged`")
    found = [_imported(entry) for entry in entries]
    if text := _joined(before):
        found[0] = found[0].model_copy(update={"fields": {BEFORE: text} | found[0].fields})
    return tuple(found)


def import_log(
    path: Path, out: Path, *, metric: str | None = None, block: int | None = None, ucb: str = "legacy"
) -> int:
    """Make an exploration's folder from an analysis log: journal and views. Returns the number of entries.

    Args:
        metric: its reward; None: avg_slope_ratio, or rate_constants_R2 if the log has that only.
        block: iterations in a block; None: as the headings of blocks in the log say, 8 without headings.
        ucb: as exploration.ucb.

    Raises:
        InputError: the log cannot be read or has no such metric, or `out` is not empty or cannot be written.
    """
    found = read_log(path)
    metric = _metric_of(found, metric, path)
    size = block or _block_size(path)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: exists and is not empty; name a new folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); name another folder") from None
    opened = Opened(
        name=_SUFFIXES.sub("", path.name) or "imported",
        config=Config().replace({"exploration.n_iter_block": size, "exploration.ucb": ucb}).model_dump(mode="json"),
        metric=None if metric == _RATIO else metric,
        primary="avg_slope_ratio",
        oracle=True,
        proposer="imported",
        version=metadata.version("metabolismgraph"),
        data=f"read from {one_line(path.name)}",
    )
    journal = Journal(out / JOURNAL)
    events: list[Event] = [opened, *found]
    try:
        events = [journal.append(event) for event in events]
    except InputError:
        # An incomplete log could be mistaken for a complete one.
        journal.path.unlink(missing_ok=True)
        raise
    write_views(out, events)
    return len(found)


def _metric_of(found: tuple[Imported, ...], wanted: str | None, path: Path) -> str:
    """The metric that is the reward of a log.

    Raises:
        InputError: no entry has the metric.
    """
    counts = Counter(name for event in found for name in event.metrics)
    if wanted is None:
        return next((name for name in _REWARDS if counts[name]), _RATIO)
    if not counts[wanted]:
        known = ", ".join(name for name, _ in counts.most_common(8)) or "no metric"
        raise InputError(f"{path}: no entry has the metric {wanted}; name one of the log (it has {known})")
    return wanted


def _block_size(path: Path) -> int:
    """The iterations in a block, by the headings of blocks between the entries of a log."""
    sizes: Counter[int] = Counter()
    last = 0
    for line in _lines(path):
        heading, block = _HEADING.match(line), _BLOCK.match(line)
        numbered = _NUMBERED.match(heading["rest"]) if heading else None
        if numbered:
            last = int(numbered["number"])
        elif block and int(block["number"]) > 1 and last % (int(block["number"]) - 1) == 0:
            sizes[last // (int(block["number"]) - 1)] += 1
    return next((size for size, _ in sizes.most_common(1) if size > 0), _USUAL_BLOCK)


def _entries(path: Path) -> tuple[list[str], list[_Entry]]:
    """The text before the first entry, and the entries."""
    before: list[str] = []
    entries: list[_Entry] = []
    for number, line in enumerate(_lines(path), start=1):
        heading = _HEADING.match(line)
        entry = _entry(heading["rest"], f"{path}, line {number}") if heading else None
        if entry is not None:
            entries.append(entry)
        elif not entries:
            before.append(line)
        else:
            _put(line, entries[-1])
    return before, entries


def _lines(path: Path) -> list[str]:
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {number}: not text in UTF-8; save the log as such") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _entry(rest: str, where: str) -> _Entry | None:
    """The entry of a heading; None if the heading names several iterations, or none.

    Raises:
        InputError: the heading of an entry has no number.
    """
    numbered = _NUMBERED.match(rest)
    if numbered is None:
        if _SEVERAL.match(rest) or not _UNNUMBERED.match(rest):
            return None
        raise InputError(f"{where}: an entry without a number ({one_line(rest, 60)}); write `## Iter N: status`")
    return _Entry(int(numbered["number"]), numbered["status"].strip(), {}, [])


def _put(line: str, entry: _Entry) -> None:
    if _END.match(line):
        entry.open = False
    field = _FIELD.fullmatch(line) if entry.open else None
    if field is not None:
        label = _KNOWN.get(field["label"].strip().casefold(), field["label"].strip())
        entry.fields.setdefault(label, []).append(field["text"].strip())
    else:
        entry.text.append(line.removeprefix("> ").rstrip())


def _imported(entry: _Entry) -> Imported:
    fields = {label: "\n".join(texts) for label, texts in entry.fields.items()}
    known = _STATUS.search(entry.status.casefold())
    status = known[1] if known else "".join(re.findall(r"[a-z]+", entry.status.casefold())[:1])
    if status != entry.status:
        fields = {STATUS: entry.status} | fields
    node, parent = _node(fields.get("Node", ""), entry.iteration)
    _drop_as_written(fields, "Node", f"id={node}, parent={parent_of(parent)}")
    metrics = dict(_metrics(fields.get("Metrics", "")))
    _drop_as_written(fields, "Metrics", ", ".join(f"{n}={number_as_read(v)}" for n, v in metrics.items()))
    following = _parent(fields[NEXT]) or 0 if NEXT in fields else None
    _drop_as_written(fields, NEXT, f"parent={following or 'root'}")
    if text := _joined(entry.text):
        fields[TEXT] = text
    return Imported(
        iteration=entry.iteration,
        status=status,
        node=node,
        parent=parent,
        next_parent=following,
        metrics=metrics,
        fields=fields,
    )


def _drop_as_written(fields: dict[str, str], label: str, text: str) -> None:
    """Remove a line that can be rebuilt from the values read from it."""
    if fields.get(label) == text:
        del fields[label]


def _node(text: str, iteration: int) -> tuple[int, int | None]:
    found = _ID.search(text)
    return (int(found["id"]) if found else iteration), _parent(text)


def _parent(text: str) -> int | None:
    found = _PARENT_IN_LINE.search(text)
    return int(found["parent"]) or None if found and found["parent"].isdigit() else None


def _metrics(text: str) -> Iterator[tuple[str, float | int | str | None]]:
    text = text.replace("\n", ", ")
    # Text in brackets is a remark or a list, without names of metrics.
    masked = _BRACKETS.sub(lambda found: "_" * len(found[0]), text)
    for found in _METRIC.finditer(masked):
        name, value = (text[slice(*found.span(part))] for part in ("name", "value"))
        yield name, _value(value.strip(" \t*`"))


def _value(text: str) -> float | int | str | None:
    """A number, with or without a remark after it; None for NaN; otherwise the text."""
    text = text.rstrip(",;.") or text
    if text.casefold() == "nan":
        return None
    found = _NUMBER.match(text)
    if found is None:
        return text
    number = found["number"].replace("−", "-")
    if re.fullmatch(rf"[-+]?[0-9]{{1,{_WHOLE}}}", number):
        return int(number)
    value = float(number)
    return value if math.isfinite(value) else text


def _joined(lines: list[str]) -> str:
    """Text without surrounding blank lines, and without the quote marks of the log."""
    return "\n".join("" if line == ">" else line for line in lines).strip("\n")
