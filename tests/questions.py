"""A small exploration that asks a proposer as the real one does, with made-up metrics instead of training."""

from __future__ import annotations

import dataclasses
import json

from metabolismgraph.config import load_config
from metabolismgraph.explore import planning
from metabolismgraph.explore.events import (
    Answered,
    Failed,
    Finished,
    Opened,
    Proposed,
    Refused,
    Remembered,
    Reviewed,
    Started,
)
from metabolismgraph.explore.proposal import IterationReading, Proposal, Reading, Submission
from metabolismgraph.explore.proposers.asking import Transport
from metabolismgraph.explore.proposers.base import (
    Answer,
    Exchange,
    InvalidAnswerError,
    Proposer,
    UnavailableError,
)
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.state import State

PHASE2 = shipped_space("phase2")


def opened(primary="avg_slope_ratio", **exploration):
    """How an exploration of two slots and blocks of four begins."""
    chosen = {"n_parallel": 2, "n_iter_block": 4, "time_steps": (4, 16), "primary": primary} | exploration
    config = load_config("small").replace({f"exploration.{key}": value for key, value in chosen.items()})
    return Opened(
        name="small",
        config=config.model_dump(mode="json"),
        primary=primary,
        oracle=primary == "avg_slope_ratio",
        proposer="test",
        version="0",
        data="simulated",
    )


def metrics(ratio=0.5, skill=0.4):
    """What a run with a truth reports, in short."""
    return {
        "phase2_loss": 0.25,
        "phase2_node_magnitude": 0.0123,
        "embedding_n_clusters": 2,
        "embedding_silhouette": 0.6,
        "held_out_skill": skill,
        "MLP_node_slope_cluster_0": -0.00111,
        "MLP_node_slope_ratio_0": ratio,
        "MLP_node_slope_ratio_1": ratio,
        "MLP_node_offset_ratio_0": 0.7771,
        "MLP_node_gt_slope_0": -0.0017772,
        "MLP_node_slope_0": -0.0017773,
        "embedding_cluster_acc": 0.97774,
        "rate_constants_R2": 0.87775,
        "rate_constants_R2_identifiable": 0.87776,
        "log_k_median_error_identifiable": 0.17777,
        "trimmed_R2": 0.97778,
        "n_outliers": 7779,
        "slope": 0.77780,
        "MLP_sub_R2": 0.97781,
        "refined_MLP_node_slope_ratio_0": 0.77782,
        "refined_phase2_loss": 0.24,
        "avg_slope_ratio": ratio,
        "classification": "partial",
    }


def proposal(**changes):
    """An answer that is accepted at any time: the root as it is."""
    answer = {"parent": None, "mode": "explore", "mutations": [], "strategy": "hyperparameter-only", "hypothesis": "h"}
    return answer | changes


def reading(batch, **changes):
    entries = [{"iteration": i, "visual": f"MLP_node=active: {i}", "observation": f"seen {i}"} for i in batch]
    return {"iterations": entries, "memory": f"# memory after {max(batch)}\nall well"} | changes


def submission(**changes):
    return {"start": [], "file": None, "rationale": "keep the root", "reference": ""} | changes


@dataclasses.dataclass
class Scripted(Transport):
    """Gives one answer after the other; exceptions among them are raised."""

    answers: list
    prompts: list = dataclasses.field(default_factory=list)
    shows_images: bool = True

    @property
    def name(self):
        return "scripted"

    def ask(self, prompt, attempts=1):
        self.prompts.append(prompt)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Exchange(text, None, 1000, 100, 0.25, 0.5)


class Steady(Proposer):
    """Stands in for the rules: the root, again and again."""

    name = "steady"

    def propose(self, state, iteration, slot, refusals):
        return Answer(Proposal.model_validate(proposal()))

    def read(self, state, batch, refusals):
        entries = tuple(IterationReading(iteration=i, visual="none", observation="none") for i in batch)
        return Answer(Reading(iterations=entries, memory="steady"))

    def review(self, state, block, refusals):
        return Answer(Submission(rationale="none"))


