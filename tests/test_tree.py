"""Rewards, nodes and UCB scores: what must hold for every exploration, and what noise must not do."""

import dataclasses
import functools
import itertools
import math

import journals
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metabolismgraph.config import Config
from metabolismgraph.explore.events import Proposed, Scored
from metabolismgraph.explore.reward import ratio_reward, score, slope_ratios
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import (
    best,
    candidate,
    differ,
    nodes,
    pooled_deviation,
    scores,
    standard_error,
)

PHASE2 = shipped_space("phase2")
QUICK = settings(max_examples=40, deadline=None)
RATIOS = st.floats(allow_nan=True, allow_infinity=True)
REWARDS = st.floats(0.0, 1.0)


# -- the reward of one run


@given(RATIOS)
def test_reward_is_bounded(ratio):
    assert 0.0 <= ratio_reward(ratio) <= 1.0


@given(st.floats(allow_nan=False))
def test_reward_is_best_at_one_alone(ratio):
    assert ratio_reward(1.0) == 1.0
    assert ratio == 1.0 or ratio_reward(ratio) < 1.0


@given(st.floats(1e-150, 1e150))
def test_reward_is_symmetric_on_a_log_scale(ratio):
    assert ratio_reward(ratio) == pytest.approx(ratio_reward(1 / ratio), rel=1e-12)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_the_nearer_to_one_the_better(a, b):
    assume(abs(math.log(a)) < abs(math.log(b)) - 1e-9)
    assert ratio_reward(a) > ratio_reward(b)


def test_ten_does_not_outrank_a_hit():
    assert ratio_reward(10.0) < ratio_reward(0.99) < ratio_reward(0.999)
    assert ratio_reward(-1.0) == ratio_reward(0.0) == ratio_reward(float("inf")) == ratio_reward(float("nan")) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_a_run_is_worth_the_mean_over_its_types(ratios):
    found = score(journals.finished(1, *ratios), PHASE2, "avg_slope_ratio")
    assert found.parts == tuple(ratio_reward(ratio) for ratio in ratios)
    if sum(ratios) / len(ratios) < 0:
        assert (found.state, found.reward) == ("negative", 0.0)
    else:
        assert found.state == "scored"
        assert found.reward == pytest.approx(np.mean(found.parts))
    assert 0.0 <= found.reward <= 1.0


@pytest.mark.parametrize(
    ("gain", "state"), [(0.01, "scored"), (0.0, "negative"), (-0.3, "negative"), (None, "scored"), (math.nan, "scored")]
)
def test_a_training_that_is_no_better_than_none_is_no_success(gain, state):
    found = score(journals.finished(1, 1.0, 1.0, phase2_gain=gain), PHASE2, "avg_slope_ratio")
    assert (found.state, found.reward) == (state, 1.0 if state == "scored" else 0.0)
    assert found.classification == ("converged" if state == "scored" else "failed")


def test_opposite_errors_do_not_cancel():
    hit, cancelled = (score(journals.finished(1, *r), PHASE2, "avg_slope_ratio") for r in ((1.0, 1.0), (0.2, 1.8)))
    assert cancelled.classification == "converged"  # as published, from the average
    assert cancelled.reward < 0.5 < hit.reward == 1.0


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_one_type_that_is_no_number_is_no_result(bad, place):
    ratios = [1.0, 1.0]
    ratios[place] = bad
    found = score(journals.finished(1, *ratios), PHASE2, "avg_slope_ratio")
    assert (found.state, found.reward, found.classification) == ("nan", 0.0, "failed")


def test_a_run_without_ratios_is_no_result():
    assert score(journals.finished(1), PHASE2, "avg_slope_ratio").state == "nan"


def test_what_looks_like_a_ratio_is_none():
    """Ratios over the observed range, or text in which a ratio stands, are other metrics."""
    metrics = {"MLP_node_slope_ratio_0": 0.5, "MLP_node_slope_ratio_0_observed": 9.0, "MLP_node_slope_ratio_": 9.0}
    assert slope_ratios(metrics | {"note_MLP_node_slope_ratio_1": 9.0, "avg_slope_ratio": 9.0}) == {0: 0.5}


