"""Simulation of SBML models by their own laws: closed solutions, refusals, and the semantic test suite."""

import math
from pathlib import Path

import casadi as ca
import numpy as np
import pandas as pd
import pytest
from command_line import call
from test_sbml import MATHML, document, level2, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.kinetic_models.from_sbml import ModelFile
from metabolismgraph.kinetic_models.sensitivities import Course, Tracked
from metabolismgraph.kinetic_models.simulation import integrate
from metabolismgraph.kinetic_models.symbols import SYMBOLS

SUITE = Path(__file__).resolve().parents[2] / "shared" / "models" / "sbml-semantic"
TIME = np.linspace(0, 3, 7)


def rule(kind, variable, formula):
    return f'<{kind}Rule variable="{variable}">{mathml(formula)}</{kind}Rule>'


def rules(*all_rules):
    return f"<listOfRules>{''.join(all_rules)}</listOfRules>"


def initially(**formulas):
    inside = "".join(
        f'<initialAssignment symbol="{name}">{mathml(formula)}</initialAssignment>'
        for name, formula in formulas.items()
    )
    return f"<listOfInitialAssignments>{inside}</listOfInitialAssignments>"


def function(name, *arguments, body):
    bound = "".join(f"<bvar><ci>{argument}</ci></bvar>" for argument in arguments)
    inside = mathml(body).split(">", 1)[1].removesuffix("</math>")
    made = f'<functionDefinition id="{name}">{MATHML}<lambda>{bound}{inside}</lambda></math></functionDefinition>'
    return f"<listOfFunctionDefinitions>{made}</listOfFunctionDefinitions>"


@pytest.fixture
def simulate(tmp_path):
    def inner(text, variables=None, time=TIME):
        path = tmp_path / "model.xml"
        path.write_text(text)
        return mg.simulate_model(path, time, variables)

    return inner


DECAY = reaction("R", "A", "", "c * k * A")


@pytest.mark.parametrize("convert", [str, level2], ids=["level 3", "level 2"])
def test_first_order_decay(simulate, convert):
    table = simulate(convert(document([DECAY], kinds=[species("A")], parameters={"k": 0.7})))
    assert list(table) == ["time", "A"]
    np.testing.assert_allclose(table["A"], np.exp(-0.7 * TIME), rtol=1e-7)


