"""Strategy files as a good language model writes them from the prompt: none of them is refused.

They were written before they were reviewed, and are different from those of the package; what they use that the
review does not know by heart is what it must not refuse.
"""

import builtins
from pathlib import Path

import pytest
from hypothesis import settings
from strategy_files import base_run

from metabolismgraph.explore.review.admission import learned_faults, systems_for, write_trial
from metabolismgraph.explore.review.examination import examine
from metabolismgraph.explore.review.syntax import static_reasons
from metabolismgraph.homeostasis.strategies import custom

FILES = sorted((Path(__file__).parent / "golden" / "honest_strategies").glob("*.py"))
BY_NAME = {path.stem: path.read_text(encoding="utf-8") for path in FILES}
LONG = settings.get_current_profile_name() == "long"
# Each compiles programs of its own: `make test-long` tries all of them.
TRIED = BY_NAME if LONG else ("annealed_noise",)
SMALL = ("graph_model.hidden_dim_node=8", "graph_model.n_layers_node=2")  # for speed
STOPPED = ("training.phase1_method=gradient", "training.phase1_stop_at_r2=0.87")


@pytest.fixture(scope="module", params=[(), STOPPED] if LONG else [()], ids=["good", "imperfect"][: 1 + LONG])
def training(request, tmp_path_factory):
    """The training folder of a base run, with a good checkpoint and with one that was stopped early."""
    return base_run(tmp_path_factory.mktemp("base") / "base", *SMALL, *request.param)


@pytest.mark.parametrize("name", BY_NAME)
def test_honest_files_pass_the_reading(name):
    assert static_reasons(name, BY_NAME[name]) == ()


def test_a_shell_of_python_does_not_change_what_is_a_builtin(monkeypatch):
    """It keeps the last value as `builtins._`, and so does doctest."""
    monkeypatch.setattr(builtins, "_", 1, raising=False)
    source = BY_NAME["weight_averaging"]
    assert "_, " in source
    assert static_reasons("weight_averaging", source) == ()


@pytest.mark.parametrize("name", TRIED)
def test_honest_files_pass_their_trial(name, training, tmp_path):
    source = BY_NAME[name]
    systems = systems_for(source, training)
    write_trial(tmp_path / "trial", {name: source}, systems)
    try:
        assert examine(tmp_path / "trial", name)[1] == []
    finally:
        custom.forget()
    assert learned_faults(tmp_path / "trial", systems) == []
