"""Profiles, bootstrap, posterior and suggested measurements of a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.files import new_folder, write_bytes
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.results import load_result
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.uncertainty.bootstrap import Bootstrap, bootstrap_of, check_samples
from metabolismgraph.uncertainty.fitted_model import FittedModel
from metabolismgraph.uncertainty.next_measurement import Suggestions, next_of, targets
from metabolismgraph.uncertainty.posterior import posterior_of, write_posterior
from metabolismgraph.uncertainty.profile import Profile, profile_table, profiles_of

FOLDER = "uncertainty"
PROFILES, PICTURE, BOOTSTRAP = "profiles.csv", "profiles.png", "bootstrap.csv"
POSTERIOR, MEASUREMENTS = "posterior.nc", "next_measurement.csv"


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """What is known of the parameters of a run beyond their standard errors.

    Attributes:
        suggestions: further measurements.
        profiles: of the least certain parameters.
        bootstrap: None if it was not wanted.
        folder: where the files are.
    """

    suggestions: Suggestions
    profiles: tuple[Profile, ...]
    bootstrap: Bootstrap | None
    folder: Path


def profile_run(
    path: Path, names: Sequence[str], *, out: Path | None = None, anyway: bool = False, progress: Progress = silent
) -> tuple[Profile, ...]:
    """Profiles of some parameters of a finished run.

    Args:
        names: see `metabolismgraph.profile`.
        out: folder for a table and a figure; None: no files.
        anyway: whether a fit that is not to be trusted is taken as well.

    Raises:
        InputError: no finished run there, no fit of trajectories, one that is not to be trusted, or no such parameter.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    folder, model = _opened(path, anyway=anyway)
    profiles = profiles_of(model, [model.index_of(name) for name in names], progress)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            _write_profiles(profiles, out, folder.config.plotting.dpi)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    return profiles


def analyse_run(
    path: Path,
    *,
    profiles: int,
    bootstrap: int,
    samples: int,
    seed: int | None = None,
    anyway: bool = False,
    progress: Progress = silent,
) -> Uncertainty:
    """Profiles, bootstrap, posterior and suggested measurements of a finished run, into its folder `uncertainty`.

    Args:
        profiles: number of parameters that are profiled, the least certain ones first.
        bootstrap: number of simulated experiments; 0: none.
        samples: of the posterior; 0: none.
        seed: of bootstrap and samples; None: that of the fit.
        anyway: whether a fit that is not to be trusted is taken as well.

    Raises:
        InputError: no finished run there, no fit of trajectories, or one that is not to be trusted.
    """
    if bootstrap:
        check_samples(bootstrap)
    folder, model = _opened(path, anyway=anyway)
    suggestions = next_of(model, progress)
    found = profiles_of(model, _least_certain(model, profiles), progress)
    repeated = bootstrap_of(model, bootstrap, seed, progress) if bootstrap else None
    with new_folder(path / FOLDER) as part:
        _write_table(suggestions.table, part / MEASUREMENTS)
        if found:
            _write_profiles(found, part, folder.config.plotting.dpi)
        if repeated is not None:
            _write_table(repeated.table, part / BOOTSTRAP)
        if samples:
            write_posterior(posterior_of(model, samples, seed), part / POSTERIOR)
    return Uncertainty(suggestions, found, repeated, path / FOLDER)


def _opened(path: Path, *, anyway: bool) -> tuple[RunFolder, FittedModel]:
    folder = RunFolder.open(path)
    if not folder.is_finished("evaluate"):
        raise InputError(f"{path}: the run is not finished; continue it with --resume first")
    return folder, FittedModel.trusted(load_result(folder, folder.config), anyway=anyway)


def _least_certain(model: FittedModel, most: int) -> list[int]:
    """The rate constants with the largest standard errors among those that the network allows, then such slopes."""
    order = [t.indices[np.argsort(-model.error[t.indices], kind="stable")] for t in targets(model)]
    return [int(index) for index in np.concatenate(order)[:most]]


def _write_profiles(profiles: Sequence[Profile], folder: Path, dpi: int) -> None:
    from metabolismgraph.figures.profiles import draw_profiles  # noqa: PLC0415 (Matplotlib is slow to import)

    _write_table(profile_table(profiles), folder / PROFILES)
    draw_profiles(profiles, folder / PICTURE, dpi)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_bytes(path, table.to_csv(index=False, float_format="%.9g").encode())