def test_a_law_in_amounts_and_a_volume(simulate):
    # The law is in amount/time, so that the concentration falls by k A / c of the same.
    kinds = [species("A", cell="c"), species("B", cell="c", amount="true", more='initialAmount="0"')]
    text = document([reaction("R", "A", "B", "k * A")], kinds=kinds, parameters={"k": 0.7}, compartments=[("c", 2)])
    table = simulate(text)
    assert list(table) == ["time", "[A]", "[B]"]
    np.testing.assert_allclose(table["[A]"], np.exp(-0.35 * TIME), rtol=1e-7)
    np.testing.assert_allclose(table["[B]"], 1 - np.exp(-0.35 * TIME), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(simulate(text, ["B"])["B"], 2 * (1 - np.exp(-0.35 * TIME)), rtol=1e-7, atol=1e-9)


def test_a_volume_that_grows_dilutes(simulate):
    text = document([DECAY], kinds=[species("A")], parameters={"k": 0.0}, more=rules(rule("rate", "c", "0.5")))
    text = text.replace('spatialDimensions="3" constant="true"', 'spatialDimensions="3" constant="false"')
    np.testing.assert_allclose(simulate(text)["[A]"], 1 / (1 + 0.5 * TIME), rtol=1e-7)


@pytest.mark.parametrize(
    ("more", "functions", "law"),
    [
        (rules(rule("assignment", "k", "0.4 + 0.3")), "", "c * k * A"),
        (rules(rule("assignment", "k", "q / 2"), rule("assignment", "q", "1.4")), "", "c * k * A"),
        (initially(k="0.1 * 7"), "", "c * k * A"),
        (initially(k="half(q)", q="1.4"), function("half", "x", body="x / 2"), "c * k * A"),
        ("", function("law", "x", "y", body="0.7 * x * y"), "law(c, A)"),
        ("", "", "c * A * piecewise(0.7, time < 10, 0)"),
        ("", "", "c * A * 0.7 * (1 && 1)"),
    ],
)
def test_rules_initial_assignments_and_functions(simulate, more, functions, law):
    parameters = {"k": 5.0, "q": 3.0}
    text = document(
        [reaction("R", "A", "", law)], kinds=[species("A")], parameters=parameters, more=more, functions=functions
    )
    np.testing.assert_allclose(simulate(text)["A"], np.exp(-0.7 * TIME), rtol=1e-7)


def test_rate_rules_time_and_quantities_without_reactions(simulate):
    more = rules(rule("rate", "k", "-k"), rule("assignment", "q", "k + time"))
    table = simulate(
        document([DECAY], kinds=[species("A")], parameters={"k": 2.0, "q": None}, more=more), ["k", "q", "R"]
    )
    np.testing.assert_allclose(table["k"], 2 * np.exp(-TIME), rtol=1e-7)
    np.testing.assert_allclose(table["q"], table["k"] + TIME, rtol=1e-12)
    amount = np.exp(-2 * (1 - np.exp(-TIME)))
    np.testing.assert_allclose(table["R"], table["k"] * amount, rtol=1e-7)


def test_a_boundary_species_stays(simulate):
    kinds = [species("A", boundary="true"), species("B", more='initialConcentration="0"')]
    table = simulate(document([reaction("R", "A", "2 B", "c * k * A")], kinds=kinds, parameters={"k": 0.7}))
    np.testing.assert_allclose(table["A"], 1)
    np.testing.assert_allclose(table["B"], 2 * 0.7 * TIME, atol=1e-9)


def test_a_rule_that_switches_is_not_missed(simulate):
    law = "c * piecewise(1, time > 1.4 && time < 1.6, 0)"
    kinds = [species("A", more='initialConcentration="0"')]
    table = simulate(document([reaction("R", "", "A", law)], kinds=kinds), time=np.linspace(0, 100, 1001))
    assert table["A"].iloc[-1] == pytest.approx(0.2, rel=1e-3)


def test_small_quantities_beside_large_ones(simulate):
    kinds = [species("A", more='initialConcentration="1e6"'), species("B", more='initialConcentration="0"')]
    laws = [reaction("R", "A", "A + B", "c * 1e-15 * A"), reaction("Q", "B", "", "c * 2 * B")]
    table = simulate(document(laws, kinds=kinds))
    np.testing.assert_allclose(table["B"][1:], 0.5e-9 * (1 - np.exp(-2 * TIME[1:])), rtol=1e-6)


def test_amounts_without_a_volume(simulate):
    kinds = [species("A", amount="true", more='initialAmount="3"')]
    text = document([reaction("R", "A", "", "0.7 * A")], kinds=kinds).replace(' size="1"', "")
    table = simulate(text)
    assert list(table) == ["time", "A"]
    np.testing.assert_allclose(table["A"], 3 * np.exp(-0.7 * TIME), rtol=1e-7)


def test_times_may_begin_later(simulate):
    text = document([DECAY], kinds=[species("A")], parameters={"k": 0.7})
    np.testing.assert_allclose(simulate(text, time=np.array([2.0]))["A"], math.exp(-1.4), rtol=1e-7)
    np.testing.assert_allclose(simulate(text, time=np.array([0.0]))["A"], 1)


def test_rates_that_no_step_can_follow(simulate):
    with pytest.raises(InputError, match="model test: the integration failed after time 0: its rates are too fast"):
        simulate(document([DECAY], parameters={"k": 1e300}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document([reaction("R", "A", "", "k * delay(A, 1)")], parameters={"k": 1}), "the model has delays"),
        (document([DECAY], parameters={"k": 1}).replace('fast="false"', 'fast="true"'), "the model has fast reactions"),
        (
            document([DECAY], parameters={"k": 1}, more=rules(f"<algebraicRule>{mathml('A - k')}</algebraicRule>")),
            "the model has algebraic rules",
        ),
        (document([reaction("R", "A")]), "reaction R has no kinetic law"),
        (document([DECAY], parameters={"k": None}), "k, on which R depends, has no value"),
        (document([DECAY], kinds=[species("A", more="")], parameters={"k": 1}), "model test: A has no finite value"),
        (
            document(
                [DECAY],
                parameters={"k": 1, "q": 1},
                more=rules(rule("assignment", "k", "q"), rule("assignment", "q", "k")),
            ),
            "depends on itself",
        ),
        (document([DECAY], parameters={"k": 1}, more=rules(rule("rate", "k", "A / p"))), "p"),
    ],
)
def test_what_is_refused(simulate, text, message):
    with pytest.raises(InputError, match=message):
        simulate(text)


def test_other_values(simulate, tmp_path):
    kinds = [species("A"), species("B", more='initialConcentration="9"')]
    more = initially(B="3 * A") + rules(rule("assignment", "q", "2 * k"))
    law = reaction("R", "A", "", "c * q * A")
    simulate(document([law], kinds=kinds, parameters={"k": 1.0, "q": None}, more=more))
    path = tmp_path / "model.xml"
    table = mg.simulate_model(path, TIME, values={"k": 0.35, "A": 2.0})
    np.testing.assert_allclose(table["A"], 2 * np.exp(-0.7 * TIME), rtol=1e-7)
    np.testing.assert_allclose(table["B"], 6)
    np.testing.assert_allclose(mg.simulate_model(path, TIME, values={"B": 1.0})["B"], 1)
    for values, message in (
        ({"q": 1.0}, "q is computed by a rule; it cannot be given a value"),
        ({"kk": 1.0}, "no quantity kk has a value; nearest: k"),
        ({"k": np.nan}, "the value of k must be finite, not nan"),
    ):
        with pytest.raises(InputError, match=message):
            mg.simulate_model(path, TIME, values=values)


