"""What several test files share: the small benchmark, and Phase 1 and Phase 2 on it."""

# The package is imported inside the fixtures: pytest reads this file before the shape checks are in place,
# and whatever is imported before them goes unchecked.
# ruff: noqa: PLC0415

import pytest


@pytest.fixture(scope="session")
def small_config():
    from metabolismgraph.config import load_config

    return load_config("small")


@pytest.fixture(scope="session")
def small(small_config):
    """Observations and truth of thirty metabolites and 72 reactions."""
    from metabolismgraph.simulate import simulate

    return simulate(small_config)


@pytest.fixture(scope="session")
def small_phase1(small, small_config):
    from metabolismgraph.train.phase1 import fit_reactions

    return fit_reactions(small.observations, small_config.graph_model, small_config.training)


@pytest.fixture(scope="session")
def small_phase2(small, small_phase1, small_config):
    from metabolismgraph.train.phase2 import fit_homeostasis

    return fit_homeostasis(small.observations, small_phase1, small_config.graph_model, small_config.training)
