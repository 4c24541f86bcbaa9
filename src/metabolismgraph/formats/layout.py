"""Layout of a table: removal of index columns, transposition, and roles of columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.formats.headers import Vocabulary, clean, role_of
from metabolismgraph.formats.units import split_unit
from metabolismgraph.formats.wording import some

_NAMELESS = re.compile(r"Unnamed: \d+|")


def arranged(path: Path, table: pd.DataFrame, vocabulary: Vocabulary) -> tuple[pd.DataFrame, list[str]]:
    """The table with times in rows and without empty or index columns, and notes.

    Raises:
        InputError: a column with values has no name, or the table is ambiguous.
    """
    nameless = [column for column in table.columns if _NAMELESS.fullmatch(clean(column))]
    table = table.drop(columns=[column for column in nameless if table[column].isna().all()])
    turned = _turned(path, table, vocabulary)
    if turned is not None:
        return turned, ["The table has species in rows and times in columns: it was transposed."]
    if not any(_is_time(column, vocabulary) for column in table.columns):
        return table, []  # a column without a name could be the time; `roles_of` raises an error
    index = [column for column in table.columns if _only_numbers_rows(table, column, vocabulary)]
    table = table.drop(columns=index)
    left = [column for column in nameless if column in table.columns]
    if left:
        k = list(table.columns).index(left[0]) + 1
        raise InputError(f"{path}: column {k} has no name; name it, or remove it")
    return table, ["A column that only numbers the rows was left out."] if index else []


def without_unknown(table: pd.DataFrame, vocabulary: Vocabulary) -> tuple[pd.DataFrame, list[str]]:
    """The table without columns, or rows if species are in rows, whose names the model does not have, and notes."""
    if times_of_header(table):
        labels = table.iloc[:, 0].map(clean)
        unknown = [label for label in labels if vocabulary.meaning(label) is None]
        table = table[~labels.isin(unknown)].reset_index(drop=True)
    else:
        names = {column: clean(column) for column in table.columns}
        unknown = [
            column
            for column, name in names.items()
            if not _NAMELESS.fullmatch(name) and role_of(column) is None and vocabulary.meaning(name) is None
        ]
        table = table.drop(columns=unknown)
    return table, [f"Not in the model, and left out: {some(unknown, len(unknown))}."] if unknown else []


def is_nameless(column: Any) -> bool:
    """Whether a column has no name, or one for the numbers of the rows."""
    return _NAMELESS.fullmatch(clean(column)) is not None or clean(column).casefold() == "index"


def deviations_of(
    path: Path, table: pd.DataFrame, pattern: str, vocabulary: Vocabulary, names: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without standard deviations; and one with these instead of the values.

    Args:
        pattern: name of their columns (or rows), with `*` for that of the species; in a long table, the name of one
            column.
        vocabulary: names of the model.
        names: what names stand for.

    Raises:
        InputError: there are none, the pattern is not a name with one `*`, or a species has such a name.
    """
    labels = {column: clean(column) for column in table.columns}
    if pattern.count("*") != 1:
        column = next((column for column, name in labels.items() if name == pattern), None)
        values = next((other for other in table.columns if role_of(other) == "concentration"), None)
        if column is None or values is None:
            raise InputError(f"{path}: no column {pattern!r} of a long table; for columns A_sd beside A, give '*_sd'")
        without = table.drop(columns=column)
        return without, without.assign(**{values: table[column]})
    before, after = pattern.split("*")
    if not before + after:
        raise InputError(f"{path}: every name is like the pattern '*' of standard deviations; give one such as '*_sd'")

    def species(label: str) -> str | None:
        name, unit = split_unit(label)
        inside = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
        if not inside or role_of(label) in {"time", "run"}:
            return None
        if name in vocabulary.species:
            raise InputError(f"{path}: {name} is a species of the model, but like {pattern!r}; use another pattern")
        found = name[len(before) : len(name) - len(after)].strip()
        found = names.get(found, found)
        return found if unit is None else f"{found} ({unit})"

    if times_of_header(table):
        found = table.iloc[:, 0].map(lambda label: species(clean(label)))
        marked = found.notna()
        turned = table[marked].reset_index(drop=True)
        turned.isetitem(0, found[marked].to_numpy())
        return table[~marked].reset_index(drop=True), _there(path, turned, len(turned), pattern, list(table.iloc[:, 0]))
    renamed = {column: name for column, label in labels.items() if (name := species(label)) is not None}
    kept = [column for column in table.columns if role_of(column) in {"time", "run"}]
    deviations = table[[*kept, *renamed]].rename(columns=renamed)
    return table.drop(columns=list(renamed)), _there(path, deviations, len(renamed), pattern, list(labels.values()))


