"""The command line: parse, call, print."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from importlib import metadata
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metabolismgraph.cli.cluster import ClusterFile, EngineName, Settings, add_cluster_commands, benchmark_engine
from metabolismgraph.cli.compiled import keep_compiled_programs
from metabolismgraph.cli.explore import explore
from metabolismgraph.cli.kinetic_models import kinetic_models
from metabolismgraph.cli.options import (
    Anyway,
    Checkpoint,
    ConfigName,
    Map,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Secret,
    Set,
    console,
    interruptible,
    read_config,
    read_names,
    say,
)
from metabolismgraph.cli.walls import one_line_errors, open_closed_streams
from metabolismgraph.errors import InputError
from metabolismgraph.garbage import collect_seldom, skip_last_collection

if TYPE_CHECKING:
    from metabolismgraph.config import Config
    from metabolismgraph.evaluation.evaluate import Evaluation

app = typer.Typer(
    name="metabolismgraph",
    help="Rate constants, rate law and homeostasis from a reaction network and a concentration time series.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
benchmark = typer.Typer(no_args_is_help=True, help="Measure how well, and how fast, known systems are recovered.")
app.add_typer(benchmark, name="benchmark")
add_cluster_commands(explore)
app.add_typer(explore, name="explore")
app.add_typer(kinetic_models)


def _print_version(requested: bool) -> bool:
    if requested:
        typer.echo(f"metabolismgraph {metadata.version('metabolismgraph')}")
        raise typer.Exit
    return requested


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run a command: exit code 2 for wrong input, 1 for a failure."""
    collect_seldom()
    open_closed_streams()
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    keep_compiled_programs(command)
    with one_line_errors():
        if command in {"run", "fit"} and "--help" not in sys.argv:
            from metabolismgraph.runs.training_server import fork_server  # slow to import, as JAX is

            fork_server()
        code = app(standalone_mode=False)
        sys.stdout.flush()
    skip_last_collection()
    sys.exit(code if isinstance(code, int) else 0)


def _resumable(folder: Path) -> AbstractContextManager[None]:
    advice = f"the same command with --resume --out {folder} continues after the last finished stage"
    return interruptible(f"interrupted; {advice}")


