"""The rules: the table of the requirement row by row, steps that learn, whole explorations of made-up landscapes."""

import hashlib
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import journals
import pytest

from metabolismgraph.config import Config
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.planning import changed, configuration, full_key, plan
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.proposers.rules_sets import APPROACHES
from metabolismgraph.explore.proposers.rules_steps import next_step
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.start import prepared
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import best, nodes, scores
from metabolismgraph.homeostasis.strategies import STRATEGIES

PHASE2 = shipped_space("phase2")
RATE = "training.learning_rate_node_homeostasis"
BASE = prepared(Config().replace({STRATEGY: [], "training.phase1_method": "gradient"}))
RULES = RulesProposer()


def state_of(*entries, config=BASE, clusters=2):
    """A state from (mutations, slope ratio) by iteration, each made from root; ratio None: failed, "running": none."""
    state = State.of([journals.opened(config)])
    for number, (mutations, ratio, *given) in enumerate(entries, start=1):
        options = given[0] if given else {}
        full = {param: (_old(state, options.get("parent"), param), new) for param, new in mutations.items()}
        proposal = journals.proposal(options.get("parent"), full, mode=options.get("mode", "exploit"), strategy="")
        state = state.after(plan(proposal, state, number, by="x"))
        if ratio == "running":
            continue
        outcome = journals.failed(number) if ratio is None else journals.finished(number, ratio, ratio)
        if ratio is not None:
            known = {"embedding_n_clusters": clusters, "embedding_silhouette": 0.9 if clusters > 1 else None}
            outcome = outcome.model_copy(update={"metrics": outcome.metrics | known})
        state = state.after(outcome).after(score(outcome, PHASE2, "avg_slope_ratio"))
    return state


def _old(state, parent, param):
    changes = state.node_changes(parent, 0)
    return configuration(state, changes).value(full_key(param, PHASE2))


def asked(state, refusals=()):
    number = len(state.iterations) + 1
    return RULES.propose(state, number, state.slot(number), refusals).value


# -- the table


def test_the_first_batch_is_the_same_in_every_slot():
    state = state_of()
    for number in range(1, 5):
        proposal = asked(state)
        assert (proposal.parent, proposal.mode, proposal.mutations) == (None, "exploit", ())
        state = state.after(plan(proposal, state, number, by="rules"))
    assert [i.proposed.time_step for i in state.iterations] == [4, 16, 32, 64]
    assert [i.proposed.changes for i in state.iterations] == [{TIME_STEP: step} for step in (4, 16, 32, 64)]


def test_by_default_the_highest_score_is_exploited_by_one_cautious_change():
    state = state_of(({}, 0.9), ({}, 0.5), ({"lr_node_homeo": 0.02}, 0.4), ({}, 0.85))
    for _ in range(2):  # the leading node is good: it is run again first
        state = state.after(plan(asked(state), state, len(state.iterations) + 1, by="rules"))
    proposal = asked(state)
    assert proposal.mode == "exploit"
    (there,) = (s.node for s in scores(state, 0) if s.node.first.time_step == state.slot(7).time_step)
    assert proposal.parent == there.id  # the only one at the rollout length of the slot
    assert [m.param for m in proposal.mutations] == ["lr_node_homeo"]


def test_the_highest_score_is_that_of_the_nodes_at_the_rollout_length_of_the_slot():
    """So that a parent is the control of its child."""
    state = state_of(*[({}, ratio) for ratio in (0.55, 0.6, 0.7, 0.65)])
    for number in range(5, 9):
        proposal = asked(state)
        assert proposal.parent == number - 4
        state = state.after(plan(proposal, state, number, by="rules"))
        made = state.iterations[-1].proposed
        assert [m.param for m in made.mutations] == ["lr_node_homeo"]
        assert made.control == state.iterations[number - 5].proposed.settings


def test_where_the_control_was_not_run_it_is_run_first():
    state = state_of(*[({"lr_node_homeo": 0.02}, ratio) for ratio in (0.55, 0.6, 0.7)])
    proposal = asked(state)
    assert proposal.mutations == ()
    made = plan(proposal, state, 4, by="rules")
    assert [m.param for m in made.mutations] == ["homeostasis_time_step"]
    assert made.settings == {**state.iterations[2].proposed.settings, TIME_STEP: 64}