@pytest.mark.parametrize(
    ("average", "classification"),
    [
        *((0.8, "converged"), (1.2, "converged"), (0.79, "partial"), (1.21, "partial"), (0.3, "partial")),
        *((3.0, "partial"), (0.29, "failed"), (3.01, "failed"), (-1.0, "failed")),
    ],
)
def test_classification_is_the_published_one(average, classification):
    assert score(journals.finished(1, average, average), PHASE2, "avg_slope_ratio").classification == classification


@pytest.mark.parametrize(
    ("skill", "state", "reward", "classification"),
    [
        *((0.9, "scored", 0.9, "converged"), (0.5, "scored", 0.5, "partial"), (0.1, "scored", 0.1, "failed")),
        *((1.5, "scored", 1.0, "converged"), (0.0, "scored", 0.0, "failed"), (-0.1, "negative", 0.0, "failed")),
        *((None, "nan", 0.0, "failed"), (float("nan"), "nan", 0.0, "failed"), ("0.9", "nan", 0.0, "failed")),
    ],
)
def test_by_validation_it_is_the_skill(skill, state, reward, classification):
    """The truth has no say: slope ratios beside it are perfect."""
    found = score(journals.finished(1, 1.0, 1.0, held_out_skill=skill), PHASE2, "validation")
    assert (found.state, found.reward, found.classification) == (state, reward, classification)


def test_a_configuration_that_fails_on_some_seeds_is_worth_less():
    for primary in ("avg_slope_ratio", "validation"):
        assert score(journals.failed(1), PHASE2, primary).state == "failed"
    state = exploration(
        [(1, None, 0.9), (1, None, None), (1, None, 0.9), (4, None, 0.7), (4, None, 0.7), (4, None, 0.7)]
    )
    failing, steady = nodes(state)
    assert failing.rewards == (0.9, 0.0, 0.9)
    assert failing.mean == pytest.approx(0.6)
    assert failing.classification == "partial"
    assert best(state) == steady


def test_a_run_lost_with_its_machine_says_nothing_about_the_configuration():
    for primary in ("avg_slope_ratio", "validation"):
        assert score(journals.failed(1, cause="machine"), PHASE2, primary).state == "lost"
    state = exploration([(1, None, 0.9), (1, None, "lost"), (2, None, "lost")])
    one, other = nodes(state)
    assert (one.rewards, one.mean, one.classification) == ((0.9,), 0.9, "partial")
    assert (other.rewards, other.mean) == ((), None)


# -- nodes: explorations as lists of (node, parent, reward)
# reward None: failed; "lost": with its machine; "running": in flight


@functools.cache
def opened(**changes):
    return journals.opened(Config().replace({f"exploration.{key}": value for key, value in changes.items()}))


def exploration(runs, **changes):
    events = [opened(**changes)]
    for number, (node, parent, reward) in enumerate(runs, start=1):
        events.append(journals.proposed(number, node=node, parent=parent))
        if reward == "running":
            continue
        if reward in {None, "lost"}:
            events.append(journals.failed(number, cause="idea" if reward is None else "machine"))
        else:
            events.append(journals.finished(number))
        state = "failed" if reward is None else reward if reward in {"nan", "lost"} else "scored"
        worth = reward if state == "scored" else 0.0
        found = "partial" if state == "scored" else "failed"
        events.append(Scored(iteration=number, state=state, reward=worth, parts=(worth,), classification=found))
    return State.of(events)


@st.composite
def runs(draw, most=10):
    """Any tree: every run is a new node below one that has a reward, or one of those again."""
    found = []
    for number in range(1, draw(st.integers(1, most)) + 1):
        known = sorted({node for node, _, reward in found if isinstance(reward, float)})
        reward = draw(st.one_of(REWARDS, st.sampled_from([None, "nan", "lost", "running"])))
        again = draw(st.booleans()) and known
        node = draw(st.sampled_from(known)) if again else number
        parent = draw(st.sampled_from([None, *known]))
        parent = next((p for n, p, _ in found if n == node), parent)
        found.append((node, parent, reward))
    return found


def of_runs(found, node):
    """Rewards of a node, by hand."""
    return [r if isinstance(r, float) else 0.0 for n, _, r in found if n == node and r not in {"lost", "running"}]


