"""The SBML test suite: what is read, and whether it means what the suite's reference results say."""

import csv
import functools
from pathlib import Path

import libsbml
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from metabolismgraph.errors import InputError
from metabolismgraph.formats.fitted_model import write_fitted_sbml
from metabolismgraph.formats.sbml import read_sbml

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
SUITE = MODELS / "sbml-semantic"
GOOD_REASONS = ("has no species", "has no reactions", "is not a constant number >= 0")

pytestmark = pytest.mark.skipif(not SUITE.exists(), reason="the SBML test suite is not here")


@functools.cache
def models():
    """All that can be read, and why the others cannot."""
    found, reasons = {}, []
    for path in sorted(MODELS.rglob("*.xml")):
        try:
            found[path] = read_sbml(path)
        except InputError as error:
            reasons.append(str(error))
    return found, reasons


def results(path, network):
    """Times, and concentrations by species."""
    lines = (SUITE / f"{path.stem}-settings.txt").read_text().splitlines()
    settings = dict(line.split(":", 1) for line in lines if ":" in line)
    amounts = {name.strip() for name in settings["amount"].split(",")}
    with (SUITE / f"{path.stem}-results.csv").open() as stream:
        head, *rows = csv.reader(stream)
    data = np.array([[float(x) for x in row] for row in rows if row])
    volume = dict(zip(network.species, network.volume, strict=True))
    names = [name.strip() for name in head]
    return data[:, 0], {
        name: data[:, i] / (volume[name] if name in amounts else 1.0) for i, name in enumerate(names) if name in volume
    }


def cases():
    return [(path, model) for path, model in models()[0].items() if path.parent == SUITE]


def test_all_files_are_read_or_refused_with_a_good_reason():
    found, reasons = models()
    assert len(found) + len(reasons) >= 200
    assert [reason for reason in reasons if not any(g in reason for g in GOOD_REASONS)] == []
    assert len(reasons) < 60


def test_fixed_species_are_what_the_reference_results_say():
    n_filled = 0
    for path, model in cases():
        time, table = results(path, model.network)
        filled, notes = model.fill_fixed(time, {s: c for s, c in table.items() if s not in model.fixed_values})
        assert set(filled) == set(model.fixed_values), path.name
        assert bool(notes) == bool(filled)
        for name in set(filled) & set(table):
            assert filled[name] == pytest.approx(table[name], rel=1e-3, abs=1e-9), (path.name, name)
            n_filled += 1
    assert n_filled >= 50


def test_rate_constants_and_volumes_give_the_reference_results():
    n_compared = 0
    for path, model in cases():
        network = model.network
        time, table = results(path, network)
        fixed = {s for s, f in zip(network.species, network.fixed, strict=True) if f}
        if set(model.rate_constants) != set(network.reactions) or not fixed <= set(model.fixed_values):
            continue
        if model.index.events or any(model.index.varies(c) for c in model.index.compartments):
            continue
        found = simulate(model, time, model.fill_fixed(time, table)[0])
        for name in set(table) - fixed:
            assert found[name] == pytest.approx(table[name], rel=2e-3, abs=1e-8), (path.name, name)
            n_compared += 1
    assert n_compared >= 200


def simulate(model, time, filled):
    network = model.network
    k = np.array([model.rate_constants[r] for r in network.reactions])
    orders = np.zeros((network.n_reactions, network.n_species))
    orders[network.edge_reaction, network.edge_species] = network.edge_order
    start = np.array([model.initial[s] for s in network.species], dtype=float)
    S = network.stoichiometry

    def rate(t, c):
        c = c.copy()
        for name, values in filled.items():
            c[network.species.index(name)] = np.interp(t, time, values)
        return S @ (k * np.prod(np.where(orders > 0, np.abs(c), 1.0) ** orders, axis=1))

    solution = solve_ivp(rate, (time[0], time[-1]), start, "LSODA", time, rtol=1e-8, atol=1e-13)
    return dict(zip(network.species, solution.y, strict=True))


def errors(text):
    document = libsbml.readSBMLFromString(text)
    document.checkConsistency()
    return [
        document.getError(i).getMessage()
        for i in range(document.getNumErrors())
        if document.getError(i).getSeverity() >= libsbml.LIBSBML_SEV_ERROR
    ]


@pytest.mark.slow
def test_every_model_is_written_back_as_valid_sbml_with_the_same_network(tmp_path):
    x = np.linspace(-3, 3, 100)
    out = tmp_path / "fitted.xml"
    for path, model in models()[0].items():
        network = model.network
        law = {float(order): (x, order * x - np.log1p(np.exp(x) / 3)) for order in set(network.edge_order)}
        k = {name: model.rate_constants.get(name, 0.1) for name in network.reactions}
        write_fitted_sbml(path.read_bytes(), network, k, dict.fromkeys(network.species, (-0.1, 0.5)), law, out)
        assert errors(out.read_text()) == [] or errors(path.read_text()), path.name
        for source in (path.read_bytes(), None):
            write_fitted_sbml(source, network, model.rate_constants, {}, {}, out)
            back = read_sbml(out)
            assert back.network.to_reactions() == network.to_reactions(), path.name
            assert back.rate_constants == pytest.approx(model.rate_constants, rel=1e-12, abs=0), path.name
