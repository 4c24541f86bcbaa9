"""What a proposal may change, what it may not, and which node it comes to."""

import contextlib
import json
import math

import journals
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from metabolismgraph.config import Config
from metabolismgraph.explore.events import EVENT
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.planning import (
    RefusedError,
    changed,
    code_of,
    configuration,
    depends_on_time_step,
    full_key,
    plan,
)
from metabolismgraph.explore.proposal import Mutation, Proposal
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes
from metabolismgraph.homeostasis.strategies import STRATEGIES

PHASE2 = shipped_space("phase2")
BASE = Config().replace({STRATEGY: []})
KEYS = [
    f"{section}.{key}"
    for section, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    for key in field.annotation.model_fields
] + [key for key, field in Config.model_fields.items() if field.annotation is str]


def value_of(key, config=BASE):
    found = config.model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    return found


def state_of(*events, config=BASE):
    return State.of([journals.opened(config), *events])


START = state_of()


def planned(mutations=(), parent=None, state=START, iteration=1, **given):
    """The iteration that mutations, as (param, new) or (param, old, new), come to."""
    full = []
    for mutation in mutations:
        param, *old, new = mutation
        before = old[0] if old else value_of(full_key(param, PHASE2), state.config)
        full.append(Mutation(param=param, old=before, new=new))
    proposal = journals.proposal(parent, **({"strategy": ""} | given)).model_copy(update={"mutations": tuple(full)})
    return plan(proposal, state, iteration, by="x")


def refusal(*arguments, **given):
    with pytest.raises(RefusedError) as error:
        planned(*arguments, **given)
    said = str(error.value)
    assert "\n" not in said
    return said


def ran(state, iteration, reward=0.5, **given):
    """The state after an iteration that was planned so, and ended."""
    state = state.after(planned(state=state, iteration=iteration, **given))
    for event in journals.ended(journals.failed(iteration) if reward is None else journals.finished(iteration, reward)):
        state = state.after(event)
    return state


# -- keys


def test_the_list_of_keys_is_that_of_the_model():
    assert {"simulation.seed", "training.log_k_prior", "exploration.ucb", "plotting.dpi", "dataset"} < set(KEYS)
    assert set(PHASE2.names) < set(KEYS)
    assert len(KEYS) > 100


@pytest.mark.parametrize("key", [key for key in KEYS if key not in PHASE2.names])
@pytest.mark.parametrize("short", [False, True])
def test_every_other_key_is_refused_by_name(key, short):
    """With its own value as the old one, and under its bare name too, where no key that may be changed has that."""
    param = key.rpartition(".")[2] if short else key
    if param in PHASE2.by_name:
        return
    said = refusal([(param, value_of(key), value_of(key))])
    assert said.startswith(f"{param} ")
    assert "may not be changed" in said or "is not a parameter" in said
    assert all(name in said for name in PHASE2.by_name)


@pytest.mark.parametrize(
    ("param", "why"),
    [
        ("homeostasis_time_step", "fixed per slot"),
        ("training.homeostasis_time_step", "fixed per slot"),
        ("training.seed", "mode replicate"),
        ("seed", "mode replicate"),
        ("simulation", "simulated system is fixed"),
        ("simulation.homeostatic_lambda_per_type", "simulated system is fixed"),
        ("dataset", "data set is fixed"),
        ("graph_model.hidden_dim_node", "architecture is fixed"),
        ("training.learning_rate_k", "frozen Phase 1"),
        ("learning_rate_k", "frozen Phase 1"),
        ("training.cluster_distance_threshold", "the metrics"),
        ("exploration.replicates", "its own settings"),
        ("plotting.dpi", "not a part of the exploration"),
        ("lr_node_homoe", "did you mean lr_node_homeo"),
        ("training.lr_node_homeo", "is not a parameter"),
        ("claude.n_parallel", "is not a parameter"),
        ("simulation.nonsense", "is not a parameter"),
        ("__class__", "is not a parameter"),
        ("", "is not a parameter"),
        (".", "is not a parameter"),
        ("training.", "is not a parameter"),
    ],
)
def test_why(param, why):
    assert why in refusal([(param, 1, 2)])


