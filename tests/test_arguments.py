"""Arguments of another kind than a public function expects: one line that says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process without the type checks of these tests.
CODE = """
import numpy as np
import metabolismgraph as mg
network = mg.ReactionNetwork.from_reactions("n", ["A"], [])
observations = mg.Observations(network, np.arange(3.0), np.zeros(3, dtype=int), np.ones((3, 1)))
config = mg.load_config("small")
calls = {
    "fit": lambda: mg.fit("data.csv"),
    "config": lambda: mg.fit(observations, "small"),
    "evaluate": lambda: mg.evaluate(observations),
    "identify": lambda: mg.identify(observations),
    "plot": lambda: mg.plot.rates(observations),
    "profile": lambda: mg.profile(observations, ["k:r1"]),
    "bootstrap": lambda: mg.bootstrap(None),
}
for name, called in calls.items():
    try:
        called()
    except mg.InputError as error:
        print(name, error, sep="|")
"""
EXPECTED = {
    "fit": "observations: expected Observations, not str; read files with mg.read(network, table)",
    "config": "config: expected Config, not str; make one with mg.load_config(name, overrides)",
    "evaluate": "result: expected FitResult, not Observations; call mg.fit first",
    "identify": "network: expected ReactionNetwork, not Observations; "
    "call mg.identify(observations.network, observations)",
    "plot": "evaluation: expected Evaluation, not Observations; call mg.evaluate(result) first",
    "profile": "result: expected FitResult, not Observations; call mg.fit first",
    "bootstrap": "result: expected FitResult, not NoneType; call mg.fit first",
}


@pytest.fixture(scope="module")
def said():
    answer = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return dict(line.split("|") for line in answer.stdout.splitlines())


@pytest.mark.parametrize("name", EXPECTED)
def test_another_kind_of_argument_is_named(said, name):
    assert said[name] == EXPECTED[name]