def test_rules_say_strategies_as_they_follow_from_the_mutations():
    assert asked(state_of()).strategy == ""


@pytest.mark.parametrize(("ratio", "mode"), [(0.6, "exploit"), (0.4, "slope-focus")])
def test_near_the_truth_for_three_runs_learning_rates_are_tuned(ratio, mode):
    both = {"strategies": ["residual", "contrastive"]}
    assert asked(state_of(*[(both | {"lr_node_homeo": rate}, ratio) for rate in (0.02, 0.03, 0.04)])).mode == mode


def test_embeddings_of_plain_rollouts_are_pulled_together_too():
    proposal = asked(state_of(({}, 0.6), clusters=1))
    state = state_of(({}, 0.6), ({}, 0.6), ({}, 0.6), ({}, 0.6), clusters=1)
    proposal = asked(state)
    assert proposal.mode == "embedding-focus"
    assert proposal.mutations[0].new == ["contrastive"]


@pytest.mark.parametrize("ratio", [0.0, 0.01, -0.3, 100.0])
def test_stuck_near_zero_for_three_runs_is_a_switch_of_strategy(ratio):
    moving = state_of(({}, 0.4), ({}, ratio), ({}, ratio))
    assert asked(moving).mode != "strategy-switch"
    stuck = state_of(({}, 0.4), ({}, ratio), ({}, ratio), ({"lr_node_homeo": 0.02}, ratio))
    proposal = asked(stuck)
    assert (proposal.mode, proposal.parent) == ("strategy-switch", None)
    assert [m.param for m in proposal.mutations] == ["strategies"]
    assert tuple(proposal.mutations[0].new) == APPROACHES[0]


@pytest.mark.parametrize("ratio", [None, float("nan"), 0.29, 3.1])
def test_four_failed_runs_are_a_reason_to_explore(ratio):
    state = state_of(*[({"lr_node_homeo": rate}, ratio) for rate in (0.02, 0.03, 0.04, 0.05)])
    proposal = asked(state)
    assert proposal.mode == "explore"
    assert [m.param for m in proposal.mutations] == ["strategies"]


def test_every_slot_tries_another_strategy():
    state = state_of(*[({"lr_node_homeo": rate}, None) for rate in (0.02, 0.03, 0.04, 0.05)])
    tried = []
    for number in range(5, 9):
        proposal = asked(state)
        tried.append(tuple(proposal.mutations[0].new))
        state = state.after(plan(proposal, state, number, by="rules"))
    assert tried == list(APPROACHES[:4])


def test_when_every_strategy_was_tried_it_goes_on_with_parameters():
    tried = [({"strategies": list(approach)}, None) for approach in APPROACHES]
    state = state_of(*tried)
    for number in range(len(tried) + 1, len(tried) + 6):
        proposal = asked(state)
        state = state.after(plan(proposal, state, number, by="rules"))
    assert [m.param for m in state.iterations[-5].proposed.mutations] == []  # the control first
    assert [m.param for m in proposal.mutations] == ["lr_node_homeo"]


def test_slopes_that_move_while_embeddings_are_stuck_are_a_matter_of_embeddings():
    with_strategies = [({"strategies": ["residual"]}, 0.6)]
    proposal = asked(state_of(*with_strategies, clusters=1))
    assert (proposal.mode, proposal.parent) == ("embedding-focus", 1)
    assert proposal.mutations[0].new == ["residual", "contrastive"]
    together = [({"strategies": ["residual", "contrastive"]}, 0.6)]
    proposal = asked(state_of(*together, clusters=1))
    assert proposal.mode == "embedding-focus"
    (mutation,) = proposal.mutations
    assert mutation.param == "lr_emb_homeo"
    assert mutation.new > mutation.old


def test_separate_embeddings_and_wrong_slopes_are_a_matter_of_slopes():
    state = state_of(({"strategies": ["residual", "contrastive"]}, 0.6))
    modes, params = [], []
    for number in range(2, 6):
        proposal = asked(state)
        modes.append(proposal.mode)
        params += [m.param for m in proposal.mutations]
        state = state.after(plan(proposal, state, number, by="rules"))
    assert set(modes) == {"slope-focus"}
    assert params[:3] == ["strategies", "lr_node_homeo", "strategies"]


