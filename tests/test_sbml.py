"""SBML in and out: what is read as mass action, what is split, what is refused."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metabolismgraph.errors import InputError
from metabolismgraph.formats.sbml import SbmlModel, read_sbml, write_sbml
from metabolismgraph.system.network import Reaction, ReactionNetwork

SHARED = Path(__file__).resolve().parents[2] / "shared"
L3 = '<sbml xmlns="http://www.sbml.org/sbml/level3/version1/core" level="3" version="1">'
L2 = '<sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4">'
L1 = '<sbml xmlns="http://www.sbml.org/sbml/level1" level="1" version="2">'
CATALYST = "1 modifier is taken as a catalyst, a substrate of order 1, since the file does not state its influence"
MATHML = '<math xmlns="http://www.w3.org/1998/Math/MathML">'


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    return path


def species(name, *, more='initialConcentration="1"', boundary="false", constant="false", amount="false", cell="c"):
    return (
        f'<species id="{name}" compartment="{cell}" {more} hasOnlySubstanceUnits="{amount}" '
        f'boundaryCondition="{boundary}" constant="{constant}"/>'
    )


def side(tag, text):
    """`2 A + B` as SBML."""
    if not text:
        return ""
    references = ""
    for part in text.split("+"):
        *number, name = part.split()
        references += (
            f'<speciesReference species="{name}" stoichiometry="{number[0] if number else 1}" constant="true"/>'
        )
    return f"<{tag}>{references}</{tag}>"


def mathml(expression):
    """A formula in libsbml's infix notation as MathML."""
    libsbml = pytest.importorskip("libsbml")
    node = libsbml.parseL3Formula(expression)
    assert node is not None, libsbml.getLastParseL3Error()
    return libsbml.writeMathMLToString(node).split("?>")[1]


def reaction(name, left="", right="", law=None, *, modifiers=(), reversible="false", local=""):
    helpers = "".join(f'<modifierSpeciesReference species="{m}"/>' for m in modifiers)
    return (
        f'<reaction id="{name}" reversible="{reversible}" fast="false">{side("listOfReactants", left)}'
        f"{side('listOfProducts', right)}{f'<listOfModifiers>{helpers}</listOfModifiers>' if helpers else ''}"
        + (f"<kineticLaw>{mathml(law)}{local}</kineticLaw>" if law else "")
        + "</reaction>"
    )


def document(reactions, *, kinds=None, parameters=(), more="", compartments=(("c", 1),), functions="", events=""):
    values = "".join(
        f'<parameter id="{k}"{"" if v is None else f" value={chr(34)}{v}{chr(34)}"} constant="false"/>'
        for k, v in dict(parameters).items()
    )
    cells = "".join(
        f'<compartment id="{c}" size="{s}" spatialDimensions="3" constant="true"/>' for c, s in compartments
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{L3}<model id="test">{functions}'
        f"<listOfCompartments>{cells}</listOfCompartments>"
        f"<listOfSpecies>{''.join(kinds or [species(s) for s in 'ABCE'])}</listOfSpecies>"
        f"{f'<listOfParameters>{values}</listOfParameters>' if values else ''}{more}"
        f"<listOfReactions>{''.join(reactions)}</listOfReactions>{events}</model></sbml>"
    )


def level2(text):
    """The same document in Level 2, which has no `constant` on species references."""
    return (
        text.replace(L3, L2)
        .replace('" constant="true"/></listOf', '"/></listOf')
        .replace('" constant="true"/><speciesReference', '"/><speciesReference')
    )


@pytest.fixture
def read(tmp_path):
    def inner(text, name="network.xml") -> SbmlModel:
        path = tmp_path / name
        path.write_text(text)
        return read_sbml(path)

    return inner


@pytest.fixture
def law(read):
    """Reactions and rate constants of one reaction with a kinetic law."""

    def inner(formula, left="A", right="B", parameters=(("k", 2.0), ("q", 0.5)), **options):
        made = {key: options.pop(key) for key in ("modifiers", "reversible", "local") if key in options}
        model = read(document([reaction("R", left, right, formula, **made)], parameters=parameters, **options))
        return {r.id: r for r in model.network.to_reactions()}, model.rate_constants, model.notes

    return inner


# -- species and reactions without laws