def _there(path: Path, table: pd.DataFrame, count: int, pattern: str, names: list[Any]) -> pd.DataFrame:
    if not count:
        raise InputError(f"{path}: no name of a column or row is like {pattern!r}; found: {some(names)}")
    return table


def _is_time(column: Any, vocabulary: Vocabulary) -> bool:
    return role_of(column) == "time" and clean(column) not in vocabulary.species - {"time"}


def _only_numbers_rows(table: pd.DataFrame, column: Any, vocabulary: Vocabulary) -> bool:
    name = clean(column)
    if name in vocabulary.species or not is_nameless(column):
        return False
    cells = table[column]
    return cells.dtype.kind in "iu" and any(np.array_equal(cells, np.arange(len(cells)) + start) for start in (0, 1))


def _turned(path: Path, table: pd.DataFrame, vocabulary: Vocabulary) -> pd.DataFrame | None:
    """The transposed table, if the header contains only numbers and the first column only known names; else None."""
    times = times_of_header(table)
    if not times:
        return None
    labels = [clean(label) for label in table.iloc[:, 0]]
    if any(vocabulary.meaning(label) is None for label in labels):
        return None
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise InputError(f"{path}: row {twice[0]!r} occurs twice; keep one of them")
    turned = pd.DataFrame(table.iloc[:, 1:].to_numpy().T, columns=labels)
    turned.insert(0, "time", np.array(times, dtype=np.float64), allow_duplicates=True)
    return turned


def times_of_header(table: pd.DataFrame) -> list[float]:
    """The names of all columns but the first as numbers; empty if they are not, or fewer than two."""
    times = [time for column in table.columns[1:] if (time := _number(column)) is not None]
    return times if len(times) == len(table.columns) - 1 >= 2 else []


def _number(name: object) -> float | None:
    try:
        return float(str(name))
    except ValueError:
        return None


def roles_of(path: Path, table: pd.DataFrame, vocabulary: Vocabulary) -> dict[str, Any]:
    """Columns by role: time, run, and for a long table species and concentration.

    Raises:
        InputError: there is no time column, a long table lacks a column of values, or two columns have one role.
    """
    known = vocabulary.species - {"time"}
    with_t = not any(clean(column).casefold() == "time" for column in table.columns)
    roles: dict[str, Any] = {}
    for column in table.columns:
        name, role = clean(column), role_of(column)
        # A parameter can have the name t or sample; ids of the model take precedence, except over time and run.
        other = name in vocabulary.others and name.casefold() not in {"time", "run"}
        if role is None or name in known or (other and not (name == "t" and with_t)):
            continue
        if role in roles:
            raise InputError(f"{path}: columns {str(roles[role])!r} and {str(column)!r} are both the {role}; keep one")
        roles[role] = column
    if "time" not in roles:
        _refuse_timeless(path, table, vocabulary)
    if "species" in roles and "concentration" not in roles:
        cells = table[roles["species"]].dropna().unique()
        in_cells, in_header = (
            any(vocabulary.meaning(clean(name)) is not None for name in names) for names in (cells, table.columns)
        )
        if in_cells and not in_header:
            raise InputError(
                f"{path}: column {str(roles['species'])!r} names species, as in a long table, but a column of values "
                f"is missing (columns: {some(list(table.columns))}); call it 'concentration' or 'value'"
            )
    if not {"species", "concentration"} <= set(roles):  # a wide table, where such a column is not a role
        roles = {role: column for role, column in roles.items() if role in {"time", "run"}}
    return roles


def _refuse_timeless(path: Path, table: pd.DataFrame, vocabulary: Vocabulary) -> None:
    advice = "rename the column with the times"
    first = [clean(label) for label in table.iloc[:, 0]]
    if any(role_of(label) == "time" or vocabulary.meaning(label) is not None for label in first):
        advice = "species seem to be in rows: turn the table, so that they are in columns, beside a column 'time'"
    elif _NAMELESS.fullmatch(clean(table.columns[0])):
        advice = "the first column has no name: call it 'time' if it holds the times"
    raise InputError(f"{path}: no column 'time' (columns: {some(list(table.columns))}); {advice}")