@app.command(epilog="Example: metabolismgraph run oscillatory_rank50 --set training.seed=3 --out runs/first")
def run(
    config: ConfigName = "oscillatory_rank50",
    out: Out = None,
    checkpoint: Checkpoint = None,
    secret: Secret = None,
    set_: Set = None,
    *,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a system, recover it, and compare with the truth: figures and a table."""
    settings = read_config(config, set_)
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.runs import pipeline

    folder = _run_folder(out, settings.dataset or "run", resume=resume, overwrite=overwrite)
    with _resumable(folder), progress_bars(console(), quiet=quiet) as progress:
        evaluation = pipeline.run(
            settings,
            folder,
            checkpoint=checkpoint,
            secret=secret,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    _show(evaluation, folder, quiet=quiet)


@app.command(epilog="Example: metabolismgraph simulate small --out data/small")
def simulate(
    config: ConfigName = "oscillatory_rank50",
    out: Annotated[Path | None, typer.Option(help="folder of the data set; default: a new one under data/")] = None,
    secret: Secret = None,
    set_: Set = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the data set in the folder")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a data set: network.xml, timeseries.csv.gz and, for evaluation only, truth/."""
    settings = read_config(config, set_)
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.formats.dataset import check_dataset_folder, new_dataset, write_dataset
    from metabolismgraph.ground_truth.simulator import simulate as make
    from metabolismgraph.runs.folder import free_path
    from metabolismgraph.secret_keys import read_key

    folder = out or free_path(Path("data") / (settings.dataset or "simulated"))
    check_dataset_folder(folder, overwrite=overwrite)
    key = read_key(secret) if secret else None
    with progress_bars(console(), quiet=quiet) as progress:
        simulated = make(settings, lambda share: progress("simulate", share, ""), secret=key)
    with new_dataset(folder, overwrite=overwrite) as part:
        write_dataset(part, simulated.observations)
        simulated.truth.save(part / "truth")
    if not quiet:
        console().print(
            f"data set in {folder}; next: metabolismgraph fit {folder}/network.xml {folder}/timeseries.csv.gz"
        )


@app.command(epilog="Example: metabolismgraph fit network.xml timeseries.csv --out runs/mine")
def fit(
    network: Annotated[Path, typer.Argument(help="reaction network, SBML Level 2 or 3, or Antimony")],
    timeseries: Annotated[
        list[Path],
        typer.Argument(
            help="concentrations over time: CSV, TSV or Parquet, wide or long; one file or several, as runs"
        ),
    ],
    out: Out = None,
    truth: Annotated[Path | None, typer.Option(help="folder with known labels; for evaluation only")] = None,
    config: Annotated[
        str, typer.Option(help="configuration whose graph_model and training are used")
    ] = "oscillatory_rank50",
    checkpoint: Checkpoint = None,
    map_: Map = None,
    set_: Set = None,
    *,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Recover rate constants, rate law and homeostasis from measured concentrations."""
    settings = read_config(config, set_)
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.runs import pipeline

    folder = _run_folder(out, network.absolute().parent.name or "fit", resume=resume, overwrite=overwrite)
    with _resumable(folder), progress_bars(console(), quiet=quiet) as progress:
        evaluation = pipeline.fit_files(
            network,
            timeseries,
            settings,
            folder,
            names=read_names(map_),
            truth=truth,
            checkpoint=checkpoint,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    _show(evaluation, folder, quiet=quiet)


@app.command(epilog="Example: metabolismgraph evaluate runs/mine --truth data/small/truth")
def evaluate(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    truth: Annotated[Path | None, typer.Option(help="folder with known labels; default: the run's own")] = None,
    set_: Set = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run again: metrics.json, analysis.log and figures."""
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.runs import pipeline

    with progress_bars(console(), quiet=quiet) as progress:
        evaluation = pipeline.reevaluate(run, truth, set_ or [], progress)
    _show(evaluation, run, quiet=quiet)


@app.command(epilog="Example: metabolismgraph report runs/first runs/second --out comparison.html")
def report(
    folders: Annotated[list[Path], typer.Argument(help="a run, finished or not, or an exploration; several: compared")],
    out: Annotated[Path | None, typer.Option(help="page of a comparison; default: comparison.html")] = None,
    *,
    overwrite: Overwrite = False,
) -> None:
    """Write report.html of a run or an exploration again, or compare several: one page that opens without a network."""
    from metabolismgraph.cli.reports import write_report

    written = write_report(folders, out, overwrite=overwrite)
    console().print(f"report: {written}", markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: metabolismgraph convert model.xml model.ant")
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="model, SBML (.xml, .sbml) or Antimony (.ant, .antimony); table of concentrations; folder of a fit; "
            "or data folder of the published program: stoich_graph.pt, stoichiometry.pt, x_list_0.npy, y_list_0.npy"
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="for a model: the other format; for a table: .csv, .parquet or .nc (NetCDF); for a fit: .omex "
            "(COMBINE archive); for data of the published program: data set folder or, with --checkpoint, run folder"
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="published program: best_model_with_..._graphs_....pt, to be converted too")
    ] = None,
    delta_t: Annotated[
        float | None,
        typer.Option(min=0, help="published program: time between frames; default: found from x_list and y_list"),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="published program: configuration of the checkpoint, for its aggr_type, and of later runs; default: "
            "oscillatory_rank50"
        ),
    ] = None,
    set_: Set = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the target")] = False,
    quiet: Quiet = False,
) -> None:
    """Convert models, tables, results of fits, and files of the published program."""
    from metabolismgraph.formats.published import is_published

    if is_published(source):
        read = read_config(config or "oscillatory_rank50", set_)
        _convert_published(source, target, checkpoint, read, delta_t, overwrite=overwrite, quiet=quiet)
        return
    if checkpoint is not None or delta_t is not None or set_ or config is not None:
        raise InputError(
            f"{source}: not a data folder of the published program; leave out --checkpoint, --delta-t, --config and "
            "--set"
        )
    from metabolismgraph.runs.conversion import convert

    notes = convert(source, target, overwrite=overwrite)
    if not quiet:
        for note in notes:
            console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _convert_published(
    data: Path,
    folder: Path,
    checkpoint: Path | None,
    settings: Config,
    delta_t: float | None,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Convert PyTorch and NumPy files of the published program, without PyTorch."""
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.runs import pipeline

    dataset = folder if checkpoint is None else folder / "data"
    if checkpoint is None:
        pipeline.convert_data(data, folder, delta_t=delta_t, overwrite=overwrite)
    else:
        with progress_bars(console(), quiet=quiet) as progress:
            evaluation = pipeline.convert_checkpoint(
                data, checkpoint, settings, folder, delta_t=delta_t, overwrite=overwrite, progress=progress
            )
        _show(evaluation, folder, quiet=quiet)
    if not quiet:
        options = [f"--truth {dataset}/truth"] if (dataset / "truth").exists() else []
        options += [f"--config {folder}/config.yaml --checkpoint {folder}"] if checkpoint else []
        files = f"{dataset}/network.xml {dataset}/timeseries.csv.gz"
        say(f"converted into {folder}; next: {' '.join(['metabolismgraph fit', files, *options])}")


@app.command(epilog="Example: metabolismgraph identify network.xml timeseries.csv")
def identify(
    network: Annotated[Path, typer.Argument(help="reaction network, SBML Level 2 or 3, or Antimony")],
    timeseries: Annotated[
        list[Path] | None, typer.Argument(help="concentrations; without them: identifiability from the network alone")
    ] = None,
    map_: Map = None,
    set_: Set = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Show which rate constants can be determined, alone or only in combination."""
    from metabolismgraph.cli.tables import identifiability_table
    from metabolismgraph.formats.network_and_table import read_with_model
    from metabolismgraph.formats.sbml import read_sbml
    from metabolismgraph.reactions.fit import check_size
    from metabolismgraph.reactions.identifiability import identify_both

    settings = read_config("oscillatory_rank50", set_)
    names = read_names(map_)
    if timeseries:
        observations, model = read_with_model(network, *timeseries, names=names)
    elif names:
        raise InputError("--map is for the names in tables; give a table as well")
    else:
        observations, model = None, read_sbml(network)
    notes = model.notes if observations is None else observations.notes
    if observations is not None:
        # The training frames of `fit`, so that both find the same rate constants determined.
        observations, _ = observations.split(*settings.training.held_out)
        check_size(observations, settings.training)
    with console(stderr=True).status("determining identifiability"):
        found, alone = identify_both(
            model.network,
            observations,
            aggregation=settings.graph_model.aggr_type,
            tolerance=settings.training.identifiability_tolerance,
        )
    if as_json:
        ids = model.network.reactions
        groups = [
            {
                "reactions": [ids[j] for j in members],
                "determined": [{ids[j]: a for j, a in zip(c.reactions, c.coefficients, strict=True)} for c in combos],
            }
            for members, combos in zip(found.groups, found.combinations, strict=True)
        ]
        answer = {
            "determined": list(compress(ids, found.identifiable)),
            "determined_without_homeostasis": list(compress(ids, alone.identifiable)),
            "groups": groups,
            "notes": list(notes),
        }
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
        return
    for note in notes:
        console().print(f"note: {note}", markup=False)
    console().print(identifiability_table(model.network, found, alone))


@app.command(epilog="Example: metabolismgraph profile runs/mine k:R012 slope:M003")
def profile(
    run: Annotated[Path, typer.Argument(help="folder of a finished run, with a fit of trajectories (shooting)")],
    param: Annotated[
        list[str],
        typer.Argument(help="k:REACTION, slope:SPECIES or offset:SPECIES; the id of a reaction alone stands for its k"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder for profiles.csv and profiles.png; default: sentences only")
    ] = None,
    *,
    anyway: Anyway = False,
    quiet: Quiet = False,
) -> None:
    """Show how far a parameter can move if all others are fitted again (profile likelihood)."""
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.runs.uncertainty import profile_run

    with interruptible("interrupted; nothing was written"), progress_bars(console(), quiet=quiet) as progress:
        found = profile_run(run, param, out=out, anyway=anyway, progress=progress)
    for one in found:
        console().print(f"{one.name}: {one.sentence}", markup=False, highlight=False, soft_wrap=True)
    if out is not None and not quiet:
        console().print(f"table and figure are in {out}", markup=False, highlight=False)


@app.command(epilog="Example: metabolismgraph uncertainty runs/mine --bootstrap 50")
def uncertainty(
    run: Annotated[Path, typer.Argument(help="folder of a finished run, with a fit of trajectories (shooting)")],
    profiles: Annotated[
        int, typer.Option(min=0, help="number of parameters that are profiled, the least certain ones first")
    ] = 6,
    bootstrap: Annotated[int, typer.Option(min=0, help="number of simulated experiments; 0: none")] = 20,
    samples: Annotated[int, typer.Option(min=0, help="samples of the posterior; 0: none")] = 1000,
    seed: Annotated[
        int | None, typer.Option(min=0, help="seed of experiments and samples; default: training.seed of the run")
    ] = None,
    *,
    anyway: Anyway = False,
    quiet: Quiet = False,
) -> None:
    """Measure what is known of the parameters beyond their standard errors, and what to measure next."""
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.cli.tables import uncertainty_page
    from metabolismgraph.runs.uncertainty import analyse_run

    with interruptible("interrupted; nothing was written"), progress_bars(console(), quiet=quiet) as progress:
        found = analyse_run(
            run, profiles=profiles, bootstrap=bootstrap, samples=samples, seed=seed, anyway=anyway, progress=progress
        )
    if not quiet:
        for part in uncertainty_page(found):
            console().print(part)


@app.command(epilog="Example: metabolismgraph configs --show small")
def configs(
    show: Annotated[
        str | None, typer.Option(metavar="NAME", help="print this configuration in full, with defaults")
    ] = None,
    set_: Set = None,
) -> None:
    """List the ready-made configurations."""
    from metabolismgraph.config import load_config, shipped_configs

    if show is not None:
        sys.stdout.write(load_config(show, set_ or []).to_yaml())
        return
    from rich.table import Table

    table = Table("name", "description", box=None)
    for name, description in shipped_configs().items():
        table.add_row(name, description)
    console().print(table)


@app.command(epilog="Example: metabolismgraph run --set 'training.strategies=[orthogonalised, contrastive]'")
def strategies(
    name: Annotated[str | None, typer.Argument(help="a strategy, to show its description and options")] = None,
) -> None:
    """List the strategies of Phase 2, for training.strategies, with one line and reference each."""
    from metabolismgraph.cli.tables import strategies_table, strategy_page
    from metabolismgraph.homeostasis.strategies import STRATEGIES, find

    if name is None:
        console().print(strategies_table(STRATEGIES))
    else:
        console().print(strategy_page(name, find(name)), markup=False, highlight=False)


def _continues(out: Path) -> str:
    """What to do after an interrupt of a benchmark."""
    return f"interrupted; results so far are in {out}, and the same command continues"


@benchmark.command(epilog="Example: metabolismgraph benchmark recovery --configs small --seeds 2")
def recovery(
    out: Annotated[Path, typer.Option(help="folder of results; the same command continues them")] = Path("benchmarks"),
    configs: Annotated[str, typer.Option(help="comma-separated configurations")] = (
        "oscillatory_rank20,oscillatory_rank50,oscillatory_rank70,types3,small"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="simulations per configuration, seeds 0, 1, ...")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="training seeds per simulation")] = 2,
    dataset: Annotated[
        list[Path] | None, typer.Option(help="further data set folder to fit, with its truth; repeatable")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="parallel processes; default: 1, so that times are comparable")
    ] = None,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    set_: Set = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="remove the results in the folder first")] = False,
) -> None:
    """Recover many simulated systems and tabulate the accuracy of every case, failures included."""
    import os

    from metabolismgraph.benchmarks.recovery import Settings as RecoverySettings
    from metabolismgraph.benchmarks.recovery import run_recovery
    from metabolismgraph.cli.progress import progress_bars

    settings = RecoverySettings(
        tuple(configs.split(",")), seeds, repeats, tuple(map(os.path.abspath, dataset or [])), tuple(set_ or ())
    )
    number = workers or 1
    made, keep = benchmark_engine(out, engine, cluster, setting, workers, number)
    with interruptible(_continues(out)), progress_bars(console(), quiet=False) as progress:
        markdown = run_recovery(settings, out, number, progress, overwrite=overwrite, engine=made, keep=keep)
    sys.stdout.write(markdown)


