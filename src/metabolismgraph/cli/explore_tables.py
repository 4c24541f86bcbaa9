"""Views of an exploration on a terminal: its status, one iteration in full, the tree of nodes.

Much of this text is from proposers, training code and imported logs: it is shown unchanged, never read as markup, and
cannot control the terminal.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from metabolismgraph.errors import InputError
from metabolismgraph.explore.approval import former_version
from metabolismgraph.explore.cost import Estimate, by_kind, estimate, of_iteration
from metabolismgraph.explore.engines.base import STDOUT, default_workers
from metabolismgraph.explore.engines.job import RUN
from metabolismgraph.explore.events import Approved, Failed, Opened, Paused, Proposed, Reviewed, Suggested
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.inbox import Message
from metabolismgraph.explore.keys import TIME_STEP
from metabolismgraph.explore.loop import Watch, no_watch
from metabolismgraph.explore.proposal import difference, shown
from metabolismgraph.explore.proposers.rules_memory import what_trains
from metabolismgraph.explore.published_format.lines import mean, mutation, replicate_name, suggestion
from metabolismgraph.explore.repeat import differing
from metabolismgraph.explore.reward import slope_ratios
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, leader, nodes, settled, standard_error
from metabolismgraph.metrics import by_index
from metabolismgraph.text import counted, printable, visible

_COLOURS = {"converged": "green", "partial": "yellow", "failed": "red", "in flight": "cyan"}
_PICTURES = {".png", ".tif"}
_DEEPEST = 6  # generations of a tree with increasing indentation
_REREAD = 1.0  # seconds between two reads of the journal
_CLOCK = slice(11, 19)  # hours, minutes and seconds of a time in ISO format


def status_table(
    state: State,
    running: Mapping[int, str] = MappingProxyType({}),
    iterations: int | None = None,
    waiting: Sequence[Message] = (),
) -> RenderableType:
    """The status of an exploration: the slots of the last batch, the leading node, the budget, what waits.

    Args:
        running: iterations that are running now, with the times at which they began (UTC).
        iterations: their planned number, if known.
        waiting: messages of researchers that the explorer has not taken yet.
    """
    slots = _slots(state, running)
    last = (*_spent(state, iterations), *_waiting(state, waiting))
    return Group(*_heading(state, iterations), slots, *_leaders(state), "", *last)


def _heading(state: State, iterations: int | None) -> Iterator[RenderableType]:
    opened = state.opened
    done = sum(i.scored is not None for i in state.iterations)
    block = state.block_of(len(state.iterations)) if state.iterations else 0
    yield Text.assemble((visible(opened.name), "bold"), ": scored by ", _primary(opened))
    total = f"{done}/{iterations}" if iterations else str(done)
    yield _text(f"block {block}, {total} iterations done; proposer {opened.proposer}; metabolismgraph {opened.version}")


def _primary(opened: Opened) -> Text:
    if opened.oracle:
        return Text.assemble(visible(opened.primary), " ", ("(oracle: uses the truth)", "bold magenta"))
    return _text(f"{opened.primary} (held-out rollouts, no truth)")


def _slots(state: State, running: Mapping[int, str]) -> RenderableType:
    batch = _last_batch(state)
    if not batch:
        return _text("nothing has been proposed yet", "dim")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("slot", "T", "iter", "node"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what changed", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("outcome", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("reward", justify="right", no_wrap=True)
    table.expand = True
    for iteration in batch:
        proposed = iteration.proposed
        numbers = (proposed.slot, proposed.time_step, iteration.number, iteration.node)
        reward = f"{iteration.scored.reward:.3f}" if iteration.has_reward and iteration.scored else "-"
        table.add_row(*map(str, numbers), Text(_what_changed(proposed)), _outcome(iteration, running), reward)
    return table


def _last_batch(state: State) -> tuple[Iteration, ...]:
    """The iterations since the last reading, or those of the last reading."""
    *_, before, last = (0, 0, *(memory.iteration for memory in state.memories))
    return state.iterations[last if last < len(state.iterations) else before :]


def _what_changed(proposed: Proposed) -> str:
    if proposed.proposal.mode == "replicate":
        return f"replicate of node {proposed.node}, seed {proposed.seed}"
    return mutation(proposed) if proposed.mutations else f"nothing ({visible(proposed.proposal.mode)})"


def _outcome(iteration: Iteration, running: Mapping[int, str] = MappingProxyType({})) -> Text:
    """Proposed, started, running, ended, or the verdict, in a few words."""
    verdict, outcome = iteration.scored, iteration.outcome
    if isinstance(outcome, Failed):
        return _text(f"{'failed' if outcome.cause == 'idea' else 'lost'}: {outcome.reason}", "red")
    if verdict is None:
        return _text(_before_the_verdict(iteration, running), _COLOURS["in flight"])
    text = {"nan": "failed: NaN", "negative": "failed: negative"}.get(verdict.state, verdict.classification)
    return _text(text, _COLOURS[verdict.status])


def _before_the_verdict(iteration: Iteration, running: Mapping[int, str]) -> str:
    if iteration.outcome is not None:
        return "finished, no verdict yet"
    if iteration.started is None:
        return "proposed"
    is_running = iteration.number in running
    word, time = ("running since", running[iteration.number]) if is_running else ("submitted", iteration.started.time)
    return f"{word} {visible(time[_CLOCK])} UTC" if time else word.removesuffix(" since")


def _leaders(state: State) -> Iterator[RenderableType]:
    leading, found = leader(state), best(state)
    if leading is not None:
        yield Text.assemble(("leading: ", "bold"), _described(state, leading))
    if found is not None:
        yield Text.assemble(("best: ", "bold green"), _described(state, found))
        if settled(state):
            yield _text("nothing is left to find: no reward can exceed it by more than its error", "green")
        return
    wanted = state.settings.replicates
    yield _text(f"no node is called best with fewer than {wanted} replicates")


def _described(state: State, node: Node) -> Text:
    """A node on one line: its reward with error, slope ratios, strategies."""
    text = Text(f"node {node.id}, reward {_mean_error(state, node)}")
    ratios = mean_ratios(node) if state.opened.oracle else {}
    if ratios:
        listed = ", ".join("nan" if ratio is None else f"{ratio:.3f}" for ratio in ratios.values())
        text.append(f", slope ratios {listed}")
    text.append(f"; {visible(what_trains(state, node))}")
    return text


def mean_ratios(node: Node) -> dict[int, float | None]:
    """Learned over true slope of every type, mean over the replicates; None where no replicate has a number."""
    runs = [slope_ratios(run.metrics) for run in node.runs]
    return {t: mean(run.get(t) for run in runs) for t in sorted({t for run in runs for t in run})}


def _mean_error(state: State, node: Node, *, short: bool = False) -> str:
    number = len(node.rewards)
    if node.mean is None:
        return "none"
    error = standard_error(node, nodes(state))
    unknown = "" if short else " error unknown"
    how = unknown if error is None else f" ± {error:.3f}"
    count = str(number) if short else f"{number} {'replicate' if number == 1 else 'replicates'}"
    return f"{node.mean:.3f}{how} ({count})"


def _spent(state: State, iterations: int | None) -> Iterator[RenderableType]:
    settings, answered = state.settings, state.answered
    parts = [f"{len(state.iterations)}{f' of {iterations}' if iterations else ''} iterations"]
    parts.append(f"{state.hours:.2f}{_of(settings.max_hours)} h")
    if state.busy is not None:
        parts.append(f"{counted(state.workers, 'worker')}, busy {state.busy:.0%} of the time")
    if answered or settings.max_cost is not None:
        tokens = sum(event.input_tokens + event.output_tokens for event in answered)
        parts.append(f"{state.cost:.2f}{_of(settings.max_cost)} US$")
        parts.append(f"{tokens} tokens in {len(answered)} answers")
    yield _text(f"budget: {', '.join(parts)}", "dim")
    if answered:
        kinds = (f"{counted(number, kind)} {cost:.4g} US$" for kind, (number, cost) in by_kind(state).items())
        yield _text(f"answers: {', '.join(kinds)}", "dim")
    if state.losses:
        losses = ", ".join(f"{kind} {number}" for kind, number in state.losses.most_common())
        yield _text(f"lost and run again: {losses}", "yellow")
    if state.refused:
        last = state.refused[-1]
        what = f"{len(state.refused)} answers refused; the last, {last.kind} for iteration {last.iteration}"
        yield _text(f"{what}: {last.reason}", "yellow")
    note = _last_note(state)
    if note:
        yield _text(f"note: {note}", "yellow")


def _waiting(state: State, messages: Sequence[Message]) -> Iterator[RenderableType]:
    """The pause, suggestions and strategy files that wait, and messages that the explorer has not taken yet."""
    if state.paused is not None:
        how = "`explore resume` continues" if state.paused.end else "`explore pause --off` continues"
        yield _text(f"paused by {state.paused.by} at {state.paused.time[_CLOCK]} UTC: {how}", "bold yellow")
    decided = {message.digest for message in messages if isinstance(message, Approved)}
    for review in state.held:
        if review.file and review.held not in decided:
            yield _text(f"waits for `explore approve`: strategy {review.file.name}", "bold yellow")
    for each in state.suggested:
        yield _text(f"suggested by {each.by}: {suggestion(each)}", "cyan")
    for message in messages:
        yield _text(f"not taken yet, from {message.by}: {_content(message)}", "cyan")


def _content(message: Message) -> str:
    """A message on one line."""
    match message:
        case Suggested():
            return suggestion(message)
        case Paused():
            return "pause" if message.on else "continue"
        case Approved():
            return f"strategy {message.name} {'accepted' if message.accepted else 'refused'}, before the next block"


def held_file_page(state: State, review: Reviewed) -> RenderableType:
    """A strategy file that waits for approval: why it was submitted, and its difference from the version in force."""
    file = review.file
    assert file is not None
    former = former_version(state, file.name)
    what = "a new strategy" if former is None else "against the version in force"
    facts = {"submitted by": review.by, "before block": str(review.block)}
    facts |= {"rationale": file.rationale, "reference": file.reference}
    lines = difference(former, file)
    return Group(
        Text.assemble(("strategy ", "bold"), (file.name, "bold"), f": {what}"),
        _facts(iter(facts.items())),
        "",
        coloured_difference(lines),
    )


def coloured_difference(lines: str) -> Syntax:
    """The difference of two versions of a file."""
    return Syntax(printable(lines, "?"), "diff", theme="ansi_dark", background_color="default", word_wrap=True)


def estimate_lines(opened: Opened, iterations: int) -> RenderableType:
    """What an exploration that begins will take: runs, and questions to a model or program with their cost."""
    state = State(opened)
    settings = state.settings
    workers = settings.n_workers or default_workers(settings.n_parallel)
    hours = min(iterations * settings.slot_minutes / 60 / workers, settings.max_hours or math.inf)
    lines = [f"{iterations} runs, {workers} at the same time: {hours:.1f} h if each takes exploration.slot_minutes"]
    if opened.proposer in {"llm", "command"}:
        found = estimate(state, iterations)
        questions = ", ".join(counted(number, kind) for kind, number in found.questions.items())
        tokens = f"{found.input_tokens:,} input and {found.output_tokens:,} output tokens"
        lines.append(f"questions: {questions}; about {tokens}")
        lines.append(f"cost: {_priced(found)}")
    return Group(*map(_text, lines))


def _priced(found: Estimate) -> str:
    if found.price is None or found.cost is None:
        return "the price is not known; exploration.llm_price_per_million sets it for a model"
    of = f"{found.price[0]:g} and {found.price[1]:g} US$ per million"
    return f"about {found.cost:.2f} US$ at {of}; more if answers are refused, or if the model thinks before it answers"


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of {limit:g}"


def _last_note(state: State) -> str:
    """Why the rules answered in place of the proposer, the last time."""
    # Order of events at the same iteration: review of the block, proposal, reading of the batch.
    notes = [(event.iteration, 0, event.note) for event in state.reviews]
    notes += [(i.number, 1, i.proposed.note) for i in state.iterations]
    notes += [(event.iteration, 2, event.note) for event in state.memories]
    number, _, note = max((each for each in notes if each[2]), default=(0, 0, ""))
    return f"iteration {number}: {note}" if note else ""


def iteration_page(state: State, iteration: int, folder: Path) -> RenderableType:
    """One iteration in full: proposal and hypothesis, outcome, and files.

    Args:
        folder: of the exploration.
    """
    found = state.iterations[iteration - 1]
    parts: list[RenderableType] = [
        Text.assemble((f"iteration {iteration}: ", "bold"), _outcome(found)),
        _facts(_proposal_facts(state, found)),
    ]
    refused = [event for event in state.refused if (event.kind, event.iteration) == ("proposal", iteration)]
    if refused:
        parts += ["", _text(f"refused before it ({len(refused)})", "bold")]
        parts += [_text(f"  attempt {event.attempt + 1} by {event.by}: {event.reason}") for event in refused]
    parts += ["", _text("outcome", "bold"), _facts(_outcome_facts(found))]
    if found.metrics:
        parts.append(_metrics(state, found))
    parts += ["", _text("files", "bold"), _facts(_file_facts(found, folder))]
    return Group(*parts)


def _proposal_facts(state: State, iteration: Iteration) -> Iterator[tuple[str, str]]:
    proposed, block = iteration.proposed, state.block_of(iteration.number)
    proposal = proposed.proposal
    node = next(node for node in nodes(state) if node.id == iteration.node)
    number = [run.number for run in node.runs].index(iteration.number) + 1
    origin = f"root of block {state.block_of(node.id)}" if proposed.parent is None else f"node {proposed.parent}"
    yield "proposed by", proposed.by + (f" ({proposed.note})" if proposed.note else "")
    yield "move", proposal.mode
    yield "strategy", proposed.strategy
    yield "hypothesis", proposal.hypothesis
    for each in proposed.mutations:
        yield "mutation", str(each)
    yield "node", f"{node.id}, made from the {origin}, replicate {number} of {len(node.runs)}"
    yield "where", f"block {block}, slot {proposed.slot}, T = {proposed.time_step} frames"
    for key, value in proposed.changes.items():
        yield "differs", f"{key}: {shown(state.config.value(key))} as opened, here {shown(value)}"
    if not proposed.changes:
        yield "differs", "nothing, the configuration is as opened"
    yield "strategies", what_trains(state, node)
    yield "seed", str(proposed.seed)
    if state.answered:
        costs = [of_iteration(state, run) for run in node.runs]
        own, share = of_iteration(state, iteration)
        whole = math.fsum(cost for pair in costs for cost in pair)
        yield (
            "cost",
            f"{own + share:.4g} US$: proposal {own:.4g}, share of the reading {share:.4g}; node {whole:.4g} US$",
        )
    yield "code", ", ".join([proposed.code, *(f"{name} {digest[:12]}" for name, digest in proposed.files.items())])


def _outcome_facts(iteration: Iteration) -> Iterator[tuple[str, str]]:
    outcome, verdict, reading = iteration.outcome, iteration.scored, iteration.reading
    if outcome is None:
        yield "state", _before_the_verdict(iteration, {})
    else:
        begin = f"began {visible(outcome.started[_CLOCK])} UTC" if outcome.started else ""
        waited = f", after waiting {outcome.waited:.1f} s for a worker" if begin else ""
        waited = f", after {outcome.queued:.1f} s in the queue" if outcome.queued else waited
        yield "took", ", ".join(filter(None, (f"{outcome.seconds:.1f} s", begin))) + waited
    if isinstance(outcome, Failed):
        yield ("failed" if outcome.cause == "idea" else "lost"), outcome.reason
    for loss in iteration.losses:
        yield "run again", f"lost ({loss.kind or 'machine'}) after {loss.seconds:.1f} s: {loss.reason}"
    if verdict is not None:
        parts = f" (parts: {', '.join(f'{part:.4f}' for part in verdict.parts)})" if verdict.parts else ""
        yield "verdict", f"{verdict.classification}, state {verdict.state}, reward {verdict.reward:.4f}{parts}"
    if reading is not None:
        yield "visual", reading.visual
        yield "observation", reading.observation


def _metrics(state: State, iteration: Iteration) -> Table:
    """All metrics, with those of the reward first."""
    metrics = iteration.metrics
    reward = state.space.rewards[state.opened.primary]
    first = [reward.metric or state.opened.primary]
    for term in reward.terms:
        of_types = by_index(metrics, term.metric) if "{t}" in term.metric else {0: None}
        first += [term.metric.format(t=t) for t in of_types]
    first = [name for name in first if name in metrics]
    value = Column("value", justify="right")
    table = Table("metric", value, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in dict.fromkeys([*first, *metrics]):
        number = "nan" if metrics[name] is None else shown(metrics[name])
        table.add_row(_text(name, "bold" if name in first else ""), _text(number))
    return table


def _file_facts(iteration: Iteration, folder: Path) -> Iterator[tuple[str, str]]:
    if iteration.started is None:
        yield "run", "none, not started"
        return
    run = folder / iteration.started.folder
    yield "run", str(run)
    yield "repeat", f"metabolismgraph explore repeat {shlex.quote(str(folder))} {iteration.number}"
    if (run.parent / STDOUT).is_file():
        yield "printed", str(run.parent / STDOUT)
    pictures = sorted(path for path in run.rglob("*") if path.suffix in _PICTURES) if run.is_dir() else []
    yield from (("figure", str(picture)) for picture in pictures)
    if not pictures:
        yield "figures", "none"


def validation_table(state: State, node: int) -> Table:
    """The runs of a node with fresh seeds."""
    runs = [run for run in state.validations if run.node == node]
    columns = (Column("seed", justify="right"), "verdict", Column("reward", justify="right"), "reason")
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for run in runs:
        colour = _COLOURS[run.classification.partition("-")[0]]
        reward = "" if run.state == "lost" else f"{run.reward:.4f}"
        name = _text(replicate_name(run.seed, run.variation))
        table.add_row(name, _text(run.classification, colour), reward, _text(visible(run.reason or "", "")))
    return table


def repeated_page(iteration: Iteration, metrics: Mapping[str, Any], out: Path) -> RenderableType:
    """The metrics of a repeated run against those in the journal: equal, or those that differ."""
    where = _text(f"the run is in {out / RUN}")
    if not iteration.metrics:
        return Group(_text(f"iteration {iteration.number} has no metrics in the journal; this run has"), where)
    different = differing(iteration.metrics, metrics)
    if not different:
        equal = f"all metrics are those of iteration {iteration.number} in the journal, to the last digit"
        return Group(_text(equal, "green"), where)
    table = _plain_table("metric", "in the journal", "now")
    for name, pair in different.items():
        table.add_row(_text(name), *(_text("nan" if value is None else repr(value)) for value in pair))
    return Group(_text(f"{len(different)} metrics differ from iteration {iteration.number}", "yellow"), table, where)


def _plain_table(first: str, *others: str) -> Table:
    """A table with one left column, which may wrap, and right columns of values."""
    columns = (Column(title, justify="right", overflow="fold") for title in others)
    return Table(Column(first, overflow="fold"), *columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _facts(facts: Iterator[tuple[str, str]]) -> Table:
    """Names and values below each other; a repeated name is left out."""
    table = Table.grid(Column(style="dim", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    before = ""
    for name, value in facts:
        table.add_row("" if name == before else name, _text(value))
        before = name
    return table


def tree_text(state: State) -> Tree:
    """The tree of nodes: a branch per block, with the nodes that began in it.

    A node shows its id, its mutations, and mean reward ± standard error (number of replicates).
    """
    found = Tree(Text.assemble((visible(state.opened.name), "bold"), ": scored by ", _primary(state.opened)))
    every, winner = nodes(state), best(state)
    for block in sorted({state.block_of(node.id) for node in every}):
        here = [node for node in every if state.block_of(node.id) == block]
        first, last = state.first_of(block), state.in_block(block)[-1].number
        root = ", ".join(f"{key} = {shown(value)}" for key, value in state.root(block).items())
        title = f"block {block}, iterations {first}-{last}, root {root or 'as opened'}"
        # By id of the parent: the branch for its children, and the depth of that branch.
        branches: dict[int | None, tuple[Tree, int]] = {None: (found.add(_text(title, "bold")), 0)}
        for node in here:
            branch, depth = branches.get(node.parent, branches[None])
            below = node.parent in branches and depth < _DEEPEST
            label = _label(state, node, names_parent=node.parent is not None and not below)
            if node == winner:
                label.append("  best", "bold green")
            twig = branch.add(label)
            # No further indentation below: children stand beside their parent, which they name.
            branches[node.id] = (twig, depth + 1) if depth < _DEEPEST else (branch, depth)
    if not every:
        found.add(_text("nothing has been proposed yet", "dim"))
    return found


def _label(state: State, node: Node, *, names_parent: bool) -> Text:
    """A node of the tree, on one line."""
    proposed = node.first
    what = mutation(proposed) if proposed.mutations else what_trains(state, node)
    origin = f"from node {node.parent}, " if names_parent else ""
    steps = f", T = {proposed.time_step}" if TIME_STEP in proposed.changes else ""
    status = node.status
    text = Text.assemble((f"{node.id}", f"bold {_COLOURS[status]}"), f"  {origin}{visible(what)}{steps}  ")
    if node.mean is not None:
        text.append(_mean_error(state, node, short=True), _COLOURS[status])
    without = sum(run.scored is not None and run.scored.state == "failed" for run in node.runs)
    remarks = [f"{without} failed" if len(node.runs) > 1 else "failed"] if without else []
    lost = sum(run.scored is not None and not run.counts for run in node.runs)
    remarks += [f"{lost} lost" if len(node.runs) > 1 else "lost"] if lost else []
    remarks += [f"{node.in_flight} in flight"] if node.in_flight else []
    if len(node.runs) > 1:
        remarks.append(f"iterations {', '.join(str(run.number) for run in node.runs)}")
    return text.append(f"{'; ' if node.mean is not None and remarks else ''}{'; '.join(remarks)}")


@contextmanager
def board(console: Console, iterations: int | None, *, quiet: bool) -> Iterator[Watch]:
    """Yield a function for every event: it updates a table on a terminal, and prints lines elsewhere."""
    if quiet:
        yield no_watch
    elif not console.is_terminal:
        yield _lines(console, iterations)
    else:
        # Drawn at events, so that no thread draws while an interrupt is handled.
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def watch(state: State, running: Mapping[int, str]) -> None:
                live.update(status_table(state, running, iterations), refresh=True)

            yield watch


def _lines(console: Console, iterations: int | None) -> Watch:
    """A function that prints one line per finished iteration, from the current batch on."""
    total = f"/{iterations}" if iterations else ""
    printed: set[int] | None = None

    def watch(state: State, running: Mapping[int, str]) -> None:
        del running
        nonlocal printed
        if printed is None:
            printed = set(range(1, (state.memories[-1].iteration if state.memories else 0) + 1))
        for iteration in state.iterations:
            if iteration.scored is None or iteration.number in printed:
                continue
            printed.add(iteration.number)
            text = Text(f"[{iteration.number}{total}] node {iteration.node}: ")
            text.append_text(_outcome(iteration))
            reward = f", reward {iteration.scored.reward:.3f}" if iteration.has_reward else ""
            text.append(f"{reward}; {_what_changed(iteration.proposed)}")
            console.print(text, soft_wrap=True, highlight=False)

    return watch


def follow(folder: ExplorationFolder, console: Console) -> None:
    """Show an exploration of another process, until an interrupt or until its journal is removed."""
    path, read, seen = folder.journal.path, -1, None
    try:
        with board(console, None, quiet=False) as watch:
            while path.exists():
                if (size := path.stat().st_size) != read:
                    state, read = State.of(folder.journal.read()), size
                if (now := (size, folder.running(state))) != seen:
                    watch(state, now[1])
                    seen = now
                time.sleep(_REREAD)
    except KeyboardInterrupt:
        return
    except (FileNotFoundError, InputError):
        if path.exists():
            raise


def _text(text: str, style: str = "") -> Text:
    """Text of unknown origin on one line, unchanged."""
    return Text(visible(text), style)
