"""The commands of the explorer."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metabolismgraph.cli.base_run import BaseRun
from metabolismgraph.cli.cluster import (
    ClusterFile,
    EngineName,
    Settings,
    cancel_job,
    engine_of,
    machine_engine,
    machine_settings,
    make_base,
    offer_to_cancel,
    second_interrupt,
)
from metabolismgraph.cli.in_job import LATER, begin_job, check_no_job
from metabolismgraph.cli.options import Checkpoint, Quiet, Secret, Set, console, interruptible, read_config, say
from metabolismgraph.errors import InputError
from metabolismgraph.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from metabolismgraph.config import Config
    from metabolismgraph.explore.events import Validated
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.inbox import Message
    from metabolismgraph.explore.proposers.base import Proposer
    from metabolismgraph.explore.search_space import SearchSpace
    from metabolismgraph.explore.state import State
    from metabolismgraph.schedulers.settings import ClusterSettings

explore = typer.Typer(
    no_args_is_help=True, help="Search over configurations and strategies of Phase 2: propose, run, read, remember."
)

Folder = Annotated[Path, typer.Argument(help="folder of the exploration")]
Iterations = Annotated[int, typer.Option(min=1, help="total number of iterations, finished ones included")]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-strategies", help="execute strategy files also where the kernel does not confine them (no Landlock)"
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.001, help=f"end the explorer after this time, with exit code {LATER}; jobs of a cluster go on"),
]
InJob = Annotated[
    bool, typer.Option("--in-job", help="the explorer as a job of the cluster, and one after another until it is done")
]
Record = Annotated[Path | None, typer.Option(help="for proposer replay: the exploration whose answers are repeated")]


@explore.command(
    epilog="Example: metabolismgraph explore start oscillatory_rank50 --iterations 16 --out explorations/a"
)
def start(
    config: Annotated[
        str | None,
        typer.Argument(help="configuration or YAML file; default: explore_rank50, for data oscillatory_rank50"),
    ] = None,
    iterations: Iterations = 16,
    out: Annotated[Path | None, typer.Option(help="folder; default: a new one under explorations/")] = None,
    proposer: Annotated[
        str | None, typer.Option(help="rules, llm, command or replay; default: exploration.proposer")
    ] = None,
    record: Record = None,
    primary: Annotated[
        str | None,
        typer.Option(help="a reward of the search space, such as validation for real data; see exploration.primary"),
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="SBML or Antimony of measured data, instead of a simulation")
    ] = None,
    timeseries: Annotated[Path | None, typer.Option(help="concentrations over time, with --network")] = None,
    truth: Annotated[Path | None, typer.Option(help="folder with known labels, with --network")] = None,
    checkpoint: Checkpoint = None,
    secret: Secret = None,
    continue_: Annotated[
        Path | None,
        typer.Option("--continue", help="start from the best node of this exploration, such as an imported log"),
    ] = None,
    set_: Set = None,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    minutes: Minutes = None,
    *,
    in_job: InJob = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="strategy files that passed the review wait for `explore approve`")
    ] = False,
    unsafe_strategies: Unsafe = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the estimate of time and cost, and end")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Start an exploration, with data and Phase 1 first where they are missing.

    With a language model or a program as proposer, an estimate of the questions, tokens and cost is printed first.
    """
    overrides = [*(set_ or []), *([f"exploration.primary={primary}"] if primary else [])]
    overrides += ["exploration.approve=true"] if approve else []
    overrides += ["exploration.unsafe_strategies=true"] if unsafe_strategies else []
    overrides += [f"exploration.proposer={proposer}"] if proposer and proposer != "replay" else []
    settings = read_config(config or ("oscillatory_rank50" if network else "explore_rank50"), overrides)
    from metabolismgraph.explore.continuation import start_from
    from metabolismgraph.explore.hooks import check_hooks
    from metabolismgraph.explore.search_space import parse_space
    from metabolismgraph.explore.start import check_free, open_exploration, opening, prepared
    from metabolismgraph.runs.folder import free_path

    settings = prepared(settings)
    space, _ = parse_space(settings.exploration.space)
    judged = space.primary(settings.exploration.primary)
    origin = ""
    if continue_ is not None:
        settings, origin = start_from(settings, continue_)
    _check_data(space, judged, network, timeseries, truth, secret)
    if checkpoint is not None and space.trains == "everything":
        raise InputError("--checkpoint: this search space trains Phase 1 itself; leave it out")
    path = out or free_path(Path("explorations") / (settings.dataset or "exploration"))
    machine = machine_settings(path, engine, cluster, setting)
    kind = proposer or settings.exploration.proposer
    chosen = _proposer(settings, path, kind, record)
    check_hooks(settings.exploration)
    check_free(path)
    _say_whether_confined(space, kind, unsafe=settings.exploration.unsafe_strategies)
    if dry_run or (kind in {"llm", "command"} and not quiet):
        from metabolismgraph.cli.explore_tables import estimate_lines

        console().print(estimate_lines(opening(settings, proposer=kind, data=""), iterations))
    if dry_run:
        return
    until = _end_after(minutes)
    if in_job:
        replayed = [f"--record={record}"] if record else []
        resuming = ["explore", "resume", str(path.absolute()), f"--iterations={iterations}", *replayed]
        begin_job(path, machine, [*_this_command(), f"--out={path.absolute()}"], resuming)
        return
    check_no_job(path)
    base = BaseRun.of(settings, network, timeseries, truth, checkpoint, secret)
    make_base(base, path, machine, settings.exploration.slot_minutes, until, quiet=quiet)
    data = base.data + (f"; {origin}" if origin else "")
    folder = open_exploration(path, settings, proposer=kind, data=data)
    _continue(folder, iterations, chosen, machine, until, quiet=quiet)


