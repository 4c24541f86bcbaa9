"""Formulas in the tables of PEtab problems."""

from __future__ import annotations

import re
from typing import Any

import libsbml

from metabolismgraph.formats.formula import FormulaError, children

_LOG = "logarithm"  # stands for `log`, which libsbml takes to base 10, or with the base first


def parse_formula(text: str) -> Any:
    """The syntax tree (libsbml) of a formula in the syntax of PEtab: `log` is the natural logarithm, or log(x, base).

    Raises:
        FormulaError: it is not valid.
    """
    settings = libsbml.L3ParserSettings()
    settings.setComparisonCaseSensitivity(libsbml.L3P_COMPARE_BUILTINS_CASE_SENSITIVE)
    settings.setParseUnits(libsbml.L3P_NO_UNITS)
    node = libsbml.parseL3FormulaWithSettings(re.sub(r"\blog(?=\s*\()", _LOG, text), settings)
    if node is None:
        raise FormulaError
    _translate(node)
    return node


def _translate(node: Any) -> None:
    """Replace the functions that stand for logarithms."""
    if node.getType() == libsbml.AST_FUNCTION and node.getName() == _LOG:
        if node.getNumChildren() == 1:
            node.setType(libsbml.AST_FUNCTION_LN)
        elif node.getNumChildren() == 2:
            value = node.getChild(0).deepCopy()
            node.setType(libsbml.AST_FUNCTION_LOG)
            node.removeChild(0)
            node.addChild(value)
    for child in children(node):
        _translate(child)
