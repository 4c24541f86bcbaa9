"""What is called an effect: compared with its control, and only with enough pairs of runs."""

import random
import subprocess
import sys
from pathlib import Path

import journals
import pytest
from hypothesis import settings

from metabolismgraph.config import Config
from metabolismgraph.explore.events import Proposed, Scored
from metabolismgraph.explore.evidence import control, effects
from metabolismgraph.explore.keys import STRATEGY
from metabolismgraph.explore.planning import plan
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.proposers import rules_memory
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes

ROLLOUTS = Config().replace({STRATEGY: []})
LENGTHS = {4: 0.209, 16: 0.428, 32: 0.739, 64: 0.565}


def explored(reward, *, config=ROLLOUTS, propose=None, iterations=16, check=lambda state: None):
    """An exploration by the rules, or by `propose`, whose rewards follow from the iteration as it was planned."""
    rules = RulesProposer()
    state = State.of([journals.opened(config)])
    for batch in journals.batches(iterations, config):
        block = state.block_of(batch[0])
        if block and batch[0] == state.first_of(block):
            submission = rules.review(state, block, ()).value
            state = state.after(
                journals.reviewed(block, n_iter_block=config.exploration.n_iter_block, submission=submission)
            )
        for number in batch:
            proposal = (propose and propose(state, number)) or rules.propose(
                state, number, state.slot(number), ()
            ).value
            state = state.after(plan(proposal, state, number, by="rules"))
        for number in batch:
            state = ended(state, number, reward(state.iterations[number - 1].proposed))
        state = state.after(journals.remembered(batch))
        check(state)
    return state


def ended(state, number, reward):
    """The state after a run that is worth this much."""
    outcome = journals.finished(number, reward, embedding_silhouette=0.9, embedding_n_clusters=2)
    scored = Scored(iteration=number, state="scored", reward=reward, parts=(reward,), classification="partial")
    return state.after(outcome).after(scored)


def change(parent, **mutations):
    found = tuple(Mutation(param=param, old=old, new=new) for param, (old, new) in mutations.items())
    return journals.proposal(parent).model_copy(update={"mutations": found})


def by_length(proposed):
    return LENGTHS[proposed.time_step]


def test_a_child_at_another_rollout_length_is_compared_with_its_control():
    """0.434 at T = 16 after 0.739 at T = 32 refutes nothing: the same settings have 0.428 at T = 16."""
    better = {6: change(3, lr_node_homeo=(0.01, 0.0316))}
    state = explored(
        lambda p: 0.434 if p.iteration == 6 else by_length(p), propose=lambda _, i: better.get(i), iterations=8
    )
    (found,) = [e for e in effects(state) if e.treated.id == 6 and e.change[0].param == "lr_node_homeo"]
    assert found.control.id == 2
    assert found.mean == pytest.approx(0.006)
    assert found.evidence == "tentative"
    said = rules_memory.observation(state, state.iterations[5], effects(state))
    assert (
        "tentative: lr_node_homeo: 0.01 -> 0.0316: +0.006 (1 pair of runs: node 6 against its control, node 2)" in said
    )
    memory = rules_memory.memory(state, effects(state))
    assert "## Falsified hypotheses\n- none yet" in memory
    assert "no effect of a change is established" in memory


def test_without_a_control_it_says_so():
    change_at = {5: change(1, lr_node_homeo=(0.01, 0.1)), 9: change(5, lr_emb_homeo=(0.001, 0.01))}
    change_at |= {10: change(5, lr_emb_homeo=(0.001, 0.01))}
    state = explored(by_length, propose=lambda _, i: change_at.get(i), iterations=12)
    assert control(next(n for n in nodes(state) if n.id == 10), state) is None
    said = rules_memory.observation(state, state.iterations[9], effects(state))
    assert said.endswith("no control: the parent's settings at T = 16 was not run")
    assert not [e for e in effects(state) if e.treated.id == 10 and e.change[0].param == "lr_emb_homeo"]