@explore.command(epilog="Example: metabolismgraph explore resume explorations/a --iterations 32")
def resume(
    folder: Folder,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="total number; default: to the end of the block, at least 16")
    ] = None,
    record: Record = None,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    minutes: Minutes = None,
    *,
    in_job: InJob = False,
    unsafe_strategies: Unsafe = False,
    quiet: Quiet = False,
) -> None:
    """Continue an interrupted or paused exploration, or run more iterations."""
    from metabolismgraph.explore.events import Paused
    from metabolismgraph.explore.inbox import new_id, researcher

    opened, state = _read_own(folder, unsafe=unsafe_strategies)
    machine = machine_settings(folder, engine, cluster, setting)
    block = state.settings.n_iter_block
    wanted = iterations or max(16, -(-len(state.iterations) // block) * block)
    proposer = _proposer(state.config, folder, state.opened.proposer, record)
    _say_whether_confined(
        state.space, state.opened.proposer, unsafe=unsafe_strategies or state.settings.unsafe_strategies
    )
    if in_job:
        begin_job(folder, machine, _this_command())
        return
    check_no_job(folder)
    if state.paused is not None:
        opened.inbox.put(Paused(id=new_id(), by=researcher(), on=False))
    _continue(opened, wanted, proposer, machine, _end_after(minutes), quiet=quiet)


@explore.command(
    epilog="Example: metabolismgraph explore suggest explorations/a --text 'try amplification at long rollouts'"
)
def suggest(
    folder: Folder,
    file: Annotated[
        Path | None,
        typer.Argument(help="proposal for the next iteration, YAML or JSON: parent, mode, mutations, hypothesis"),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="note for the prompts to a language model, up to the next reading")
    ] = None,
) -> None:
    """Propose the next iteration, or leave a note; works while the explorer runs, and while it does not."""
    from metabolismgraph.explore.suggestions import suggest_note, suggest_proposal

    opened, state = _read_own(folder)
    if (file is None) == (text is None):
        raise InputError("suggest takes either a FILE with a proposal or a note with --text; give one of them")
    if file is not None:
        _send(opened, suggest_proposal(file, state, opened.inbox.waiting()), "the next free iteration follows it")
    elif text is not None:
        _send(opened, suggest_note(text), "prompts show it up to the next reading")
        if state.opened.proposer == "rules":
            say("note: the proposer of this exploration is rules, which reads no notes; the log keeps it")


@explore.command(epilog="Example: metabolismgraph explore pause explorations/a")
def pause(
    folder: Folder,
    *,
    off: Annotated[bool, typer.Option("--off", help="let the exploration continue")] = False,
    end: Annotated[
        bool, typer.Option("--end", help="end the explorer, which frees its machine; `explore resume` continues")
    ] = False,
) -> None:
    """Begin no new runs; those that were submitted finish, and the explorer then waits for --off.

    Waiting costs no share of exploration.max_hours, but keeps the machine or the allocation of the explorer: give --end
    to free it.
    """
    from metabolismgraph.explore.events import Paused
    from metabolismgraph.explore.inbox import new_id, researcher

    opened, _ = _read_own(folder)
    if off and end:
        raise InputError("--off and --end contradict each other; give one of them")
    message = Paused(id=new_id(), by=researcher(), on=not off, end=end)
    _send(opened, message, "the exploration continues" if off else "no new run begins")


@explore.command(epilog="Example: metabolismgraph explore approve explorations/a --yes")
def approve(
    folder: Folder,
    name: Annotated[str | None, typer.Argument(help="the strategy; default: the only one that waits")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="accept the file without a question")] = False,
    no: Annotated[str | None, typer.Option(metavar="REASON", help="refuse the file; the proposer is told why")] = None,
) -> None:
    """Show a strategy file that waits for approval, against its former version, and accept or refuse it.

    An accepted file may be used from the next block on. The exploration does not wait for the decision.
    """
    from metabolismgraph.cli.explore_tables import held_file_page
    from metabolismgraph.explore.approval import decide, held_file

    opened, state = _read_own(folder)
    if yes and no is not None:
        raise InputError("--yes and --no contradict each other; give one of them")
    review = held_file(state, name, opened.inbox.waiting(), folder)
    console().print(held_file_page(state, review))
    if not yes and no is None:
        if not sys.stdin.isatty():
            say("nothing is decided yet: repeat with --yes, or with --no REASON")
            return
        yes = typer.confirm("accept this file?")
        no = None if yes else typer.prompt("reason")
    _send(opened, decide(review, no), "it takes effect before the next block")


