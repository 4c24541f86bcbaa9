"""Explorations that start from the best node of another one."""

import journals
import pytest

from metabolismgraph.config import Config, load_config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.continuation import start_from
from metabolismgraph.explore.published_format.import_log import import_log
from metabolismgraph.explore.start import prepared

ENTRY = """## Iter {i}: partial
Node: id={i}, parent=root
Mode/Strategy: exploit
Config: seed=42, lr_k={rate}, lr_sub=0.0005, batch_size=16, data_augmentation_loop=500, colour=3
Metrics: rate_constants_R2={r2}, test_R2=0.9
Mutation: lr_k: 0.005 -> {rate}
Observation: fine
Next: parent=root

"""
PHASE1 = prepared(load_config("small", ["exploration.space=phase1"]))


@pytest.fixture
def imported(tmp_path):
    log = tmp_path / "old_analysis.md"
    log.write_text("".join(ENTRY.format(i=i, rate=0.001 * i, r2=0.1 * i) for i in (1, 3, 2)))
    import_log(log, tmp_path / "old", metric="rate_constants_R2")
    return tmp_path / "old"


def test_an_imported_log_is_gone_on_with_from_its_best_node(imported):
    config, where = start_from(PHASE1, imported)
    training = config.training
    assert (training.learning_rate_k, training.learning_rate_sub, training.batch_size) == (0.003, 0.0005, 16)
    assert training.data_augmentation_loop == 500
    assert where == "starts from node 3 of old (reward 0.300 there, 1 run)"


def test_a_log_of_another_search_space_is_refused(imported):
    log = imported.parent / "bare_analysis.md"
    entry = ENTRY.format(i=1, rate=1, r2=0.5).replace("lr_", "rate_").replace("batch_", "").replace("data_", "")
    log.write_text(entry)
    import_log(log, imported.parent / "bare", metric="rate_constants_R2")
    with pytest.raises(InputError, match="Config of iteration 1 names none of the parameters.*lr_k, lr_node"):
        start_from(PHASE1, imported.parent / "bare")


def test_an_own_exploration_hands_over_its_best_node(tmp_path):
    events = journals.exploration(8)
    journals.journal(tmp_path / "first", events)
    config, where = start_from(prepared(Config()), tmp_path / "first")
    node = int(where.split("node ")[1].split()[0])
    changes = next(e.changes for e in events if e.event == "proposed" and e.iteration == node)
    assert config.training.learning_rate_node_homeostasis == changes.get(journals.RATE, 0.01)
    assert config.training.homeostasis_time_step == 1  # it belongs to the slot


def test_without_a_reward_there_is_nothing_to_start_from(tmp_path):
    journals.journal(tmp_path / "empty", [journals.opened()])
    with pytest.raises(InputError, match="no iteration has a reward"):
        start_from(PHASE1, tmp_path / "empty")