@benchmark.command("strategies", epilog="Example: metabolismgraph benchmark strategies --quick --out benchmarks/quick")
def compare_strategies(
    out: Annotated[Path, typer.Option(help="folder of results; the same command continues them")] = Path(
        "benchmarks/strategies"
    ),
    seeds: Annotated[int | None, typer.Option(min=1, help="simulations per configuration (5; quick: 1)")] = None,
    configs: Annotated[
        str | None, typer.Option(help="comma-separated configurations (oscillatory_rank50,types3)")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--strategies", metavar="A,B+C", help="sets of strategies, comma-separated; classical: no strategy"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="parallel processes; default: one per core")] = None,
    engine: EngineName = None,
    cluster: ClusterFile = None,
    setting: Settings = None,
    batch_size: Annotated[int, typer.Option(min=1, help="training.batch_size")] = 8,
    loop: Annotated[int | None, typer.Option(min=1, help="training.data_augmentation_loop (10; quick: 3)")] = None,
    set_: Set = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="one seed, two rollout lengths, no sweeps")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="remove the results in the folder first")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="tables and figures of existing results")] = False,
) -> None:
    """Run every strategy of Phase 2 on good and on imperfect checkpoints: every case, failures included."""
    import os

    from metabolismgraph.benchmarks.strategies import check_sets, run_strategies, settings_of, write_report
    from metabolismgraph.benchmarks.strategy_report import StrategyResults
    from metabolismgraph.cli.tables import strategy_board

    if report_only:
        sys.stdout.write(write_report(StrategyResults.read(out), out))
        return
    settings = settings_of(
        quick=quick,
        configs=configs and tuple(configs.split(",")),
        seeds=seeds,
        strategies=names and check_sets(names.split(",")),
        batch_size=batch_size,
        data_augmentation_loop=loop,
        overrides=tuple(set_ or ()),
    )
    number = workers or os.cpu_count() or 1
    made, keep = benchmark_engine(out, engine, cluster, setting, workers, number)
    with interruptible(_continues(out)), strategy_board(console()) as board:
        markdown = run_strategies(settings, out, number, board, overwrite=overwrite, engine=made, keep=keep)
    sys.stdout.write(markdown)


