"""The true parameters of a simulated system; for evaluation only, never for training."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.secret_keys import read_key, write_key

KEY = "secret.key"

_Table = dict[str, list[Any]]  # the cells of every column
_RATE_LAW = ("order", "concentration", "f")  # columns
_MOST_TYPES = 1_000_000
_TINY, _LARGEST = float(np.finfo(float).tiny), 1e100  # of numbers > 0, whose squares are finite


@dataclasses.dataclass(frozen=True, repr=False)
class Truth(Overview):
    """The true parameters of a simulated (or otherwise known) system.

    Attributes:
        reactions, species: ids, in the order of the arrays.
        k: rate constants, in concentration^(1-order)/time.
        type: type of each metabolite, from 0.
        lam: homeostatic strength lambda, in 1/time; the slope of MLP_node is -lam.
        baseline: baseline concentration of homeostasis.
        rate_law: table of the substrate function with columns order, concentration and f, and f(1) = 1;
            None: mass action, f = c^order.
        secret: key with which the system was drawn, see `simulate`; None without one.

    Example:
        >>> import metabolismgraph as mg
        >>> truth = mg.simulate(mg.load_config("small")).truth
        >>> truth.k.shape, sorted({float(x) for x in truth.lam})
        ((72,), [0.001, 0.002])
    """

    reactions: tuple[str, ...]
    species: tuple[str, ...]
    k: Float[np.ndarray, " reactions"]
    type: Int[np.ndarray, " species"]
    lam: Float[np.ndarray, " species"]
    baseline: Float[np.ndarray, " species"]
    rate_law: Float[np.ndarray, "points 3"] | None = None
    secret: bytes | None = dataclasses.field(default=None, repr=False)

    def _overview(self) -> tuple[str, Rows]:
        rows: list[tuple[str, object]] = [
            ("rate constants", len(self.k)),
            ("species", len(self.species)),
            ("types of homeostasis", len(np.unique(self.type))),
            ("rate law", "mass action" if self.rate_law is None else "a table of f(c)"),
        ]
        return "truth", rows

    def save(self, folder: Path) -> None:
        """Write reactions.csv, metabolites.csv and, where they exist, rate_law.csv and secret.key."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # for the eyes of its owner
        _write(folder / "reactions.csv", {"reaction": self.reactions, "k": self.k.tolist()})
        columns = {"type": self.type, "lambda": self.lam, "c_baseline": self.baseline}
        _write(
            folder / "metabolites.csv",
            {"metabolite": self.species, **{name: values.tolist() for name, values in columns.items()}},
        )
        for name in ("rate_law.csv", KEY):
            (folder / name).unlink(missing_ok=True)
        if self.secret is not None:
            write_key(folder / KEY, self.secret)
        if self.rate_law is not None:
            _write(folder / "rate_law.csv", dict(zip(_RATE_LAW, self.rate_law.T.tolist(), strict=True)))

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Read a truth folder.

        Raises:
            InputError: a table or a column is missing, a value is not a number, a name has several rows, or the key is
                damaged.
        """
        reactions = _read(folder / "reactions.csv", {"reaction": str, "k": float})
        metabolites = _read(
            folder / "metabolites.csv", {"metabolite": str, "type": int, "lambda": float, "c_baseline": float}
        )
        law = folder / "rate_law.csv"
        _check(folder / "reactions.csv", reactions, {"k": _TINY})
        _check(folder / "metabolites.csv", metabolites, {"type": 0.0, "lambda": 0.0, "c_baseline": 0.0})
        table = None
        if law.exists():
            table = _read(law, dict.fromkeys(_RATE_LAW, float))
            _check(law, table, {"order": 0.0, "concentration": _TINY, "f": 0.0})
        return cls(
            reactions=tuple(reactions["reaction"]),
            species=tuple(metabolites["metabolite"]),
            k=np.array(reactions["k"], np.float64),
            type=np.array(metabolites["type"], np.int64),
            lam=np.array(metabolites["lambda"], np.float64),
            baseline=np.array(metabolites["c_baseline"], np.float64),
            rate_law=None if table is None else np.array(list(table.values()), np.float64).T,
            secret=read_key(folder / KEY) if (folder / KEY).exists() else None,
        )

    def aligned(self, species: tuple[str, ...], reactions: tuple[str, ...]) -> Truth:
        """The truth in the given order of species and reactions.

        Raises:
            InputError: an id is missing in the truth.
        """
        picks = []
        for what, wanted, have in (("reaction", reactions, self.reactions), ("metabolite", species, self.species)):
            index = {name: i for i, name in enumerate(have)}
            missing = [name for name in wanted if name not in index]
            if missing:
                raise InputError(f"truth: {what} {missing[0]!r} of the network has no row ({len(missing)} missing)")
            picks.append(np.array([index[name] for name in wanted], dtype=np.int64))
        r, s = picks
        return dataclasses.replace(
            self,
            reactions=reactions,
            species=species,
            k=self.k[r],
            type=self.type[s],
            lam=self.lam[s],
            baseline=self.baseline[s],
        )


def _check(path: Path, table: _Table, least: dict[str, float]) -> None:
    """Check the range of the numbers in some columns.

    Raises:
        InputError: one is smaller, too large, or not a number.
    """
    for name, low in least.items():
        for value in table[name]:
            if not low <= value <= (_MOST_TYPES if name == "type" else _LARGEST):
                sign = ">" if low else ">="
                raise InputError(f"{path}: column {name!r} has {value:g}, which is not a finite number {sign} 0")


def _write(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))


def _read(path: Path, columns: Mapping[str, type]) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError:
        raise InputError(f"{path}: no such file; a truth folder holds reactions.csv and metabolites.csv") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    except ValueError:
        raise InputError(f"{path}: not a readable CSV file (it is empty)") from None
    missing = [c for c in columns if c not in header]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing (columns: {', '.join(header)})")
    for row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}: not a readable CSV file (the row {','.join(row)!r} has {len(row)} of {len(header)} cells)"
            )
    table: _Table = {}
    for name, kind in columns.items():
        cells = [row[header.index(name)] for row in rows]
        try:
            table[name] = [kind(cell) for cell in cells]
        except ValueError as error:
            raise InputError(f"{path}: column {name!r} is not all numbers ({error})") from None
        twice = [cell for cell, count in Counter(cells).items() if count > 1] if kind is str else []
        if twice:
            raise InputError(f"{path}: {name} {twice[0]!r} has several rows; keep one")
    return table
