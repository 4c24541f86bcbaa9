"""Stability: what differs between replicates, how nodes are ranked, runs with fresh seeds."""

import json

import journals
import numpy as np
import pytest
from explorer_lives import JOB, explorer, opened

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.events import Validated
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.planning import plan, replicate_of
from metabolismgraph.explore.published_format import analysis
from metabolismgraph.explore.reliability import reliability
from metabolismgraph.explore.start import prepared
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import best, candidate, merit, nodes
from metabolismgraph.explore.validation import validate


def state_of(*runs, **settings):
    """A state from (node, reward) by iteration."""
    changes = {f"exploration.{name}": value for name, value in settings.items()}
    state = State.of([journals.opened(Config().replace(changes))])
    for number, (node, reward) in enumerate(runs, start=1):
        state = state.after(journals.proposed(number, node=node, seed=41 + number))
        for event in journals.ended(journals.finished(number, reward, reward)):
            state = state.after(event)
    return state


# A high mean with one bad run, and a lower one without.
RUNS = ((1, 1.0), (2, 0.85), (1, 1.0), (2, 0.86), (1, 0.6), (2, 0.84))


@pytest.mark.parametrize(("reward", "winner"), [("mean", 1), ("worst", 2)])
def test_nodes_are_ranked_by_the_mean_or_the_worst_replicate(reward, winner):
    state = state_of(*RUNS, reward=reward)
    assert candidate(state).id == winner
    assert best(state).id == winner


def test_the_lower_bound_is_that_of_students_interval():
    state = state_of(*RUNS, reward="lower_bound")
    every = nodes(state)
    squares = sum(len(node.rewards) * np.var(node.rewards) for node in every)
    expected = every[0].mean - 2.776445 * np.sqrt(squares / 4 / 3)  # t of 97.5 % with 4 degrees of freedom
    assert merit(every[0], state, every) == pytest.approx(expected, rel=1e-6)
    assert merit(every[0], state_of((1, 0.7), reward="lower_bound"), every[:1]) >= 0


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (("training_seed",), (45, {})),
        (("data_seed",), (42, {"simulation.seed": 45})),
        (("held_out",), (42, {"training.held_out_part": 3})),
        (("training_seed", "data_seed"), (45, {"simulation.seed": 45})),
    ],
)
def test_what_differs_between_replicates(vary, expected):
    state = state_of(replicates_vary=vary)
    assert replicate_of(state, 0) == (42, {})
    assert replicate_of(state, 3) == expected


def test_replicates_that_would_be_the_same_are_refused():
    changes = {"exploration.replicates_vary": ("held_out",), "exploration.replicates": 6}
    with pytest.raises(InputError, match="6 replicates would share 5 parts"):
        prepared(Config().replace(changes))
    prepared(Config().replace(changes | {"exploration.replicates": 5}))


def test_a_replicate_is_described_with_its_own_data(tmp_path):
    config = Config().replace({"exploration.replicates_vary": ("data_seed",)})
    state = State.of([journals.opened(config)])
    first = plan(journals.proposal(None), state, 1, by="x")
    state = state.after(first)
    for event in journals.ended(journals.finished(1, 0.5, 0.5)):
        state = state.after(event)
    again = plan(journals.proposal(1, mode="replicate", strategy=""), state, 2, by="x")
    folder = ExplorationFolder(tmp_path)
    folder.describe(again, state)
    job = json.loads((folder.job(2) / "job.json").read_text())
    assert job["config"]["simulation"]["seed"] == 43
    assert job["config"]["training"]["seed"] == 42
    assert job["variation"] == {"simulation.seed": 43}


# -- runs with fresh seeds


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    path = tmp_path_factory.mktemp("validated") / "exploration"
    opened(path)
    explorer(path).run(4)
    return path


def engine():
    return ProcessEngine(2, 60.0, JOB)


def test_runs_with_fresh_seeds_are_kept_and_not_counted_in_the_tree(explored):
    folder = ExplorationFolder(explored)
    before = State.of(folder.journal.read())
    seen = []
    found = validate(folder, engine(), 1, 3, seen.append)
    assert found.runs == len(seen) == 3
    more = validate(folder, engine(), 1, 5)  # goes on where the other one ended
    state = State.of(folder.journal.read())
    assert more.runs == 5
    assert sorted(run.seed for run in state.validations) == [1042, 1043, 1044, 1045, 1046]
    assert state.iterations == before.iterations
    assert nodes(state) == nodes(before)
    log = (explored / f"{state.opened.name}_analysis.md").read_text()
    assert log.count("> Validation of node 1 with seed") == 5
    assert log == analysis.render(folder.journal.read())


def test_an_exploration_goes_on_after_a_validation(explored):
    assert len(explorer(explored).run(5).iterations) == 5


@pytest.mark.parametrize("node", [99, 0])
def test_a_node_that_is_not_there(explored, node):
    with pytest.raises(InputError, match=f"node {node}: no such node"):
        validate(ExplorationFolder(explored), engine(), node, 2)


def validated(number, reward, classification="converged", **given):
    values = {"node": 1, "number": number, "seed": 1042 + number, "metrics": {}, "reason": None, "seconds": 1.0}
    return Validated(**(values | {"state": "scored", "reward": reward, "classification": classification} | given))


def test_reliability():
    """Wilson 1927 for 3 of 4: 0.30 to 0.95."""
    state = state_of((1, 0.5))
    for event in (*(validated(n, r) for n, r in enumerate((1.0, 0.98, 0.99))), validated(3, 0.2, "failed")):
        state = state.after(event)
    state = state.after(validated(4, 0.0, "failed", state="lost"))
    found = reliability(state, 1)
    assert (found.runs, found.converged, found.worst.seed) == (4, 3, 1045)
    assert found.interval == pytest.approx((0.30064, 0.95441), abs=1e-4)
    rewards = [1.0, 0.98, 0.99, 0.2]
    assert found.variation == pytest.approx(np.std(rewards, ddof=1) / np.mean(rewards))
    assert str(found).startswith("3 of 4 fresh seeds converged (95 % interval 0.30 to 0.95); reward 0.792")
    assert reliability(state, 2) is None
