"""The commands of the explorer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metabolismgraph.cli.options import Checkpoint, Quiet, Set, console, interruptible, read_config, say
from metabolismgraph.errors import InputError, TrainingFailedError
from metabolismgraph.processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from metabolismgraph.config import Config
    from metabolismgraph.explore.engines.base import Engine
    from metabolismgraph.explore.events import Validated
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.proposers.base import Proposer
    from metabolismgraph.explore.state import State

explore = typer.Typer(
    no_args_is_help=True, help="Search over configurations and strategies of Phase 2: propose, run, read, remember."
)

Folder = Annotated[Path, typer.Argument(help="folder of the exploration")]
Iterations = Annotated[int, typer.Option(min=1, help="total number of iterations, finished ones included")]
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
    network: Annotated[Path | None, typer.Option(help="SBML of measured data, instead of a simulation")] = None,
    timeseries: Annotated[Path | None, typer.Option(help="concentrations over time, with --network")] = None,
    truth: Annotated[Path | None, typer.Option(help="folder with known labels, with --network")] = None,
    checkpoint: Checkpoint = None,
    set_: Set = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Start an exploration, with data and Phase 1 first where they are missing."""
    overrides = [*(set_ or []), *([f"exploration.primary={primary}"] if primary else [])]
    overrides += [f"exploration.proposer={proposer}"] if proposer and proposer != "replay" else []
    settings = read_config(config or ("oscillatory_rank50" if network else "explore_rank50"), overrides)
    from metabolismgraph.explore.space import parse_space
    from metabolismgraph.explore.start import check_free, open_exploration, prepared
    from metabolismgraph.runs.folder import free_path

    settings = prepared(settings)
    space, _ = parse_space(settings.exploration.space)
    judged = space.primary(settings.exploration.primary)
    if (network is None) != (timeseries is None):
        raise InputError("--network and --timeseries go together: give both, or neither for a simulated system")
    if network is not None and truth is None and space.uses_truth(judged):
        raise InputError(f"{judged} needs the truth: give --truth, or --primary validation")
    if checkpoint is not None and space.trains == "everything":
        raise InputError("--checkpoint: this search space trains Phase 1 itself; leave it out")
    path = out or free_path(Path("explorations") / (settings.dataset or "exploration"))
    kind = proposer or settings.exploration.proposer
    chosen = _proposer(settings, path, kind, record)
    check_free(path)
    data = _make_base(path, settings, network, timeseries, truth, checkpoint, quiet=quiet)
    folder = open_exploration(path, settings, proposer=kind, data=data)
    _continue(folder, iterations, chosen, quiet=quiet)