@benchmark.command("noise", epilog="Example: metabolismgraph benchmark noise --configs small --noise 0,1,5 --every 1,4")
def compare_under_noise(
    out: Annotated[Path, typer.Option(help="folder of results; the same command continues them")] = Path(
        "benchmarks/noise"
    ),
    configs: Annotated[
        str | None, typer.Option(help="comma-separated configurations or YAML files (small,oscillatory_rank50)")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="in % of the standard deviation of each species (0,0.1,1,5,10; quick: 0,1)"),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="A,B", help="every n-th frame is a sample (1,2,4,8; quick: 1,4)")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="seeds of system and noise per configuration (5; quick: 1)")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="of projection, weak form, shooting, auto, closed form, pysindy, scipy (the first three)",
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="CPU seconds of a case of scipy (60)")] = None,
    workers: Annotated[int, typer.Option(min=1, help="parallel processes")] = 1,
    set_: Set = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="a few cases of small")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="remove the results in the folder first")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="tables and figures of existing results")] = False,
) -> None:
    """Recover systems from noisy and coarse samples by several methods: every case, failures included."""
    from metabolismgraph.benchmarks.noise import numbers_of, run_noise, settings_of, write_report
    from metabolismgraph.benchmarks.noise_report import NoiseResults
    from metabolismgraph.cli.progress import progress_bars

    if report_only:
        sys.stdout.write(write_report(NoiseResults.read(out), out))
        return
    settings = settings_of(
        quick=quick,
        configs=configs and tuple(configs.split(",")),
        noise=numbers_of("--noise", noise, float),
        every=numbers_of("--every", every, int),
        seeds=seeds,
        methods=methods and tuple(methods.split(",")),
        budget=budget,
        overrides=tuple(set_ or ()),
    )
    with interruptible(_continues(out)), progress_bars(console(), quiet=False) as progress:
        markdown = run_noise(settings, out, workers, progress, overwrite=overwrite)
    sys.stdout.write(markdown)


