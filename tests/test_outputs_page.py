"""docs/outputs.md says what is in the files."""

from pathlib import Path

import numpy as np
import pytest
from continuous import LOTKA_VOLTERRA, observe

import metabolismgraph as mg
from metabolismgraph.evaluation.variables import VARIABLES

PAGE = Path("docs/outputs.md").read_text()


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_of_evaluation_nc_has_its_line(name):
    assert f"| `{name}` | {VARIABLES[name][0]} |" in PAGE


def test_every_column_is_described():
    config = mg.load_config("small", ["training.homeostasis_training=false"])
    result = mg.fit(observe(LOTKA_VOLTERRA, np.linspace(0, 30, 301)), config)
    for table in (result.rate_constants, result.homeostasis):
        for column in table.columns:
            assert f"`{column}`" in PAGE
