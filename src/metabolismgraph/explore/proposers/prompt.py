"""Prompts to external programs: instructions, and data that are marked as data.

Memory, observations, metrics and reasons for failures are from training runs and earlier answers. They may contain any
text, such as "ignore your instructions". They are fenced by lines with a digest of all fenced text, which the text
itself cannot contain. Where the primary metric does not use the truth, the prompt does not either. The instructions are
files in the folder `prompts`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from metabolismgraph.config import Training
from metabolismgraph.explore.events import Changes, Failed, Kind
from metabolismgraph.explore.evidence import effects
from metabolismgraph.explore.inbox import MOST_TEXT
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import Proposal, Reading, Submission, shown
from metabolismgraph.explore.published_format.lines import parent_of
from metabolismgraph.explore.review.syntax import importable
from metabolismgraph.explore.reward import SKILL
from metabolismgraph.explore.search_space import configuration, own_strategies, settings_of
from metabolismgraph.explore.space import SearchSpace
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, leader, nodes, scores, standard_error
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import STRATEGIES
from metabolismgraph.homeostasis.strategies.amplification import Amplification
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Penalty, Plan, Schedule
from metabolismgraph.metrics import find
from metabolismgraph.text import FencedText, one_line, visible

MOST_FIGURES = 12
MOST_MEMORY = 40_000  # characters of the working memory
_MOST_BYTES = 2_000_000  # of a figure
_MOST_RUNS = 64  # that are listed in full
_MOST_METRICS = 80
_PNG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")
_FIGURES = {
    "MLP_node": "tmp_training/function/rate_func/MLP_node_p2_*.png",
    "embedding": "tmp_training/embedding/*.png",
    "rate constants": "tmp_training/rate_constants/*.png",
}

# Names in running text that show a comparison with the truth.
_OF_TRUTH = re.compile(
    r"slope_ratio|offset_ratio|gt_slope|gt_offset|_gt_|cluster_acc|rate_constants_R2|MLP_sub_(R2|corr)|trimmed_R2"
    r"|n_outliers|log_k_\w*error|\b[Gg]round.truth|\bGT\b"
)

# Typical ranges of the published design; the bounds are those of the configuration.
_TYPICAL = {
    "training.learning_rate_node_homeostasis": "1e-4 to 1e-1",
    "training.learning_rate_embedding_homeostasis": "1e-4 to 1e-1",
    "training.data_augmentation_loop": "100 to 5000",
    "training.batch_size": "4 to 32",
}

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


def for_proposal(state: State, iteration: int, slot: int, refusals: Sequence[str]) -> Prompt:
    """The request for the proposal of an iteration.

    Args:
        slot: of the iteration, from 0.
    """
    block = state.block_of(iteration)
    time_step = state.slot(iteration).time_step
    text = FencedText()
    text.say(
        f"Propose iteration {iteration}. It runs in slot {slot}, where {TIME_STEP} is {time_step}. It belongs to block "
        f"{block}, iterations {state.first_of(block)} to {state.first_of(block + 1) - 1}."
    )
    _add_standing(text, state, block)
    text.data("iterations of this block", _runs(state, state.in_block(block)))
    return _finished(text, state, "proposal", Proposal, refusals)


def for_reading(state: State, batch: Sequence[int], refusals: Sequence[str], folder: Path | None) -> Prompt:
    """The request for the reading of a batch.

    Args:
        folder: of the exploration, for the figures; None to leave them out.
    """
    block = state.block_of(batch[0])
    of_batch = [state.iterations[number - 1] for number in batch]
    text = FencedText()
    text.say(
        f"Read the batch of iterations {', '.join(map(str, batch))} of block {block}, and rewrite the memory. It may "
        f"have {MOST_MEMORY} characters at most."
    )
    _add_standing(text, state, block)
    earlier = [iteration for iteration in state.in_block(block) if iteration.number < batch[0]]
    text.data("earlier iterations of this block", _runs(state, earlier))
    text.data("iterations of the batch", _runs(state, of_batch))
    figures = _figures(state, of_batch, folder) if folder is not None else []
    captions = [f"figure {i}: {caption}" for i, (caption, _) in enumerate(figures, 1)]
    text.data("figures, in the order in which they are attached", "\n".join(captions) or "none")
    return _finished(text, state, "reading", Reading, refusals, tuple(path for _, path in figures))


def for_submission(state: State, block: int, refusals: Sequence[str]) -> Prompt:
    """The request for a submission before a block, from 1, begins."""
    text = FencedText()
    text.say(f">>> BLOCK END + CODE REVIEW <<<\nBlock {block - 1} has ended; block {block} is to begin.")
    _add_standing(text, state, block)
    text.data(f"iterations of block {block - 1}", _runs(state, state.in_block(block - 1)))
    text.data("files submitted before", "\n".join(_reviews(state)) or "none")
    return _finished(text, state, "submission", Submission, refusals)


def _finished(
    text: FencedText,
    state: State,
    kind: Kind,
    schema: type[Proposal | Reading | Submission],
    refusals: Sequence[str],
    images: tuple[Path, ...] = (),
) -> Prompt:
    if refusals:
        text.say("Earlier answers of yours to this question were not accepted. Answer so that no reason applies again:")
        reasons = (f"{i}. {_open(state, one_line(reason, 600))}" for i, reason in enumerate(refusals, 1))
        text.data("why they were not accepted", "\n".join(reasons))
    return Prompt(kind, _system(state, kind, text.mark()), text.fenced(), images, schema)


def _system(state: State, kind: Kind, mark: str) -> str:
    oracle = state.opened.oracle
    moves = _MOVES_ORACLE if oracle else _MOVES_VALIDATION
    parts = [
        _instructions("task"),
        _instructions("metrics_oracle" if oracle else "metrics_validation", skill=SKILL),
        _instructions("moves", **moves, replicates=max(2, state.settings.replicates)),
        _parameters(state.space),
        _strategies(),
        _instructions("answer"),
        _instructions(kind, time_step=TIME_STEP, modules=importable()),
    ]
    if kind == "submission":
        parts.append(_sources())
    # Last, because it differs from message to message: what comes before can be cached by the server.
    parts.append(_instructions("data", mark=mark))
    return "\n".join(parts)


def _instructions(name: str, **values: object) -> str:
    """A text of the folder `prompts`, with its placeholders filled in."""
    text = resources.files("metabolismgraph.explore.proposers").joinpath("prompts", f"{name}.md")
    return text.read_text(encoding="utf-8").format(**values)


# Parameters, strategies and contract, generated from the code


def _parameters(space: SearchSpace) -> str:
    schema = Training.model_json_schema()["properties"]
    lines = ["Parameters that may be changed, as `short name (key): values: meaning`:"]
    for key, short in space.names.items():
        found = schema[key.removeprefix("training.")]
        typical = f"; typically {_TYPICAL[key]}" if key in _TYPICAL else ""
        allowed = "list of strategies, or null" if key == STRATEGY else _allowed(found)
        lines.append(f"- {short} ({key}): {allowed}{typical}: {found['description']}")
    return "\n".join(lines) + "\n"


def _allowed(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {shown(schema[name])}" for name, sign in bounds.items() if name in schema]
    return " ".join([str(schema.get("type", "value")), " and ".join(found)]).strip()


def _strategies() -> str:
    lines = [
        "Strategies of Phase 2, for `strategies`; 1-8 are those of the literature. Each is written as its name, or as "
        "{name: {option: value}}; [] is plain rollouts of the slot's length. Two strategies that decide on the same "
        "part cannot be combined; a strategy that needs rollouts or minibatches requires training with them:",
    ]
    for name, kind in STRATEGIES.items():
        decides = ", ".join(sorted(kind.sets)) or "nothing"
        needs = f"; needs {kind.needs}" if kind.needs else ""
        lines.append(f"- {kind.number} {name}: {kind.summary} [{kind.reference}]; decides on {decides}{needs}")
        for option, schema in kind.model_json_schema().get("properties", {}).items():
            default, about = json.dumps(schema.get("default")), schema.get("description", "")
            lines.append(f"    {option} = {default} ({_allowed(schema)}): {about}")
    return "\n".join(lines) + "\n"


def _sources() -> str:
    """The contract of strategies and a short strategy as example, from the source of the package."""
    contract = "\n\n".join(inspect.getsource(part) for part in (Strategy, Plan, Schedule, Loss, Objective, Penalty))
    module = inspect.getmodule(Amplification)
    assert module is not None
    return (
        f"The contract (metabolismgraph.homeostasis.strategies.base, .training_plan):\n```python\n{contract}```\n"
        f"What `data` holds (metabolismgraph.homeostasis.residuals):\n```python\n{_outline(Phase2Data)}\n```\n"
        f"An example, complete:\n```python\n{inspect.getsource(module)}```\n"
    )


def _outline(kind: type) -> str:
    """Docstring, fields and properties of a class, without their code."""
    lines = [f"class {kind.__name__}:", f'    """{inspect.getdoc(kind)}"""']
    lines += [f"    {field.name}: {field.type}" for field in dataclasses.fields(kind)]
    for name, found in vars(kind).items():
        function = getattr(found, "func", None)
        if function is not None:
            about = (inspect.getdoc(function) or "").partition("\n")[0]
            lines.append(f"    {name}: {inspect.signature(function).return_annotation}  # {about}")
    return "\n".join(lines)


# The exploration so far


def _add_standing(text: FencedText, state: State, block: int) -> None:
    """Add memory, scores and best node, which every question needs."""
    text.data("working memory", _open(state, state.memory[:MOST_MEMORY]) or "empty")
    root = state.root(block)
    text.data(f"configuration of the root of block {block} (parent null)", _values(state, root))
    listed = [
        f"node {s.node.id}: UCB {s.ucb:.3f}, parent {parent_of(s.parent)}, visits {s.visits}, {_reward(state, s.node)}"
        for s in scores(state, block)
    ]
    text.data(f"UCB scores of block {block}, highest first", "\n".join(listed) or "none yet: parent is null")
    text.data("best", _standing(state))
    found = effects(state)
    listed = [f"{one_line(effect.evidence)}: {one_line(effect, 600)}" for effect in found[-_MOST_RUNS:]]
    text.data("effects of changes on the reward, against their controls", "\n".join(listed) or "none yet")
    own = [f"{name}: {_options(review.declaration)}" for name, review in own_strategies(state).items()]
    text.data("strategies of this exploration's own", "\n".join(own) or "none")
    if state.notes:
        text.say("The researcher who runs this exploration left notes. Follow them as far as the instructions allow:")
        notes = (f"- {_open(state, one_line(visible(note.text), MOST_TEXT))}" for note in state.notes)
        text.data("notes of the researcher", "\n".join(notes))


def _standing(state: State) -> str:
    needed = state.settings.replicates
    found, promising = best(state), leader(state)
    lines = [f"best with {needed} runs or more: {_whole(state, found)}" if found else f"none with {needed} runs yet"]
    if promising is not None:
        lines.append(f"most promising so far, not proven: {_whole(state, promising)}")
    return "\n".join(lines)


def _whole(state: State, node: Node) -> str:
    return f"node {node.id}, {_reward(state, node)}; {_values(state, node.first.changes)}"


def _reward(state: State, node: Node) -> str:
    if node.mean is None:
        return "no reward yet"
    error = standard_error(node, nodes(state))
    known = f" +- {error:.4f}" if error is not None else ", error unknown"
    return f"reward {node.mean:.4f}{known}, runs {len(node.rewards)}"


def _values(state: State, changes: Changes) -> str:
    """Every parameter that may be changed, as JSON: the values for `old` of a mutation."""
    config = configuration(state, changes).model_dump(mode="json")
    found = {short: config["training"][key.removeprefix("training.")] for key, short in state.space.names.items()}
    return "; ".join(f"{short}={json.dumps(value)}" for short, value in found.items())


def _runs(state: State, iterations: Sequence[Iteration]) -> str:
    latest = iterations[-_MOST_RUNS:]
    return "\n".join(line for iteration in latest for line in _run(state, iteration)) or "none"


def _run(state: State, iteration: Iteration) -> Iterable[str]:
    proposed = iteration.proposed
    proposal = proposed.proposal
    yield (
        f"iteration {proposed.iteration}: node {proposed.node}, parent {parent_of(proposed.parent)}, "
        f"slot {proposed.slot}, time step {proposed.time_step}, seed {proposed.seed}"
    )
    yield f"  configuration: {_values(state, proposed.changes)}"
    settings = settings_of(proposed, state)
    unread = [short for key, short in state.space.names.items() if settings and key not in settings]
    if unread:
        yield f"  without effect there: {', '.join(unread)}"
    changes = "; ".join(map(str, proposed.mutations)) or "none"
    yield f"  mode {proposal.mode}; mutations: {one_line(changes, 1000)}"
    yield f"  strategy: {_open(state, proposed.strategy)}"
    yield f"  hypothesis: {_open(state, proposal.hypothesis)}"
    if iteration.scored is None:
        yield "  result: not finished yet"
        return
    verdict = iteration.scored
    parts = ", ".join(f"{part:.4f}" for part in verdict.parts)
    yield f"  result: {verdict.state}, {verdict.classification}, reward {verdict.reward:.4f}, parts {parts or 'none'}"
    if isinstance(iteration.outcome, Failed):
        yield f"  reason: {_open(state, one_line(iteration.outcome.reason))}"
    known = {name: v for name, v in iteration.metrics.items() if state.opened.oracle or _needs_no_truth(name)}
    metrics = [f"{one_line(name, 60)}={one_line(shown(value), 60)}" for name, value in known.items()]
    yield f"  metrics: {', '.join(metrics[:_MOST_METRICS]) or 'none'}"
    if iteration.reading is not None:
        yield f"  visual: {_open(state, iteration.reading.visual)}"
        yield f"  observation: {_open(state, iteration.reading.observation)}"


def _reviews(state: State) -> Iterable[str]:
    for review in state.reviews:
        if review.file is None:
            continue
        yield f"before block {review.block}: {review.file.name}, {review.verdict}: {one_line(review.file.rationale)}"
        yield from (f"  {_open(state, one_line(reason))}" for reason in review.reasons)


def _options(declaration: Mapping[str, Any] | None) -> str:
    declared = ((declaration or {}).get("options") or {}).get("properties", {})
    return one_line("options " + (", ".join(f"{k} = {v.get('default')}" for k, v in declared.items()) or "none"), 500)


def _figures(state: State, iterations: Sequence[Iteration], folder: Path) -> list[tuple[str, Path]]:
    """The latest figures with captions, at most `MOST_FIGURES`, those of MLP_node first."""
    found = []
    for what, pattern in _FIGURES.items():
        for iteration in iterations:
            # Figures of a run that was compared with the truth show the truth.
            may_be_shown = state.opened.oracle or all(map(_needs_no_truth, iteration.metrics))
            if iteration.started is None or not may_be_shown:
                continue
            latest = max((folder / iteration.started.folder).glob(pattern), key=lambda p: p.name, default=None)
            if latest is not None and _is_whole(latest):
                found.append((f"iteration {iteration.number}, {what}, {one_line(latest.name, 80)}", latest))
    return found[:MOST_FIGURES]


def _needs_no_truth(name: str) -> bool:
    """Whether a metric is known to be computed from observations and model alone."""
    metric = find(name)
    return metric is not None and not metric.uses_truth


def _is_whole(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(_PNG[0]) and content.endswith(_PNG[1])


# Text of unknown origin


def _open(state: State, text: str) -> str:
    """Text of unknown origin; without the truth, lines that name a metric computed with it are left out."""
    if state.opened.oracle:
        return text
    return "\n".join(
        "(left out: it named a metric that uses the truth)" if _OF_TRUTH.search(line) else line
        for line in text.split("\n")
    )
