"""Fixed species without a column: constants and assignment rules of the model file."""

import numpy as np
import pytest
from test_sbml import document, mathml, reaction, species

from metabolismgraph.formats.sbml import FixedValue, read_sbml

TIME = np.array([0.0, 1.0, 2.0])
B = np.array([1.0, 4.0, 9.0])


def rules(**formulas):
    return "".join(f'<assignmentRule variable="{v}">{mathml(f)}</assignmentRule>' for v, f in formulas.items())


@pytest.fixture
def model(tmp_path):
    def inner(kinds, more="", parameters=(), **options):
        text = document(
            [reaction("R", "B", "D", "k * B")],
            kinds=kinds,
            more=more,
            parameters={"k": 2} | dict(parameters),
            **options,
        )
        (tmp_path / "network.xml").write_text(text)
        return read_sbml(tmp_path / "network.xml")

    return inner


MOVING = [species("B"), species("D")]


def test_constants(model):
    kinds = [
        *MOVING,
        species("E", boundary="true", more='initialConcentration="3"'),
        species("F", constant="true", boundary="true", more='initialAmount="6"'),
        species("G", boundary="true", more=""),
        species("H", boundary="true"),
        species("I", boundary="true", amount="true"),
    ]
    start = f'<initialAssignment symbol="I">{mathml("4 * k * B")}</initialAssignment>'
    found = model(kinds, f"<listOfInitialAssignments>{start}</listOfInitialAssignments>", compartments=[("c", 4)])
    values = {"E": 3.0, "F": 1.5, "H": 1.0, "I": 2.0}
    assert found.fixed_values == {name: FixedValue(constant=value) for name, value in values.items()}
    filled, notes = found.fill_fixed(TIME, {"B": B, "H": B})
    assert {name: c.tolist() for name, c in filled.items()} == {
        name: [value] * 3 for name, value in values.items() if name != "H"
    }
    assert notes == ("3 species without a column keep their concentrations of the model file (E = 3, F = 1.5, I = 2).",)


def test_rules_in_any_order(model):
    kinds = [*MOVING, species("E"), species("F", amount="true")]
    more = f"<listOfRules>{rules(E='p + F / 4', p='2 * time + q', q='piecewise(B, B > 2, 2)', F='c * B')}</listOfRules>"
    found = model(kinds, more, {"p": None, "q": None}, compartments=[("c", 4)])
    assert found.fixed_values == {"E": FixedValue(rule="p + F / 4"), "F": FixedValue(rule="c * B")}
    filled, notes = found.fill_fixed(TIME, {"B": B})
    assert filled["F"].tolist() == B.tolist()
    assert filled["E"].tolist() == (2 * TIME + np.maximum(B, 2) + B).tolist()
    assert notes == (
        "2 species without a column follow assignment rules of the model file (E = p + F / 4, F = c * B).",
    )
    assert found.initial == {"B": 1.0, "D": 1.0, "E": 3.0, "F": 1.0}


def test_a_measured_species_outweighs_its_rule(model):
    found = model([*MOVING, species("E"), species("F")], f"<listOfRules>{rules(E='2 * F', F='B')}</listOfRules>")
    filled, _ = found.fill_fixed(TIME, {"B": B, "F": 10 * B})
    assert list(filled) == ["E"]
    assert filled["E"].tolist() == (20 * B).tolist()


@pytest.mark.parametrize(
    "formula", ["2 * D", "1 / (B - 4)", "unset * B", "E", "2 * p", "r * B", "delay(B, 1)", "piecewise(1, B > 2)"]
)
def test_what_cannot_be_known_is_left_out(model, formula):
    more = f'<listOfRules>{rules(E=formula, p="E")}<rateRule variable="r">{mathml("1")}</rateRule></listOfRules>'
    found = model([*MOVING, species("E")], more, {"p": None, "r": 1, "unset": None})
    assert found.fill_fixed(TIME, {"B": B}) == ({}, ())


def test_what_rate_rules_and_events_set_needs_a_column(model):
    kinds = [*MOVING, species("E"), species("F", boundary="true"), species("G")]
    more = f'<listOfRules><rateRule variable="E">{mathml("0.1")}</rateRule>{rules(G="E + 1")}</listOfRules>'
    events = (
        '<listOfEvents><event id="e" useValuesFromTriggerTime="true"><trigger initialValue="true" persistent="true">'
        f"{mathml('time > 3')}</trigger><listOfEventAssignments>"
        f'<eventAssignment variable="F">{mathml("2")}</eventAssignment></listOfEventAssignments></event></listOfEvents>'
    )
    found = model(kinds, more, events=events)
    assert set(found.fixed_values) == {"G"}
    assert found.fill_fixed(TIME, {"B": B})[0] == {}
    assert found.fill_fixed(TIME, {"B": B, "E": B})[0]["G"].tolist() == (B + 1).tolist()


def test_rules_with_rates_and_functions(model):
    functions = f'<functionDefinition id="f">{mathml("lambda(x, x^2)")}</functionDefinition>'
    found = model(
        [*MOVING, species("E")],
        f"<listOfRules>{rules(E='f(R) + avogadro / avogadro')}</listOfRules>",
        functions=f"<listOfFunctionDefinitions>{functions}</listOfFunctionDefinitions>",
    )
    assert found.fill_fixed(TIME, {"B": B})[0]["E"] == pytest.approx(4 * B**2 + 1)
