"""The loop of the explorer with a proposer of one's own, and jobs that take no time."""

import explorer_lives
import pytest
from explorer_lives import opened

from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.proposal import Mutation, Proposal, StrategyFile
from metabolismgraph.explore.proposers.base import Answer
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.review.admission import Declaration, Verdict
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import leader, settled

DECLARED = Declaration(
    name="mine",
    number=9,
    summary="does something",
    reference="a paper",
    sets=("objective",),
    needs="",
    draws_minibatches=False,
    options={"properties": {}},
)


class Changed(RulesProposer):
    """The rules, but for answers that a test gives."""

    def __init__(self, **answers):
        self.answers = answers

    def propose(self, state, iteration, slot, refusals):
        found = self.answers.get("propose", lambda *_: None)(state, iteration)
        return Answer(found) if found else super().propose(state, iteration, slot, refusals)

    def read(self, state, batch, refusals):
        value = super().read(state, batch, refusals).value
        return Answer(self.answers.get("read", lambda value, _: value)(value, batch))

    def review(self, state, block, refusals):
        value = super().review(state, block, refusals).value
        return Answer(value if refusals else self.answers.get("review", lambda value: value)(value))


def explored(path, iterations, proposer):
    """The exploration to its end; every strategy file is accepted."""
    folder = ExplorationFolder(path)
    engine = ProcessEngine(2, 60.0, explorer_lives.JOB)
    Explorer(folder, engine, proposer, review=lambda *_: Verdict(True, (), DECLARED)).run(iterations)
    return State.of(folder.journal.read())


def with_file(value):
    file = StrategyFile(name="mine", source="# mine\n", rationale="it may work", reference="a paper")
    start = (Mutation(param="strategies", old=[], new=["mine", "contrastive"]),)
    return value.model_copy(update={"file": file, "start": start})


def test_a_strategy_file_is_handed_in_and_used_at_once(tmp_path):
    opened(tmp_path / "x", n_parallel=2, n_iter_block=2)
    root = Proposal(parent=None, mode="exploit", hypothesis="the root as it is")
    state = explored(tmp_path / "x", 4, Changed(review=with_file, propose=lambda *_: root))
    (review,) = state.reviews
    assert review.landed
    assert review.changes == {"training.strategies": ["mine", "contrastive"]}
    assert state.refused == ()
    third, fourth = state.iterations[2:]
    assert third.proposed.files == {"mine": review.landed}
    # It does not depend on the rollout length: another slot runs the same node again.
    assert (fourth.node, fourth.proposed.seed) == (3, 43)


def test_a_start_that_makes_no_sense_keeps_the_file_from_landing(tmp_path):
    opened(tmp_path / "x", n_parallel=2, n_iter_block=2)
    start = (Mutation(param="strategies", old=[], new=[{"mine": {"force": 1}}]),)
    state = explored(tmp_path / "x", 4, Changed(review=lambda v: with_file(v).model_copy(update={"start": start})))
    (review,) = state.reviews
    assert review.landed is None
    assert "force of mine: there is no such option" in state.refused[0].reason
    assert not list((tmp_path / "x" / "strategies").glob("mine.py"))


def test_views_are_written_after_a_review(tmp_path):
    """The score file is empty at the boundary, and the log has the block."""
    opened(tmp_path / "x", n_parallel=2, n_iter_block=2)
    seen = {}

    def look(state, iteration):
        if iteration == 3:
            folder = tmp_path / "x"
            seen["scores"] = (folder / "explore_rank50_ucb_scores.txt").read_text()
            seen["log"] = (folder / "explore_rank50_analysis.md").read_text()

    explored(tmp_path / "x", 4, Changed(propose=look))
    assert seen["scores"] == ""
    assert ">>> BLOCK END + CODE REVIEW <<<" in seen["log"]


def test_a_memory_that_drops_nearly_everything_is_not_taken(tmp_path):
    opened(tmp_path / "x", n_parallel=2, n_iter_block=8)

    def read(value, batch):
        lines = 60 if batch[0] == 1 else 5
        return value.model_copy(update={"memory": "\n".join(f"- line {i}" for i in range(lines))})

    state = explored(tmp_path / "x", 4, Changed(read=read))
    assert state.memory.count("\n") == 59
    note = "the new memory has 5 lines, the former 60: the former is kept"
    assert state.memories[-1].note == note
    assert f"> Memory: {note}\n" in (tmp_path / "x" / "explore_rank50_analysis.md").read_text()


@pytest.mark.parametrize(("until_settled", "expected"), [(True, 4), (False, 8)])
def test_it_ends_when_nothing_is_left_to_find(tmp_path, monkeypatch, until_settled, expected):
    """Four equal runs of the truth itself: no better reward can be had."""
    monkeypatch.setenv("METABOLISMGRAPH_TEST_REWARD", "0.9995")
    opened(tmp_path / "x", until_settled=until_settled, time_steps=(4,))
    state = explored(tmp_path / "x", 8, RulesProposer())
    assert len(state.iterations) == expected
    assert settled(state).id == 1
    assert leader(state) is None
