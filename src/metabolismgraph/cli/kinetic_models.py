"""Commands for models with kinetic laws."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metabolismgraph.cli.options import (
    Map,
    Overwrite,
    Quiet,
    console,
    interruptible,
    read_formulas,
    read_names,
    read_pairs,
    read_values,
)
from metabolismgraph.errors import InputError

if TYPE_CHECKING:
    from metabolismgraph.kinetic_models.problem import ModelProblem

kinetic_models = typer.Typer()

Starts = Annotated[int, typer.Option(min=1, max=1_000_000, help="number of starts between the bounds")]
Seed = Annotated[int, typer.Option(min=0, help="of the starts")]
Processes = Annotated[int | None, typer.Option(min=1, help="starts that run at the same time; default: one per core")]
HoldOutAfter = Annotated[
    float | None,
    typer.Option(
        "--hold-out-after",
        metavar="TIME",
        help="predict later measurements, do not fit them; in `fit-model`, counted from the first measurement of a run",
    ),
]
Homeostasis = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPECIES",
        help="it is pulled to a baseline; a pattern with * and ? has one pull; the model is compared with the one "
        "without; repeatable",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(min=0, help="CPU time of each start, which then ends with its best point; default: no limit"),
]
FitFolder = Annotated[
    Path | None,
    typer.Option(help="folder for tables and figures; default: a new one in fits/, by the name of the input"),
]


@kinetic_models.command(epilog="Example: metabolismgraph simulate-model model.xml --end 10 --out model.csv")
def simulate_model(
    model: Annotated[
        Path, typer.Argument(help="SBML Level 2 or 3, or Antimony, with a kinetic law for every reaction")
    ],
    end: Annotated[float, typer.Option(help="last time, in the time unit of the model")],
    points: Annotated[int, typer.Option(min=2, max=10_000_000, help="number of times, evenly spaced from zero")] = 101,
    variables: Annotated[
        str | None, typer.Option(help="comma-separated ids; default: the concentrations of all species")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="file of the table, .csv, .parquet or .nc; default: printed")] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            "--value",
            metavar="ID=VALUE",
            help="another value of a parameter, a compartment, or a species at the start; repeatable",
        ),
    ] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
) -> None:
    """Simulate a model by its own kinetic laws and rules."""
    import numpy as np

    from metabolismgraph.files import check_new_file
    from metabolismgraph.formats.table_conversion import simulation_csv, write_simulation
    from metabolismgraph.kinetic_models.simulation import simulate_model

    if not 0 < end < float("inf"):
        raise InputError(f"--end is {end:g}; it must be a finite time > 0")
    if out is not None:
        check_new_file(out, overwrite=overwrite)
    names = None if variables is None else [name.strip() for name in variables.split(",") if name.strip()]
    table = simulate_model(model, np.linspace(0.0, end, points), names, read_values(value))
    if out is None:
        typer.echo(simulation_csv(table), nl=False)
    else:
        write_simulation(table, out, chosen=names is not None)


@kinetic_models.command(
    epilog="Example: metabolismgraph simulate-petab problem.yaml --value k1=0.5 --out simulated.tsv"
)
def simulate_petab(
    problem: Annotated[Path, typer.Argument(help="YAML file of a PEtab problem, version 1 or 2")],
    out: Annotated[Path | None, typer.Option(help="file of the table, TSV; default: none")] = None,
    value: Annotated[
        list[str] | None,
        typer.Option("--value", metavar="ID=VALUE", help="another value of a parameter, on linear scale; repeatable"),
    ] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
) -> None:
    """Simulate the measurements of a PEtab problem, and print their likelihood."""
    from metabolismgraph.files import check_new_file, write_bytes
    from metabolismgraph.kinetic_models.likelihood import simulate_petab

    if out is not None:
        check_new_file(out, overwrite=overwrite)
    table = simulate_petab(problem, read_values(value))
    typer.echo(f"-log likelihood of {len(table)} measurements: {-table['log_likelihood'].sum():.10g}")
    if out is not None:
        write_bytes(out, table.to_csv(sep="\t", index=False, float_format="%.12g", lineterminator="\n").encode())


@kinetic_models.command(
    epilog="Example: metabolismgraph fit-petab problem.yaml --starts 50 --processes 8 --out fits/mine"
)
def fit_petab(
    problem: Annotated[Path, typer.Argument(help="YAML file of a PEtab problem, version 1 or 2")],
    out: FitFolder = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            "--hold-out",
            metavar="CONDITION",
            help="a condition, or an experiment of version 2: predict its measurements, do not fit them; repeatable",
        ),
    ] = None,
    hold_out_after: HoldOutAfter = None,
    homeostasis: Homeostasis = None,
    starts: Starts = 20,
    seed: Seed = 0,
    processes: Processes = None,
    minutes: Minutes = None,
    *,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Estimate the parameters of a PEtab problem by maximum likelihood, from many starts."""
    from metabolismgraph.formats.petab import read_petab
    from metabolismgraph.kinetic_models.problem import ModelProblem, write_with_homeostasis

    def problems(place: Path) -> dict[str, ModelProblem]:
        last = math.inf if hold_out_after is None else hold_out_after
        first = ModelProblem(problem, tuple(hold_out or ()), read_petab(problem).estimated, hold_out_after=last)
        if not homeostasis:
            return {"model": first}
        more = write_with_homeostasis(problem, homeostasis, place / "homeostasis")
        return {
            "no_homeostasis": first,
            "homeostasis": dataclasses.replace(more, held_out=first.held_out, hold_out_after=last),
        }

    folder = _folder(out, problem.stem, overwrite=overwrite)
    options = _options(starts, minutes, seed, processes)
    _fit(problems, folder, options, overwrite=overwrite, quiet=quiet)


