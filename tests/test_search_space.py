"""Search spaces: files, rewards and classes, the moves of the rules, the log."""

import io
import math
from collections import Counter
from pathlib import Path

import journals
import pytest
from rich.console import Console

from metabolismgraph.cli.explore_tables import iteration_page
from metabolismgraph.config import Config, load_config
from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Opened
from metabolismgraph.explore.planning import RefusedError, plan
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.published_format import analysis
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import parse_space, shipped_space, space_of
from metabolismgraph.explore.start import prepared
from metabolismgraph.explore.state import State

JOINT, PHASE1 = shipped_space("joint"), shipped_space("phase1")
START = prepared(load_config("explore_joint_rank50"))
RULES = RulesProposer()


def opened(**given):
    space, content = parse_space("joint")
    primary = space.primary(None)
    values = {"config": START.model_dump(mode="json"), "primary": primary, "oracle": True, "space": content}
    return Opened(name="joint", proposer="rules", version="0", data="simulated", **(values | given))


def metrics(r2=0.95, slope=1.0, accuracy=1.0, pearson=0.99, clusters=2):
    found = journals.metrics_of(slope, slope, rate_constants_R2=r2, test_pearson=pearson, test_R2=pearson**2)
    found |= {"embedding_cluster_acc": accuracy, "embedding_n_clusters": clusters, "degeneracy_gap": pearson - r2}
    return found | {"embedding_silhouette": 0.9 if clusters > 1 else None}


def verdict(**given):
    outcome = journals.finished(1).model_copy(update={"metrics": metrics(**given)})
    return score(outcome, JOINT, "rate_constants_R2")


def explored(*ended, **given):
    """The joint exploration by the rules after runs with these metrics."""
    state = State.of([opened(**given)])
    for number, found in enumerate(ended, start=1):
        state = state.after(plan(asked(state), state, number, by="rules"))
        outcome = journals.finished(number).model_copy(update={"metrics": found})
        state = state.after(outcome).after(score(outcome, state.space, state.opened.primary))
    return state


def asked(state):
    number = len(state.iterations) + 1
    return RULES.propose(state, number, state.slot(number), ()).value


# -- files


def test_what_a_search_space_fixes_holds_in_every_run():
    training = START.training
    assert (training.phase1_method, training.joint_training, training.skip_phase1) == ("gradient", True, False)
    assert prepared(load_config("explore_rank50")).training.skip_phase1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": [{"key": "training.learning_rate_kk", "name": "x"}]}, "training.learning_rate_kk is not a key"),
        ({"parameters": [{"key": "simulation.seed", "name": "x"}]}, "simulation.seed is not a key"),
        ({"order": ["lr_kk"]}, "lr_kk is not one of the parameters; did you mean lr_k?"),
        ({"moves": [{"mode": "kick", "why": "x", "changes": [{"lr": "up"}]}]}, "lr is not one of the parameters"),
        ({"moves": [{"mode": "kick", "why": "x", "when": {"R2": [0, 1]}}]}, "R2 is not a metric"),
        ({"moves": [{"mode": "Kick!", "why": "x"}]}, "moves[0].mode"),
        ({"slots": ["worst"]}, "slots[0]"),
        ({"rewards": {"beauty": {"terms": [{"metric": "slope"}]}}}, "beauty is not a metric"),
        ({"strategies": True}, "training.strategies"),
        ({"trains": "nothing"}, "trains is 'nothing'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_file_is_refused_on_one_line(change, said, tmp_path):
    _, content = parse_space("joint")
    with pytest.raises(InputError) as error:
        space_of({**content, **change}, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["jiont", "no/such/file.yaml"])
def test_a_search_space_that_is_not_there(source):
    with pytest.raises(InputError, match=f"exploration.space is {source}, neither.*joint, phase1, phase2"):
        prepared(Config().replace({"exploration.space": source}))


def test_an_exploration_keeps_the_search_space_it_began_with(tmp_path):
    _, content = parse_space("joint")
    mine = {**content, "order": ["lr_sub"], "first_batch": []}
    assert State.of([opened(space=mine)]).space.order == ("lr_sub",)
    assert State.of([journals.opened()]).space == shipped_space("phase2")


def test_a_reward_that_is_not_there():
    with pytest.raises(InputError, match="exploration.primary is beauty.*rate_constants_R2, validation"):
        prepared(START.replace({"exploration.primary": "beauty"}))


def test_which_rewards_use_the_truth():
    assert JOINT.uses_truth("rate_constants_R2")
    assert not JOINT.uses_truth("validation")


# -- rewards and classes


def test_slopes_and_types_count_once_rate_constants_hold():
    assert verdict(r2=1.0).reward == 1
    assert verdict(r2=0.92).reward == pytest.approx((2 * 0.92 + 1 + 1) / 4)
    assert verdict(r2=0.89).reward == pytest.approx(2 * 0.89 / 4)
    assert verdict(r2=0.95, slope=0.0, accuracy=0.5).reward == pytest.approx((1.9 + 0.5) / 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "converged"),
        ({"slope": 2.1}, "partial-k"),
        ({"accuracy": 0.99}, "partial-k"),
        ({"slope": 0.0}, "partial-k"),
        ({"r2": 0.89}, "partial-homeo"),
        ({"r2": 0.49}, "failed"),
        ({"r2": 0.8, "slope": 0.09}, "failed"),
    ],
)
def test_classes(given, expected):
    assert verdict(**given).classification == expected
    assert verdict(**given).status == expected.partition("-")[0]


