"""Events at given times: simulation against closed solutions and libroadrunner, derivatives, fits, refusals."""

import math

import numpy as np
import pandas as pd
import pytest
import roadrunner
from test_kinetic_models import rule, rules
from test_petab import problem  # noqa: F401 (a fixture)
from test_petab_fit import HEADER, ROWS, compared
from test_petab_v2 import assert_simulated
from test_petab_v2 import problem as problem_v2  # noqa: F401 (a fixture)
from test_sbml import document, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError

TIMES = np.linspace(0, 4, 17)
DECAY = reaction("R", "A", "", "c * k * A")
BOTH = [DECAY, reaction("Q", "", "B", "c * k * A")]


def event(trigger, *, delay="", priority="", initially=True, persistent=True, from_trigger=True, **changes):
    """Assignments when a trigger becomes true."""
    parts = "".join(f"<{kind}>{mathml(of)}</{kind}>" for kind, of in (("delay", delay), ("priority", priority)) if of)
    inside = "".join(
        f'<eventAssignment variable="{name}">{mathml(formula)}</eventAssignment>' for name, formula in changes.items()
    )
    flags = f'initialValue="{str(initially).lower()}" persistent="{str(persistent).lower()}"'
    return (
        f'<event useValuesFromTriggerTime="{str(from_trigger).lower()}">'
        f"<trigger {flags}>{mathml(trigger)}</trigger>{parts}<listOfEventAssignments>{inside}</listOfEventAssignments>"
        "</event>"
    )


def model(*all_events, parameters=(("k", 0.7), ("t", 1.0)), reactions=(DECAY,), kinds=("A",), size=2, **more):
    """A decays from 3 with a rate constant k of 0.7."""
    made = [kind if "<" in kind else species(kind, more='initialConcentration="3"') for kind in kinds]
    text = document(
        list(reactions),
        kinds=[one.replace('constant="true"', 'constant="false"') for one in made],
        parameters=dict(parameters),
        compartments=[("c", size)],
        events=f"<listOfEvents>{''.join(all_events)}</listOfEvents>",
        **more,
    )
    return text.replace('spatialDimensions="3" constant="true"', 'spatialDimensions="3" constant="false"')


@pytest.fixture
def simulate(tmp_path):
    def inner(text, variables=("A",), times=TIMES):
        (tmp_path / "model.xml").write_text(text)
        return mg.simulate_model(tmp_path / "model.xml", np.array(times, dtype=float), list(variables))

    return inner


def fall(span, k=0.7):
    return math.exp(-k * span)


@pytest.mark.parametrize(
    ("happens", "at", "expected"),
    [
        # At the time of an event, the values are those after it; with > those before it.
        (event("time >= 1", A="A + 2"), (1, 2), [3 * fall(1) + 2, (3 * fall(1) + 2) * fall(1)]),
        (event("time > 1", A="A + 2"), (1, 2), [3 * fall(1), (3 * fall(1) + 2) * fall(1)]),
        (event("t <= time", A="5"), (1, 2), [5, 5 * fall(1)]),
        (event("time >= t + 0.5", A="5"), (1, 2), [3 * fall(1), 5 * fall(0.5)]),
        # It is true from the start; or becomes true then.
        (event("time >= 0", A="5"), (0, 1), [3, 3 * fall(1)]),
        (event("time >= 0", initially=False, A="5"), (0, 1), [5, 5 * fall(1)]),
        (event("time < 1", initially=False, A="5"), (0, 1), [5, 5 * fall(1)]),
        (event("time > 0", A="5"), (0, 1), [3, 5 * fall(1)]),
        # A window, one that comes again, one that never opens.
        (event("(time >= 1) && (time < 2)", A="5"), (1, 3), [5, 5 * fall(2)]),
        (event("((time >= 1) && (time < 2)) || (time >= 3)", A="5"), (2, 3), [5 * fall(1), 5]),
        (event("!(time < 1)", A="5"), (0, 1), [3, 5]),
        (event("(time >= 1) && (time < 1)", A="5"), (1, 2), [3 * fall(1), 3 * fall(2)]),
        # A delay; priorities; values from before all events of the time.
        (event("time >= 1", delay="t / 2", A="5"), (1, 2), [3 * fall(1), 5 * fall(0.5)]),
        (event("time >= 1", delay="1", from_trigger=False, A="2 * A"), (1, 2), [3 * fall(1), 6 * fall(2)]),
        (event("time >= 1", priority="1", A="5") + event("time >= 1", priority="2", A="9"), (0, 1), [3, 5]),
        (event("time >= 1", A="2 * k") + event("time >= 1", k="A"), (1, 2), [1.4, 1.4 * fall(1, 3 * fall(1))]),
        # A compartment keeps its amounts; constants; the last value of a parameter counts.
        (event("time >= 1", c="2 * c"), (1, 2), [1.5 * fall(1), 1.5 * fall(2)]),
        (event("time >= 1", k="0") + event("time >= 2", k="1"), (2, 3), [3 * fall(1), 3 * fall(1) * fall(1, 1)]),
    ],
)
def test_closed_solutions(simulate, happens, at, expected):
    assert simulate(model(happens), times=at)["A"].tolist() == pytest.approx(expected, rel=1e-7)