def with_metrics(found, node):
    """Number of runs of a node that ended with metrics."""
    return sum(n == node and (r == "nan" or isinstance(r, float)) for n, _, r in found)


@QUICK
@given(runs())
def test_the_reward_of_a_node_is_the_mean_of_its_runs(found):
    for node in nodes(exploration(found)):
        rewards = of_runs(found, node.id)
        assert list(node.rewards) == rewards
        assert node.mean == (pytest.approx(np.mean(rewards)) if rewards else None)
        assert node.in_flight == sum(n == node.id and r == "running" for n, _, r in found)


@QUICK
@given(runs())
def test_the_error_is_pooled_over_nodes(found):
    every = nodes(exploration(found))
    groups = [np.array(of_runs(found, node.id)) for node in every]
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    if not freedom:
        assert pooled_deviation(every) is None
        assert all(standard_error(node, every) is None for node in every)
        return
    variance = sum((len(group) - 1) * group.var(ddof=1) for group in groups if len(group) > 1) / freedom
    assert pooled_deviation(every) == pytest.approx(np.sqrt(variance), abs=1e-12)
    for node, group in zip(every, groups, strict=True):
        error = standard_error(node, every)
        assert error == (pytest.approx(np.sqrt(variance / len(group)), abs=1e-12) if len(group) > 1 else None)


def test_the_error_of_a_node_run_once_is_not_known():
    """Others may scatter less: the truth itself hardly at all, rollouts that go wrong a lot."""
    every = nodes(exploration([(1, None, 0.9999), (1, None, 0.9998), (3, 1, 0.5)]))
    assert standard_error(every[0], every) is not None
    assert standard_error(every[1], every) is None


@QUICK
@given(runs(), st.integers(1, 4))
def test_nothing_is_called_best_without_enough_replicates(found, replicates):
    state = exploration(found, replicates=replicates)
    leading = best(state)
    enough = {
        node: np.mean(of_runs(found, node))
        for node in {n for n, _, _ in found}
        if with_metrics(found, node) >= replicates and np.mean(of_runs(found, node)) > 0
    }
    if leading is None:
        assert not enough
    else:
        assert leading.mean == pytest.approx(max(enough.values()))
        assert leading.ended >= replicates
    first = candidate(state)
    assert (first is None) == (not any(of_runs(found, n) and np.mean(of_runs(found, n)) > 0 for n, _, _ in found))
    assert leading is None or first.mean >= leading.mean


def test_one_lucky_run_is_not_best():
    state = exploration([(1, None, 0.6), (2, None, 0.99), (1, None, 0.6), (1, None, 0.6)])
    assert best(state).id == 1
    assert candidate(state).id == 2


# -- UCB


