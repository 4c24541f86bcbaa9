"""Formulas of concentrations whose values are measured."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import FormulaError, evaluate, names
from metabolismgraph.formats.petab_formula import parse_formula
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.kinetic_models.edited_model import EditedModel
from metabolismgraph.text import one_line

_WORD = r"(?<![\w.])[A-Za-z_]\w*"  # in a formula


def in_ids_of(model: EditedModel, formulas: Mapping[str, str]) -> dict[str, str]:
    """Formulas of concentrations, parameters and compartments, written in ids of the model, which may be amounts.

    Args:
        formulas: by name.

    Raises:
        InputError: a name is not a new id, or a formula is not valid or has something else in it.
    """

    def quantity(word: re.Match[str]) -> str:
        return model.concentration(word[0]) if word[0] in model.index.species else word[0]

    found = {}
    for name, text in formulas.items():
        where = f"{model.path}: observable {one_line(name, 40)}"
        _check_name(where, name, model)
        _check_formula(where, text, model.index)
        found[name] = re.sub(_WORD, quantity, " ".join(text.split()))
    return found


def _check_name(where: str, name: str, model: EditedModel) -> None:
    if name in model.taken:
        raise InputError(f"{where}: the model has this id already; choose another name, and map the column to it")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InputError(f"{where}: a name has letters, digits and underscores only; map the column to such a name")


def _check_formula(where: str, text: str, index: ModelIndex) -> None:
    known, shown = {*index.species, *index.parameters, *index.compartments}, one_line(text, 80)
    try:
        formula = parse_formula(text)
        # Functions that do not exist, and wrong numbers of arguments, are seen only here.
        evaluate(formula, lambda _: np.float64(1), {})
    except FormulaError:
        raise InputError(f"{where}: the formula {shown!r} is not valid; write it as in 'A + 2*B'") from None
    mentioned = names(formula)
    hidden = sorted(set(re.findall(_WORD, text)) & known - mentioned)
    if hidden:
        raise InputError(f"{where}: {hidden[0]} has another meaning in formulas; rename it in the model")
    if mentioned - known:
        unknown = min(mentioned - known).removeprefix("csymbol ")
        near = nearest_name(unknown, known)
        raise InputError(f"{where}: {unknown} is no species, parameter or compartment; nearest: {near}")
    if not index.mentioned(formula) & {*index.species, *index.rated}:
        raise InputError(f"{where}: the formula {shown!r} does not depend on a species")