@pytest.mark.parametrize(("r2", "state"), [(None, "nan"), (math.nan, "nan"), (-0.2, "negative")])
def test_without_rate_constants_there_is_no_reward(r2, state):
    found = metrics() | {"rate_constants_R2": r2}
    scored = score(journals.finished(1).model_copy(update={"metrics": found}), JOINT, "rate_constants_R2")
    assert (scored.state, scored.reward, scored.classification) == (state, 0.0, "failed")


# -- proposals


def refusal(**given):
    state = explored()
    with pytest.raises(RefusedError) as error:
        plan(journals.proposal(None, **given), state, 1, by="x")
    return str(error.value)


def test_a_value_outside_its_range_is_refused():
    assert refusal(mutations={"lr_k": (0.005, 0.02)}) == "lr_k: 0.005 -> 0.02: lr_k may be from 0.0001 to 0.01"


def test_a_change_without_effect_is_refused():
    assert "rollouts are off; set recurrent_training" in refusal(mutations={"time_step": (1, 4)})
    assert "coeff_k_floor is 0" in refusal(mutations={"coeff_k_floor": (1, 0), "k_floor_threshold": (-2, -3)})


def test_there_are_no_strategies_and_no_key_of_phase_2():
    assert "strategies may not be changed: it is fixed in this" in refusal(mutations={"strategies": (None, [])})
    assert "may not be changed" in refusal(mutations={"training.phase2_steps": (600, 700)})
    assert "has none" in refusal(strategy="1 residual")


def test_architecture_may_be_changed():
    found = plan(journals.proposal(None, {"hidden_dim_sub": (64, 32)}), explored(), 1, by="x")
    assert found.settings["graph_model.hidden_dim_sub"] == 32


# -- the rules


def test_the_first_batch_is_that_of_the_search_space():
    state = explored(*[metrics()] * 4)
    assert [[str(m) for m in i.proposed.mutations] for i in state.iterations] == [
        [],
        ["lr_node: 0.0001 -> 0.0005"],
        ["coeff_MLP_node_L1: 1 -> 0.1"],
        ["recurrent_training: False -> True", "time_step: 1 -> 4", "lr_k: 0.005 -> 0.002"],
    ]
    assert [i.proposed.time_step for i in state.iterations] == [1, 1, 1, 4]


@pytest.mark.parametrize(
    ("found", "mode", "changes"),
    [
        (metrics(r2=0.6, slope=0.5), "degeneracy-break", {"recurrent_training": True, "time_step": 4}),
        (metrics(slope=0.05, clusters=1, accuracy=0.5), "k-protect", {"lr_node": 3.16e-5, "lr_embedding": 3.16e-5}),
        (metrics(r2=0.7, slope=0.05, pearson=0.8, clusters=1), "exploit", {"lr_k": 0.01}),
        (metrics(r2=0.85, slope=0.5, clusters=1), "embedding-focus", {"lr_embedding": 3.16e-4}),
    ],
)
def test_the_moves(found, mode, changes):
    """After a first batch with these metrics, whose first run is the best."""
    worse = {**found, "rate_constants_R2": found["rate_constants_R2"] - 0.001}
    proposal = asked(explored(found, *[worse] * 3))
    assert (proposal.parent, proposal.mode) == (1, mode)
    assert {m.param: m.new for m in proposal.mutations} == changes


def test_a_flat_network_is_kicked_once_rate_constants_hold():
    bad = metrics(r2=0.6, slope=0.05, pearson=0.7)
    flat = metrics(slope=0.05, accuracy=0.5)
    proposal = asked(explored(flat, bad, bad, bad))
    assert (proposal.mode, [m.param for m in proposal.mutations]) == ("homeo-kick", ["lr_node"])


def test_after_three_that_converged_an_end_of_a_range_is_probed():
    state = explored(*[metrics(r2=0.95)] * 4)
    while len(state.iterations) < 7:  # the leading node is replicated first
        number = len(state.iterations) + 1
        outcome = journals.finished(number).model_copy(update={"metrics": metrics(r2=0.95)})
        state = state.after(plan(asked(state), state, number, by="rules")).after(outcome)
        state = state.after(score(outcome, state.space, state.opened.primary))
    state = state.after(plan(asked(state), state, 8, by="rules"))  # slot 3 tests a principle
    proposal = asked(state)
    assert proposal.mode == "boundary-probe"
    assert proposal.mutations[0].new in JOINT.by_name[proposal.mutations[0].param].range