def test_what_leads_is_run_again_until_it_may_be_called_best():
    state = state_of(({"strategies": ["residual"]}, 0.9), ({"lr_node_homeo": 0.02}, 0.3))
    proposals = []
    for number in range(3, 7):
        proposals.append(asked(state))
        state = state.after(plan(proposals[-1], state, number, by="rules"))
    assert [(p.mode, p.parent) for p in proposals[:2]] == [("replicate", 1), ("replicate", 1)]
    assert all(p.mode != "replicate" for p in proposals[2:])  # two are in flight, that will do
    assert [i.proposed.seed for i in state.iterations if i.node == 1] == [42, 43, 44]


def test_a_proposal_that_was_refused_is_followed_by_one_that_cannot_be():
    state = state_of(({}, 0.5))
    proposal = asked(state, ("some reason",))
    assert (proposal.parent, proposal.mutations) == (None, ())
    assert plan(proposal, state, 2, by="rules")


# -- steps


def chain(*ratios, param="lr_node_homeo", factor=3.0, start=0.001):
    """Every iteration changes one rate of the one before it."""
    config = BASE.replace({RATE: start, "exploration.time_steps": [4]})
    entries, rate = [({}, ratios[0])], start
    for number, ratio in enumerate(ratios[1:], start=1):
        rate = float(f"{rate * factor:.3g}")
        entries.append(({param: rate}, ratio, {"parent": number}))
    return state_of(*entries, config=config)


def first_step(state, parent, key=RATE):
    return next_step(state, parent, state.node_changes(parent, 0), (key,))


def test_steps_grow_after_success():
    fresh, once, twice = chain(0.1), chain(0.1, 0.3), chain(0.1, 0.3, 0.6)
    grown = [first_step(state, len(state.iterations)) for state in (fresh, once, twice)]
    factors = [step.new / step.old for step in grown]
    assert 1 < factors[0] < factors[1] < factors[2] <= 10.1
    assert [(step.tried, step.worked) for step in grown] == [(0, 0), (1, 1), (2, 2)]


def test_a_failed_step_is_turned_round_and_made_smaller():
    state = chain(0.6, 0.3)
    step = first_step(state, 2)
    assert step.new < step.old
    assert step.old / step.new < 10**0.5
    assert (step.tried, step.worked) == (1, 0)
    # Two failures: the first direction again, more carefully.
    both = first_step(chain(0.6, 0.3, 0.2), 3)
    assert 1 < both.new / both.old < step.old / step.new


def test_slots_in_flight_take_the_other_direction_and_then_go_farther():
    state = chain(0.5)
    taken = []
    for _ in range(4):
        step = first_step(state, 1)
        taken.append(step.new / step.old)
        proposal = journals.proposal(1, {"lr_node_homeo": (step.old, step.new)})
        state = state.after(plan(proposal, state, len(state.iterations) + 1, by="x"))
    assert taken[0] > 1 > taken[1]
    assert taken[2] > taken[0]
    assert taken[3] < taken[1]
    assert len(nodes(state)) == 5


def order(state):
    """Keys that the rules change in node 1, in their order."""
    settings = state.iterations[0].proposed.settings
    return [key for name in PHASE2.order if (key := PHASE2.by_name[name].key) in settings]


def test_parameters_come_in_the_order_of_the_requirement():
    short = [PHASE2.names[key] for key in order(state_of(({}, 0.5)))]
    assert short == ["lr_node_homeo", "lr_emb_homeo", "data_augmentation_loop", "batch_size"]
    # Without rollouts there are no minibatches: their parameters would change nothing.
    full_batch = state_of(({}, 0.5), config=BASE.replace({STRATEGY: ["residual"]}))
    assert [PHASE2.names[key] for key in order(full_batch)][2:] == ["phase2_steps"]