@pytest.mark.parametrize("convert", [str, level2], ids=["level 3", "level 2"])
def test_species_reactions_and_modifiers(read, convert):
    model = read(
        convert(document([reaction("R1", "A + B", "2 B"), reaction("R2", "1.5 C", "0.25 A", modifiers=["E"])]))
    )
    assert model.network.id == "test"
    assert model.network.species == ("A", "B", "C", "E")
    assert model.network.to_reactions() == [
        Reaction("R1", {"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
        Reaction("R2", {"C": 1.5, "E": 1.0}, {"C": -1.5, "A": 0.25}),
    ]
    assert model.initial == dict.fromkeys("ABCE", 1.0)
    assert model.rate_constants == {}
    assert model.notes == (f"{CATALYST} (E in R2).",)


def test_a_species_written_twice_on_one_side_is_added_up(read):
    (first,) = read(document([reaction("R", "A + A", "B")])).network.to_reactions()
    assert first == Reaction("R", {"A": 2.0}, {"A": -2.0, "B": 1.0})


def test_boundary_and_constant_species_are_fixed(read):
    kinds = [species("A", boundary="true"), species("B"), species("C", boundary="true", constant="true")]
    network = read(document([reaction("R", "A", "B")], kinds=kinds)).network
    assert network.fixed.tolist() == [True, False, True]
    assert network.stoichiometry[:, 0].tolist() == [0.0, 1.0, 0.0]


def test_initial_concentrations_also_from_amounts_and_assignments(read):
    kinds = [
        species("A", more='initialAmount="6"'),
        species("B", more=""),
        species("C"),
        species("E", more='initialConcentration="2.5"'),
    ]
    more = (
        f'<listOfInitialAssignments><initialAssignment symbol="C">{mathml("2 * k")}</initialAssignment>'
        "</listOfInitialAssignments>"
    )
    text = document([reaction("R", "A", "B")], kinds=kinds, parameters={"k": 4}, more=more, compartments=[("c", 2)])
    assert read(text).initial == {"A": 3.0, "B": None, "C": 8.0, "E": 2.5}


def test_reversible_without_a_law_is_split(read):
    model = read(document([reaction("R", "2 A", "B", modifiers=["E"], reversible="true"), reaction("S", "B", "C")]))
    assert model.network.to_reactions() == [
        Reaction("R_fwd", {"A": 2.0, "E": 1.0}, {"A": -2.0, "B": 1.0}),
        Reaction("R_rev", {"B": 1.0, "E": 1.0}, {"A": 2.0, "B": -1.0}),
        Reaction("S", {"B": 1.0}, {"B": -1.0, "C": 1.0}),
    ]
    assert model.notes == (
        "1 reversible reaction was split into forward and backward (R).",
        f"{CATALYST} (E in R).",
    )


def test_the_xml_declaration_may_be_missing(read):
    text = document([reaction("R", "A", "B")])
    assert read(text[text.index("<sbml") :]).network.reactions == ("R",)
    assert read(text.replace(' encoding="UTF-8"', "")).network.reactions == ("R",)
    with pytest.raises(InputError, match="not valid SBML: line 4"):
        read("\n\n\n" + text[text.index("<sbml") :].replace("</reaction>", ""))


def test_gzipped(tmp_path):
    (tmp_path / "network.xml.gz").write_bytes(gzip.compress(document([reaction("R", "A", "B")]).encode()))
    assert read_sbml(tmp_path / "network.xml.gz").network.reactions == ("R",)


# -- kinetic laws that are mass action


@pytest.mark.parametrize(
    ("formula", "orders", "k"),
    [
        ("k * A", {"A": 1}, 2.0),
        ("A * 3", {"A": 1}, 3.0),
        ("c * k * A * E", {"A": 1, "E": 1}, 2.0),
        ("k * A^2", {"A": 2}, 2.0),
        ("k * A * A", {"A": 2}, 2.0),
        ("k * sqrt(A)", {"A": 0.5}, 2.0),
        ("k * A * exponentiale / exponentiale * pi / pi * avogadro / avogadro", {"A": 1}, 2.0),
        ("k * root(3, A)", {"A": 1 / 3}, 2.0),
        ("k * pow(A, q)", {"A": 0.5}, 2.0),
        ("A / (k / q)", {"A": 1}, 0.25),
        ("k * A + q * A", {"A": 1}, 2.5),
        ("k * (A + B) - k * B", {"A": 1}, 2.0),
        ("k * A * B / B", {"A": 1}, 2.0),
        ("-(-k) * A", {"A": 1}, 2.0),
        ("k * exp(-ln(4)) * log(10, 100) * A", {"A": 1}, 1.0),
        ("k * (1 + q)^2 * A", {"A": 1}, 4.5),
        ("k", {}, 2.0),
        ("0 * k * A", {"A": 1}, 0.0),
    ],
)
def test_mass_action_laws(law, formula, orders, k):
    reactions, constants, _ = law(formula, modifiers=["E", "B"])
    assert reactions["R"].substrates == pytest.approx(orders)
    assert reactions["R"].net == {"A": -1.0, "B": 1.0}
    assert constants == pytest.approx({"R": k})


def test_the_law_decides_the_substrates(law):
    reactions, _, notes = law("k * A", left="A + C", modifiers=["E"])
    assert reactions["R"] == Reaction("R", {"A": 1.0}, {"A": -1.0, "C": -1.0, "B": 1.0}, mass_action=True)
    assert notes == (
        "1 modifier has no influence on its kinetic law: it was left out (E in R).",
        "1 mass action law has other orders than the reaction equation: those of the law are used (R).",
    )


@pytest.mark.parametrize("formula", ["k * A - q * B", "k * (A - B / 4)", "c * (k * A - q * B)"])
def test_a_difference_is_split(law, formula):
    reactions, constants, notes = law(formula, reversible="true")
    assert reactions == {
        "R_fwd": Reaction("R_fwd", {"A": 1.0}, {"A": -1.0, "B": 1.0}, mass_action=True),
        "R_rev": Reaction("R_rev", {"B": 1.0}, {"A": 1.0, "B": -1.0}, mass_action=True),
    }
    assert constants == {"R_fwd": 2.0, "R_rev": 0.5}
    assert notes == ("1 reversible reaction was split into forward and backward (R).",)


def test_the_law_outweighs_the_reversible_flag(law):
    assert set(law("k * A", reversible="true")[0]) == {"R"}
    assert set(law("k * A - q * B", reversible="false")[0]) == {"R_fwd", "R_rev"}


def test_an_infinite_equilibrium_constant_gives_a_backward_k_of_zero(law):
    _, constants, _ = law("k * (A - B / Keq)", parameters={"k": 2, "Keq": "INF"})
    assert constants == {"R_fwd": 2.0, "R_rev": 0.0}


def test_local_parameters_shadow_global_ones(law):
    local = '<listOfLocalParameters><localParameter id="k" value="7"/></listOfLocalParameters>'
    assert law("k * A", local=local)[1] == {"R": 7.0}


def test_local_parameters_of_level_2(read):
    local = '<listOfParameters><parameter id="k" value="7"/></listOfParameters>'
    assert read(level2(document([reaction("R", "A", "B", "k * A", local=local)]))).rate_constants == {"R": 7.0}


def test_a_parameter_without_value_leaves_k_unknown_but_not_the_orders(law):
    reactions, constants, notes = law("k * A^2 - q * B", parameters={"k": None, "q": 3})
    assert reactions["R_fwd"].substrates == {"A": 2.0}
    assert constants == {"R_rev": 3.0}
    assert "1 rate constant is unknown, since a parameter has no value (R_fwd)." in notes


def test_parameters_set_by_rules_and_initial_assignments(law):
    more = (
        f'<listOfInitialAssignments><initialAssignment symbol="q">{mathml("3 * 5")}</initialAssignment>'
        f'</listOfInitialAssignments><listOfRules><assignmentRule variable="k">{mathml("2 * q")}</assignmentRule>'
        "</listOfRules>"
    )
    assert law("k * A", more=more)[1] == {"R": 30.0}


def test_function_definitions_are_expanded(law):
    functions = (
        "<listOfFunctionDefinitions>"
        f'<functionDefinition id="ma">{mathml("lambda(k, s, k * s)")}</functionDefinition>'
        f'<functionDefinition id="both">{mathml("lambda(s, p, ma(3, s) - ma(4, p))")}</functionDefinition>'
        "</listOfFunctionDefinitions>"
    )
    assert law("both(A, B)", functions=functions)[1] == {"R_fwd": 3.0, "R_rev": 4.0}


def test_functions_called_wrongly_are_not_read(law):
    functions = (
        "<listOfFunctionDefinitions>"
        f'<functionDefinition id="ma">{mathml("lambda(k, s, k * s)")}</functionDefinition>'
        f'<functionDefinition id="loose">{mathml("lambda(s, k * s)")}</functionDefinition>'
        "</listOfFunctionDefinitions>"
    )
    assert law("ma(A)", functions=functions)[1] == {}
    assert law("loose(A)", functions=functions)[1] == {}


def test_compartment_sizes(read):
    """A law is amount per time: k A in a compartment of 4 changes A by k A / 4; amounts are 4 A."""
    plain = document([reaction("R", "A", "B", "c * k * A")], parameters={"k": 2}, compartments=[("c", 4)])
    assert read(plain).rate_constants == {"R": 2.0}
    bare = document([reaction("R", "A", "B", "k * A")], parameters={"k": 2}, compartments=[("c", 4)])
    assert read(bare).rate_constants == {"R": 0.5}
    kinds = [species("A", amount="true"), species("B", amount="true")]
    amounts = document(
        [reaction("R", "2 A", "B", "k * A^2")], kinds=kinds, parameters={"k": 2}, compartments=[("c", 4)]
    )
    assert read(amounts).rate_constants == {"R": 8.0}


def test_compartments_of_different_sizes(read):
    """k of a law in amount per time, divided by the volume of the first reactant."""
    kinds = [species("A"), species("B", cell="d"), species("C", cell="d", boundary="true")]
    reactions = [reaction("R", "A", "B", "k * A"), reaction("S", "C", "A", "k * C")]
    model = read(document(reactions, kinds=kinds, parameters={"k": 2}, compartments=[("c", 4), ("d", 3)]))
    assert model.rate_constants == pytest.approx({"R": 2 / 4, "S": 2 / 3})
    assert model.network.volume.tolist() == [4.0, 3.0, 3.0]
    rates = np.array([0.5, 2 / 3])  # at concentrations of 1: the laws give 2 amounts per time
    assert model.network.stoichiometry @ rates == pytest.approx([0.0, 2 / 3, 0.0])
    assert model.notes == ()


def test_transport_between_compartments(read):
    kinds = [species("gx", cell="big"), species("gy", cell="small")]
    law = [reaction("move", "gx", "gy", "k * gx", reversible="true")]
    model = read(document(law, kinds=kinds, parameters={"k": 0.5}, compartments=[("big", 100), ("small", 1)]))
    k = model.rate_constants["move"]
    assert (model.network.stoichiometry[:, 0] * k).tolist() == pytest.approx([-0.005, 0.5])


def test_both_ways_between_compartments(read):
    """Each direction counts in the volume that it consumes from."""
    kinds = [species("gx", cell="big", amount="true"), species("gy", cell="small")]
    law = [reaction("move", "gx", "gy", "k * gx - q * gy")]
    model = read(document(law, kinds=kinds, parameters={"k": 0.5, "q": 3}, compartments=[("big", 100), ("small", 2)]))
    assert model.rate_constants == pytest.approx({"move_fwd": 0.5, "move_rev": 1.5})
    change = model.network.stoichiometry @ [0.5 * 7.0, 1.5 * 5.0]  # gx = 7, gy = 5
    law_value = 0.5 * 700 - 3 * 5
    assert change == pytest.approx([-law_value / 100, law_value / 2])


@pytest.mark.parametrize(
    "compartment",
    [
        '<compartment id="c" size="0" spatialDimensions="3" constant="true"/>',
        '<compartment id="c" spatialDimensions="0" constant="true"/>',
    ],
)
def test_compartments_without_size_count_as_one(read, compartment):
    text = document([reaction("R", "A", "B", "k * A")], parameters={"k": 2})
    model = read(text.replace('<compartment id="c" size="1" spatialDimensions="3" constant="true"/>', compartment))
    assert model.network.volume.tolist() == [1.0] * 4
    assert model.rate_constants == {"R": 2.0}
    assert model.notes == ("1 compartment has no size > 0: it is taken as 1 (c).",)


def test_a_compartment_whose_size_changes_gives_no_rate_constant(read):
    more = f'<listOfRules><rateRule variable="c">{mathml("0.1")}</rateRule></listOfRules>'
    text = document([reaction("R", "A", "B", "k * A")], parameters={"k": 2}, more=more)
    model = read(text.replace('spatialDimensions="3" constant="true"', 'spatialDimensions="3" constant="false"'))
    assert model.rate_constants == {}
    assert model.network.to_reactions()[0] == Reaction("R", {"A": 1.0}, {"A": -1.0, "B": 1.0}, mass_action=True)
    assert model.notes == (
        "1 reaction is in a compartment whose size changes: its rate constant was not read (R).",
        "1 compartment changes its size: it is taken as constant, at its size at the start (c).",
    )


def test_a_compartment_set_by_an_assignment(read):
    def text(formula):
        start = (
            f'<listOfInitialAssignments><initialAssignment symbol="c">{mathml(formula)}</initialAssignment>'
            "</listOfInitialAssignments>"
        )
        kinds = [species("A", more='initialAmount="6"'), species("B")]
        return document([reaction("R", "A", "B", "k * A")], kinds=kinds, parameters={"k": 2}, more=start)

    by_parameter, by_species, unknown = read(text("2 * k")), read(text("3 * B")), read(text("2 * Z"))
    assert (by_parameter.rate_constants, by_parameter.initial["A"]) == ({"R": 0.5}, 1.5)
    assert (by_species.rate_constants, by_species.initial["A"]) == ({"R": 2 / 3}, 2.0)
    assert unknown.network.volume.tolist() == [1.0, 1.0]
    assert unknown.notes == ("1 compartment has no size > 0: it is taken as 1 (c).",)


def test_a_parameter_assigned_from_initial_concentrations_is_an_unknown_constant(law):
    more = (
        f'<listOfInitialAssignments><initialAssignment symbol="k">{mathml("2 * E")}</initialAssignment>'
        "</listOfInitialAssignments>"
    )
    reactions, constants, _ = law("k * A", more=more)
    assert reactions["R"].substrates == {"A": 1.0}
    assert constants == {}


def test_initial_amounts_by_assignment(read):
    more = (
        f'<listOfInitialAssignments><initialAssignment symbol="A">{mathml("8")}</initialAssignment>'
        f'<initialAssignment symbol="B">{mathml("time")}</initialAssignment></listOfInitialAssignments>'
    )
    kinds = [species("A", amount="true"), species("B")]
    text = document([reaction("R", "A", "B")], kinds=kinds, more=more, compartments=[("c", 4)])
    assert read(text).initial == {"A": 2.0, "B": 0.0}


def test_conversion_factors_give_no_rate_constants(read):
    text = document([reaction("R", "A", "B", "k * A")], parameters={"k": 2, "f": 3})
    model = read(text.replace('<model id="test">', '<model id="test" conversionFactor="f">'))
    assert model.rate_constants == {}
    assert model.notes == ("Conversion factors are not supported: no rate constants were read.",)


# -- kinetic laws that are not


UP, DOWN, NONE = "taken as (a substrate|substrates) of order 1", "reduces? the rate.* left out", "no influence"


@pytest.mark.parametrize(
    ("formula", "helpers", "also"),
    [
        ("k * A / (q + A)", "", [NONE]),
        ("k * A * (q - B)", "", [NONE, DOWN]),  # a conserved total: a difference, but no reverse reaction
        ("k * A - q * E", "", [NONE, DOWN, "can be negative"]),
        ("k / A", "", [NONE]),
        ("k * exp(A)", "", [NONE]),
        ("k * A * time", "", [NONE]),
        ("k * A * C / (q + C)", "C", [UP]),
        ("k * A / (q + C)", "", [DOWN]),
        ("k * A + q * B", "B", [NONE, UP]),
        ("-k * A", "", [NONE]),
        ("piecewise(k * A, A > 1, 0)", "", [NONE]),
        ("k * (A + B)^0.5", "B", [NONE, UP]),
        ("(A + B + C + E + 1)^60", "BCE", [UP]),
        ("k * (-8)^0.5 * A", "", [NONE]),
        ("k * root(0, A)", "", [NONE]),
        ("NaN * A * C", "C", ["taken as a catalyst"]),
        ("k * A / 0", "", [NONE]),
        ("unknown * A", "", [NONE]),
        ("undefined(A)", "", [NONE]),
        ("k * A * ln(0)", "", [NONE]),
        ("infinity * A", "", [NONE]),
    ],
)
def test_other_laws_are_not_read(law, formula, helpers, also):
    reactions, constants, notes = law(formula, left="2 A", modifiers=["C"])
    assert constants == {}
    assert reactions["R"] == Reaction("R", dict.fromkeys(helpers, 1.0) | {"A": 2.0}, {"A": -2.0, "B": 1.0})
    assert (
        "1 kinetic law is not mass action and was not read: its rate law is learned from the data, "
        "with its reactants as substrates (R)."
    ) in notes
    assert len(notes) == 1 + len(also)
    for wording in also:
        assert [note for note in notes if re.search(wording, note)]


@pytest.mark.parametrize(
    ("formula", "backward"),
    [
        ("k * (A - B / 4) / (q + A + B)", True),
        ("k * A / (q + A) - k * B / (q + B)", True),
        ("k * A / (q + A)", False),
        ("k * A / (q + A + B)", False),
        ("k * A * (3 - A)", False),
        ("k * (A - B / unknown) / (q + A)", True),  # what cannot be computed counts, with a minus and a product
        ("unknown * A / (q + A) - k", False),
        ("back(A, B)", True),
    ],
)
def test_a_reversible_reaction_is_split_if_its_law_can_run_backward(law, formula, backward):
    function = mathml("lambda(a, b, (a - b / unknown) / (1 + a))")
    functions = f'<listOfFunctionDefinitions><functionDefinition id="back">{function}</functionDefinition>'
    reactions, constants, notes = law(formula, reversible="true", functions=functions + "</listOfFunctionDefinitions>")
    assert set(reactions) == ({"R_fwd", "R_rev"} if backward else {"R"})
    assert constants == {}
    wording = "split into forward and backward" if backward else "is never negative: it is taken as irreversible"
    assert [note for note in notes if wording in note]


def test_a_minus_in_a_rule_counts_too(law):
    rule = f'<listOfRules><assignmentRule variable="q">{mathml("A - B / unknown")}</assignmentRule></listOfRules>'
    assert set(law("k * q / (1 + A)", reversible="true", more=rule)[0]) == {"R_fwd", "R_rev"}


def test_level_2_makes_reactions_reversible_by_default(read):
    text = level2(document([reaction("R", "A", "B"), reaction("S", "A", "B", "2 * A")]))
    model = read(text.replace(' reversible="false"', ""))
    assert model.network.reactions == ("R_fwd", "R_rev", "S")
    assert model.notes[1].startswith("1 reaction does not state whether it is reversible")
    assert model.notes[1].endswith("(R).")


@pytest.mark.parametrize("term", ["SBO:0000020", "SBO:0000206", "SBO:0000640"])
def test_inhibitors_by_name(read, term):
    text = document([reaction("R", "A", "B", modifiers=["E", "C"])])
    model = read(
        text.replace('<modifierSpeciesReference species="E"', f'<modifierSpeciesReference sboTerm="{term}" species="E"')
    )
    assert model.network.to_reactions()[0].substrates == {"A": 1.0, "C": 1.0}
    assert model.notes == (
        "1 species besides the reactants reduces the rate (an inhibitor): f(c)^order cannot represent that, "
        "so it was left out (E in R).",
        f"{CATALYST} (C in R).",
    )


def test_an_inhibitor_far_from_its_threshold(law):
    _, _, notes = law("k * A / (1 + (E / 5000)^4)", modifiers=["E"])
    assert [note for note in notes if "(E in R)" in note and "inhibitor" in note]


def test_fast_reactions(read):
    text = document([reaction("R", "A", "B", "k * A")], parameters={"k": 2}).replace('fast="false"', 'fast="true"')
    (note,) = read(text).notes
    assert note.startswith("1 reaction is marked as fast: it is treated as an ordinary reaction")
    assert note.endswith("only the ratio of its forward and backward k can be determined (R).")


def lambdas(**bodies):
    """Functions of x."""
    made = "".join(
        f'<functionDefinition id="{name}">{mathml(f"lambda(x, {body})")}</functionDefinition>'
        for name, body in bodies.items()
    )
    return f"<listOfFunctionDefinitions>{made}</listOfFunctionDefinitions>"


@pytest.mark.parametrize(
    ("formula", "bodies", "message"),
    [
        ("f(A)", {"f": "1 + f(x)"}, "function f calls itself"),
        ("f(A)", {"f": "1 + g(x)", "g": "f(x)"}, "calls itself"),
        ("A", {"f": "f(x)"}, "function f calls itself"),
        ("f0(A)", {f"f{i}": f"f{i + 1}(x) + f{i + 1}(x)" for i in range(25)} | {"f25": "x"}, "more than 100000 oper"),
        (
            f"{'f(' * 40}A{')' * 40}",
            {"f": "x + x"},
            "a formula, with the functions that it calls, has more than 100000",
        ),
        ("f0(A)", {f"f{i}": f"f{i + 1}(x)" for i in range(40)} | {"f40": "x"}, "more than 30 deep"),
    ],
)
def test_functions_that_would_never_end(law, formula, bodies, message):
    with pytest.raises(InputError, match=message):
        law(formula, functions=lambdas(**bodies))


def test_nested_calls_evaluate_each_argument_once(law):
    # Each call doubles the argument; with two evaluations for each, there would be a million.
    doubled = "A"
    for _ in range(12):
        doubled = f"f({doubled})"
    _, constants, _ = law(f"k * {doubled}", functions=lambdas(f="x + x"))
    assert constants == {"R": 2.0 * 2**12}


def test_a_varying_parameter_is_no_rate_constant(law):
    rule = f'<listOfRules><rateRule variable="k">{mathml("0.1")}</rateRule></listOfRules>'
    assert law("k * A", more=rule)[1] == {}
    event = (
        '<listOfEvents><event id="e" useValuesFromTriggerTime="true"><trigger initialValue="true" persistent="true">'
        f"{mathml('time > 3')}</trigger><listOfEventAssignments>"
        f'<eventAssignment variable="k">{mathml("2")}</eventAssignment></listOfEventAssignments></event></listOfEvents>'
    )
    _, constants, notes = law("k * A", events=event)
    assert constants == {}
    assert "1 event was not read: it changes its variables abruptly, which no reaction explains (k)." in notes


def test_rules_that_run_in_circles_end(law):
    more = (
        f'<listOfRules><assignmentRule variable="k">{mathml("2 * q")}</assignmentRule>'
        f'<assignmentRule variable="q">{mathml("2 * k")}</assignmentRule></listOfRules>'
    )
    assert law("k * A", more=more)[1] == {}


def test_species_set_by_rules_are_fixed(read):
    more = (
        f'<listOfRules><assignmentRule variable="A">{mathml("2 * B")}</assignmentRule>'
        f'<rateRule variable="C">{mathml("1")}</rateRule><algebraicRule>{mathml("B - E")}</algebraicRule></listOfRules>'
    )
    model = read(document([reaction("R", "", "B", "k * A", modifiers=["A"])], parameters={"k": 2}, more=more))
    assert model.network.fixed.tolist() == [True, False, True, False]
    assert model.network.to_reactions()[0].substrates == {"A": 1.0}
    assert "1 species is set by an assignment rule: it is taken as fixed (A)." in model.notes
    rated = "follows a rate rule, which was not read: it is taken as fixed, and needs a column in the table"
    assert f"1 species {rated} (C)." in model.notes
    assert "1 algebraic rule was not read." in model.notes


# -- stoichiometries that are formulas


def stoichiometry_math(formula):
    text = level2(document([reaction("R", "A", "B")], parameters={"n": 3}))
    return text.replace(
        '<speciesReference species="B" stoichiometry="1"/>',
        f'<speciesReference species="B"><stoichiometryMath>{mathml(formula)}</stoichiometryMath></speciesReference>',
    )


def test_constant_stoichiometry_math(read):
    assert read(stoichiometry_math("2 * n")).network.to_reactions()[0].net == {"A": -1.0, "B": 6.0}


def test_varying_stoichiometry_math(read):
    with pytest.raises(InputError, match="reaction R: the stoichiometry of B is not a constant number >= 0"):
        read(stoichiometry_math("2 * A"))


@pytest.mark.parametrize("attribute", ['stoichiometry="-1"', "", 'stoichiometry="NaN"'])
def test_bad_stoichiometry(read, attribute):
    text = document([reaction("R", "A", "B")]).replace('species="B" stoichiometry="1"', f'species="B" {attribute}')
    with pytest.raises(InputError, match="the stoichiometry of B is not"):
        read(text)


def test_assigned_stoichiometry_of_level_3(read):
    text = document([reaction("R", "A", "B")], parameters={"n": 3}, more="@").replace(
        'species="B" stoichiometry="1" constant="true"', 'species="B" id="b" constant="false"'
    )
    start = (
        f'<listOfInitialAssignments><initialAssignment symbol="b">{mathml("n + 1")}</initialAssignment>'
        "</listOfInitialAssignments>"
    )
    assert read(text.replace("@", start)).network.to_reactions()[0].net["B"] == 4.0
    rule = f'<listOfRules><assignmentRule variable="b">{mathml("time")}</assignmentRule></listOfRules>'
    with pytest.raises(InputError, match="the stoichiometry of B is not"):
        read(text.replace("@", rule))


# -- bad input


def refused(read, text):
    with pytest.raises(InputError) as caught:
        read(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "network.xml: " in message
    return message


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.xml: no such file"):
        read_sbml(tmp_path / "nowhere.xml")


def test_folder(tmp_path):
    with pytest.raises(InputError, match="this is a folder"):
        read_sbml(tmp_path)


def test_damaged_gzip(tmp_path):
    (tmp_path / "network.xml.gz").write_bytes(gzip.compress(b"<sbml/>")[:-9])
    with pytest.raises(InputError, match=r"network\.xml\.gz: not a readable gzip file"):
        read_sbml(tmp_path / "network.xml.gz")


def test_unreadable_file(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(InputError, match=r"network\.xml: cannot be read \(Permission denied\)"):
        read_sbml(tmp_path / "network.xml")


def test_reactions_without_ids(read):
    text = level2(document([reaction("R", "A", "B")])).replace('reaction id="R"', "reaction")
    with pytest.raises(InputError, match="id"):
        read(text)


def test_empty_file(read):
    assert "empty" in refused(read, "")


@pytest.mark.parametrize(
    "text",
    [
        "time,A\n0,1\n",
        "<html><body/></html>",
        f"{L3}<model><listOfSpecies>",
        document([reaction("R", "A", "B")]).replace("</reaction>", ""),
        document([reaction("R", "A", "B")]).replace('reversible="false"', ""),
    ],
    ids=["no XML", "no SBML", "cut off", "unbalanced", "attribute missing"],
)
def test_invalid_sbml(read, text):
    message = refused(read, text)
    assert "not valid SBML: line " in message
    assert len(message) < 600


def test_level_1(read):
    assert "Level 1 is not supported" in refused(
        read, f"<?xml version='1.0' encoding='UTF-8'?>{L1}<model name='m'/></sbml>"
    )


def test_no_species(read):
    assert "no species" in refused(read, f"{L3}<model/></sbml>")


def test_no_reactions(read):
    text = document(["@"]).replace("<listOfReactions>@</listOfReactions>", "")
    assert "no reactions" in refused(read, text)


def test_a_reaction_of_an_unlisted_species(read):
    assert "reaction R names species 'Z'" in refused(read, document([reaction("R", "A", "Z")]))


def test_clashing_ids(read):
    text = document([reaction("R", "A", "B", reversible="true"), reaction("R_rev", "A", "C")])
    assert "another reaction is called R_rev" in refused(read, text)


def test_submodels(read):
    package = "http://www.sbml.org/sbml/level3/version1/comp/version1"
    text = document([reaction("R", "A", "B")])
    text = text.replace(L3, L3[:-1] + f' xmlns:comp="{package}" comp:required="true">').replace(
        "</model>",
        '<comp:listOfSubmodels><comp:submodel comp:id="s" comp:modelRef="m"/></comp:listOfSubmodels></model>'
        '<comp:listOfModelDefinitions><comp:modelDefinition id="m"/></comp:listOfModelDefinitions>',
    )
    assert "flatten it first" in refused(read, text)


def test_any_damage_is_refused_in_one_line(read):
    """Cut off anywhere, or with some bytes changed: read, or an InputError."""
    function = f'<functionDefinition id="f">{mathml("lambda(x, 1 / (1 + x))")}</functionDefinition>'
    text = document(
        [reaction("R", "A", "B", "k * A - q * B"), reaction("S", "2 A", "C", "k * A * f(E)", modifiers=["E"])],
        parameters={"k": 2, "q": 1},
        functions=f"<listOfFunctionDefinitions>{function}</listOfFunctionDefinitions>",
        more=f'<listOfRules><assignmentRule variable="q">{mathml("k + C")}</assignmentRule></listOfRules>',
    )
    random = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(text, "ascii")
        if random.random() < 0.3:
            damaged = damaged[: random.integers(1, len(damaged))]
        for place in random.integers(len(damaged), size=random.integers(3)):
            damaged[place] = random.integers(256)
        try:
            read(bytes(damaged).decode("latin-1"))
        except InputError as error:
            messages.append(str(error))
    assert 50 < len(messages) < 150
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize("depth", [1500, 50_000])
def test_formulas_nested_too_deeply(read, depth):
    nested = f"{MATHML}{'<apply><minus/>' * depth}<ci> A </ci>{'</apply>' * depth}</math>"
    message = refused(read, document([reaction("R", "A", "B", "A")]).replace(mathml("A"), nested))
    assert "fewer brackets" in message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_other_encodings(tmp_path, encoding):
    text = document([reaction("R", "A", "B")]).replace('id="test"', 'id="test" name="Ä"')
    path = tmp_path / "network.xml"
    path.write_bytes(text.replace("UTF-8", encoding.removesuffix("-sig")).encode(encoding))
    model = read_sbml(path)
    assert model.network.reactions == ("R",)
    assert model.index.model.getName() == "Ä"


def test_an_unknown_encoding(read):
    assert "save the file as UTF-8" in refused(read, document([reaction("R", "A", "B")]).replace("UTF-8", "klingon"))


# -- writing


NAMES = [f"S{i}" for i in range(6)]
SIDES = st.dictionaries(st.sampled_from(NAMES), st.decimals(0, 50, places=2).filter(bool), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    written=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6),
    fixed=st.lists(st.sampled_from(NAMES), unique=True),
    initial=st.fixed_dictionaries({s: st.none() | st.floats(0, 1e6, allow_subnormal=False) for s in NAMES}),
)
def test_round_trip(written, fixed, initial, tmp_path_factory):
    reactions = []
    for j, (left, right) in enumerate(written):
        net = {s: float(right.get(s, 0) - left.get(s, 0)) for s in (*left, *right)}
        reactions.append(Reaction(f"R{j}", {s: float(v) for s, v in left.items()}, {s: v for s, v in net.items() if v}))
    network = ReactionNetwork.from_reactions("net", NAMES, reactions, fixed)
    path = tmp_path_factory.mktemp("sbml") / "network.xml"
    write_sbml(network, path, initial)
    back = read_sbml(path)
    assert back.network.to_reactions() == network.to_reactions()
    assert (back.network.id, back.network.species) == (network.id, network.species)
    assert np.array_equal(back.network.fixed, network.fixed)
    assert back.initial == initial
    assert back.rate_constants == {}
    assert back.notes == ()


def one(substrates, net, species_ids=("A", "B"), name="R", id="n"):
    sides = ({s: float(v) for s, v in given.items()} for given in (substrates, net))
    return ReactionNetwork.from_reactions(id, species_ids, [Reaction(name, *sides)])


def test_round_trip_of_floats_and_of_an_empty_reaction(tmp_path):
    network = ReactionNetwork.from_reactions(
        "n", ["A", "B"], [Reaction("R", {"A": 1 / 3}, {"A": -1 / 3, "B": 0.1}), Reaction("nothing", {}, {})]
    )
    write_sbml(network, tmp_path / "network.xml")
    assert read_sbml(tmp_path / "network.xml").network.to_reactions() == network.to_reactions()
    assert '<reaction id="nothing" reversible="false"/>' in (tmp_path / "network.xml").read_text()


def test_round_trip_of_volumes_and_of_laws_known(tmp_path):
    network = ReactionNetwork.from_reactions(
        "n",
        ["cell", "B", "k_R"],
        [
            Reaction("R", {"cell": 1.0, "k_R": 0.5}, {"cell": -2.0, "B": 1.0}, mass_action=True),
            Reaction("S", {"B": 1.0}, {"B": -1.0, "k_R": 2.0}),
        ],
        volume={"cell": 100.0, "B": 0.1},
    )
    write_sbml(network, tmp_path / "network.xml")
    back = read_sbml(tmp_path / "network.xml")
    assert back.network.to_reactions() == network.to_reactions()
    assert np.array_equal(back.network.volume, network.volume)
    assert back.rate_constants == {}


def test_what_is_written_is_valid_sbml(tmp_path):
    libsbml = pytest.importorskip("libsbml")
    write_sbml(one({"A": 1}, {"A": -1, "B": 2}), tmp_path / "network.xml", {"A": 1.5})
    found = libsbml.readSBMLFromFile(str(tmp_path / "network.xml"))
    found.checkConsistency()
    assert found.getNumErrors(libsbml.LIBSBML_SEV_ERROR) == 0


def test_a_model_id_is_made_valid(tmp_path):
    write_sbml(one({}, {"A": 1}, id="3 types-a"), tmp_path / "network.xml")
    assert read_sbml(tmp_path / "network.xml").network.id == "_3_types_a"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (one({}, {"A": -1}), "reaction R: A has order 0 and net coefficient -1"),
        (one({"A": 1}, {"A": -2}), "cannot express"),
        (one({"A": -1}, {"A": 1}), "cannot express"),
        (one({}, {}, species_ids=("A b",)), "'A b' is not an SBML id"),
        (one({}, {}, name="2-R"), "'2-R' is not an SBML id"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, network, message):
    with pytest.raises(ValueError, match=message):
        write_sbml(network, tmp_path / "network.xml")
    assert list(tmp_path.iterdir()) == []


# -- community models: counts of kinds of kinetic laws


def counts(model):
    """(reactions as written, split ones, known k)."""
    pairs = sum(r.endswith("_rev") for r in model.network.reactions)
    return model.network.n_reactions - pairs, pairs, len(model.rate_constants)


def test_benchmark_network():
    model = read_sbml(shared("benchmarks", "oscillatory_rank50", "network.xml"))
    assert (model.network.n_species, model.network.n_reactions) == (100, 255)
    assert model.notes == ()
    assert all(value is not None for value in model.initial.values())


def test_red_blood_cell():
    """All 143 laws are differences of two mass action terms, 65 of which leave out some reactant or product."""
    model = read_sbml(shared("models", "RBC_MASS", "WholeCellRBC_MA_Rates.xml"))
    assert model.network.n_species == 169
    assert counts(model) == (143, 143, 286)
    assert model.notes[0].startswith("143 reversible reactions were split")
    assert model.notes[1].startswith("65 mass action laws have other orders")
    reactions = {r.id: r for r in model.network.to_reactions()}
    assert reactions["R_ADK1_rev"].substrates == {"M_adp_c": 2.0}
    assert reactions["R_ADA_fwd"].substrates == {"M_adn_c": 1.0}  # neither H+ nor water
    assert model.rate_constants["R_UNK3_rev"] == pytest.approx(model.rate_constants["R_UNK3_fwd"] / 1.9)


def test_histone_methylation():
    model = read_sbml(shared("models", "Zheng_PNAS2012", "model_Zheng_PNAS2012.xml"))
    assert counts(model) == (60, 0, 60)
    orders = [tuple(r.substrates.values()) for r in model.network.to_reactions()]
    assert orders.count((1.0,)) == 59
    assert orders.count(()) == 1
    assert model.notes == ()


def test_carotenoids():
    model = read_sbml(shared("models", "Bruno_JExpBot2016", "model_Bruno_JExpBot2016.xml"))
    assert counts(model) == (6, 0, 6)
    assert model.network.n_species == 7


def test_yeast_glycolysis():
    """11 laws: 4 one-way, 1 constant, 1 exchange (v10, a polynomial too), 3 other polynomials, 2 rational.

    All are reversible by default; but of those that are not mass action, only v3 can run backward.
    """
    model = read_sbml(shared("models", "BIOMD0000000206.xml"))
    assert counts(model) == (11, 2, 7)
    assert set(model.rate_constants) == {"v2", "v5", "v7", "v9", "v0", "v10_fwd", "v10_rev"}
    assert model.notes[2].startswith("4 reactions are marked as reversible, but")
    assert model.notes[3].startswith("5 kinetic laws are not mass action")
    assert model.notes[4].endswith("(at in v4, na in v8, na in v6).")
