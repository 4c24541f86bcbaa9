"""Formulas of SBML in numbers, against the same in Python."""

import math

import casadi as ca
import libsbml
import numpy as np
import pytest

from metabolismgraph.formats.formula import TIME, FormulaError, compiled, evaluate, names, subtracts
from metabolismgraph.kinetic_models.symbols import SYMBOLS

A = np.array([0.5, 2.0, 3.0])


def parse(text):
    node = libsbml.parseL3Formula(text)
    assert node is not None, libsbml.getLastParseL3Error()
    return node


def functions(**definitions):
    found = {}
    for name, text in definitions.items():
        definition = libsbml.FunctionDefinition(3, 1)
        definition.setId(name)
        definition.setMath(parse(text))
        found[name] = definition
    return found


KNOWN = {"A": A, "k": np.float64(2), "n": np.float64(-3), TIME: np.array([0.0, 1.0, 2.0])}
DEFINITIONS = {"f": "lambda(x, y, x + y)", "g": "lambda(A, A + 1)", "two": "lambda(2)"}


def value(text, **definitions):
    def lookup(name):
        if name not in KNOWN:
            raise FormulaError
        return KNOWN[name]

    return evaluate(parse(text), lookup, functions(**definitions))


CASES = [
    ("A + k + 1", A + 3),
    ("-A", -A),
    ("A - k", A - 2),
    ("k * A / 4", A / 2),
    ("3 / 2", 1.5),
    ("A^k", A**2),
    ("pow(A, 0.5)", A**0.5),
    ("n^2", 9.0),
    ("n^(-1)", -1 / 3),
    ("sqrt(A)", A**0.5),
    ("root(3, A)", A ** (1 / 3)),
    ("exp(A)", np.exp(A)),
    ("ln(A)", np.log(A)),
    ("log10(A)", np.log10(A)),
    ("log(2, A)", np.log2(A)),
    ("abs(n)", 3.0),
    ("floor(A)", [0, 2, 3]),
    ("ceil(A)", [1, 2, 3]),
    ("factorial(4)", 24.0),
    ("max(A, k, 1)", [2, 2, 3]),
    ("min(A, k)", [0.5, 2, 2]),
    ("quotient(n, k)", -1.0),
    ("rem(n, k)", -1.0),
    ("piecewise(1, A < 1, 2, A < 3, 3)", [1, 2, 3]),
    ("piecewise(A, A < 1, k)", [0.5, 2, 2]),
    ("piecewise(1, A < 1)", [1, math.nan, math.nan]),
    ("A > 1 && A <= 2", [0, 1, 0]),
    ("A < 1 || A >= 3", [1, 0, 1]),
    ("xor(A < 1, A < 3)", [0, 1, 0]),
    ("!(A == 2)", [1, 0, 1]),
    ("A != 2", [1, 0, 1]),
    ("implies(A > 1, A > 2)", [1, 0, 1]),
    ("lt(0, A, 2)", [1, 0, 0]),
    ("true", 1),
    ("and()", 1),
    ("or(false)", 0),
    ("time", [0, 1, 2]),
    ("exponentiale", math.e),
    ("sin(pi / 6)", 0.5),
    ("cos(A)", np.cos(A)),
    ("tan(A)", np.tan(A)),
    ("sec(A)", 1 / np.cos(A)),
    ("csc(A)", 1 / np.sin(A)),
    ("cot(A)", 1 / np.tan(A)),
    ("sinh(A) / cosh(A)", np.tanh(A)),
    ("tanh(A)", np.tanh(A)),
    ("sech(A)", 1 / np.cosh(A)),
    ("csch(A)", 1 / np.sinh(A)),
    ("coth(A)", 1 / np.tanh(A)),
    ("sin(arcsin(0.3))", 0.3),
    ("cos(arccos(0.3))", 0.3),
    ("tan(arctan(A))", A),
    ("sec(arcsec(k))", 2),
    ("csc(arccsc(k))", 2),
    ("cot(arccot(A))", A),
    ("sinh(arcsinh(A))", A),
    ("cosh(arccosh(k))", 2),
    ("tanh(arctanh(0.3))", 0.3),
    ("sech(arcsech(0.3))", 0.3),
    ("csch(arccsch(0.3))", 0.3),
    ("coth(arccoth(k))", 2),
    ("avogadro", 6.02214179e23),
    ("1 / 0", math.inf),
    ("ln(n)", math.nan),
    ("f(g(A), k)", A + 3),
    ("two()", 2.0),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_values(text, expected):
    found = value(text, **DEFINITIONS)
    assert np.asarray(found, float) == pytest.approx(np.asarray(expected, float), rel=1e-12, abs=1e-15, nan_ok=True)


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_values_by_symbols(text, expected):
    symbols = {name: ca.SX.sym("x") for name in KNOWN}
    formula = compiled(parse(text), lambda name: lambda _: symbols[name], functions(**DEFINITIONS), operations=SYMBOLS)
    with np.errstate(all="ignore"):
        result = formula(None)
    function = ca.Function("f", list(symbols.values()), [ca.SX(float(result) if np.isscalar(result) else result)])
    found = [float(function(*[np.broadcast_to(value, 3)[i] for value in KNOWN.values()])) for i in range(3)]
    wanted = np.broadcast_to(np.asarray(expected, float), 3)
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-15, nan_ok=True)


def test_the_derivative_of_a_power_by_its_exponent_is_finite_at_zero():
    base, exponent = ca.SX.sym("base"), ca.SX.sym("exponent")
    formula = compiled(parse("x^n"), lambda name: lambda _: {"x": base, "n": exponent}[name], {}, operations=SYMBOLS)(
        None
    )
    both = ca.Function("f", [base, exponent], [formula, ca.gradient(formula, exponent)])
    assert [float(x) for x in both(0.0, 2.5)] == [0.0, 0.0]
    assert [float(x) for x in both(3.0, 2.0)] == pytest.approx([9.0, 9 * math.log(3)])


@pytest.mark.parametrize(
    "text",
    ["B", "1 + B", "delay(A, 1)", "rateOf(A)", "f(A)", "f(A, A, A)", "loose(A)", "circle(A)", "undefined(A)", "max()"],
)
def test_what_has_no_value(text):
    with pytest.raises(FormulaError):
        value(text, f="lambda(x, y, x + y)", loose="lambda(x, x * k)", circle="lambda(x, 1 + circle(x))")


def test_an_empty_formula():
    with pytest.raises(FormulaError):
        evaluate(None, {}.__getitem__, {})


def test_names():
    assert names(parse("f(A, k) + sin(B) * time")) == {"A", "k", "B", TIME}
    assert names(parse("delay(A, 1)")) == {"A", TIME}
    assert names(None) == set()


def test_subtractions():
    defined = functions(f="lambda(x, y, x - y)", g="lambda(x, 2 * x)", circle="lambda(x, circle(x))")
    assert subtracts(parse("A - B"), defined)
    assert subtracts(parse("2 * f(A, B)"), defined)
    assert not subtracts(parse("g(A) + B"), defined)
    assert not subtracts(parse("circle(A)"), defined)
