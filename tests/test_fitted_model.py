"""Models written back with estimates: valid SBML, the same network, the right rates."""

import dataclasses
import re

import libsbml
import numpy as np
import pytest
import roadrunner
from test_sbml import document, level2, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.formats.fitted_model import power_laws, write_fitted_sbml
from metabolismgraph.formats.formula import evaluate
from metabolismgraph.formats.quantities import State, local_parameters
from metabolismgraph.formats.sbml import read_sbml
from metabolismgraph.system.network import Reaction, ReactionNetwork

KINDS = [
    species("A", cell="big"),
    species("B", cell="small", amount="true"),
    species("C", cell="small"),
    species("E", cell="small", boundary="true"),
    species("k_R_fwd", cell="small"),
]
REACTIONS = [
    reaction("R", "A + k_R_fwd", "B + k_R_fwd", "k * A * k_R_fwd - q * B"),
    reaction("S", "2 B", "C", "k * B^2 * E", modifiers=["E"]),
    reaction("T", "C", "A", "k * C / (1 + C)"),
    reaction("U", "", "C", "k"),
]
LOG_C = np.linspace(-4, 4, 200)
SATURATING = (LOG_C, np.log(2) + LOG_C - np.log1p(np.exp(LOG_C)))


@pytest.fixture
def source(tmp_path):
    def inner(change=str):
        text = document(
            REACTIONS, kinds=KINDS, parameters={"k": 2, "q": 0.3}, compartments=[("big", 100), ("small", 0.1)]
        )
        text = change(text)
        (tmp_path / "source.xml").write_text(text)
        return text.encode(), read_sbml(tmp_path / "source.xml")

    return inner


def errors(path):
    found = libsbml.readSBMLFromFile(str(path))
    found.checkConsistency()
    return [
        found.getError(i).getMessage()
        for i in range(found.getNumErrors())
        if found.getError(i).getSeverity() >= libsbml.LIBSBML_SEV_ERROR
    ]


def change(model, c):
    """dc/dt as the laws in the file say."""
    state = State(model.index, c)
    rates = dict.fromkeys(c, 0.0)
    for written in model.index.reactions.values():
        law = written.getKineticLaw()
        rate = float(state.evaluate(law.getMath(), local_parameters(law)))
        for sign, side in ((-1, written.getListOfReactants()), (1, written.getListOfProducts())):
            for reference in side:
                size = model.index.size_of(reference.getSpecies())
                rates[reference.getSpecies()] += sign * reference.getStoichiometry() * rate / size
    return [0.0 if s in model.index.fixed else rates[s] for s in c]


def saturating(c):
    return 2 * c / (1 + c)


def expected(network, k, homeostasis, c, aggregation="mul", law=saturating, log_alpha=None):
    total = []
    for r in network.to_reactions():
        f = [c[s] ** order if r.mass_action else law(c[s]) for s, order in r.substrates.items()]
        v = np.prod(f) if aggregation == "mul" or not f else np.sum(f)
        if log_alpha is not None:  # the published flux, with alpha^n = 1 inside for a reaction without substrates
            n = np.exp(log_alpha * max(len(f), 1))
            v = np.logaddexp(v * n if f else 1.0, 0.0) / n
        total.append(k[r.id] * v)
    rates = network.stoichiometry @ np.array(total)
    for i, s in enumerate(network.species):
        slope, offset = homeostasis.get(s, (0.0, 0.0))
        rates[i] += 0.0 if network.fixed[i] else slope * c[s] + offset
    return rates


STATE = {"A": 0.7, "B": 2.0, "C": 1.3, "E": 3.0, "k_R_fwd": 0.9}