@explore.command(epilog="Example: metabolismgraph explore status explorations/a --watch")
def status(
    folder: Folder,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="keep running, and follow the exploration")] = False,
) -> None:
    """Show slots, block, the best node with its error, the budget, and the busy share of the workers."""
    from metabolismgraph.cli.explore_tables import follow, status_table

    opened, state = _read(folder)
    if watch:
        follow(opened, console())
    else:
        console().print(status_table(state, opened.running(state), waiting=opened.inbox.waiting()))


@explore.command(epilog="Example: metabolismgraph explore watch explorations/a")
def watch(
    folder: Folder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of this computer; 0: a free one")] = 0,
) -> None:
    """Serve the page of an exploration to a browser of this computer, as of the moment, until an interrupt."""
    from metabolismgraph.explore.live_page import LivePage

    opened, _ = _read(folder)
    with LivePage(opened.path, port) as page, contextlib.suppress(KeyboardInterrupt):
        console().print(f"{page.address}\nCtrl-C ends it", markup=False, highlight=False, soft_wrap=True)
        page.serve_forever()


@explore.command(epilog="Example: metabolismgraph explore show explorations/a 7")
def show(folder: Folder, iteration: Annotated[int, typer.Argument(min=1, help="number of the iteration")]) -> None:
    """Show one iteration: proposal and hypothesis, outcome with waiting and running time, and files."""
    from metabolismgraph.cli.explore_tables import iteration_page

    opened, state = _read(folder)
    _check_iteration(state, iteration, folder)
    console().print(iteration_page(state, iteration, opened.path))


@explore.command(epilog="Example: metabolismgraph explore compare explorations/a 3 7")
def compare(
    folder: Folder,
    other: Annotated[str, typer.Argument(help="folder of another exploration, or number of a node")],
    node: Annotated[int | None, typer.Argument(help="number of a second node")] = None,
) -> None:
    """Compare two explorations with their best nodes, or two nodes: settings, rewards, strategy files, time, cost."""
    from metabolismgraph.cli.explore_compare import comparison_page
    from metabolismgraph.explore.comparison import compare_explorations, compare_nodes

    if node is None:
        if other.isdecimal() and not Path(other).exists():
            raise InputError(f"compare {folder} {other}: one node alone; give a second node, or another folder")
        found = compare_explorations(folder, Path(other))
    elif other.isdecimal():
        found = compare_nodes(_read(folder)[1], int(other), node)
    else:
        raise InputError(f"compare: {other} is not the number of a node; give a folder and two numbers")
    console().print(comparison_page(found))