@benchmark.command(epilog="Example: metabolismgraph benchmark models --networks robertson,sir --out benchmarks/two")
def models(
    out: Annotated[Path, typer.Option(help="folder for models.json and models.md")] = Path("benchmarks"),
    networks: Annotated[str | None, typer.Option(metavar="A,B", help="only these networks; default: all")] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="only these: clean, left out, wrong order, coarse, steady")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="parallel cases")] = 1,
    limit: Annotated[float, typer.Option(min=0.01, help="time after which a fit is given up [minutes]")] = 30.0,
    *,
    units: Annotated[bool, typer.Option("--units", help="fit some of them in other units as well")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="keep files and run folders of all cases")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Phase 1 and the verdict only, which decide all scores")
    ] = False,
) -> None:
    """Fit textbook networks and their corrupted twins from files: every case, failures included."""
    from metabolismgraph.benchmarks.models import run_models
    from metabolismgraph.cli.progress import progress_bars

    with progress_bars(console(), quiet=False) as progress:
        markdown = run_models(
            out,
            progress,
            networks=networks.split(",") if networks else (),
            kinds=kinds.split(",") if kinds else (),
            units=units,
            workers=workers,
            keep=keep,
            quick=quick,
            limit=limit,
        )
    sys.stdout.write(markdown)