@pytest.mark.parametrize("convert", [str, level2], ids=["level 3", "level 2"])
@pytest.mark.parametrize("aggregation", ["mul", "add"])
def test_the_laws_written_are_those_fitted(source, tmp_path, convert, aggregation):
    content, model = source(convert)
    k = {name: 0.1 * (i + 1) for i, name in enumerate(model.network.reactions)}
    homeostasis = {"A": (-0.1, 0.3), "B": (-0.2, 0.0), "C": (0.0, 0.0), "E": (-1.0, 1.0)}
    out = tmp_path / "fitted.xml"
    notes = write_fitted_sbml(content, model.network, k, homeostasis, {1.0: SATURATING}, out, aggregation=aggregation)
    assert (notes, errors(out)) == ((), [])
    found = change(read_sbml(out), STATE)
    assert found == pytest.approx(expected(model.network, k, homeostasis, STATE, aggregation), rel=2e-3)
    text = out.read_text()
    assert re.findall('<reaction id="(homeostasis_[^"]*)', text) == ["homeostasis_A", "homeostasis_B"]
    assert 'id="k_R_fwd_"' in text  # a species is called k_R_fwd


@pytest.mark.parametrize("convert", [str, level2], ids=["level 3", "level 2"])
def test_another_simulator_agrees(source, tmp_path, convert):
    """libroadrunner, which reads the file by its own code."""
    content, model = source(convert)
    k = {name: 0.1 * (i + 1) for i, name in enumerate(model.network.reactions)}
    homeostasis = {"A": (-0.1, 0.3), "B": (-0.2, 0.0), "C": (0.0, 0.0)}
    out = tmp_path / "fitted.xml"
    write_fitted_sbml(content, model.network, k, homeostasis, {1.0: SATURATING}, out)
    simulator = roadrunner.RoadRunner(str(out))
    simulator.integrator.relative_tolerance, simulator.integrator.absolute_tolerance = 1e-12, 1e-16
    time = np.linspace(0, 5, 21)
    names = ["A", "C", "B"]
    found = simulator.simulate(0, 5, 21, ["[A]", "[C]", "[B]"])
    ours = mg.simulate_model(out, time)[[f"[{name}]" for name in names]].to_numpy()
    assert np.ptp(ours, axis=0).min() > 0.1
    np.testing.assert_allclose(ours, found, rtol=1e-7)


def test_the_softplus_of_a_published_flux(source, tmp_path):
    _, model = source()
    network = dataclasses.replace(model.network, mass_action=np.zeros(model.network.n_reactions, dtype=bool))
    k, out = dict.fromkeys(network.reactions, 0.3), tmp_path / "fitted.xml"
    laws = dict.fromkeys((1.0, 2.0), (LOG_C, 1.5 * LOG_C))  # a power law, which the file represents exactly
    for log_alpha in (-1.0, 2.0, 9.0):  # e^(e^18) would overflow
        write_fitted_sbml(None, network, k, {}, laws, out, log_alpha=log_alpha)
        assert errors(out) == []
        found = change(read_sbml(out), STATE)
        rates = expected(network, k, {}, STATE, law=lambda c: c**1.5, log_alpha=log_alpha)
        assert found == pytest.approx(rates, rel=1e-9)


def test_mass_action_reads_back_as_the_same(source, tmp_path):
    content, model = source(lambda text: text.replace(mathml("k * C / (1 + C)"), mathml("k * C")))
    k = {name: 0.123456789012345 * (i + 1) for i, name in enumerate(model.network.reactions)}
    for given in (content, None):
        assert write_fitted_sbml(given, model.network, k, {}, {}, tmp_path / "fitted.xml") == ()
        back = read_sbml(tmp_path / "fitted.xml")
        assert back.network.to_reactions() == model.network.to_reactions()
        assert np.array_equal(back.network.volume, model.network.volume)
        assert back.rate_constants == pytest.approx(k, rel=1e-13)
        assert errors(tmp_path / "fitted.xml") == []