class SmallLoop:
    """Asks, refuses with the reason, asks again, falls back: as the explorer does."""

    def __init__(self, begin, proposer, run=lambda iteration: metrics()):
        self.proposer, self.run_one = proposer, run
        self.events = [begin]
        self.state = State.of(self.events)
        self.questions = 0

    def record(self, event):
        self.events.append(event)
        self.state = self.state.after(event)

    def run(self, iterations):
        settings = self.state.settings
        for first in range(1, iterations + 1, settings.n_parallel):
            batch = range(first, first + settings.n_parallel)
            block = self.state.block_of(first)
            if block and (first - 1) % settings.n_iter_block == 0:
                self.review(block, first)
            for i in batch:
                self.propose(i)
            for i in batch:
                self.record(Started(iteration=i, folder=f"runs/{i:04d}/run"))
                found = self.run_one(i)
                made = {"reason": found} if isinstance(found, str) else {"metrics": found}
                outcome = (Failed if isinstance(found, str) else Finished)(iteration=i, seconds=1.0, **made)
                self.record(outcome)
                self.record(score(outcome, PHASE2, self.state.opened.primary))
            self.read(batch)
        return self

    def propose(self, i):
        state = self.state
        self.ask(
            "proposal",
            i,
            lambda who, refusals: who.propose(self.state, i, state.slot(i), refusals),
            lambda value, by, note: planning.plan(value, state, i, by=by, note=note),
        )

    def read(self, batch):
        self.ask(
            "reading",
            batch[0],
            lambda who, refusals: who.read(self.state, batch, refusals),
            lambda value, by, note: Remembered(
                iteration=batch[-1], readings=value.iterations, memory=value.memory, by=by, note=note
            ),
        )

    def review(self, block, first):
        state = self.state

        def accept(value, by, note):
            changes = planning.changed(state.root(block), value.start, state)
            return Reviewed(
                block=block,
                iteration=first,
                changes=changes,
                submission=value,
                landed=None,
                reasons=self.state.refusals("submission", first),
                by=by,
                note=note,
            )

        self.ask("submission", first, lambda who, refusals: who.review(self.state, block, refusals), accept)

    def ask(self, kind, iteration, ask, accept):
        note = ""
        while not note:
            refusals = self.state.refusals(kind, iteration)
            attempt = len(refusals)
            if attempt >= self.state.settings.attempts:
                note = f"{attempt} answers of {self.proposer.name} were refused"
                break
            try:
                self.questions += 1
                answer = ask(self.proposer, refusals)
                self.note(kind, iteration, attempt, answer.exchange)
                self.record(accept(answer.value, self.proposer.name, ""))
            except (InvalidAnswerError, planning.RefusedError) as error:
                if isinstance(error, InvalidAnswerError):
                    self.note(kind, iteration, attempt, error.exchange)
                by = self.proposer.name
                self.record(Refused(kind=kind, iteration=iteration, attempt=attempt, by=by, reason=str(error)))
            except UnavailableError as error:
                self.note(kind, iteration, attempt, error.exchange)
                note = f"{self.proposer.name} gave no answer: {error}"
            else:
                return
        rules = Steady()
        self.record(accept(ask(rules, ()).value, rules.name, note))

    def note(self, kind, iteration, attempt, exchange):
        if exchange is None:
            return
        fields = dataclasses.asdict(exchange)
        self.record(Answered(kind=kind, iteration=iteration, attempt=attempt, by=self.proposer.name, **fields))

    # What came of it

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def journal(self):
        """All that was recorded, as text."""
        return "\n".join(event.model_dump_json() for event in self.events)

    def assert_sound(self, iterations):
        """Every iteration was proposed once, and each proposal is one that the guard accepts when it is made."""
        proposed = self.of(Proposed)
        assert [p.iteration for p in proposed] == list(range(1, iterations + 1))
        state = State.of(self.events[:1])
        for event in self.events[1:]:
            if isinstance(event, Proposed):
                assert planning.plan(event.proposal, state, event.iteration, by=event.by, note=event.note) == event
            state = state.after(event)


def fences(prompt):
    """The data of a prompt by title, and what stands outside of them."""
    mark = prompt.system.rpartition("[end ")[2].split("]")[0]
    assert len(mark) == 20
    inside, outside, title = {}, [], None
    for line in prompt.text.split("\n"):
        if title is None and line.startswith(f"[data {mark}: "):
            title = line.removeprefix(f"[data {mark}: ").removesuffix("]")
            inside[title] = []
        elif title is not None and line == f"[end {mark}]":
            title = None
        elif title is not None:
            inside[title].append(line)
        else:
            outside.append(line)
    assert title is None
    return {t: "\n".join(lines) for t, lines in inside.items()}, "\n".join(outside)