@explore.command(epilog="Example: metabolismgraph explore repeat explorations/a 7 --out runs/again")
def repeat(
    folder: Folder,
    iteration: Annotated[int, typer.Argument(min=1, help="number of the iteration")],
    out: Annotated[Path | None, typer.Option(help="folder of the run; default: a new one under runs/")] = None,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    *,
    unsafe_strategies: Unsafe = False,
) -> None:
    """Run one iteration alone again, from the exploration's data and Phase 1, and compare the metrics."""
    from metabolismgraph.cli.explore_tables import repeated_page
    from metabolismgraph.explore.repeat import repeat as run_again
    from metabolismgraph.runs.folder import free_path

    opened, state = _read_own(folder, unsafe=unsafe_strategies)
    _check_iteration(state, iteration, folder)
    place = out or free_path(Path("runs") / f"{state.opened.name}-{iteration:04d}")
    machine = machine_settings(folder, engine, cluster, setting)
    with interruptible(f"interrupted; what was written is in {place}"), console(stderr=True).status("training"):
        try:
            metrics = run_again(opened, state, iteration, place, engine_of(machine, state))
        except KeyboardInterrupt:
            cancel_job(place)  # also on a cluster: nobody would follow it
            raise
    console().print(repeated_page(state.iterations[iteration - 1], metrics, place))


@explore.command(epilog="Example: metabolismgraph explore tree explorations/a")
def tree(folder: Folder) -> None:
    """Show the tree of nodes, as text and as a figure in figures/tree.png."""
    from metabolismgraph.cli.explore_tables import tree_text
    from metabolismgraph.explore.published_format.tree_figure import draw_tree

    opened, state = _read(folder)
    console().print(tree_text(state))
    console().print(f"the same as a figure: {draw_tree(state, opened.path / 'figures')}")


@explore.command(epilog="Example: metabolismgraph explore rebuild explorations/a")
def rebuild(folder: Folder) -> None:
    """Rebuild log, UCB scores, memory and report.html from the journal."""
    from metabolismgraph.explore.views import rebuild as write

    write(folder)
    console().print(f"rebuilt from the journal: log, UCB scores, memory and report.html in {folder}")


@explore.command("import", epilog="Example: metabolismgraph explore import old_analysis.md --out explorations/old")
def import_(
    log: Annotated[Path, typer.Argument(help="analysis log in the published format")],
    out: Annotated[Path | None, typer.Option(help="folder; default: a new one under explorations/")] = None,
    metric: Annotated[
        str | None, typer.Option(help="metric that is the reward; default: avg_slope_ratio, else rate_constants_R2")
    ] = None,
    block: Annotated[
        int | None, typer.Option(min=1, help="iterations in a block; default: as the log's headings say, otherwise 8")
    ] = None,
    ucb: Annotated[str, typer.Option(help="UCB scores: legacy, as published, or spread")] = "legacy",
) -> None:
    """Convert an existing analysis log into a journal."""
    from metabolismgraph.explore.published_format.import_log import import_log
    from metabolismgraph.runs.folder import free_path

    folder = out or free_path(Path("explorations") / log.stem.removesuffix("_analysis"))
    number = import_log(log, folder, metric=metric, block=block, ucb=ucb)
    console().print(f"iterations imported into {folder}: {number}")


@explore.command(epilog="Example: metabolismgraph explore validate explorations/a 7 --seeds 12")
def validate(
    folder: Folder,
    node: Annotated[int | None, typer.Argument(min=1, help="id of the node; default: the best one")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="total number of runs with fresh seeds")] = 12,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    *,
    unsafe_strategies: Unsafe = False,
) -> None:
    """Run a node with seeds that the search has not seen: how often it converges, how much it scatters."""
    from metabolismgraph.cli.explore_tables import validation_table
    from metabolismgraph.explore.published_format.lines import replicate_name
    from metabolismgraph.explore.tree import best
    from metabolismgraph.explore.validation import validate as run_validation

    opened, state = _read(folder, unsafe=unsafe_strategies)
    found = best(state)
    if node is None and found is None:
        raise InputError(f"{folder}: no node is proven best yet; name the node to validate")
    chosen = node or (found.id if found is not None else 0)

    def told(run: Validated) -> None:
        say(f"seed {replicate_name(run.seed, run.variation)}: {run.classification}")

    machine = machine_settings(folder, engine, cluster, setting)
    with interruptible(f"interrupted; the same command continues, with `--seeds {seeds}`"):
        result = run_validation(opened, engine_of(machine, state), chosen, seeds, told)
    console().print(validation_table(_read(folder)[1], chosen))
    console().print(f"node {chosen}: {result}")


def _read_own(path: Path, *, unsafe: bool = False) -> tuple[ExplorationFolder, State]:
    """An exploration that this program can continue."""
    opened, state = _read(path, unsafe=unsafe)
    if state.imported:
        raise InputError(f"{path}: an imported log cannot be continued; start an exploration")
    return opened, state


def _check_iteration(state: State, iteration: int, folder: Path) -> None:
    if iteration not in {known.number for known in state.iterations}:
        raise InputError(f"{folder}: there is no iteration {iteration}; the last one is {len(state.iterations)}")


