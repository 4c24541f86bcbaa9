"""The strategy that docs/developing.md shows is one."""

import re
import sys
import types
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from metabolismgraph.homeostasis.fit import initial_model
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.training_plan import Plan

TEXT = (Path(__file__).resolve().parents[1] / "docs/developing.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)[0]


@pytest.fixture
def example(monkeypatch):
    module = types.ModuleType("decay_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where its annotations are looked up
    exec(EXAMPLE, module.__dict__)
    return module


def test_it_is_short():
    assert 20 < len(EXAMPLE.splitlines()) < 60


def test_it_works(example, small, small_phase1, small_config):
    data = Phase2Data(small.observations, small_phase1, small_config.graph_model, small_config.training)
    plan = example.Decay(weight=0.5).apply(Plan.classical(data), data)
    (term,) = plan.penalties
    model = initial_model(data, plan.residuals)

    @eqx.filter_jit
    def both(model):
        return jax.value_and_grad(term)(model)

    value, gradient = both(model)
    assert term.name == "decay"
    assert float(value) == pytest.approx(0.5 * sum(float(np.sum(w**2)) for w in model.mlp_node.perceptron.weights))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