def test_what_explodes_is_refused(simulate):
    text = document([reaction("R", "A", "3 A", "c * A^2")], kinds=[species("A")])
    with pytest.raises(InputError, match="model test: the integration failed after time"):
        simulate(text)


def test_wrong_times_and_variables(simulate):
    text = document([DECAY], kinds=[species("A")], parameters={"k": 0.7})
    for times in ([], [-1.0, 0], [0.0, 0], [0, np.nan]):
        with pytest.raises(InputError, match="times must be finite, >= 0 and increasing"):
            simulate(text, time=np.array(times))
    with pytest.raises(InputError, match="the model has no quantity Aa; nearest: A"):
        simulate(text, ["Aa"])


def test_the_command_writes_a_table_that_can_be_read(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "model.xml", tmp_path / "table.csv"
    kinds = [species("A"), species("B", amount="true", more='initialAmount="1"')]
    laws = [reaction("R", "A", "B", "k * A"), reaction("Q", "B", "A", "q * B")]
    path.write_text(document(laws, kinds=kinds, parameters={"k": 0.7, "q": 0.2}, compartments=[("c", 2)]))
    assert call(monkeypatch, "simulate-model", path, "--end", "3", "--points", "31", "--out", out) == 0
    observed = mg.read(path, out)
    assert observed.time[-1] == 3
    assert observed.n_frames == 31
    assert call(monkeypatch, "simulate-model", path, "--end", "3", "--points", "31") == 0
    assert capsys.readouterr().out == out.read_text()
    for words, message in (
        (["--end", "3", "--out", out], "exists; choose another name, or give --overwrite"),
        (["--end", "0"], "--end is 0; it must be a finite time > 0"),
        (["--end", "3", "--variables", "A,X"], "the model has no quantity X"),
        (["--end", "3", "--value", "k"], "--value k: expected ID=VALUE"),
        (["--end", "3", "--value", "k=1", "--value", "k=2"], "--value: k is given twice"),
    ):
        assert call(monkeypatch, "simulate-model", path, *words) == 2
        assert message in capsys.readouterr().err


def settings_of(number):
    lines = (SUITE / f"{number}-settings.txt").read_text().splitlines()
    return {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}


def by_cvodes(path, model, times):
    """The values of all ids as `integrate` gives them, with the states from the equations in symbols."""
    symbolic = ModelFile(path).model(operations=SYMBOLS)
    start = Tracked(np.array(model.start, dtype=float), np.zeros((len(model.states), 0)))
    point = Tracked(np.zeros(0), np.zeros((0, 0)))
    states = Course(symbolic, ca.SX.sym("point", 0), times)(start, point).value if model.states else np.zeros(0)
    return {
        name: np.broadcast_to(value, len(times))
        for name, value in model.values(times, states.reshape(len(times), -1).T).items()
    }


@pytest.mark.skipif(not SUITE.exists(), reason="the shared models are not there")
@pytest.mark.parametrize("solver", ["LSODA", "CVODES"])
def test_semantic_test_suite(solver):
    """All cases without events, delays, algebraic rules and fast reactions."""
    wrong, refused = {}, []
    cases = sorted(path.stem for path in SUITE.glob("*.xml"))
    for number in cases:
        wanted, expected = settings_of(number), pd.read_csv(SUITE / f"{number}-results.csv")
        model = ModelFile(SUITE / f"{number}.xml").model()
        times = expected.iloc[:, 0].to_numpy(float)
        path = SUITE / f"{number}.xml"
        try:
            values = integrate(model, times) if solver == "LSODA" else by_cvodes(path, model, times)
        except InputError as error:
            refused.append(str(error))
            continue
        amounts = [name.strip() for name in wanted["amount"].split(",")]
        concentrations = [name.strip() for name in wanted["concentration"].split(",")]
        for column, name in enumerate((name.strip() for name in wanted["variables"].split(",")), start=1):
            if name in model.species and name in amounts:
                found = model.amount(name, values)
            elif name in model.species and name in concentrations:
                found = model.concentration(name, values)
            else:
                found = values[name]
            right = expected.iloc[:, column].to_numpy(float)
            close = np.isclose(
                found, right, rtol=float(wanted["relative"]), atol=float(wanted["absolute"]), equal_nan=True
            )
            if not close.all():
                wrong[number] = name
    assert len(cases) == 200
    assert all("has a factorial of a quantity that changes" in reason for reason in refused)
    assert len(refused) == (1 if solver == "CVODES" else 0)
    assert not wrong
