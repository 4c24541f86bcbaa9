"""Prompts to external programs: instructions, and data that are marked as data.

Memory, observations, metrics and reasons for failures are from training runs and earlier answers. They may contain any
text, such as "ignore your instructions". They are fenced by lines with a digest of all fenced text, which the text
itself cannot contain.

The texts are Markdown templates in the folder `prompts`: `proposal`, `reading` and `submission` are the instructions of
the three questions, `message_proposal` and so on the questions themselves. `$name` stands for the template of that
name, for what `reference.GENERATED` generates, or for a value. A paragraph that begins with `[data: TITLE]` is fenced.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from metabolismgraph.explore.events import Kind
from metabolismgraph.explore.keys import TIME_STEP
from metabolismgraph.explore.proposal import Proposal, Reading, Submission
from metabolismgraph.explore.proposers import reference, standing
from metabolismgraph.explore.proposers.pictures import figures
from metabolismgraph.explore.proposers.system_facts import budget, system_facts
from metabolismgraph.explore.reward import SKILL
from metabolismgraph.explore.search_space import DEFAULT, shipped_space
from metabolismgraph.explore.state import State
from metabolismgraph.text import FencedText

QUESTIONS = "questions"  # folder of an exploration
_DATA = re.compile(r"\[data: (.+)\]\n(.+)", re.DOTALL)

# Templates in the place of others, for search spaces that are not the one of the package for Phase 2.
_OF_A_SPACE = {"metrics": "metrics_space", "moves": "moves_space"}
_OF_DESCENT = {"task": "task_descent"}
_WITHOUT_FILES = {"submission": "submission_plain"}
_WITHOUT_STRATEGIES = {"search_space": "search_space_plain", "answer": "answer_plain", **_WITHOUT_FILES}

_MOVES_ORACLE = {
    "near": "avg_slope_ratio lies in 0.5-1.5",
    "flat": "avg_slope_ratio is stuck near 0",
    "moving": "slope ratios move towards 1",
    "wrong": "slope ratios are wrong",
}
_MOVES_VALIDATION = {
    "near": f"{SKILL} is above 0.5",
    "flat": f"{SKILL} is stuck near 0",
    "moving": f"{SKILL} rises",
    "wrong": f"{SKILL} is low",
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One question to an external program that answers in JSON.

    Attributes:
        system: instructions.
        text: the question, with fenced data.
        images: PNG files, in their order in the text.
        schema: of the answer.
    """

    kind: Kind
    system: str
    text: str
    images: tuple[Path, ...]
    schema: type[Proposal | Reading | Submission]

    def in_words(self) -> str:
        """The whole prompt as one text, with schema and paths of images, for programs without structured output."""
        parts = [self.system, self.text]
        if self.images:
            parts.append("Files of the figures:\n" + "\n".join(str(path.resolve()) for path in self.images))
        schema = json.dumps(self.schema.model_json_schema())
        parts.append(f"Answer with one JSON object and nothing else. It must be valid against this schema:\n{schema}")
        return "\n\n".join(parts) + "\n"


@dataclasses.dataclass(frozen=True)
class Context:
    """What a prompt shows besides the state of the exploration.

    Attributes:
        folder: of the exploration, for facts of its system, loss curves and figures; None to leave them out.
        images: whether to show figures.
        iterations: their total number at the end; None if it is not known.
        files: whether a strategy file may be submitted.
    """

    folder: Path | None = None
    images: bool = True
    iterations: int | None = None
    files: bool = True


def for_proposal(
    state: State, iteration: int, slot: int, refusals: Sequence[str], context: Context = Context()
) -> Prompt:
    """The request for the proposal of an iteration.

    Args:
        slot: of the iteration, from 0.
    """
    block = state.block_of(iteration)
    space = state.space
    by_length = f"where {TIME_STEP} is {state.slot(iteration).time_step}"
    values = {
        "iteration": iteration,
        "slot": slot,
        "where": by_length if space.time_step_by_slot else f"whose role is {space.slots[slot % len(space.slots)]}",
        "first": state.first_of(block),
        "last": state.first_of(block + 1) - 1,
        "runs": standing.runs(state, state.in_block(block), context.folder),
    }
    return _prompt("proposal", Proposal, state, block, iteration, values, refusals, context)