def test_all_quantities_that_an_event_may_change(simulate):
    held = species("E", more='initialConcentration="1"', boundary="true")
    converted = reaction("R", "A", "B", "c * k * A * E")
    product = '<speciesReference species="B" stoichiometry="1" constant="true"/>'
    assert product in converted
    product_of_s = '<speciesReference id="s" species="B" stoichiometry="1" constant="false"/>'
    converted = converted.replace(product, product_of_s)
    of_amount = species("B", more='initialAmount="0"', amount="true")
    text = model(
        event("time >= 1", E="3", q="q + A", s="10"),
        event("time >= 2", B="B / 2", c="4", x="1"),
        kinds=["A", of_amount, held],
        reactions=[converted],
        parameters={"k": 0.7, "q": 1.0, "x": 2.0, "y": None},
        more=rules(rule("rate", "x", "-x"), rule("assignment", "y", "q + E + s")),
    )
    found = simulate(text, ["A", "B", "E", "c", "q", "x", "y"], times=(0.5, 1, 2, 3))
    assert found["E"].tolist() == [1, 3, 1.5, 1.5]
    assert found["c"].tolist() == [2, 2, 4, 4]
    one = 3 * fall(1)
    assert found["q"].tolist() == pytest.approx([1] + [1 + one] * 3)
    assert found["A"].tolist() == pytest.approx([3 * fall(0.5), one, one / 2 * fall(3), one / 2 * fall(4.5)])
    assert found["x"].tolist() == pytest.approx([2 * fall(0.5, 1), 2 * fall(1, 1), 1, fall(1, 1)])
    made = 2 * (3 - one)  # an amount, in a volume of two
    two = (made + 10 * 2 * one * (1 - fall(3))) / 2
    three = two + 10 * 2 * one * (fall(3) - fall(4.5))
    assert found["B"].tolist() == pytest.approx([2 * 3 * (1 - fall(0.5)), made, two, three])
    assert found["y"].tolist() == pytest.approx([3, 14 + one, 12.5 + one, 12.5 + one])