@pytest.mark.parametrize("name", PHASE2.order)
def test_a_step_stays_in_its_range_and_goes_somewhere(name):
    """From one end to the other, and from outside."""
    parameter = PHASE2.by_name[name]
    low, high = parameter.searched
    for value in (low, high, low * 3, high * 10, 1):
        strategies = ["residual"] if name == "phase2_steps" else []
        config = BASE.replace({parameter.key: int(value) if value >= 1 else value, STRATEGY: strategies})
        state = state_of(({}, 0.5), config=config)
        for _ in range(6):
            step = next_step(state, 1, state.node_changes(1, 0), order(state))
            low, high = PHASE2.parameter(step.key).searched
            assert low <= step.new <= high
            assert step.new != step.old
            proposal = journals.proposal(1, {PHASE2.names[step.key]: (step.old, step.new)})
            state = state.after(plan(proposal, state, len(state.iterations) + 1, by="x"))


# -- whole explorations


def drawn(*about):
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()[:6], "big") / 2**48


def smooth(config, seed):
    """Best at a rate of 0.05, with residual supervision; types part with contrastive."""
    training = config.training
    names = [e if isinstance(e, str) else next(iter(e)) for e in training.strategies or ()]
    far = abs(math.log10(training.learning_rate_node_homeostasis / 0.05))
    ratio = (0.98 if "residual" in names else 0.3) * math.exp(-far)
    return (ratio, ratio * 0.97), 2 if "contrastive" in names else 1


def noisy(config, seed):
    (a, b), clusters = smooth(config, seed)
    noise = [0.4 * (drawn(config.training.model_dump(mode="json"), seed, t) - 0.5) for t in range(2)]
    return (a + noise[0], b + noise[1]), clusters


LANDSCAPES = {
    "smooth": smooth,
    "noisy": noisy,
    "all fail": lambda config, seed: None,
    "all nan": lambda config, seed: ((float("nan"), 1.0), 1),
    "all negative": lambda config, seed: ((-0.5, -0.1), 1),
    "flat": lambda config, seed: ((0.01, 0.01), 1),
    "perfect": lambda config, seed: ((1.0, 1.0), 2),
    "pure noise": lambda config, seed: ((2 * drawn(seed, config.training.model_dump(mode="json")), 0.5), None),
    "every other one fails": lambda config, seed: (
        smooth(config, seed) if drawn(config.training.model_dump(mode="json")) < 0.5 else None
    ),
    "replicates fail": lambda config, seed: smooth(config, seed) if seed == 42 else None,
    "too strong": lambda config, seed: ((50.0, 2.0), 2),
}


def explored(landscape, n=40, config=BASE, rules=RULES):
    """An exploration by the rules, as the loop does it but for processes and files; a refusal is an error."""
    state = State.of([journals.opened(config)])
    size = state.settings.n_iter_block
    for batch in journals.batches(n, config):
        block = state.block_of(batch[0])
        if block and (batch[0] - 1) % size == 0:
            submission = rules.review(state, block, ()).value
            changes = changed(state.root(block), submission.start, state)
            state = state.after(journals.reviewed(block, n_iter_block=size, changes=changes, submission=submission))
        for number in batch:
            proposal = rules.propose(state, number, state.slot(number), ()).value
            state = state.after(plan(proposal, state, number, by="rules"))
        for number in batch:
            proposed = state.iterations[number - 1].proposed
            found = landscape(configuration(state, proposed.changes), proposed.seed)
            outcome = journals.failed(number) if found is None else journals.finished(number, *found[0])
            if found is not None:
                outcome.metrics["embedding_n_clusters"] = found[1]
                outcome.metrics["embedding_silhouette"] = 0.9 if (found[1] or 0) > 1 else None
            state = state.after(outcome).after(score(outcome, PHASE2, "avg_slope_ratio"))
        reading = rules.read(state, batch, ()).value
        assert [r.iteration for r in reading.iterations] == batch
        assert reading.memory.count("\n") <= 300
        state = state.after(journals.remembered(batch, readings=reading.iterations, memory=reading.memory))
    return state


LONG = ("smooth", "noisy", "pure noise", "all fail", "every other one fails", "replicates fail")


def all_explored():
    return {name: explored(landscape, 40 if name in LONG else 24) for name, landscape in LANDSCAPES.items()}


@pytest.fixture(scope="module")
def ended():
    """The state at the end of every landscape."""
    # In a process of its own: checks of shapes and types take five times as long as the explorations.
    code = "import pickle, sys, test_rules; pickle.dump(test_rules.all_explored(), sys.stdout.buffer)"
    here = Path(__file__).parent
    return pickle.loads(
        subprocess.run([sys.executable, "-c", code], cwd=here, check=True, stdout=subprocess.PIPE).stdout
    )


