"""Recognition of units in tables, such as mM, [µmol/l] and (min), but not nmol/mg protein."""

from __future__ import annotations

import re

_PREFIX = "(?:da|[fpnuµ\u03bcmcdkMG])?"
_WORD = (
    "(?i:mol(?:e|es)?|molar|gram(?:s|me|mes)?|lit(?:er|re)s?|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?|"
    "molecules?|items?|particles?|counts?|cells?|gdw|dw|od|rfu|au|ppm|ppb)"
)
_FACTOR = rf"{_PREFIX}(?:{_WORD}|M|g|l|L|s|h|d|m|U|kat|%)(?:(?:\^|\*\*)?[-+]?[1-9]|[⁻⁺]?[¹²³])?"
_UNIT = re.compile(
    rf"(?:1\s*/\s*)?{_FACTOR}(?:(?:\s*[/*·⋅.]\s*|\s+){_FACTOR})*|-|(?i:a\.\s?u\.|arb\.\s?units?|dimensionless)"
)
_AMOUNT = re.compile(rf"{_PREFIX}(?i:mol(?:e|es)?|molecules?|items?|particles?|counts?|g|grams?)")
_BEHIND = re.compile(r"(.+?)\s*(?:\[([^][]*)\]|\(([^()]*)\))")
_AFTER_SLASH = re.compile(r"(.+?)\s*/\s*(.+)")


def bare_unit(text: str) -> str | None:
    """The unit in a text, without brackets; None if the text is not a unit."""
    text = text.strip()
    if len(text) > 2 and (text[0], text[-1]) in {("[", "]"), ("(", ")")}:
        text = text[1:-1].strip()
    return text if _UNIT.fullmatch(text) else None


def split_unit(text: str) -> tuple[str, str | None]:
    """Name and unit of a header such as `time (s)`, `A [mM]` or `c / mM`; the unit is None if there is none."""
    for pattern in (_BEHIND, _AFTER_SLASH):
        match = pattern.fullmatch(text.strip())
        unit = match and bare_unit(next(group for group in match.groups()[1:] if group is not None))
        if match and unit:
            return match[1], unit
    return text.strip(), None


def same_unit(unit: str) -> str:
    """A common spelling of equal units: uM, µM (micro) and μM (Greek); ml and mL."""
    unit = re.sub(r"\s+", " ", unit.replace("\u03bc", "µ"))
    unit = re.sub(r"(?<![A-Za-z])u(?=M|mol|g|l|L|s|m)", "µ", unit)
    return re.sub(r"l(?![A-Za-z])(?<!mol)", "L", unit)


def is_amount(unit: str) -> bool:
    """Whether a unit is one of amount, not of concentration."""
    return _AMOUNT.fullmatch(unit) is not None
