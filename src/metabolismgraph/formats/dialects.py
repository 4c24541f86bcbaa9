"""From text to cells: detection of header, separator and decimal sign.

The default formats of simulators, spreadsheets and statistics programs are supported, with a note on each assumption.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import itertools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.files import read_bytes
from metabolismgraph.formats.contents import read_text
from metabolismgraph.formats.headers import clean, role_of
from metabolismgraph.formats.units import bare_unit
from metabolismgraph.memory import check_memory
from metabolismgraph.text import one_line

_PARQUET = b"PAR1"
_SPACES = r"\s+"
_COMMENT = ("#", "%")
_MISSING = (
    *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
_WITH_COMMA = re.compile(r"[-+]?[\d.]*(,\d*)+([eEdD][-+]?\d+)?")
_DECIMAL = re.compile(r"[-+]?\d*,\d+([eEdD][-+]?\d+)?")
_COPIES = 8  # largest memory while a table is read, in sizes of its file
_MOST_COLUMNS = 100_000
LIMIT_SIGNS = "<>≤≥"  # before the limit that a value is below, or above
_SIGN = rf"(?:[{LIMIT_SIGNS}]=?\s*)?"
_DECIMAL_CELL = re.compile(rf"^\s*({_SIGN}[-+]?\d*),(\d+(?:[eEdD][-+]?\d+)?)\s*$")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


@dataclasses.dataclass(frozen=True)
class Cells:
    """A table before the interpretation of its columns.

    Attributes:
        table: columns by name; those without a name are called `Unnamed: 0` and so on.
        units: units by column, from a row of units below the header.
        notes: plain sentences on assumptions.
    """

    table: pd.DataFrame
    units: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_cells(path: Path) -> Cells:
    """Read a file as a table.

    Raises:
        InputError: the file is missing, empty, damaged, not a table, or ambiguous.
    """
    content = read_bytes(path)
    if content.startswith(_PARQUET) or ".parquet" in path.suffixes:
        return Cells(_parquet(path, content))
    check_memory(_COPIES * len(content), f"{path}: a table of {len(content) >> 20} MB", "split it, or leave out frames")
    text, notes = read_text(path, content)
    lines = text.split("\n")
    del content, text  # of a large table, every copy counts
    header = _header(path, lines)
    notes += header.notes
    for i, line in enumerate(lines):
        # Comments become blank lines instead of being removed: pandas skips these, and its line numbers stay correct.
        if i <= header.line or _is_comment(line) or not line.strip(" \t,;"):
            lines[i] = ""
    rows = [i for i, line in enumerate(lines) if line][:2]
    units = _units_row(lines, rows, header)
    if units:
        notes.append("The row below the header was read as units.")
        lines[rows.pop(0)] = ""
    names = _all_names(header, lines[rows[0]] if rows else "")
    if len(names) > _MOST_COLUMNS:
        raise InputError(f"{path}: the table has {len(names)} columns; more than {_MOST_COLUMNS} are not read")
    _refuse_short_lines(path, lines, header.separator, len(names))
    body = "\n".join(lines).rstrip(" \t\n,;")
    del lines
    decimal = _decimal(path, body, header.separator)
    if decimal == ",":
        notes.append("Commas in numbers were read as decimal commas.")
    return Cells(_parsed(path, body, names, header.separator, decimal), units, notes)


def _refuse_short_lines(path: Path, lines: list[str], separator: str, width: int) -> None:
    """Refuse lines whose missing cells could be any, or were lost with the end of the file.

    Elsewhere, a short line lacks its last cells, as some programs write them.
    """
    for i, line in enumerate(lines):
        last = i == len(lines) - 1  # that has no line end
        if not line or not (last or separator == _SPACES):
            continue
        cells = len(_split(line, separator))
        if cells < width and last:
            raise InputError(
                f"{path}: the last line has {cells} of {width} cells and no line end: the file seems to be cut off"
            )
        if cells < width:
            raise InputError(
                f"{path}: line {i + 1} has {cells} of {width} cells; where spaces separate cells, write NA for a "
                "missing one"
            )


def _parquet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file ({one_line(error)})") from None
    return table.reset_index() if any(name is not None for name in table.index.names) else table


# -- the header


@dataclasses.dataclass(frozen=True)
class _Header:
    line: int
    names: list[str]
    separator: str
    notes: list[str]


def _header(path: Path, lines: list[str]) -> _Header:
    """The header: the first line that is not a comment or, if it has no time column, a comment above it that has."""
    declared = _declared_separator(lines)
    plain = list(itertools.islice((i for i, line in enumerate(lines) if line.strip() and not _is_comment(line)), 2))
    above = [i for i, line in enumerate(lines[: plain[0]] if plain else lines) if _is_comment(line)]
    if not plain and not above:
        raise InputError(f"{path}: the file is empty")
    found = _names(lines, plain[0], plain[1:], declared) if plain else None
    if found and _names_time(found.names):
        return found
    for i in reversed(above):
        commented = _names(lines, i, plain, declared)
        if len(commented.names) > 1 and _names_time(commented.names):
            return dataclasses.replace(commented, notes=["The names of the columns were read from a comment line."])
    if found is None:
        raise InputError(f"{path}: the file has comment lines only")
    if not any(found.names):
        raise InputError(f"{path}: the first line names no columns; write a header (time and species)")
    if all(_is_number(cell) for cell in found.names if cell) and found.names[0]:
        raise InputError(f"{path}: the table has no header; name the columns in its first line (time and species)")
    return found


def _names(lines: list[str], header: int, below: Sequence[int], declared: str | None) -> _Header:
    head = lines[header].strip() if _is_comment(lines[header]) else lines[header]
    head = head.lstrip("#%") if _is_comment(head) else head
    first = lines[below[0]] if below else None
    separator = declared or _separator(head, first)
    names = [clean(name) for name in _split(head, separator)]
    if first is not None:
        width = len(_split(first, separator))
        if separator == _SPACES and len(names) != width:
            names = _with_units_joined(names, width)
        if _is_comment(lines[header]) and len(names) == width + 1 and not names[0]:
            names = names[1:]  # the comment sign is in a separate cell
    return _Header(header, names, separator, [])


def _names_time(names: list[str]) -> bool:
    return any(role_of(name) == "time" for name in names)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(_COMMENT)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _declared_separator(lines: list[str]) -> str | None:
    """The separator of Excel's line `sep=;`, if there is one; the line is made blank."""
    match = re.fullmatch(r'\s*"?sep=([,;\t|])"?\s*', lines[0])
    if not match:
        return None
    lines[0] = ""
    return match[1]