def _send(folder: ExplorationFolder, message: Message, effect: str) -> None:
    """Send a message to an exploration, and say what becomes of it."""
    from metabolismgraph.explore.delivery import deliver

    recorded = deliver(folder.path, message)
    where = "recorded in the journal" if recorded else f"in {folder.inbox.path}, for the explorer to take"
    console().print(f"{where}: {effect}", markup=False, highlight=False, soft_wrap=True)


def _read(path: Path, *, unsafe: bool = False) -> tuple[ExplorationFolder, State]:
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.state import State

    folder = ExplorationFolder(path, unsafe_strategies=unsafe)
    return folder, State.of(folder.journal.read())


def _say_whether_confined(space: SearchSpace, proposer: str, *, unsafe: bool) -> None:
    """Say that the kernel does not confine strategy files, where the proposer may submit some."""
    from metabolismgraph.sandbox import landlock

    if not space.strategies or proposer == "rules" or landlock.available():
        return
    alone = "warning: this kernel has no Landlock: Python's audit hook alone confines strategy files (see Security)"
    say(alone if unsafe else f"note: {landlock.MISSING}")


def _proposer(config: Config, folder: Path, kind: str, record: Path | None) -> Proposer:
    from metabolismgraph.explore.proposers import make_proposer

    return make_proposer(kind, config.exploration, folder, record)


def _check_data(
    space: SearchSpace,
    judged: str,
    network: Path | None,
    timeseries: Path | None,
    truth: Path | None,
    secret: Path | None,
) -> None:
    """Check that data and options fit together.

    Args:
        judged: name of the reward.

    Raises:
        InputError: they do not.
    """
    from metabolismgraph.formats import read
    from metabolismgraph.secret_keys import read_key

    if (network is None) != (timeseries is None):
        raise InputError("--network and --timeseries go together: give both, or neither for a simulated system")
    if network is not None and truth is None and space.uses_truth(judged):
        raise InputError(f"{judged} needs the truth: give --truth, or --primary validation")
    if secret is not None:
        read_key(secret)
        if network is not None:
            raise InputError("--secret is for simulated systems; leave it out")
    if network is not None and timeseries is not None:
        measured = read(network, timeseries).measured
        if not measured.all():
            raise InputError(
                f"{timeseries}: {int((~measured).sum())} of {measured.size} values are missing; the strategies of an "
                "exploration need all of them"
            )


def _this_command() -> list[str]:
    """The arguments of this command, without that which makes a job of it."""
    return [argument for argument in sys.argv[1:] if argument != "--in-job"]


def _end_after(minutes: float | None) -> float:
    """When a command with this limit ends [s of `time.monotonic`]."""
    return math.inf if minutes is None else time.monotonic() + 60 * minutes


def _continue(
    folder: ExplorationFolder,
    iterations: int,
    proposer: Proposer,
    machine: ClusterSettings,
    until: float,
    *,
    quiet: bool,
) -> None:
    from metabolismgraph.cli.explore_tables import board, status_table
    from metabolismgraph.explore.loop import Explorer
    from metabolismgraph.explore.state import State

    engine = machine_engine(folder.path, State.of(folder.journal.read()), machine)
    with interruptible(f"stopped; `metabolismgraph explore resume {folder.path}` continues"):
        try:
            with _interrupts(second_interrupt(machine)) as stopping, board(console(), iterations, quiet=quiet) as watch:
                explorer = Explorer(folder, engine, proposer, stopping=stopping, watch=watch, until=until)
                state = explorer.run(iterations)
        except KeyboardInterrupt:
            offer_to_cancel(folder)
            raise
    if not quiet:
        console().print(status_table(state))
    log = folder.path / f"{visible(state.opened.name)}_analysis.md"
    where = f"results are in {folder.path}; analysis log: {log}"
    console().print(where, markup=False, highlight=False, soft_wrap=True)
    if explorer.ran_out:
        say(f"the time is over; `metabolismgraph explore resume {folder.path}` continues")
        raise typer.Exit(LATER)


@contextmanager
def _interrupts(second: str) -> Iterator[Callable[[], int]]:
    """Count interrupts instead of raising them.

    Args:
        second: what a second one does.
    """
    count = 0

    def note(number: int, frame: object) -> None:
        del number, frame
        nonlocal count
        count += 1
        if count == 1:
            say(f"finishing what has begun; interrupt again {second}")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, before)