def for_reading(state: State, batch: Sequence[int], refusals: Sequence[str], context: Context = Context()) -> Prompt:
    """The request for the reading of a batch."""
    block = state.block_of(batch[0])
    of_batch = [state.iterations[number - 1] for number in batch]
    earlier = [iteration for iteration in state.in_block(block) if iteration.number < batch[0]]
    folder = context.folder
    shown = figures(state, of_batch, folder, folder / QUESTIONS) if folder is not None and context.images else []
    values = {
        "batch": ", ".join(map(str, batch)),
        "most_memory": standing.MOST_MEMORY,
        "earlier": standing.runs(state, earlier, folder),
        "runs": standing.runs(state, of_batch, folder),
        "figures": "\n".join(f"figure {i}: {caption}" for i, (caption, _) in enumerate(shown, 1)) or "none",
    }
    images = tuple(path for _, path in shown)
    return _prompt("reading", Reading, state, block, batch[0], values, refusals, context, images)


def for_submission(state: State, block: int, refusals: Sequence[str], context: Context = Context()) -> Prompt:
    """The request for a submission before a block, from 1, begins."""
    values = {
        "before": block - 1,
        "runs": standing.runs(state, state.in_block(block - 1), context.folder),
        **standing.files(state),
    }
    return _prompt("submission", Submission, state, block, state.first_of(block), values, refusals, context)


def _prompt(
    kind: Kind,
    schema: type[Proposal | Reading | Submission],
    state: State,
    block: int,
    iteration: int,
    values: Mapping[str, object],
    refusals: Sequence[str],
    context: Context,
    images: tuple[Path, ...] = (),
) -> Prompt:
    oracle, folder = state.opened.oracle, context.folder
    values = {
        **values,
        **standing.standing(state, block),
        **(_MOVES_ORACLE if oracle else _MOVES_VALIDATION),
        "block": block,
        "system": system_facts(state, block, folder and folder / "base"),
        "budget": budget(state, context.iterations),
        **reference.of_space(state.space, state.opened.primary),
        "skill": SKILL,
        "replicates": max(2, state.settings.replicates),
    }
    text = FencedText()
    _say(text, _template(f"message_{kind}"), values)
    if refusals:
        _say(text, _template("message_refusals"), standing.refused(state, kind, iteration, refusals))
    # The mark is at the end of the instructions, because it differs from message to message: what comes before can be
    # cached by the server.
    variants = _variants(state) | ({} if context.files else _WITHOUT_FILES)
    system = _template(variants.get(kind, kind), tuple(variants.items()))
    return Prompt(kind, _filled(system, {**values, "mark": text.mark()}), text.fenced(), images, schema)


def _variants(state: State) -> dict[str, str]:
    """The templates that stand in the place of others in this exploration."""
    space = state.space
    found = {"metrics": "metrics_oracle" if state.opened.oracle else "metrics_validation"}
    if space != shipped_space(DEFAULT):
        found |= _OF_A_SPACE
    if space.trains == "everything":
        found |= _OF_DESCENT
    if not space.strategies:
        found |= _WITHOUT_STRATEGIES
    return found


def _say(text: FencedText, template: str, values: Mapping[str, object]) -> None:
    """Add the paragraphs of a template to a message, those of data between fences."""
    for paragraph in template.split("\n\n"):
        found = _DATA.fullmatch(paragraph)
        if found is None:
            text.say(_filled(paragraph, values))
        else:
            text.data(_filled(found[1], values), _filled(found[2], values))


@functools.cache
def _template(name: str, variants: tuple[tuple[str, str], ...] = ()) -> str:
    """A text of the folder `prompts`, with the templates that it names in their places, or variants of them."""
    other = dict(variants)
    folder = resources.files("metabolismgraph.explore.proposers") / "prompts"
    names = {entry.name.removesuffix(".md") for entry in folder.iterdir()}
    text = (folder / f"{name}.md").read_text(encoding="utf-8").strip()

    def put(found: re.Match[str]) -> str:
        inner = other.get(found[1], found[1])
        return _template(inner, variants) if inner in names else found[0]

    return re.sub(r"\$(\w+)", put, text)


class _Values(dict[str, object]):
    """Values of placeholders; others are generated from the code."""

    def __missing__(self, name: str) -> Any:
        return reference.GENERATED[name]()


def _filled(template: str, values: Mapping[str, object]) -> str:
    return Template(template).substitute(_Values(values))
