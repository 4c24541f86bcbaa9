"""Concentrations from the model file, for fixed species without a column in the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import libsbml
import numpy as np
from jaxtyping import Float

from metabolismgraph.formats.formula import FormulaError
from metabolismgraph.formats.quantities import ModelIndex, State
from metabolismgraph.formats.wording import counted
from metabolismgraph.text import one_line


@dataclasses.dataclass(frozen=True)
class FixedValue:
    """The concentration of a fixed species in a model file: a constant or a formula.

    Attributes:
        constant: concentration at all times; None: it is given by a rule.
        rule: formula of the assignment rule, as text; None: it is constant.
    """

    constant: float | None = None
    rule: str | None = None

    def __str__(self) -> str:
        return f"{self.constant:g}" if self.rule is None else self.rule


def fixed_values(index: ModelIndex) -> dict[str, FixedValue]:
    """The concentrations of fixed species in the file, except those with a rate rule or changed by events."""
    values = {}
    for name in index.fixed:
        if name in index.assigned:
            text = libsbml.formulaToL3String(index.assigned[name]) if index.assigned[name] is not None else None
            if text:
                values[name] = FixedValue(rule=text)
        elif name not in index.rated and name not in index.events:
            constant = _finite(State(index, {}), name, ())
            if constant is not None:
                values[name] = FixedValue(constant=float(constant))
    return values


def fill_fixed(
    index: ModelIndex,
    values: Mapping[str, FixedValue],
    time: Float[np.ndarray, " frames"],
    known: Mapping[str, Float[np.ndarray, " frames"]],
) -> tuple[dict[str, Float[np.ndarray, " frames"]], tuple[str, ...]]:
    """Concentrations of fixed species that are not known; see `SbmlModel.fill_fixed`."""
    state = State(index, known, time)
    found = {name: _finite(state, name, time.shape) for name in values if name not in known}
    filled = {name: c for name, c in found.items() if c is not None}
    notes = []
    for ruled, wording in (
        (False, "[keeps its concentration|keep their concentrations]"),
        (True, "[follows an assignment rule|follow assignment rules]"),
    ):
        texts = [one_line(f"{name} = {values[name]}", 60) for name in filled if bool(values[name].rule) == ruled]
        if texts:
            notes.append(counted(f"species without a column {wording} of the model file", texts))
    return filled, tuple(notes)


def _finite(state: State, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "*shape"] | None:
    try:
        c = np.array(np.broadcast_to(np.asarray(state.concentration(name), float), shape))
    except (FormulaError, ValueError):
        return None
    return c if np.isfinite(c).all() else None