def by_hand(found, size, c, block):
    """The scores once more, by recursion over children and numpy's own deviation."""
    numbered = [(number, *run) for number, run in enumerate(found, start=1)]
    here = [(n, p, r) for number, n, p, r in numbered if (number - 1) // size == block]
    present = {n for n, _, _ in here}
    parents = {n: p if p in present else None for n, p, _ in here}

    def visits(node):
        return sum(n == node for n, _, _ in here) + sum(visits(n) for n, p in parents.items() if p == node)

    means = {n: float(np.mean(of_runs(found, n))) for n in present if with_metrics(found, n)}
    groups = [np.array(of_runs(found, n)) for n in {n for _, n, _, _ in numbered}]
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    squares = sum(((group - group.mean()) ** 2).sum() for group in groups if len(group) > 1)
    spread = max(np.std(list(means.values())) if means else 0.0, math.sqrt(squares / freedom) if freedom else 0.0)
    return {n: m + c * spread * math.sqrt(math.log(max(len(here), 1)) / visits(n)) for n, m in means.items()}


@QUICK
@given(runs(), st.integers(2, 8), st.floats(0.0, 3.0))
def test_scores_are_those_made_by_hand(found, size, c):
    state = exploration(found, n_iter_block=size, ucb_c=c)
    for block in range(3):
        listed = scores(state, block)
        expected = by_hand(found, size, c, block)
        assert {s.node.id: s.ucb for s in listed} == pytest.approx(expected, abs=1e-12)
        assert [s.ucb for s in listed] == sorted((s.ucb for s in listed), reverse=True)
        for one, other in itertools.pairwise(listed):
            assert one.ucb > other.ucb or one.node.id < other.node.id


@QUICK
@given(runs(), st.integers(2, 8))
def test_parents_outside_the_block_are_root(found, size):
    state = exploration(found, n_iter_block=size)
    for block in range(3):
        present = {i.node for i in state.in_block(block)}
        for entry in scores(state, block):
            assert entry.node.id in present
            assert entry.parent is None or entry.parent in present
            assert entry.parent == (entry.node.parent if entry.node.parent in present else None)
            assert 1 <= entry.visits <= len(state.in_block(block))


def test_a_block_begins_with_no_scores():
    state = exploration([(1, None, 0.5), (2, 1, 0.6)], n_iter_block=2)
    assert [entry.node.id for entry in scores(state, 0)] == [2, 1]
    assert scores(state, 1) == ()
    # What is made from a node of the block before stands below the root; the old node itself is not listed.
    went_on = exploration([(1, None, 0.5), (2, 1, 0.6), (3, 2, 0.7)], n_iter_block=2)
    assert [(entry.node.id, entry.parent, entry.visits) for entry in scores(went_on, 1)] == [(3, None, 1)]
    # Run again in the new block, it is there, with the runs of this block as its visits and all of them in its mean.
    again = exploration([(1, None, 0.5), (2, 1, 0.6), (2, 1, 0.8), (4, 2, 0.1)], n_iter_block=2)
    assert [(s.node.id, s.parent, s.visits, s.node.mean) for s in scores(again, 1)] == [
        (2, None, 2, pytest.approx(0.7)),
        (4, 2, 1, 0.1),
    ]


@QUICK
@given(runs())
def test_nodes_without_a_verdict_cannot_be_chosen(found):
    listed = {entry.node.id for entry in scores(exploration(found, n_iter_block=100), 0)}
    assert listed == {node for node, _, _ in found if with_metrics(found, node)}


@QUICK
@given(runs(most=8), st.data())
def test_runs_in_flight_lower_the_score_of_where_they_come_from(found, data):
    """Against one in flight elsewhere, so that the number of all visits is the same."""
    state = exploration(found, n_iter_block=100)
    listed = scores(state, 0)
    assume(len(listed) > 1)
    number = len(found) + 1
    chosen = data.draw(st.sampled_from(listed)).node.id
    below = exploration([*found, (number, chosen, "running")], n_iter_block=100)
    beside = exploration([*found, (number, None, "running")], n_iter_block=100)
    there, elsewhere = ({s.node.id: s for s in scores(state, 0)} for state in (below, beside))
    assert there[chosen].visits == elsewhere[chosen].visits + 1
    spread = len({node.mean for node in nodes(state) if node.mean is not None}) > 1
    assert (
        there[chosen].ucb < elsewhere[chosen].ucb
        or not spread
        or there[chosen].ucb == pytest.approx(elsewhere[chosen].ucb)
    )
    again = exploration([*found, (chosen, nodes(below)[0].parent, "running")], n_iter_block=100)
    assert {s.node.id: s.visits for s in scores(again, 0)}[chosen] == there[chosen].visits


def test_slots_filled_one_after_the_other_spread_over_equals():
    found = [(1, None, 0.5), (2, None, 0.5), (3, None, 0.4), (4, None, 0.1)]
    taken = []
    for number in range(5, 9):
        top = scores(exploration(found, n_iter_block=8), 0)[0].node.id
        taken.append(top)
        found.append((number, top, "running"))
    assert taken[:2] == [1, 2]
    assert len(set(taken)) >= 2
    assert taken.count(4) == 0


@QUICK
@given(runs(), st.integers(0, 2**32 - 1))
def test_other_numbers_for_the_nodes_are_other_numbers_only(found, seed):
    """Iterations in another order in which parents still come first: the same scores under the new names."""
    first = {node: number for number, (node, _, _) in reversed(list(enumerate(found)))}
    rng = np.random.default_rng(seed)
    left, order = list(range(len(found))), []
    while left:
        ready = [
            i
            for i in left
            if (found[i][1] is None or first[found[i][1]] in order)
            and (i == first[found[i][0]] or first[found[i][0]] in order)
        ]
        order.append(left.pop(left.index(int(rng.choice(ready)))))
    name = {found[old][0]: new for new, old in reversed(list(enumerate(order, start=1)))}
    renamed = [(name[found[i][0]], name.get(found[i][1]), found[i][2]) for i in order]
    before = {name[s.node.id]: s.ucb for s in scores(exploration(found, n_iter_block=100), 0)}
    after = {s.node.id: s.ucb for s in scores(exploration(renamed, n_iter_block=100), 0)}
    assert after == pytest.approx(before, abs=1e-12)


@QUICK
@given(st.lists(REWARDS, min_size=2, max_size=8), st.floats(0.01, 1.0))
def test_exploration_is_scaled_to_the_spread_of_rewards(rewards, scale):
    """Rewards as close together as one likes: the same ranking, the same share of exploration."""
    found, small = ([(n, None, float(r * k)) for n, r in enumerate(rewards, start=1)] for k in (1.0, scale))
    found.append((len(rewards) + 1, 1, "running"))
    small.append(found[-1])
    one, other = ({s.node.id: s.ucb for s in scores(exploration(f, n_iter_block=100), 0)} for f in (found, small))
    assert other == pytest.approx({node: scale * ucb for node, ucb in one.items()}, abs=1e-9)


@QUICK
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8, unique=True))
def test_a_better_reward_is_never_ranked_lower(thousandths):
    """Leaves below the root: with equal visits the order is that of the rewards."""
    rewards = [n / 1000 for n in thousandths]
    state = exploration([(n, None, r) for n, r in enumerate(rewards, start=1)], n_iter_block=100)
    assert [s.node.mean for s in scores(state, 0)] == sorted(rewards, reverse=True)


