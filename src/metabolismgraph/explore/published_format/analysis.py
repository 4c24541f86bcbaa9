"""The log for people, in the published format: append-only, one entry per iteration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metabolismgraph.explore.events import (
    Approved,
    Event,
    Failed,
    Finished,
    Imported,
    Lost,
    Opened,
    Paused,
    Proposed,
    Refused,
    Remembered,
    Reviewed,
    Suggested,
    Validated,
    Warned,
)
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import shown
from metabolismgraph.explore.published_format.lines import basis, decimals, mutation, parent_of, suggestion
from metabolismgraph.explore.reward import SKILL, slope_ratios
from metabolismgraph.explore.search_space import Role
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.metrics import from_log_name
from metabolismgraph.text import one_line, visible

# The lines of an entry in their order; further lines of other logs come before Next.
LABELS = ("Node", "Mode/Strategy", "Slot", "Config", "Metrics", "Visual", "Mutation", "Strategy", "Observation")
NEXT = "Next"
STATUS = "(status)"  # fields of `Imported` besides lines of the log: heading as written, text before and after
BEFORE = "(before)"
TEXT = "(text)"
BOUNDARY = ">>> BLOCK END + CODE REVIEW <<<"

_SEED = "training.seed"
_PARENT_RULES: Mapping[Role, str] = {
    "ucb": "highest UCB score",
    "best": "highest reward",
    "second": "second highest reward, or the highest with another parameter",
    "explore": "seldom visited, or a parameter never tried",
    "principle": "test of a principle of the memory",
}
_REASON = 500  # characters at most of the reason of a failure


def render(events: Sequence[Event]) -> str:
    """The log after these events. Further events only append to it.

    An iteration appears after the reading of its batch, with its state at that time. The line Next of the last
    iteration follows once the next one is planned. Messages of researchers and warnings stand where they came.
    """
    state = State.of(events[:1])
    parts = [_preamble(state.opened)]
    shown_already: set[int] = set()
    for event in events[1:]:
        state = state.after(event)
        match event:
            case Imported():
                parts.append(_imported(event))
            case Remembered():
                batch = [i for i in state.iterations[: event.iteration] if i.scored and i.number not in shown_already]
                parts += [f"> Memory: {visible(event.note)}\n"] if event.note else []
                parts += [_entry(state, iteration) for iteration in batch]
                shown_already |= {iteration.number for iteration in batch}
            case Proposed():
                first = state.first_of(state.block_of(event.iteration))
                if event.iteration - 1 in shown_already and event.iteration > first:
                    parts[-1] += _next(event.proposal.parent)
            case Validated():
                judged = f"{visible(event.classification)}, reward {event.reward:.4f}"
                result = judged if event.metrics else visible(event.reason)
                parts.append(f"> Validation of node {event.node} with seed {event.seed}: {result}\n")
            case Reviewed():
                parts.append(_boundary(event, state))
            case _ if remark := _remark(event):
                parts.append(f"> {visible(remark)}\n")
    return "\n".join(parts)


def _preamble(opened: Opened) -> str:
    return (
        f"# Exploration log: {visible(opened.name)}\n\n"
        "One entry per iteration, once its batch has been read; only ever appended to.\n"
        f"{basis(opened)}\n"
        f"Proposer {visible(opened.proposer)}; metabolismgraph {visible(opened.version)}; {visible(opened.data)}.\n"
    )


def _remark(event: Event) -> str:
    """A line about an event beside the entries of iterations; empty for others."""
    remark = ""
    match event:
        case Lost():
            reason = one_line(event.reason, _REASON)
            remark = f"Iteration {event.iteration} lost ({event.kind or 'machine'}) and run again: {reason}"
        case Suggested():
            remark = f"Suggested by {event.by}: {suggestion(event)}"
        case Refused(suggestion=str()):
            remark = f"Suggestion not followed in iteration {event.iteration}: {event.reason}"
        case Paused():
            remark = f"{'Paused' if event.on else 'Continued'} by {event.by}"
        case Approved():
            decision = "accepted" if event.accepted else "refused"
            remark = f"Strategy {event.name} {decision} by {event.by}{event.reason and f': {event.reason}'}"
        case Warned():
            remark = f"Warning: {event.about}: {event.reason}"
    return remark


def _next(parent: int | None) -> str:
    return f"{NEXT}: parent={parent_of(parent)}\n"


def _following(state: State, iteration: Iteration) -> str:
    """The line Next of an iteration, as far as known: the parent of the following one, root at a block boundary."""
    number = iteration.number
    if state.block_of(number + 1) != state.block_of(number):
        return _next(None)
    if number == len(state.iterations):
        return ""
    return _next(state.iterations[number].proposed.proposal.parent)


def _entry(state: State, iteration: Iteration) -> str:
    proposed, reading = iteration.proposed, iteration.reading
    observation = visible(reading.observation if reading else "")
    if isinstance(iteration.outcome, Failed):
        word = "failed" if iteration.outcome.cause == "idea" else "lost"
        observation = f"{word}: {one_line(visible(iteration.outcome.reason), _REASON)}; {observation}"
    status = iteration.scored.classification if iteration.scored else "failed"
    lines = {
        "Node": f"id={proposed.node}, parent={parent_of(proposed.parent)}",
        "Mode/Strategy": _mode(state, iteration),
        "Slot": f"slot_{proposed.slot} (time_step={proposed.time_step})",
        "Config": _config(state, proposed),
        "Metrics": _metrics(state, iteration),
        "Visual": visible(reading.visual if reading else ""),
        "Mutation": mutation(proposed),
        **_parent_rule(state, proposed),
        "Strategy": f"{visible(proposed.strategy)}; hypothesis: {visible(proposed.proposal.hypothesis)}",
        "Observation": observation,
    }
    text = "".join(f"{label}: {text}\n" for label, text in lines.items())
    return f"## Iter {iteration.number}: {visible(status)}\n{text}{_following(state, iteration)}"


def _parent_rule(state: State, proposed: Proposed) -> dict[str, str]:
    """The line `Parent rule`, in search spaces that have one."""
    if not state.space.log.parent_rule:
        return {}
    first = proposed.iteration <= state.settings.n_parallel
    role = state.space.slots[proposed.slot % len(state.space.slots)]
    return {"Parent rule": "root (first batch)" if first else _PARENT_RULES[role]}


def _mode(state: State, iteration: Iteration) -> str:
    proposed = iteration.proposed
    text = visible(proposed.proposal.mode)
    run = sum(other.node == iteration.node for other in state.iterations[: iteration.number])
    if run > 1:
        text += f" (run {run} of node {iteration.node}, seed {proposed.seed})"
    by = _by(state.opened, proposed)
    return f"{text} by {by}" if by else text


def _by(opened: Opened, event: Proposed | Reviewed) -> str:
    """Who answered, and why: empty if it was the proposer of the exploration itself."""
    if event.by.startswith(opened.proposer) and not event.note:
        return ""
    return visible(event.by) + (f": {visible(event.note)}" if event.note else "")


def _config(state: State, proposed: Proposed) -> str:
    """The parameters that the search space shows, what trains, and other differences from the opened configuration."""
    given = {**proposed.changes, _SEED: proposed.seed}
    keys = {name: _SEED if name == "seed" else state.space.by_name[name].key for name in state.space.log.config}
    values = {name: given.get(key, state.config.value(key)) for name, key in keys.items()}
    named = {TIME_STEP, _SEED, *keys.values()}
    if STRATEGY in proposed.settings:
        values["strategies"] = proposed.settings[STRATEGY]
        named.add(STRATEGY)
    others = {key.removeprefix("training."): value for key, value in given.items() if key not in named}
    return _pairs({name: shown(value) for name, value in (values | others).items()})


def _metrics(state: State, iteration: Iteration) -> str:
    if not isinstance(iteration.outcome, Finished):
        return "none"
    metrics = iteration.metrics
    names: dict[str, str] = {}
    for name in state.space.log.metrics:
        if name == "slope_ratios":
            for t in sorted(slope_ratios(metrics)):
                names |= {f"{part}_ratio_{t}": f"MLP_node_{part}_ratio_{t}" for part in ("slope", "offset")}
        else:
            names[name] = from_log_name(name)
    if not state.opened.oracle:
        names = {short: name for short, name in names.items() if name in metrics}
    names |= {name: name for name in (SKILL, "training_time_min") if name in metrics}
    values = {short: decimals(metrics.get(name)) for short, name in names.items()}
    if iteration.scored:
        values["reward"] = decimals(iteration.scored.reward)
        if iteration.scored.state != "scored":
            values["state"] = iteration.scored.state
    return _pairs(values)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{visible(name)}={visible(value)}" for name, value in values.items())


def _boundary(review: Reviewed, state: State) -> str:
    file, submission = review.file, review.submission
    lines = {"Block": f"{review.block} begins with iteration {review.iteration}; parent=root"}
    lines |= {"Rationale": visible(submission.rationale), "Reference": visible(submission.reference)}
    lines["Submitted"] = "no code"
    if file is not None:
        lines["Submitted"] = f"strategy {visible(file.name)}: {visible(file.rationale)} ({visible(file.reference)})"
        lines["Landed"] = f"yes, {visible(review.landed)}" if review.landed else "no"
        if review.held:
            lines["Landed"] = f"no, {review.verdict}: `explore approve`"
    if review.reasons:
        lines["Refused"] = "; ".join(visible(reason) for reason in review.reasons)
    if by := _by(state.opened, review):
        lines["By"] = by
    lines["Starts from"] = _pairs({key: shown(value) for key, value in review.changes.items()}) or "as opened"
    return f"{BOUNDARY}\n" + "".join(f"{label}: {text}\n" for label, text in lines.items())


def _imported(event: Imported) -> str:
    """An entry of another log, line by line as written there."""
    known: dict[str, Any] = {
        "Node": f"id={event.node}, parent={parent_of(event.parent)}",
        "Metrics": ", ".join(f"{name}={number_as_read(value)}" for name, value in event.metrics.items()),
    }
    if event.next_parent is not None:
        known[NEXT] = f"parent={event.next_parent or 'root'}"
    known |= event.fields
    others = [label for label in known if label not in {*LABELS, NEXT, STATUS, BEFORE, TEXT}]
    text = "".join(_quoted(known.get(BEFORE)))
    text += f"## Iter {event.iteration}: {visible(known.get(STATUS, event.status), '')}\n"
    for label in (*LABELS, *others, NEXT):
        # Without marks at the start of a label, which could make it a heading.
        name = re.sub(r"^\W+", "", visible(label))
        text += "".join(
            f"{name}: {visible(each, '')}".rstrip() + "\n" for each in known.get(label, "").split("\n") if each
        )
    return text + "".join(_quoted(known.get(TEXT)))


def number_as_read(value: object) -> str:
    """A metric of another log, at its precision there."""
    return "nan" if value is None else visible(repr(value) if isinstance(value, float) else value)


def _quoted(text: str | None) -> Iterator[str]:
    """Yield text between entries as quotes, so that it is not read as an entry."""
    if text is not None:
        yield "\n"
        for each in text.split("\n"):
            yield f"> {visible(each, '')}".rstrip() + "\n"
        yield "\n"