@pytest.mark.parametrize(("key", "short"), PHASE2.names.items())
def test_what_may_be_changed_may_under_any_of_its_names(key, short):
    new = {"training.embedding_start": "random", STRATEGY: ["residual"]}.get(key, 7)
    # A setting can only be changed where it has an effect.
    start = {"phase2_steps": ["residual"], "coeff_similarity": ["contrastive"]}.get(short, [])
    state = state_of(config=BASE.replace({STRATEGY: start}))
    for param in {key, short, key.removeprefix("training.")}:
        found = planned([(param, new)], state=state)
        assert found.changes[key] == new
        assert configuration(START, found.changes).value(key) == new


def test_one_forbidden_change_among_good_ones_refuses_all():
    assert "simulation" in refusal([("batch_size", 32), ("simulation.n_frames", 2880, 10)])


def test_a_parameter_changed_twice():
    assert "changed twice" in refusal([("batch_size", 32), ("training.batch_size", 16)])


# -- values


@pytest.mark.parametrize("old", [64, 64.0, "64", " 64 ", "6.4e1"])
def test_the_old_value_may_be_written_in_any_way(old):
    assert planned([("batch_size", old, 32)]).changes["training.batch_size"] == 32


@pytest.mark.parametrize(
    "old",
    [
        *(63, "63", None, True, [64], {"a": 64}, "", "sixty-four", float("nan"), float("inf"), 10**400, "9" * 500),
        *("nan", "\ud800", [[[]]]),
    ],
)
def test_a_wrong_old_value_is_refused_with_the_right_one(old):
    assert "the old value of batch_size is 64" in refusal([("batch_size", old, 32)])


def test_the_old_value_is_that_of_the_parent():
    state = ran(START, 1, mutations=[("batch_size", 64, 32)])
    assert planned([("batch_size", 32, 16)], parent=1, state=state, iteration=2).changes["training.batch_size"] == 16
    assert "the old value of batch_size is 32" in refusal([("batch_size", 64, 16)], parent=1, state=state, iteration=2)
    assert "the old value of batch_size is 64" in refusal([("batch_size", 32, 16)], state=state, iteration=2)


def test_the_old_strategies_are_compared_as_they_are():
    config = BASE.replace({STRATEGY: ["residual", {"contrastive": {"wait": 0.2}}]})
    state = state_of(config=config)
    assert planned([("strategies", [])], state=state).changes[STRATEGY] == []
    for wrong in (None, [], ["residual"], ["residual", "contrastive"], "residual"):
        assert "the old value" in refusal([("strategies", wrong, [])], state=state)