def test_slots_play_their_roles():
    state = explored(metrics(r2=0.6, pearson=0.7), *[metrics(r2=0.5 + i / 100, pearson=0.6) for i in range(3)])
    found = []
    for number in range(5, 9):
        found.append(asked(state))
        state = state.after(plan(found[-1], state, number, by="rules"))
    best, second, explores, tests = found
    assert (best.parent, second.parent) == (1, 4)
    assert explores.mode == "explore"
    tried = {mutation.param for iteration in state.iterations[:6] for mutation in iteration.proposed.mutations}
    assert explores.mutations[0].param not in tried
    assert (tests.mode, tests.mutations) == ("test-principle", ())
    made = state.iterations[7].proposed
    assert (made.node, made.seed) == (tests.parent, 43)


def test_a_principle_is_tested_until_its_pairs_are_enough():
    """Slot 3 of every batch: pairs of runs are added where there are fewest."""
    state = explored(*[metrics(r2=0.6 + i / 100, pearson=0.7) for i in range(4)])
    tested = []
    for number in range(5, 25):
        proposal = asked(state)
        tested += [proposal.hypothesis] if proposal.mode == "test-principle" else []
        state = state.after(plan(proposal, state, number, by="rules"))
        outcome = journals.finished(number).model_copy(update={"metrics": metrics(r2=0.6, pearson=0.7)})
        state = state.after(outcome).after(score(outcome, state.space, state.opened.primary))
    assert len(tested) == 5
    assert max(Counter(tested).values()) <= 2  # a pair of runs takes two, after which there are others with fewer
    assert len(set(tested)) >= 3


# -- the log


def test_an_entry_of_the_log():
    state = explored(*[metrics(r2=0.6 + i / 100, pearson=0.7, slope=0.3) for i in range(4)])
    events = [opened()]
    for iteration in state.iterations:
        events += [iteration.proposed, iteration.outcome, iteration.scored]
    readings = RULES.read(state, range(1, 5), ()).value
    events.append(journals.remembered(range(1, 5), readings=readings.iterations, memory=readings.memory))
    entry = analysis.render(events).split("## Iter 2: ")[1].split("## Iter 3")[0].splitlines()
    assert entry[0] == "partial-homeo"
    labels = [line.partition(":")[0] for line in entry[1:] if line]
    assert labels == [
        *("Node", "Mode/Strategy", "Slot", "Config", "Metrics", "Visual", "Mutation", "Parent rule", "Strategy"),
        *("Observation", "Next"),
    ]
    assert entry[4].startswith("Config: seed=42, lr_k=0.005, lr_embedding=0.0001, lr_node=0.0005, lr_sub=0.005, ")
    assert "degeneracy_gap=0.0900, alpha=nan, avg_slope_ratio=0.3000, slope_ratio_0=0.3000" in entry[5]
    assert entry[6].startswith("Visual: MLP_sub=unknown: no truth, MLP_node=active")
    assert entry[6].endswith("k=bad: R2=0.610 of log10 k")
    assert entry[8] == "Parent rule: root (first batch)"


def test_phase_1_alone_is_judged_by_rate_constants():
    config = prepared(load_config("explore_joint_rank50", ["exploration.space=phase1"]))
    assert not config.training.homeostasis_training
    found = {"rate_constants_R2": 0.93, "n_outliers": 1}
    scored = score(journals.finished(1).model_copy(update={"metrics": found}), PHASE1, "rate_constants_R2")
    assert (scored.reward, scored.classification) == (0.93, "converged")


def test_the_file_of_the_documentation():
    page = Path(__file__).parents[1] / "docs" / "search_spaces.md"
    content = parse_yaml(page.read_text().split("```yaml\n")[1].split("```")[0], "the page")
    space = space_of(content, "the page")
    assert space.modes == ("exploit", "explore", "replicate", "test-principle", "slow-down")
    assert space.by_name["lr_sub"].first == "down"


def test_an_iteration_is_shown_with_the_metrics_of_its_reward_first(tmp_path):
    state = explored(*[metrics(r2=0.6)] * 4)
    shown = Console(width=100, file=io.StringIO(), force_terminal=False)
    shown.print(iteration_page(state, 2, tmp_path))
    names = [line.split()[0] for line in shown.file.getvalue().split("metric", 1)[1].splitlines()[2:] if line.strip()]
    assert names[:4] == [
        "rate_constants_R2",
        "MLP_node_slope_ratio_0",
        "MLP_node_slope_ratio_1",
        "embedding_cluster_acc",
    ]
