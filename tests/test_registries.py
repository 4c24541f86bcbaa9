"""Something new of each kind is a file of its own and one line in a registry: here that line is a monkeypatch."""

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

import metabolismgraph as mg
from metabolismgraph import figures, formats, metrics
from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.engines.registry import ENGINES, make_engine
from metabolismgraph.explore.proposers import PROPOSERS, make_proposer
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.figures import draw_all
from metabolismgraph.figures import training as drawings
from metabolismgraph.ground_truth.rate_laws import RATE_LAWS, chosen_rate_law
from metabolismgraph.ground_truth.rate_laws.base import RateLaw
from metabolismgraph.metrics import find
from metabolismgraph.schedulers.settings import ClusterSettings


@pytest.fixture
def module(monkeypatch):
    """A module that is there under some name."""

    def inner(name, **content):
        made = types.ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    return inner


class Hill(RateLaw):
    """f = (c^2 (1 + K) / (c^2 + K))^order."""

    K: float = 4.0

    def log_factor(self, log_c, order):
        return order * (2 * log_c + jnp.log1p(self.K) - jnp.log(jnp.exp(2 * log_c) + self.K))


def test_a_rate_law(monkeypatch):
    monkeypatch.setitem(RATE_LAWS, "hill", Hill)
    config = mg.load_config("small", ["simulation.rate_law={hill: {K: 9.0}}", "simulation.n_frames=30"])
    truth = mg.simulate(config).truth
    order, c, f = truth.rate_law.T
    np.testing.assert_allclose(f, (c**2 * 10 / (c**2 + 9)) ** order, rtol=1e-9)


def test_an_unknown_rate_law_or_parameter_is_refused():
    for text, message in (
        ("{}", "found 0 names, expected one"),
        ("{mass_action: {}, michaelis_menten: {}}", "found 2 names, expected one"),
        ("{mass_akshun: {}}", "unknown law mass_akshun; did you mean mass_action"),
        ("{michaelis_menten: {K: 1.0}}", "parameter K of michaelis_menten: there is no such parameter"),
        (
            "{michaelis_menten: {half_saturation: -1.0}}",
            "parameter half_saturation of michaelis_menten: .*greater than 0",
        ),
    ):
        config = mg.load_config("small", [f"simulation.rate_law={text}"])
        with pytest.raises(InputError, match=message):
            chosen_rate_law(config.simulation)


def test_an_input_format(monkeypatch, module, small, tmp_path):
    module("metabolismgraph.formats.lab_book", read_lab_book=lambda path: small.observations)
    monkeypatch.setitem(formats._FORMATS, ".lab", "lab_book:read_lab_book")
    path = tmp_path / "experiment.lab"
    path.touch()
    assert mg.read(path) is small.observations
    assert mg.read(str(path)) is small.observations


def test_an_engine(monkeypatch, module):
    module("elsewhere", Engine=ProcessEngine)
    monkeypatch.setitem(ENGINES, "elsewhere", ("elsewhere", "Engine"))
    make_engine(ClusterSettings(engine="elsewhere"), 1, 60.0).close()


def test_a_proposer(monkeypatch, module, tmp_path):
    module("metabolismgraph.explore.proposers.oracle", make=lambda settings, folder, record: RulesProposer())
    monkeypatch.setitem(PROPOSERS, "oracle", "oracle")
    assert isinstance(make_proposer("oracle", Exploration(proposer="oracle"), tmp_path), RulesProposer)
    with pytest.raises(InputError, match="proposer rulez: unknown; did you mean rules"):
        make_proposer("rulez", Exploration(), tmp_path)


def test_a_metric_with_a_figure(monkeypatch, small, small_config, small_phase1, tmp_path):
    """The record in metrics.py, what computes it, and a line for the figure."""
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, metrics.Metric("n_frames", "frames")))
    assert find("n_frames").meaning == "frames"
    listed = figures._figures
    monkeypatch.setattr(figures, "_figures", lambda *a, **k: {**listed(*a, **k), "figures/more.png": drawings.loss})
    evaluation = mg.evaluate(
        mg.fit(
            small.observations, small_config.replace({"training.homeostasis_training": False}), checkpoint=small_phase1
        )
    )
    draw_all(evaluation.data, evaluation.metrics, tmp_path, small_config.plotting)
    assert (tmp_path / "figures" / "more.png").is_file()