@pytest.mark.parametrize("name", LANDSCAPES)
def test_no_landscape_makes_the_rules_propose_what_is_refused(ended, name):
    """The exploration has ended at all; and seeds of one node are never used twice."""
    state = ended[name]
    assert len(state.iterations) == (40 if name in LONG else 24)
    assert all(i.scored is not None for i in state.iterations)
    for node in nodes(state):
        seeds = [run.proposed.seed for run in node.runs]
        assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", ["smooth", "noisy", "perfect", "too strong", "pure noise", "every other one fails"])
def test_the_best_node_is_replicated_in_the_end(ended, name):
    found = best(ended[name])
    assert found is not None
    assert len(found.rewards) >= 3


@pytest.mark.parametrize("name", ["all fail", "all nan", "all negative", "replicates fail"])
def test_nothing_is_called_best_where_nothing_is(ended, name):
    assert best(ended[name]) is None


@pytest.mark.parametrize("name", ["all fail", "all nan", "all negative", "flat"])
def test_where_nothing_works_every_strategy_is_tried(ended, name):
    state = ended[name]
    tried = {tuple(configuration(state, i.proposed.changes).training.strategies or ()) for i in state.iterations}
    assert set(APPROACHES) <= tried


def test_runs_that_fail_again_are_not_repeated_for_ever(ended):
    """A node of one good run whose replicates all fail does not eat up the budget."""
    state = ended["replicates fail"]
    assert max(len(node.runs) for node in nodes(state)) <= 9


def test_a_smooth_landscape_is_climbed(ended):
    state = ended["smooth"]
    found = best(state)
    assert found.mean > 0.85
    names = configuration(state, found.runs[0].proposed.changes).training.strategies
    assert {"residual", "contrastive"} <= set(names)


def test_noise_does_not_pass_for_progress(ended):
    """What is called best in a noisy landscape is worth it without the noise."""
    state = ended["noisy"]
    config = configuration(state, best(state).runs[0].proposed.changes)
    (a, b), _ = smooth(config, 0)
    first = explored(smooth, 4)
    baseline, _ = smooth(first.config, 0)
    assert (a + b) / 2 > 2 * sum(baseline) / 2


@pytest.mark.parametrize("name", ["noisy", "every other one fails"])
def test_the_same_landscape_gives_the_same_exploration(ended, name):
    again = explored(LANDSCAPES[name], rules=RulesProposer())
    assert [i.proposed for i in again.iterations] == [i.proposed for i in ended[name].iterations]
    assert again.memories == ended[name].memories
    assert again.reviews == ended[name].reviews


@pytest.mark.parametrize("config", ["default", "residual", "one slot", "seven slots", "validation"])
def test_it_is_not_the_configuration_that_makes_it_work(config):
    changes = {
        "default": {STRATEGY: None, "training.phase1_method": "projection"},
        "residual": {STRATEGY: [{"residual": {}}, {"contrastive": {"wait": 0.2}}]},
        "one slot": {"exploration.n_parallel": 1, "exploration.n_iter_block": 3},
        "seven slots": {"exploration.n_parallel": 7, "exploration.n_iter_block": 9, "exploration.time_steps": [2, 3]},
        "validation": {"exploration.replicates": 1},
    }[config]
    assert len(explored(noisy, 20, BASE.replace(changes)).iterations) == 20


def test_approaches_are_sets_of_strategies_that_go_together():
    for approach in APPROACHES:
        assert set(approach) <= set(STRATEGIES)
        mutation = Mutation(param="strategies", old=[], new=list(approach))
        assert changed({}, [mutation], State.of([journals.opened(BASE)]))[STRATEGY] == list(approach)
    assert len(set(map(frozenset, APPROACHES))) == len(APPROACHES)


def test_readings_are_lines_and_the_memory_names_what_failed(ended):
    state = ended["every other one fails"]
    assert all("\n" not in i.reading.observation and "\n" not in i.reading.visual for i in state.iterations)
    assert "failed" in state.memory
    assert f"best: node {best(state).id}" in state.memory