def test_one_run_or_two_establish_nothing():
    def propose(state, number):
        if number in {1, 2, 3, 4}:
            return None
        return change(1, lr_node_homeo=(0.01, 0.1)) if number in {5, 9} else journals.proposal(1, mode="replicate")

    state = explored(lambda p: 0.9 if p.node == 5 else 0.1, propose=propose, iterations=9)
    (found,) = [e for e in effects(state) if e.treated.id == 5]
    assert len(found.differences) == 2
    assert found.evidence == "tentative"
    assert found.interval is None


@pytest.mark.parametrize(
    ("better", "noise", "evidence"),
    [
        *((0.3, 0.01, "established"), (-0.3, 0.01, "contradicted"), (0.0, 0.0, "contradicted")),
        *((0.3, 0.5, "tentative"), (0.0, 0.2, "tentative")),
    ],
)
def test_three_pairs_and_an_interval_decide(better, noise, evidence):
    """Seeds of a pair are the same; what they share cancels."""

    def propose(state, number):
        if number in {1, 2, 3, 4}:
            return None
        again = journals.proposal(1, mode="replicate")
        return change(1, lr_node_homeo=(0.01, 0.1)) if number % 4 == 1 else again

    def reward(proposed):
        drawn = random.Random(f"{proposed.seed} {proposed.node}")
        changed = "training.learning_rate_node_homeostasis" in proposed.changes
        of_seed = 0.1 * random.Random(proposed.seed).random()
        return 0.5 + of_seed + (better if changed else 0.0) + drawn.gauss(0, noise)

    state = explored(reward, propose=propose, iterations=17)
    (found,) = [e for e in effects(state) if e.treated.id == 5]
    assert len(found.differences) >= 3
    assert found.evidence == evidence


def planted(noise):
    """Rewards that depend on T and seed, or on T and chance, and on nothing else."""

    def of(seed):
        def reward(proposed):
            what = proposed.seed if noise == "seed" else proposed.iteration
            drawn = random.Random(f"{seed} {proposed.time_step} {what}")
            return min(max(LENGTHS[proposed.time_step] + drawn.gauss(0, 0.1), 0.0), 1.0)

        return reward

    return of


def thoroughly(state, number):
    """Changes of a rate, and then replicates of them and of their controls: many effects get an interval."""
    drawn = random.Random(f"{number}")
    ended = [node for node in nodes(state) if node.rewards]
    if number <= 4 or not ended:
        return None
    if number % 8 == 5:
        return change(drawn.randint(1, 4), lr_node_homeo=(0.01, round(drawn.uniform(0.02, 0.09), 4)))
    fewest = min(ended, key=lambda node: (len(node.runs), node.id))
    return journals.proposal(fewest.id, mode="replicate")


def false_claims(noise, propose, number):
    """How many of `number` explorations call an effect established at any time, where only T and chance have one."""
    false = 0
    for seed in range(number):
        found = set()

        def check(state, found=found):
            found |= {
                e.treated.id
                for e in effects(state)
                if e.evidence == "established" and e.change[0].param != "homeostasis_time_step"
            }

        explored(planted(noise)(seed), propose=propose, iterations=32, check=check)
        false += bool(found)
    return false


def test_no_effect_is_established_where_there_is_none():
    """In at most 5 % of explorations may any false effect be called established at any time."""
    number = 200 if settings.get_current_profile_name() == "long" else 10
    # In a process of its own: checks of shapes and types take five times as long as the explorations.
    code = f"""
from test_evidence import false_claims, thoroughly
print(*[false_claims(n, p, {number}) for n in ("seed", "chance") for p in (None, thoroughly)])
"""
    here = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", code], cwd=here, check=True, capture_output=True, text=True)
    assert all(int(false) <= 0.05 * number for false in found.stdout.split())
    assert len(found.stdout.split()) == 4


def test_a_journal_without_settings_has_the_same_effects():
    """They follow from the changes; journals of older versions do not hold them."""
    events = journals.exploration(12, config=ROLLOUTS)
    bare = [
        event.model_copy(update={"settings": {}, "control": {}}) if isinstance(event, Proposed) else event
        for event in events
    ]
    found = [(str(e), e.differences) for e in effects(State.of(events))]
    assert found
    assert [(str(e), e.differences) for e in effects(State.of(bare))] == found