def _separator(head: str, first: str | None) -> str:
    """Tab, semicolon or comma: the one with equal numbers of cells in header and first row, then with most cells."""

    def agreement(separator: str) -> tuple[bool, int]:
        n = len(_split(head, separator))
        # A difference of one is accepted: a separator at the end of a line, or an index without a name.
        return n > 1 and (first is None or abs(len(_split(first, separator)) - n) <= 1), n

    best = max("\t;,", key=agreement)
    n = agreement(best)[1]
    if n > 1 and first is not None and len(_split(first, best)) != n:  # aligned columns with tabs and spaces
        return _SPACES if len(head.split()) == len(first.split()) > 1 else best
    if n == 1:
        return _SPACES if len(head.split()) > 1 else ","
    return best


def _split(line: str, separator: str) -> list[str]:
    spaces = separator == _SPACES
    try:
        cells = next(
            csv.reader(
                [line.strip().replace("\t", " ") if spaces else line],
                delimiter=" " if spaces else separator,
                skipinitialspace=True,
            ),
            [],
        )
    except csv.Error:
        return [line]
    return [cell.strip() for cell in cells]


def _with_units_joined(names: list[str], width: int) -> list[str]:
    """Names with their units, if that gives `width` names: `Time [s] A [mM]`, split at spaces, has two."""
    joined: list[str] = []
    for name in names:
        if joined and bare_unit(name) and name[0] in "[(":
            joined[-1] += f" {name}"
        else:
            joined.append(name)
    return joined if len(joined) == width else names