@benchmark.command(epilog="Example: metabolismgraph benchmark scale --sizes 100,1000 --densities 1.8 --out benchmarks")
def scale(
    out: Annotated[Path, typer.Option(help="folder for scale.json, scale.md and scale.png")] = Path("benchmarks"),
    sizes: Annotated[str, typer.Option(help="numbers of species, separated by commas")] = "30,100,300,1000,3000,5835",
    densities: Annotated[str, typer.Option(help="reactions per species, separated by commas")] = "1.8,2.56",
    frames: Annotated[str, typer.Option(help="numbers of frames, separated by commas")] = "700",
    hubs: Annotated[str, typer.Option(help="values of simulation.hub_share, separated by commas")] = "0",
    set_: Set = None,
) -> None:
    """Measure time and memory of `run` against the size of the network, one case after the other.

    Results of other cases in the folder stay.
    """
    from metabolismgraph.benchmarks.noise import numbers_of
    from metabolismgraph.benchmarks.scale import run_scale

    found = run_scale(
        numbers_of("--sizes", sizes, int) or (),
        numbers_of("--densities", densities, float) or (),
        numbers_of("--frames", frames, int) or (),
        numbers_of("--hubs", hubs, float) or (),
        out,
        lambda line: console(stderr=True).print(line),
        set_ or (),
    )
    sys.stdout.write(found)


@benchmark.command(epilog="Example: metabolismgraph benchmark speed --out benchmarks")
def speed(out: Annotated[Path | None, typer.Option(help="folder for speed.json; default: only print")] = None) -> None:
    """Compare the speed of the inner loops of both phases with a plain implementation."""
    from metabolismgraph.benchmarks.speed import gradient_phase1, rollout_step
    from metabolismgraph.cli.tables import speed_table
    from metabolismgraph.files import write_bytes

    figures = {"Phase 1, gradient step": gradient_phase1(), "Phase 2, rollout step": rollout_step()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / "speed.json", (json.dumps(figures, indent=1) + "\n").encode())
    console().print(speed_table(figures))


def _run_folder(out: Path | None, name: str, *, resume: bool, overwrite: bool) -> Path:
    from metabolismgraph.runs.folder import free_path, latest_path

    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one of them")
    base = Path("runs") / name
    return out or (latest_path(base) if resume else free_path(base))


def _show(evaluation: Evaluation, folder: Path, *, quiet: bool) -> None:
    if quiet:
        return
    from metabolismgraph.cli.tables import answer_page, summary_table, verdict_lines

    if "classification" in evaluation.metrics:  # the truth is known: show the accuracy
        console().print(verdict_lines(evaluation))
        console().print(summary_table(evaluation.metrics, evaluation.notes))
        console().print(f"results are in {folder}; overview figure: {folder}/figures/summary.png")
        return
    for part in answer_page(evaluation, folder):
        console().print(part)
