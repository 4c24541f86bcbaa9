"""Explorations as lists of events, for the tests of everything that reads a journal.

`exploration(n)` is a plausible one of n iterations; the other functions make one event each, with sensible values for
whatever is not given. Nothing is random: the same call gives the same events.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metabolismgraph.config import Config
from metabolismgraph.explore.events import (
    Event,
    Failed,
    Finished,
    Opened,
    Proposed,
    Remembered,
    Reviewed,
    Scored,
    Started,
    Warned,
)
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.planning import control_of, settings_of
from metabolismgraph.explore.proposal import IterationReading, Mutation, Proposal, StrategyFile, Submission
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.state import State

PHASE2 = shipped_space("phase2")
TIME_STEP = "training.homeostasis_time_step"
RATE = "training.learning_rate_node_homeostasis"
SOURCE = "class Mine(Strategy):\n    ...\n"


def opened(config: Config | None = None, **given: Any) -> Opened:
    """How an exploration of the default configuration begins; `primary` is that of the configuration."""
    config = config or Config()
    primary = given.get("primary", PHASE2.primary(config.exploration.primary))
    values = {
        "name": "demo",
        "config": config.model_dump(mode="json"),
        "primary": primary,
        "oracle": primary == "avg_slope_ratio",
        "proposer": "rules",
        "version": "0.1.0",
        "data": "simulated from demo",
    }
    return Opened(**(values | given))


def proposal(parent: int | None = None, mutations: Mapping[str, tuple[Any, Any]] | None = None, **given: Any):
    """A proposal; mutations as {param: (old, new)}."""
    changes = tuple(Mutation(param=param, old=old, new=new) for param, (old, new) in (mutations or {}).items())
    values = {"mode": "exploit", "strategy": "hyperparameter-only", "hypothesis": "slopes move"}
    return Proposal(**(values | {"parent": parent, "mutations": changes} | given))


def proposed(iteration: int, **given: Any) -> Proposed:
    """Iteration of a node of its own below the root, in slot 0."""
    values = {
        "slot": 0,
        "time_step": 4,
        "node": iteration,
        "parent": None,
        "changes": {},
        "seed": 42,
        "code": "0" * 12,
        "proposal": proposal(given.get("parent")),
        "by": "rules",
    }
    plan = given.get("proposal", values["proposal"])
    values |= {"mutations": plan.mutations, "strategy": plan.strategy}
    return Proposed(**(values | {"iteration": iteration} | given))


def metrics_of(*ratios: float | None, **given: Any) -> dict[str, Any]:
    """Metrics of a run that learned these slope ratios, one per type."""
    known = [ratio for ratio in ratios if ratio is not None]
    average = sum(known) / len(known) if len(known) == len(ratios) and known else None
    found: dict[str, Any] = {"training_time_min": 1.25, "rate_constants_R2": 0.8712, "MLP_sub_corr": 0.9876}
    for t, ratio in enumerate(ratios):
        found |= {f"MLP_node_slope_ratio_{t}": ratio, f"MLP_node_offset_ratio_{t}": ratio}
    found |= {"embedding_cluster_acc": 0.95, "embedding_n_clusters": len(ratios), "avg_slope_ratio": average}
    return found | given


def begun(iteration: int) -> Started:
    return Started(iteration=iteration, folder=f"runs/{iteration:04d}/run")


def warned(reason: str) -> Warned:
    """An event that may stand anywhere."""
    return Warned(about="hook on_iteration", reason=reason)


def finished(iteration: int, *ratios: float | None, **given: Any) -> Finished:
    """An iteration that ended with these slope ratios, and with other metrics by name."""
    return Finished(iteration=iteration, metrics=metrics_of(*ratios, **given), seconds=75.0)


def failed(iteration: int, reason: str = "time limit of 30 minutes", **given: Any) -> Failed:
    return Failed(iteration=iteration, reason=reason, seconds=1800.0, **given)


def ended(outcome: Finished | Failed, primary: str = "avg_slope_ratio") -> tuple[Finished | Failed, Scored]:
    """An outcome and the verdict on it."""
    return outcome, score(outcome, PHASE2, primary)


def reading(iteration: int, **given: Any) -> IterationReading:
    values = {
        "visual": "MLP_node=active: slopes as the truth, Embeddings=separated: two clusters",
        "observation": f"slopes of iteration {iteration} have moved",
    }
    return IterationReading(**(values | {"iteration": iteration} | given))


def remembered(batch: Sequence[int], **given: Any) -> Remembered:
    """A batch read; `readings` stand for those that are made up."""
    last = batch[-1]
    values = {
        "iteration": last,
        "readings": tuple(reading(i) for i in batch),
        "memory": f"# Working memory\n\n- after iteration {last}: higher rates move slopes\n",
        "by": "rules",
    }
    return Remembered(**(values | given))


def strategy_file(name: str = "mine", **given: Any) -> StrategyFile:
    values = {"source": SOURCE, "rationale": "amplifies a weak signal", "reference": "strategy 5"}
    return StrategyFile(**(values | {"name": name} | given))


def reviewed(block: int, *, n_iter_block: int = 8, file: StrategyFile | None = None, **given: Any) -> Reviewed:
    """A block boundary at which nothing is submitted; with `file` it is, and it lands unless `reasons` are given."""
    reasons = tuple(given.pop("reasons", ()))
    values = {
        "block": block,
        "iteration": block * n_iter_block + 1,
        "changes": {},
        "submission": Submission(file=file, rationale="nothing calls for new code", reference="strategy 5"),
        "landed": file.digest if file and not reasons else None,
        "reasons": reasons,
        "by": "rules",
    }
    return Reviewed(**(values | given))


def batches(n: int, config: Config) -> list[list[int]]:
    """Iterations 1..n by batch: n_parallel at most, never across a block boundary."""
    size, parallel = config.exploration.n_iter_block, config.exploration.n_parallel
    numbers = range(1, n + 1)
    return [list(group) for _, group in itertools.groupby(numbers, lambda i: divmod((i - 1) % size, parallel)[0])]


def exploration(
    n: int = 8,
    *,
    seed: int = 0,
    config: Config | None = None,
    parents: Mapping[int, int | None] | None = None,
    replicates: Mapping[int, int] | None = None,
    failing: Mapping[int, str] | None = None,
    ratios: Callable[[int], Sequence[float | None]] | None = None,
    metrics: Callable[[int], Mapping[str, Any]] | None = None,
    texts: Callable[[int], Mapping[str, str]] | None = None,
    reviews: Mapping[int, Reviewed] | None = None,
    in_flight: int = 0,
    **of_opened: Any,
) -> list[Event]:
    """All events of n iterations: every batch is proposed, started, ended, scored and remembered.

    Args:
        seed: other ratios and parents where they are not given.
        parents: iteration -> node that it is made from; otherwise any finished node of the block.
        replicates: iteration -> node that it runs again.
        failing: iteration -> why it failed.
        ratios: slope ratio of each type, by iteration; otherwise they come closer to one with every iteration.
        metrics: further metrics, by iteration.
        texts: `visual` and `observation`, by iteration.
        reviews: block -> what happened at the boundary before it; otherwise nothing is submitted. The boundary after
            the last iteration is not passed.
        in_flight: that many of the last iterations have no outcome yet, and their batch is not remembered.
        of_opened: fields of `Opened`.
    """
    config = config or Config()
    first = opened(config, **of_opened)
    state, events = State(first), [first]
    size = config.exploration.n_iter_block

    def append(*found: Event) -> None:
        nonlocal state
        for event in found:
            events.append(event)
            state = state.after(event)

    for batch in batches(n, config):
        block = (batch[0] - 1) // size
        if block and (batch[0] - 1) % size == 0:
            append((reviews or {}).get(block) or reviewed(block, n_iter_block=size))
        for number in batch:
            parent = (parents or {}).get(number, _any_node(state, number, seed))
            append(_planned(state, number, parent, (replicates or {}).get(number), seed))
        append(*(Started(iteration=number, folder=f"runs/{number:04d}") for number in batch))
        ending = [number for number in batch if number <= n - in_flight]
        for number in ending:
            if number in (failing or {}):
                append(*ended(failed(number, failing[number]), first.primary))
            else:
                found = ratios(number) if ratios else _ratios(number, seed)
                more = metrics(number) if metrics else {}
                append(*ended(finished(number, *found, **more), first.primary))
        if ending == batch:
            read = tuple(reading(number, **(texts(number) if texts else {})) for number in batch)
            append(remembered(batch, readings=read))
    return events


def _any_node(state: State, number: int, seed: int) -> int | None:
    ended_ones = [i.node for i in state.in_block(state.block_of(number)) if i.metrics]
    return random.Random(f"{seed} parent {number}").choice([None, *ended_ones]) if ended_ones else None


def _ratios(number: int, seed: int) -> tuple[float, float]:
    drawn = random.Random(f"{seed} ratios {number}")
    return tuple(round(2 ** (drawn.gauss(0, 2) / number), 4) for _ in range(2))


def _planned(state: State, number: int, parent: int | None, again: int | None, seed: int) -> Proposed:
    slot = state.slot(number)
    if again is not None:
        runs = [i for i in state.iterations if i.node == again]
        update = {
            "iteration": number,
            "slot": slot.number,
            "seed": state.config.training.seed + len(runs),
            "proposal": proposal(again, mode="replicate", hypothesis="was it luck?"),
        }
        return runs[0].proposed.model_copy(update=update)
    before = state.node_changes(parent, state.block_of(number))
    old = before.get(RATE, state.config.training.learning_rate_node_homeostasis)
    new = round(old * random.Random(f"{seed} rate {number}").choice([0.5, 2.0, 3.0]), 8)
    first = number <= state.settings.n_parallel  # as the requirement wants it: the same in every slot
    changes = before | {TIME_STEP: slot.time_step} | ({} if first else {RATE: new})
    found = proposed(
        number,
        slot=slot.number,
        time_step=slot.time_step,
        parent=parent,
        changes=changes,
        seed=state.config.training.seed,
        proposal=proposal(parent, {} if first else {"lr_node_homeo": (old, new)}),
    )
    return found.model_copy(update={"settings": settings_of(found, state), "control": control_of(found, state)})


def journal(folder: Path, events: Sequence[Event]) -> Journal:
    """These events on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Journal(folder / JOURNAL)
    for event in events:
        found.append(event)
    return found


def changed(made: Journal, change: Callable[[list[dict[str, Any]]], None], *, digests: bool = True) -> Journal:
    """A journal after a change of its lines by somebody who makes their digests again, or removes them all."""
    lines = [json.loads(line) for line in made.path.read_text(encoding="utf-8").splitlines()]
    change(lines)
    chain = ""
    for line in lines:
        line.pop("chain", None)
        if digests:
            content = json.dumps(line, sort_keys=True, separators=(",", ":"))
            chain = line["chain"] = hashlib.sha256((chain + content).encode()).hexdigest()
    made.path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return made
