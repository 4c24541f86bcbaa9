"""The cost of the questions of an exploration: an estimate beforehand, and afterwards by kind and by iteration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import get_args

from metabolismgraph.explore.events import Answered, Kind
from metabolismgraph.explore.proposers import pictures
from metabolismgraph.explore.proposers.prompt import for_proposal, for_submission
from metabolismgraph.explore.state import Iteration, State

_CHARACTERS = 4  # per token, about, of English text and numbers
_OF_A_RUN, _OF_MEMORY = 2500, 6000  # characters in a prompt, about
_OF_A_FIGURE = 1000  # tokens, about
_ANSWERS: Mapping[Kind, int] = {"proposal": 300, "reading": 2500, "submission": 2000}  # tokens, about


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the questions of an exploration will take, if no answer is refused and the model does not think at length.

    Attributes:
        questions: their number by kind.
        price: of a million input and output tokens [US dollars]; None: not known.
    """

    questions: Mapping[Kind, int]
    input_tokens: int
    output_tokens: int
    price: tuple[float, float] | None

    @property
    def cost(self) -> float | None:
        """In US dollars; None without a price."""
        if self.price is None:
            return None
        return (self.input_tokens * self.price[0] + self.output_tokens * self.price[1]) / 1e6


def estimate(state: State, iterations: int) -> Estimate:
    """Estimate the questions up to a number of iterations.

    The instructions in prompts are counted; runs, memory, figures and answers are taken as long as they usually are.

    Args:
        state: of an exploration that begins.
        iterations: their total number.
    """
    settings = state.settings
    size = settings.n_iter_block
    blocks, rest = divmod(iterations, size)
    batches = blocks * math.ceil(size / settings.n_parallel) + math.ceil(rest / settings.n_parallel)
    questions: dict[Kind, int] = {
        "proposal": iterations,
        "reading": batches,
        "submission": max(math.ceil(iterations / size) - 1, 0),
    }
    first, review = for_proposal(state, 1, 0, ()).in_words(), for_submission(state, 1, ()).in_words()
    listed = min(size, iterations) / 2  # runs of a block in a prompt, on average
    figures = pictures.MOST * _OF_A_FIGURE if settings.llm_images and state.opened.proposer == "llm" else 0
    characters: dict[Kind, float] = {
        "proposal": len(first) + listed * _OF_A_RUN + _OF_MEMORY,
        "reading": len(first) + (listed + settings.n_parallel / 2) * _OF_A_RUN + _OF_MEMORY,
        "submission": len(review) + size * _OF_A_RUN + _OF_MEMORY,
    }
    asked = sum(questions[kind] * characters[kind] for kind in questions) / _CHARACTERS
    return Estimate(
        questions,
        round(asked + questions["reading"] * figures),
        sum(questions[kind] * _ANSWERS[kind] for kind in questions),
        state.opened.price,
    )


def by_kind(state: State) -> dict[Kind, tuple[int, float]]:
    """Number of answers and their cost in US dollars, for every kind of question that was asked."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    found = {kind: [answer.cost for answer in state.answered if answer.kind == kind] for kind in kinds}
    return {kind: (len(costs), math.fsum(costs)) for kind, costs in found.items() if costs}


def of_iteration(state: State, iteration: Iteration) -> tuple[float, float]:
    """Cost of the proposal of an iteration, and its share of the reading of its batch, in US dollars."""
    number = iteration.number
    read = next((memory.readings for memory in state.memories if number in {r.iteration for r in memory.readings}), ())
    batch = {reading.iteration for reading in read}
    reading = _sum(answer for answer in state.answered if answer.kind == "reading" and answer.iteration in batch)
    proposal = _sum(answer for answer in state.answered if (answer.kind, answer.iteration) == ("proposal", number))
    return proposal, reading / max(len(batch), 1)


def _sum(answers: Iterable[Answered]) -> float:
    return math.fsum(answer.cost for answer in answers)