def test_a_leaf_does_not_win_by_being_one():
    """The arg-max of the published formula is a leaf whatever the rewards; here a clear leader is followed."""
    found = [(1, None, 0.9), (2, 1, 0.1), (3, 1, 0.12), (4, None, 0.11), (5, None, 0.1), (6, None, 0.12)]
    assert scores(exploration(found, n_iter_block=8), 0)[0].node.id == 1
    # With no exploration at all it is the reward alone.
    assert [s.ucb for s in scores(exploration(found, n_iter_block=8, ucb_c=0.0), 0)] == sorted(
        (r for _, _, r in found), reverse=True
    )


@given(st.integers(1, 8))
def test_noise_between_replicates_is_spread_too(n):
    """Nodes of equal means that scatter: exploration does not stop."""
    found = [(1, None, 0.4), (2, None, 0.4), (1, None, 0.6), (2, None, 0.6)]
    for entry in scores(exploration([*found, *[(1, None, 0.5)] * n], n_iter_block=100), 0):
        assert entry.ucb > 0.5


def test_a_long_chain_is_counted_at_every_node():
    found = [(n, n - 1 or None, 0.5 + n / 1000) for n in range(1, 101)]
    listed = {s.node.id: s.visits for s in scores(exploration(found, n_iter_block=100), 0)}
    assert listed == {n: 101 - n for n in range(1, 101)}


def test_the_tree_leaves_the_state_as_it_was():
    events = journals.exploration(16, replicates={6: 2}, failing={3: "broke"})
    state, other = State.of(events), State.of(events)
    for block in range(3):
        scores(state, block)
    best(state)
    assert dataclasses.asdict(state) == dataclasses.asdict(other)
    assert all(isinstance(i.proposed, Proposed) for i in state.iterations)


@pytest.mark.parametrize(
    ("found", "apart"),
    [
        ([(1, None, 0.5), (2, None, 0.504)], False),  # a trifle
        ([(1, None, 0.5), (2, None, 0.52)], True),  # nothing is known of the noise
        ([(1, None, 0.4), (1, None, 0.6), (3, None, 0.52)], False),  # within it
        ([(1, None, 0.4), (1, None, 0.6), (3, None, 0.9)], True),
        ([(1, None, 0.5), (2, None, None)], True),  # a failed run has no reward to compare
    ],
)
def test_two_nodes_differ_by_more_than_noise_and_trifles(found, apart):
    every = nodes(exploration(found))
    one, other = every[0], every[-1]
    assert differ(one, other, every) is apart
    assert differ(other, one, every) is apart
    assert not differ(one, one, every)