# -- the rows


def _units_row(lines: list[str], rows: list[int], header: _Header) -> dict[str, str]:
    """Units by column, if the first row contains only units, in at least half of the columns."""
    cells = _split(lines[rows[0]], header.separator) if rows else []
    units = {name: bare_unit(cell) for name, cell in zip(header.names, cells, strict=False) if cell}
    if len(cells) > len(header.names) or 2 * len(units) < len(header.names):
        return {}
    known = {name: unit for name, unit in units.items() if unit is not None}
    return known if len(known) == len(units) else {}


def _all_names(header: _Header, row: str) -> list[str]:
    """A name for every cell of a row; the header may have fewer cells."""
    names, cells = list(header.names), _split(row, header.separator)
    more = len(cells) - len(names)
    if more > 0 and not any(cells[-more:]):
        names += [""] * more
    elif more == 1 and row.lstrip().startswith('"'):
        names.insert(0, "")  # row names of R, in quotes and without a header
    return [name or f"Unnamed: {i}" for i, name in enumerate(names)]


def _decimal(path: Path, body: str, separator: str) -> str:
    """The decimal sign.

    Raises:
        InputError: commas in numbers are ambiguous.
    """
    if separator == "," or not re.search(r"\d,\d|,\d", body):
        return "."
    split = re.compile(r"[\s\"]+" if separator == _SPACES else rf"[{re.escape(separator)}\n\"]")
    cells = {re.sub(f"^{_SIGN}", "", cell.strip()) for cell in split.split(body)}
    commas = [cell for cell in cells if _WITH_COMMA.fullmatch(cell) and "," in cell]
    if not commas:
        return "."
    example = min(commas)
    advice = "write decimal points, and no separators of thousands"
    if any("." in cell for cell in commas) or not all(_DECIMAL.fullmatch(c) or _THOUSANDS.fullmatch(c) for c in commas):
        raise InputError(f"{path}: {next((c for c in commas if '.' in c), example)!r} is not a number; {advice}")
    if any("." in cell and _is_number(cell) for cell in cells):
        point = min(cell for cell in cells if "." in cell and _is_number(cell))
        raise InputError(f"{path}: numbers have both decimal commas ({example}) and points ({point}); {advice}")
    if all(_THOUSANDS.fullmatch(cell) for cell in commas):
        raise InputError(f"{path}: {example!r} may be a decimal number or thousands; {advice}")
    return ","


def _parsed(path: Path, body: str, names: list[str], separator: str, decimal: str) -> pd.DataFrame:
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one of them")
    labels = {name for name in names if role_of(name) in {"run", "species"}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                # In UTF-8: a text stream would need four bytes for every character.
                io.BytesIO(body.encode()),
                sep=separator,
                header=None,
                names=names,
                index_col=False,
                low_memory=False,
                skipinitialspace=True,
                decimal=decimal,
                keep_default_na=False,
                # "NA" and "None" are valid names of species and runs.
                na_values={name: [""] if name in labels else list(_MISSING) for name in names},
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=names)
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        reason = one_line(error).removeprefix("Error tokenizing data. C error: ")
        reason = "a row has more cells than the header" if reason.startswith("Length of header") else reason
        hint = " (with decimal commas, separate them by semicolons)" if separator == "," else ""
        raise InputError(f"{path}: not a readable table ({reason}); every row needs {len(names)} cells{hint}") from None
    if decimal == ",":
        for name in [name for name in table if name not in labels and table[name].dtype.kind not in "iufb"]:
            # pandas does not convert a column with a cell that it does not recognise as a number, such as 1,0D-03.
            points = table[name].astype("string").str.replace(_DECIMAL_CELL, r"\1.\2", regex=True)
            table[name] = points.astype(object).where(points.notna(), np.nan)
    return table