SYSTEMS = {
    "pulse": event("time >= 1.3", A="A + q"),
    "dilution": event("time >= 1", A="A / 2", B="B / 2") + event("time > 2", c="2 * c"),
    "switch": event("(time >= t) && (time < 2)", k="2 * k") + event("time >= 2", k="q / 4"),
    "delay": event("time >= t", delay="0.6", B="q"),
    "start": event("time >= 0", initially=False, A="A + q") + event("time > 0", B="1"),
    "rules": event("time >= 1", x="x + q", A="x"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_libroadrunner_agrees_and_derivatives_are_right(simulate, problem, tmp_path, name):  # noqa: F811
    text = model(
        SYSTEMS[name],
        kinds=["A", "B"],
        reactions=BOTH,
        parameters={"k": 0.7, "q": 2.0, "t": 1.0, "x": 0.5},
        more=rules(rule("rate", "x", "-0.3 * x * k")),
    )
    ours = simulate(text, ["A", "B"])
    other = roadrunner.RoadRunner(str(tmp_path / "model.xml"))
    other.integrator.relative_tolerance, other.integrator.absolute_tolerance = 1e-10, 1e-12
    other.timeCourseSelections = ["[A]", "[B]"]
    np.testing.assert_allclose(ours[["A", "B"]], np.array(other.simulate(times=[*TIMES])), rtol=1e-6, atol=1e-9)
    rows = [
        f"{o}\tonly\t{v:.6g}\t{t}\n"
        for o, s in (("a", "A"), ("b", "B"))
        for t, v in zip(TIMES, ours[s] + 0.1, strict=True)
    ]
    path = problem(
        text,
        parameters=f"{HEADER}k\tlog10\t0.01\t10\t0.6\t1\nq\tlin\t0\t9\t1.5\t1\n",
        conditions="conditionId\nonly\n",
        observables="observableId\tobservableFormula\tnoiseFormula\na\tA\t0.1\nb\tB\t0.1\n",
        measurements=ROWS + "".join(rows),
    )
    compared(path)


def test_an_event_at_the_time_of_a_change_of_conditions(problem_v2):  # noqa: F811
    # As in case 30 of the PEtab test suite: conditions change first; a compartment that an event changes keeps amounts,
    # also of a species with a rate rule.
    text = model(
        event("time >= 10", from_trigger=False, c="c * 2"),
        reactions=[reaction("R", "B", "", "c * k * B")],
        kinds=["A", "B"],
        parameters={"k": 1.0},
        more=rules(rule("rate", "A", "k")),
        size=4,
    )
    path = problem_v2(
        text,
        observables="observableId observableFormula noiseFormula\nv c+0*dose 1\na A*c sd\n",
        conditions="conditionId targetId targetValue\nset A 2\nbig A A+c\nbig c 8\n",
        experiments="experimentId time conditionId\ne 0 set\ne 10 big\n",
        measurements="observableId experimentId measurement time\n"
        + "".join(f"{o} e {t} {t}\n" for t in (0, 5, 10, 15) for o in "va"),
    )
    k = 0.7
    at_ten = 2 + 10 * k + 4  # in a volume of 8, which is then 16
    expected = [4, 8, 4, 4 * (2 + 5 * k), 16, 8 * at_ten, 16, 16 * (at_ten / 2 + 5 * k)]
    assert_simulated(path, expected)


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (event("A < 1", A="5"), r"event without id does not happen at a given time \(time >= 5\)"),
        (event("time - 1 >= 0", A="5"), "does not happen at a given time"),
        (event("time == 1", A="5"), "does not happen at a given time"),
        (event("time >= A", A="5"), "the trigger of event without id depends on what changes"),
        (
            event("time >= k", A="5") + event("time >= 2", k="5"),
            "the trigger of event without id depends on what changes",
        ),
        (event("time >= 1", delay="A", A="5"), "the delay of event without id depends on what changes"),
        (event("time >= 1", delay="-1", A="5"), "the delay of event without id is -1; it must be finite and >= 0"),
        (event("time >= 1", delay="1", persistent=False, A="5"), "has a delay and is not persistent"),
        (event("time >= 1", delay="1", A="A + 1"), "assigns values from before it"),
        (event("time >= 1", A="5") + event("time >= 1", A="6"), "several events at time 1 change A, and no priority"),
        (
            event("time >= 1", priority="2", A="5") + event("time >= 1", A="6"),
            "several events at time 1 change A, and no priority",
        ),
        (
            event("time >= 1", from_trigger=False, A="k") + event("time >= 1", k="A"),
            "several events at time 1, and one that does not use the values from before",
        ),
        (event("time >= 1", A="5", c="4"), "change the concentration of A and the size of its compartment c"),
        (event("time >= 1", A="k / p"), "p, on which A after an event depends, has no value"),
    ],
)
def test_what_is_refused(simulate, happens, message):
    with pytest.raises(InputError, match=message):
        simulate(model(happens))