@kinetic_models.command(
    epilog="Example: metabolismgraph fit-model model.xml pulse.csv --hold-out other.csv --input Glc --law 'v_*=learned'"
)
def fit_model(
    model: Annotated[
        Path, typer.Argument(help="SBML Level 2 or 3, or Antimony, with a kinetic law for every reaction")
    ],
    tables: Annotated[
        list[Path],
        typer.Argument(help="concentrations over time, as for `fit`; species may be missing; <0.5 is a limit"),
    ],
    out: FitFolder = None,
    hold_out: Annotated[
        list[Path] | None,
        typer.Option("--hold-out", metavar="TABLE", help="predict its measurements, do not fit them; repeatable"),
    ] = None,
    hold_out_after: HoldOutAfter = None,
    estimate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="parameters to be estimated, with * and ?, or species whose initial concentration is; repeatable; "
            "default: all parameters",
        ),
    ] = None,
    fold: Annotated[float, typer.Option(help="bounds: the value of the model, divided and multiplied by it")] = 100.0,
    prior: Annotated[
        float | None,
        typer.Option(help="factor within which the values of the model are right with 68 % probability; default: none"),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SPECIES", help="it follows its measured values; repeatable"),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(
            "--law",
            metavar="REACTION=LAW",
            help="mass_action, power_law, michaelis_menten, hill or learned instead of from_model, the law of the "
            "model; reactions with * and ?; several laws, with commas, are compared; repeatable",
        ),
    ] = None,
    homeostasis: Homeostasis = None,
    noise: Annotated[
        float | None,
        typer.Option(help="standard deviation, relative; default: an absolute one per species is estimated"),
    ] = None,
    deviations: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="columns of standard deviations: '*_sd' for A_sd beside A, or the column of a long table",
        ),
    ] = None,
    relative: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPECIES",
            help="its values are only proportional to its concentration, with one scale for each table; with * and ?; "
            "repeatable",
        ),
    ] = None,
    offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPECIES",
            help="its values have an offset, such as a background, one for each table; also with --relative; with * "
            "and ?; repeatable",
        ),
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            metavar="NAME=FORMULA",
            help="a column of this name has values of a formula of concentrations, such as 'total=A + 2*B'; repeatable",
        ),
    ] = None,
    starts: Starts = 20,
    seed: Seed = 0,
    processes: Processes = None,
    minutes: Minutes = None,
    map_: Map = None,
    *,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out columns that the model does not have")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Estimate the parameters of a model from tables of concentrations, and predict others."""
    from metabolismgraph.kinetic_models.comparison import variants_of
    from metabolismgraph.kinetic_models.problem import write_model_problem

    laws = {
        reaction: list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
        for reaction, names in read_pairs("--law", law, "REACTION=LAW, such as v1=learned").items()
    }

    def problems(place: Path) -> dict[str, ModelProblem]:
        return {
            name: write_model_problem(
                model,
                tables,
                place / name,
                held_out=hold_out or [],
                hold_out_after=math.inf if hold_out_after is None else hold_out_after,
                estimate=estimate or ["*"],
                fold=fold,
                prior=prior,
                inputs=input_ or [],
                noise=noise,
                deviations=deviations,
                relative=relative or [],
                offset=offset or [],
                observables=read_formulas("--observable", observable),
                names=read_names(map_),
                skip_unknown=skip_unknown,
                **variant,
            )
            for name, variant in variants_of(laws, homeostasis or []).items()
        }

    folder = _folder(out, model.name.split(".")[0], overwrite=overwrite)
    options = _options(starts, minutes, seed, processes)
    _fit(problems, folder, options, overwrite=overwrite, quiet=quiet)


def _folder(out: Path | None, name: str, *, overwrite: bool) -> Path:
    from metabolismgraph.runs.folder import free_path
    from metabolismgraph.runs.petab import check_new

    folder = out or free_path(Path("fits") / name)
    check_new(folder, overwrite=overwrite)
    return folder


def _options(starts: int, minutes: float | None, seed: int, processes: int | None) -> dict[str, Any]:
    """Options of `compare_problems`."""
    from metabolismgraph.processes import cores

    return {
        "starts": starts,
        "minutes": math.inf if minutes is None else minutes,
        "seed": seed,
        "processes": processes or len(cores()),
    }


def _fit(
    problems: Callable[[Path], dict[str, ModelProblem]],
    folder: Path,
    options: Mapping[str, Any],
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fit one problem, or compare several.

    Args:
        problems: writes the problems into a folder, and returns them by name.
        options: of `compare_problems`.
    """
    from metabolismgraph.cli.progress import progress_bars
    from metabolismgraph.cli.tables import comparison_page, petab_page
    from metabolismgraph.kinetic_models.comparison import compare_problems
    from metabolismgraph.runs.petab import write_comparison, write_petab_fit

    with tempfile.TemporaryDirectory() as place:
        written = problems(Path(place))
        with interruptible("interrupted; nothing was written"), progress_bars(console(), quiet=quiet) as progress:
            found = compare_problems(written, progress=progress, **options)
        if len(written) > 1:
            write_comparison(found, folder, made=Path(place), overwrite=overwrite)
            page = comparison_page(found, folder)
        else:
            (problem,), (fit,) = written.values(), found.fits.values()
            kept = problem.path.parent if problem.path.is_relative_to(place) else None
            write_petab_fit(fit, folder, notes=problem.notes, files=kept, overwrite=overwrite)
            page = petab_page(fit, folder, problem.notes)
    if not quiet:
        console().print(*page, sep="\n")