@pytest.mark.parametrize(
    ("param", "new"),
    [
        *(
            (name, bad)
            for name in ("batch_size", "n_epochs", "phase2_steps", "lr_node_homeo")
            for bad in (-1, "x", None)
        ),
        *((name, bad) for name in ("batch_size", "lr_node_homeo") for bad in ([], {}, True, False, [1], "\ud800")),
        *(
            (name, float(bad))
            for name in ("batch_size", "lr_emb_homeo", "coeff_similarity")
            for bad in ("nan", "inf", "-inf")
        ),
        *(("batch_size", 0), ("batch_size", 0.5), ("batch_size", 10**10), ("batch_size", 10**400)),
        *(
            ("n_epochs", 10**400),
            ("data_augmentation_loop", 2**31),
            ("embedding_start", "labels"),
            ("embedding_start", 1),
        ),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_key(param, new):
    assert full_key(param, PHASE2) in refusal([(param, new)])


@pytest.mark.parametrize(("given", "taken"), [(32, 32), (32.0, 32), ("32", 32), (" 32 ", 32)])
def test_values_are_as_the_model_reads_them(given, taken):
    """Else the same configuration, written in two ways, were two nodes."""
    found = planned([("batch_size", given)]).changes["training.batch_size"]
    assert (found, type(found)) == (taken, int)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
@settings(max_examples=50, deadline=None)
def test_whatever_is_proposed_is_a_plan_or_a_refusal(value):
    """And a plan is the same after it was written down and read."""
    for param in PHASE2.by_name:
        for mutation in ((param, value), (param, value, value)):
            with contextlib.suppress(RefusedError):
                found = planned([mutation])
                assert EVENT.validate_json(found.model_dump_json()).changes == found.changes


# -- strategies


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (["nonsense"], "unknown strategy nonsense"),
        (["residuall"], "did you mean residual"),
        (["residual", "residual"], "named twice"),
        (["residual", "weak_form"], "both set the objective"),
        (["residual", "amplification"], "works on rollouts"),
        (["residual", "accumulation"], "works on minibatches"),
        (["curriculum", "multi_scale"], "both set the lengths"),
        ([{"residual": {"nonsense": 1}}], "no such option"),
        ([{"contrastive": {"wait": 1.0}}], "wait of contrastive"),
        ([{"contrastive": {"wait": "soon"}}], "wait of contrastive"),
        ([{"contrastive": {"wait": [0.1]}}], "wait of contrastive"),
        ([{"amplification": {"factor": 0.5}}], "factor of amplification"),
        ([{"curriculum": {"stages": 10**400}}], "stages of curriculum"),
        ([{"curriculum": {"stages": 2.5}}], "stages of curriculum"),
        ([{}], "found 0 names in one entry"),
        ([{"residual": {}, "contrastive": {}}], "found 2 names in one entry"),
        ([{"residual": None}], "training.strategies"),
        ([["residual"]], "training.strategies"),
        ([""], "unknown strategy"),
        (["\ud800"], "unknown strategy"),
        (["../../residual"], "unknown strategy"),
        ("residual", "expected a list"),
        ({"residual": {}}, "expected a list"),
        (3, "expected a list"),
    ],
)
def test_strategies_that_make_no_sense(entries, why):
    assert why in refusal([("strategies", [], entries)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_options_are_finite_numbers(bad):
    """Infinity is above every lower bound, and would not come back from the journal."""
    for entry in ({"amplification": {"factor": bad}}, {"warmup": {"peak": bad}}, {"weak_form": {"rate": bad}}):
        assert "of" in refusal([("strategies", [], [entry])])


@pytest.mark.parametrize(
    "entries", [None, ["residual"], [{"contrastive": {"wait": 0.2}}, "separate"], ["weak_form", "orthogonalised"]]
)
def test_strategies_that_do(entries):
    found = planned([("strategies", [], entries)])
    assert found.changes.get(STRATEGY, []) == entries


def own(block=1, *, options=("strength",), **given):
    """A block boundary at which the exploration's own strategy `mine` landed."""
    declared = {
        "name": "mine",
        "number": 9,
        "summary": "what it does",
        "reference": "what it follows",
        "sets": ["weights"],
        "needs": "",
        "draws_minibatches": False,
        "options": {"properties": {name: {"type": "number"} for name in options}},
    }
    return journals.reviewed(block, file=journals.strategy_file("mine"), declaration=declared, **given)


def test_own_strategies_are_known_once_they_have_landed():
    assert "unknown strategy mine" in refusal([("strategies", [], ["mine"])])
    refused = journals.reviewed(1, file=journals.strategy_file("mine"), reasons=("opens a file",))
    assert "unknown strategy mine" in refusal([("strategies", [], ["mine"])], state=state_of(refused))
    found = planned([("strategies", [], ["mine", "contrastive"])], state=state_of(own()))
    assert found.files == {"mine": journals.strategy_file("mine").digest}
    assert found.code == code_of(found.files) != planned().code


def test_options_of_own_strategies_are_those_that_they_declared():
    state = state_of(own())
    assert planned([("strategies", [], [{"mine": {"strength": 2.0}}])], state=state).changes
    assert "force of mine: there is no such option" in refusal(
        [("strategies", [], [{"mine": {"force": 2.0}}])], state=state
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800", [[1]], {"a": {"b": 1}}, None])
def test_options_of_own_strategies_survive_the_journal(bad):
    assert "strength" in refusal([("strategies", [], [{"mine": {"strength": bad}}])], state=state_of(own()))


def test_another_version_of_a_file_is_another_node():
    state = state_of(own())
    state = ran(state, 1, mutations=[("strategies", [], ["mine"])])
    state = state.after(own(2, landed="b" * 64))
    later = planned([("strategies", [], ["mine"])], state=state, iteration=5)
    assert (later.node, later.files) == (5, {"mine": "b" * 64})
    again = planned(parent=1, mode="replicate", state=state, iteration=5)
    assert (again.node, again.files, again.code) == (
        1,
        {"mine": journals.strategy_file("mine").digest},
        state.iterations[0].proposed.code,
    )


# -- parents and replicates


def test_a_mode_is_one_of_the_moves():
    assert "mode cheat is not one of the moves (exploit, explore, replicate" in refusal([], mode="cheat")


def test_parents_must_be_there_and_have_a_score():
    state = START.after(planned())
    assert "has not finished yet" in refusal(parent=1, state=state, iteration=2)
    assert "has not finished yet" in refusal(parent=1, mode="replicate", state=state, iteration=2)
    for missing in (0, -1, 2, 99, 10**30):
        assert "there is no such node" in refusal(parent=missing, state=state, iteration=2)
    # An iteration that was a replicate is no node of its own.
    state = ran(ran(START, 1), 2, parent=1, mode="replicate")
    assert "parent 2: there is no such node" in refusal(parent=2, state=state, iteration=3)


def test_a_parent_that_failed_is_one_from_which_something_else_may_be_tried():
    state = ran(START, 1, None)
    assert planned([("batch_size", 32)], parent=1, state=state, iteration=2).parent == 1


def test_a_replicate_is_its_node_with_another_seed_and_nothing_else():
    state = ran(START, 1, mutations=[("batch_size", 32)])
    seeds = [state.iterations[0].proposed.seed]
    for iteration in range(2, 6):
        found = planned(parent=1, mode="replicate", state=state, iteration=iteration)
        first = state.iterations[0].proposed
        assert (found.node, found.parent, found.changes, found.code) == (1, None, first.changes, first.code)
        assert (found.mutations, found.strategy) == ((), "classical rollouts")
        assert found.slot == (iteration - 1) % 4
        assert found.time_step == first.time_step
        assert configuration(state, found.changes).training.homeostasis_time_step == first.time_step
        seeds.append(found.seed)
        state = state.after(found)
    assert len(set(seeds)) == 5
    assert [node.id for node in nodes(state)] == [1]


def test_a_replicate_changes_nothing_and_is_of_a_node():
    state = ran(START, 1)
    assert "changes nothing" in refusal([("batch_size", 32)], parent=1, mode="replicate", state=state, iteration=2)
    assert "cannot be root" in refusal(mode="replicate", state=state, iteration=2)


def test_the_same_configuration_is_the_same_node_whatever_it_was_called():
    """Made from root, from another node or with no change at all: one node, with a seed of its own for every run."""
    state = ran(START, 1, mutations=[("batch_size", 32)])
    state = ran(state, 2, mutations=[("lr_node_homeo", 0.05)])
    other = planned([("training.batch_size", 64, "32.0")], state=state, iteration=3)
    assert (other.node, other.parent, other.seed) == (3, None, 42)  # rollouts of that slot are longer
    state = ran(ran(state, 3), 4)
    same = planned([("training.batch_size", 64, "32.0")], state=state, iteration=5)
    assert (same.node, same.parent, same.seed) == (1, None, 43)
    state = state.after(same)
    unchanged = planned(parent=1, state=state, iteration=9)
    assert (unchanged.node, unchanged.parent, unchanged.seed) == (1, None, 44)
    back = planned([("batch_size", 32, 64)], parent=1, state=state, iteration=9)
    assert (back.node, back.parent, back.changes) == (9, 1, {TIME_STEP: 4})


def test_slots_share_a_node_where_the_rollout_length_has_no_say():
    for entries, shared in ((["residual"], True), (["weak_form"], False), ([], False), (None, True)):
        state = state_of(config=Config().replace({STRATEGY: entries}))
        for iteration in range(1, 5):
            state = state.after(planned(state=state, iteration=iteration))
        assert [node.id for node in nodes(state)] == ([1] if shared else [1, 2, 3, 4]), entries
        assert [i.proposed.seed for i in state.iterations] == ([42, 43, 44, 45] if shared else [42] * 4)
        steps = [i.proposed.changes.get(TIME_STEP) for i in state.iterations]
        assert steps == ([None] * 4 if shared else [4, 16, 32, 64])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_knows_whether_the_rollout_length_matters(name):
    config = Config().replace({STRATEGY: [name]})
    full_batch = name in {"residual", "orthogonalised", "shooting"}
    assert depends_on_time_step(config, START) == (not full_batch)


def test_own_strategies_depend_on_the_rollout_length_as_they_declare():
    """Else two equal runs in slots of other lengths would be two nodes."""
    assert TIME_STEP not in planned([("strategies", [], ["residual", "mine"])], state=state_of(own())).changes
    assert planned([("strategies", [], ["mine"])], state=state_of(own())).changes[TIME_STEP] == 4
    undeclared = journals.reviewed(1, file=journals.strategy_file("mine"))
    assert planned([("strategies", [], ["mine"])], state=state_of(undeclared)).changes[TIME_STEP] == 4


def test_the_time_step_is_that_of_the_slot_and_of_nothing_else():
    state = ran(START, 1)
    for iteration, step in ((2, 16), (3, 32), (4, 64), (5, 4), (8, 64)):
        found = planned([("batch_size", 32)], parent=1, state=state, iteration=iteration)
        assert (found.time_step, found.changes[TIME_STEP]) == (step, step)


def test_a_block_starts_from_its_root():
    review = journals.reviewed(1, changes={"training.batch_size": 16})
    state = state_of(review)
    assert planned(state=state, iteration=8).changes.get("training.batch_size") is None
    assert planned(state=state, iteration=9).changes["training.batch_size"] == 16
    assert "the old value of batch_size is 16" in refusal([("batch_size", 64, 32)], state=state, iteration=9)


def test_a_change_back_is_no_change():
    state = ran(START, 1, mutations=[("batch_size", 32)])
    back = changed(state.iterations[0].proposed.changes, [Mutation(param="batch_size", old=32, new=64)], state)
    assert "training.batch_size" not in back


# -- settings with an effect


@pytest.mark.parametrize(
    ("strategies", "mutation", "why"),
    [
        (["residual"], ("batch_size", 32), "all frames in every step"),
        (["residual"], ("data_augmentation_loop", 7), "all frames in every step"),
        (["residual"], ("n_epochs", 3), "all frames in every step"),
        (None, ("n_epochs", 3), "all frames in every step"),
        (["residual"], ("coeff_similarity", 3), "the strategy contrastive"),
        ([], ("phase2_steps", 7), "follows from data_augmentation_loop"),
        ([], ("batch_size", 64), "the same setting"),
        (None, ("strategies", ["residual", "contrastive"]), "the same setting"),
        (["multi_scale"], ("strategies", [{"multi_scale": {"scales": 4}}]), "the same setting"),
        ([], ("lr_emb_homeo", 0.001), "the same setting"),
    ],
)
def test_a_change_without_effect_is_refused_with_the_reason(strategies, mutation, why):
    said = refusal([mutation], state=state_of(config=BASE.replace({STRATEGY: strategies})))
    assert "has no effect" in said
    assert why in said


def test_a_change_with_effect_does_not_excuse_one_without():
    state = state_of(config=BASE.replace({STRATEGY: ["residual"]}))
    assert "batch_size: 64 -> 32 has no effect" in refusal([("lr_node_homeo", 0.1), ("batch_size", 32)], state=state)


def test_a_setting_has_an_effect_if_it_has_one_afterwards():
    state = state_of(config=BASE.replace({STRATEGY: ["residual"]}))
    assert planned([("strategies", []), ("batch_size", 32)], state=state).settings["training.batch_size"] == 32


def test_the_default_by_name_is_the_same_node():
    """Even with settings that differ without an effect."""
    config = Config().replace({STRATEGY: None})
    state = ran(state_of(config=config), 1)
    review = journals.reviewed(1, changes={STRATEGY: ["residual", "contrastive"], "training.batch_size": 16})
    again = planned(state=state.after(review), iteration=9)
    assert (again.node, again.seed) == (1, 43)


def test_a_learning_rate_of_zero_is_the_one_it_stands_for():
    config = BASE.replace({"training.learning_rate_embedding_homeostasis": 0.0})
    assert planned(state=state_of(config=config)).settings["training.learning_rate_embedding_homeostasis"] == 0.01


def test_an_iteration_says_what_trains():
    found = planned([("lr_node_homeo", 0.1)], state=state_of(config=Config()))
    assert found.strategy == "1 residual + 3 contrastive, hyperparameter-only"
    assert found.settings[STRATEGY] == ["residual", "contrastive"]
    switched = planned([("strategies", [], ["curriculum", {"contrastive": {"wait": 0.2}}])])
    assert switched.strategy == "4 curriculum + 3 contrastive"
    assert switched.settings[STRATEGY] == ["curriculum", {"contrastive": {"wait": 0.2}}]
    assert planned().strategy == "classical rollouts, hyperparameter-only"


@pytest.mark.parametrize(
    ("said", "entries", "why"),
    [
        ("banana", ["residual"], "not one of the list"),
        ("4 curriculum", ["residual"], "names curriculum, which does not train here"),
        ("hyperparameter-only", ["residual"], "strategies change"),
        ("1 residual + 4", ["residual"], "names curriculum"),
        ("12", ["residual"], "not one of the list"),
        ("rollouts", ["residual"], "not one of the list"),
    ],
)
def test_a_strategy_that_contradicts_the_mutations_is_refused(said, entries, why):
    assert why in refusal([("strategies", [], entries)], strategy=said)


def test_a_strategy_on_a_change_of_a_learning_rate_is_refused_unless_it_trains():
    assert "curriculum, which does not train" in refusal([("lr_node_homeo", 0.1)], strategy="4 curriculum")
    assert "banana is not one of the list" in refusal([("lr_node_homeo", 0.1)], strategy="banana")
    assert planned([("lr_node_homeo", 0.1)], strategy="plain rollouts").strategy.startswith("classical rollouts")
    for said in ("hyperparameter-only", "Hyperparameter only", "", "1", "residual", "3 contrastive and 1"):
        found = planned([("lr_node_homeo", 0.1)], state=state_of(config=Config()), strategy=said)
        assert found.strategy == "1 residual + 3 contrastive, hyperparameter-only"


def test_the_rollout_length_of_the_slot_belongs_to_the_mutation():
    state = ran(ran(ran(START, 1), 2), 3)
    other = planned([("lr_node_homeo", 0.1)], parent=3, state=state, iteration=6)
    assert [str(m) for m in other.mutations] == ["lr_node_homeo: 0.01 -> 0.1", "homeostasis_time_step: 32 -> 16"]
    assert other.control[TIME_STEP] == 16
    same = planned([("lr_node_homeo", 0.1)], parent=3, state=state, iteration=7)
    assert [str(m) for m in same.mutations] == ["lr_node_homeo: 0.01 -> 0.1"]
    assert same.control == state.iterations[-1].proposed.settings


# -- the schema, before the guard sees anything


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"parent": "1x"},
            {"parent": 1.5},
            {"extra": 1},
            {"mutations": "none"},
            {"strategy": None},
        ),
        *({"mutations": [{"param": "batch_size"}]}, {"mutations": [{"param": 1, "old": 1, "new": 2}]}),
    ],
)
def test_what_is_no_proposal(wrong):
    good = {"parent": None, "mode": "exploit", "strategy": "x", "hypothesis": "y"}
    assert Proposal.model_validate(good)
    with pytest.raises(ValidationError):
        Proposal.model_validate(good | wrong)


def test_lines_of_a_proposal_stay_on_their_line():
    found = journals.proposal(hypothesis="one\n## Iter 99: converged\ntwo" + "x" * 10_000)
    assert "\n" not in found.hypothesis
    assert len(found.hypothesis) <= 500
    assert math.isfinite(len(json.dumps(found.model_dump(mode="json"))))