@explore.command(epilog="Example: metabolismgraph explore resume explorations/a --iterations 32")
def resume(
    folder: Folder,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="total number; default: to the end of the block, at least 16")
    ] = None,
    record: Record = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Continue an interrupted exploration, or run more iterations."""
    opened, state = _read(folder)
    if state.imported:
        raise InputError(f"{folder}: an imported log cannot be continued; start an exploration")
    block = state.settings.n_iter_block
    wanted = iterations or max(16, -(-len(state.iterations) // block) * block)
    _continue(opened, wanted, _proposer(state.config, folder, state.opened.proposer, record), quiet=quiet)


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
        console().print(status_table(state, opened.running(state)))


@explore.command(epilog="Example: metabolismgraph explore show explorations/a 7")
def show(folder: Folder, iteration: Annotated[int, typer.Argument(min=1, help="number of the iteration")]) -> None:
    """Show one iteration: proposal and hypothesis, outcome with waiting and running time, and files."""
    from metabolismgraph.cli.explore_tables import iteration_page

    opened, state = _read(folder)
    if iteration not in {known.number for known in state.iterations}:
        raise InputError(f"{folder}: there is no iteration {iteration}; the last one is {len(state.iterations)}")
    console().print(iteration_page(state, iteration, opened.path))


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
    """Rebuild log, UCB scores and memory from the journal."""
    from metabolismgraph.explore.published_format import rebuild as write

    write(folder)
    console().print(f"rebuilt from the journal: log, UCB scores and memory in {folder}")


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
) -> None:
    """Run a node with seeds that the search has not seen: how often it converges, how much it scatters."""
    from metabolismgraph.cli.explore_tables import validation_table
    from metabolismgraph.explore.published_format.lines import replicate_name
    from metabolismgraph.explore.tree import best
    from metabolismgraph.explore.validation import validate as run_validation

    opened, state = _read(folder)
    found = best(state)
    if node is None and found is None:
        raise InputError(f"{folder}: no node is proven best yet; name the node to validate")
    chosen = node or (found.id if found is not None else 0)

    def told(run: Validated) -> None:
        say(f"seed {replicate_name(run.seed, run.variation)}: {run.classification}")

    with interruptible(f"interrupted; the same command continues, with `--seeds {seeds}`"):
        result = run_validation(opened, _engine(state), chosen, seeds, told)
    console().print(validation_table(_read(folder)[1], chosen))
    console().print(f"node {chosen}: {result}")


def _read(path: Path) -> tuple[ExplorationFolder, State]:
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.state import State

    folder = ExplorationFolder(path)
    return folder, State.of(folder.journal.read())


def _proposer(config: Config, folder: Path, kind: str, record: Path | None) -> Proposer:
    from metabolismgraph.explore.proposers import make_proposer

    return make_proposer(kind, config.exploration, folder, record)


def _make_base(
    path: Path,
    config: Config,
    network: Path | None,
    timeseries: Path | None,
    truth: Path | None,
    checkpoint: Path | None,
    *,
    quiet: bool,
) -> str:
    """Make data and Phase 1 in a separate process, since the explorer has no access to the truth."""
    from metabolismgraph.config import Exploration
    from metabolismgraph.explore.space import parse_space

    changes: dict[str, object] = {"training.homeostasis_training": False, "training.skip_phase1": False}
    if parse_space(config.exploration.space)[0].trains == "everything":
        # Every run trains Phase 1 itself; that of the base, which tells what the data determine, is the quick one.
        changes |= {"training.phase1_method": "projection", "training.joint_training": False}
        changes |= {"training.phase1_stop_at_r2": None}
    base = config.replace(changes)
    # The base does not depend on the section `exploration`; it may exist from an earlier attempt.
    base = base.model_copy(update={"exploration": Exploration()})
    path.mkdir(parents=True, exist_ok=True)
    written = path / "base.yaml"
    written.write_text(base.to_yaml())
    command = [sys.executable, "-P", "-m", "metabolismgraph"]
    if network is not None and timeseries is not None:
        command += ["fit", str(network), str(timeseries), "--config", str(written)]
        command += ["--truth", str(truth)] if truth else []
        data = f"{network} and {timeseries}"
    else:
        command += ["run", str(written)]
        data = f"simulated, {config.dataset}"
    command += ["--out", str(path / "base"), "--resume", *(["--quiet"] if quiet else [])]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    # In the same group: an interrupt from the terminal reaches both, and the child ends in order.
    advice = f"interrupted; the same command with --out {path} continues"
    with interruptible(advice), Child(command, own_group=False) as child:
        code = child.wait()
    if code:
        raise TrainingFailedError(f"{path / 'base'}: data and Phase 1 could not be made (see above)")
    written.unlink()
    return data + (f", Phase 1 of {checkpoint}" if checkpoint else "")


def _continue(folder: ExplorationFolder, iterations: int, proposer: Proposer, *, quiet: bool) -> None:
    from metabolismgraph.cli.explore_tables import board, status_table
    from metabolismgraph.explore.loop import Explorer
    from metabolismgraph.explore.state import State

    engine = _engine(State.of(folder.journal.read()))
    advice = f"stopped; `metabolismgraph explore resume {folder.path}` continues"
    with _interrupts() as stopping, board(console(), iterations, quiet=quiet) as watch, interruptible(advice):
        state = Explorer(folder, engine, proposer, stopping=stopping, watch=watch).run(iterations)
    if not quiet:
        console().print(status_table(state))
    console().print(f"results are in {folder.path}; analysis log: {folder.path}/{state.opened.name}_analysis.md")


def _engine(state: State) -> Engine:
    """The engine that the exploration names."""
    from metabolismgraph.explore.engines import make_engine
    from metabolismgraph.explore.engines.base import default_workers

    settings = state.settings
    workers = settings.n_workers or default_workers(settings.n_parallel)
    return make_engine(settings.engine, workers, settings.slot_minutes * 60)


@contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Count interrupts instead of raising them."""
    count = 0

    def note(number: int, frame: object) -> None:
        del number, frame
        nonlocal count
        count += 1
        if count == 1:
            say("finishing what has begun; interrupt again to stop at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, before)