def test_a_rule_and_an_event_of_the_same_variable(simulate):
    text = model(event("time >= 1", k="2"), more=rules(rule("assignment", "k", "time")))
    with pytest.raises(InputError, match="k is computed by a rule; an event cannot change it, too"):
        simulate(text)


def test_problems_whose_events_are_refused(problem, problem_v2):  # noqa: F811
    text = model(event("time >= t", A="5"))
    tables = {
        "conditions": "conditionId\tk\nbefore\t1\nonly\t\n",
        "observables": "observableId\tobservableFormula\tnoiseFormula\na\tA\t0.1\n",
    }
    rows = {"measurements": ROWS + "a\tonly\t1\t2\n"}
    path = problem(text, parameters=f"{HEADER}t\tlog10\t0.01\t10\t0.6\t1\n", **tables, **rows)
    assert mg.simulate_petab(path)["simulation"].tolist() == pytest.approx([5 * fall(2 - 0.6)], rel=1e-6)
    with pytest.raises(InputError, match="the trigger of event without id depends on t, which is estimated; times of"):
        mg.fit_petab(path, 1)
    rows = {"measurements": ROWS.replace("time", "time\tpreequilibrationConditionId") + "a\tonly\t1\t2\tbefore\n"}
    path = problem(text, parameters=f"{HEADER}k\tlog10\t0.01\t10\t0.6\t1\n", **tables, **rows)
    with pytest.raises(InputError, match="events, and a steady state before the experiment, are not simulated"):
        mg.simulate_petab(path)
    path = problem_v2(
        text,
        conditions="conditionId targetId targetValue\nlater t 3\n",
        experiments="experimentId time conditionId\nearly 0 .\nearly 1 later\n",
    )
    with pytest.raises(InputError, match="t, on which the time of an event depends, changes at time 1"):
        mg.simulate_petab(path)


def test_a_pulse_of_unknown_size_in_measured_data(tmp_path):
    text = model(event("time >= t", A="A + dose"), parameters={"k": 1.0, "t": 1.0, "dose": 1.0})
    (tmp_path / "model.xml").write_text(text)
    true = mg.simulate_model(tmp_path / "model.xml", TIMES, ["A"], {"k": 0.4, "dose": 2.5})
    true.to_csv(tmp_path / "pulse.csv", index=False)
    made = mg.write_model_problem(tmp_path / "model.xml", [tmp_path / "pulse.csv"], tmp_path / "problem", noise=0.02)
    assert made.notes == ("Not estimated, since the time of an event depends on it: t.",)
    fit = mg.fit_petab(made.path, starts=2)
    assert fit.estimates.loc[["k", "dose"], "estimate"].tolist() == pytest.approx([0.4, 2.5], rel=1e-3)
    # A table that begins later would move the pulse.
    true[true["time"] >= 0.5].to_csv(tmp_path / "late.csv", index=False)
    with pytest.raises(InputError, match=r"experiment late begins at 0.5; let its times begin at 0"):
        mg.write_model_problem(tmp_path / "model.xml", [tmp_path / "late.csv"], tmp_path / "again")
    with pytest.raises(InputError, match="input A is changed by an event; remove the event, or the input"):
        mg.write_model_problem(tmp_path / "model.xml", [tmp_path / "pulse.csv"], tmp_path / "input", inputs=["A"])


def test_a_rule_of_the_time_and_a_table_that_begins_later(tmp_path):
    text = document(
        [DECAY], kinds=[species("A")], parameters={"k": None}, more=rules(rule("assignment", "k", "1 + time"))
    )
    (tmp_path / "model.xml").write_text(text)
    pd.DataFrame({"time": [2.0, 3.0, 4.0], "A": [3.0, 2.0, 1.0]}).to_csv(tmp_path / "late.csv", index=False)
    with pytest.raises(InputError, match=r"the rule of k depends on the time, which is 0 at the initial state"):
        mg.write_model_problem(tmp_path / "model.xml", [tmp_path / "late.csv"], tmp_path / "problem")