def test_what_else_the_file_holds_stays(source, tmp_path):
    content, model = source(lambda text: text.replace('<species id="C"', '<species id="C" name="Citrate" metaid="m"'))
    write_fitted_sbml(content, model.network, {"S": 1.0}, {}, {}, tmp_path / "fitted.xml")
    text = (tmp_path / "fitted.xml").read_text()
    assert 'name="Citrate"' in text
    assert '<parameter id="q" value="0.3"' in text


def test_laws_that_were_not_learned_stay(source, tmp_path):
    content, model = source()
    k = {"R_fwd": 1.0, "S": 2.0, "T": 3.0, "U": 1.0}
    notes = write_fitted_sbml(content, model.network, k, {}, {}, tmp_path / "fitted.xml")
    assert notes == (
        "Kinetic laws not changed, since no rate law or no rate constant was learned: 1 (T).",
        "Kinetic laws written with a rate constant that has no value, since none was estimated: 1 (R_rev).",
    )
    assert read_sbml(tmp_path / "fitted.xml").rate_constants == {"R_fwd": 1.0, "S": 2.0, "U": 1.0}


def test_fast_reactions_and_conversion_factors(source, tmp_path):
    def altered(text):
        return text.replace('<model id="test">', '<model id="test" conversionFactor="k">').replace(
            'id="S" reversible="false" fast="false"', 'id="S" reversible="false" fast="true"'
        )

    content, model = source(altered)
    k = dict.fromkeys(model.network.reactions, 1.0)
    notes = write_fitted_sbml(content, model.network, k, {}, {1.0: SATURATING}, tmp_path / "fitted.xml")
    assert notes == (
        "Conversion factors were removed: estimated rate constants do not include them.",
        "Kinetic laws no longer marked as fast, since they have finite rates: 1 (S).",
    )
    assert read_sbml(tmp_path / "fitted.xml").rate_constants.keys() == set(k) - {"T"}


def test_a_network_that_sbml_without_laws_cannot_express(tmp_path):
    network = ReactionNetwork.from_reactions("n", ["A", "B"], [Reaction("R", {"A": 0.5}, {"A": -2.0, "B": 1.0})])
    write_fitted_sbml(None, network, {"R": 1.0}, {}, {0.5: SATURATING}, tmp_path / "fitted.xml", initial={"A": 2.0})
    model = read_sbml(tmp_path / "fitted.xml")
    assert model.initial == {"A": 2.0, "B": None}
    assert change(model, {"A": 1.0, "B": 1.0}) == pytest.approx([-2.0, 1.0], rel=5e-3)
    assert errors(tmp_path / "fitted.xml") == []


def test_another_file(source, tmp_path):
    content, model = source()
    other = ReactionNetwork.from_reactions("n", model.network.species, [Reaction("V", {}, {"A": 1.0})])
    with pytest.raises(ValueError, match="reaction R of the SBML file is not in the network"):
        write_fitted_sbml(content, other, {}, {}, {}, tmp_path / "fitted.xml")
    other = ReactionNetwork.from_reactions("n", ["A"], [Reaction("R", {}, {"A": 1.0})])
    with pytest.raises(ValueError, match="other species"):
        write_fitted_sbml(content, other, {}, {}, {}, tmp_path / "fitted.xml")
    assert not (tmp_path / "fitted.xml").exists()


@pytest.mark.parametrize("n_knots", [2, 7, 200])
def test_power_laws(n_knots):
    log_c = np.linspace(-4, 4, n_knots)
    log_f = np.log(2) + log_c - np.log1p(np.exp(log_c))
    definition = libsbml.FunctionDefinition(3, 1)
    definition.setMath(
        libsbml.readMathMLFromString(
            f'<math xmlns="http://www.w3.org/1998/Math/MathML">{power_laws(log_c, log_f)}</math>'
        )
    )
    c = np.concatenate([[0.0], np.exp(log_c)])
    found = evaluate(definition.getBody(), {"c": c}.__getitem__, {})
    assert found == pytest.approx(np.concatenate([[0.0], np.exp(log_f)]), rel=5e-3)
