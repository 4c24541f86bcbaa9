"""The examination of a strategy in its trial: the contract, and a short training on every system.

It executes the file, in a sealed process only, see `trial.py`. Its faults spare the rest of the trial. That there are
none is not believed: what the file learned is judged outside that process (`admission.py`), where the truth of the
systems is (`following.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metabolismgraph.errors import InputError
from metabolismgraph.explore.review import contract
from metabolismgraph.explore.review.trained_start import trained_start
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import chosen, custom, make_plan, names
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.runs.checkpoint import OBSERVATIONS_FILE, PHASE1_FILE, load_observations, load_phase1, save_phase2
from metabolismgraph.runs.training_settings import read_settings

Entry = str | dict[str, dict[str, Any]]  # of training.strategies
SYSTEMS, LEARNED = "systems", "learned"  # folders of a trial, with one entry for each system
REPEATED = "repeated"  # what was learned from the first system when it came again
LATE = "-late"  # added to the place of what was learned from a start as after a long training
_STEPS = 100
_FRAMES = 400  # for plans that are only made
# One of each kind: points, windows, rollouts, loss terms, steps. The others change the same parts of a plan.
_PARTNERS = ("residual", "weak_form", "curriculum", "contrastive", "accumulation")
# What explorations train with; the first that the strategy can be combined with is used on the exploration's own data.
_COMPANIES = (("residual", "contrastive"), ("residual",), ("contrastive",))


def examine(folder: Path, name: str) -> tuple[dict[str, object], list[str]]:
    """The declaration of the strategy, and its faults; writes the results of its trainings.

    If the settings of the systems name the strategy, it trains as they say: with its options there, and with the others
    that they name, of which those in the folder have to keep the contract, too.

    Args:
        folder: of the file and the systems: simulated ones, then that of the exploration, and the converted one.

    Raises:
        InputError: the strategy fails, or refuses these data.
        FirewallError: the strategy changes arrays of Phase 1.
    """
    files = sorted((folder / custom.FOLDER).glob("*.py"))
    with custom.as_input_error(files):
        kinds = {path.stem: custom.load(path) for path in files}
        faults = contract.declaration_faults(kinds[name])
        if faults:
            return {}, faults
        paths = sorted((folder / SYSTEMS).iterdir())
        own = load_system(paths[-2])
        if name in names(own.training):
            faults = _faults_as_configured(paths, own, kinds, folder / LEARNED)
        else:
            faults = _faults_by_default(paths, own, kinds[name], name, folder / LEARNED)
        return _declared(kinds[name]), faults


def _faults_as_configured(
    paths: list[Path], own: Phase2Data, kinds: Mapping[str, type[Strategy]], learned: Path
) -> list[str]:
    """Faults of strategies with the options and the company that the settings of the systems name."""
    strategies = chosen(own.training)
    for name in kinds:
        faults = contract.behaviour_faults(strategies[name], Plan.classical(own), own)
        if faults:
            return [f"{name}: {fault}" for fault in faults]
    entries = own.training.strategies or ()
    return _training_faults(paths, entries, entries, learned)


def _faults_by_default(paths: list[Path], own: Phase2Data, kind: type[Strategy], name: str, learned: Path) -> list[str]:
    """Faults of a strategy with its default options: alone on simulated systems, in company on own data."""
    few = _beginning(own)
    return (
        contract.behaviour_faults(kind(), Plan.classical(own), own)
        or contract.combination_faults(_PARTNERS, lambda *entries: make_plan(_with(few, *entries)), name)
        or _training_faults(paths, (name,), _company(few, name), learned)
    )


def load_system(path: Path) -> Phase2Data:
    """The data of Phase 2 in a folder of observations, checkpoint and settings."""
    graph_model, training = read_settings(path)
    return Phase2Data(
        load_observations(path / OBSERVATIONS_FILE),
        load_phase1(path / PHASE1_FILE, graph_model),
        graph_model,
        training,
    )


def _beginning(data: Phase2Data) -> Phase2Data:
    """The first frames of every run, enough for plans."""
    longest = int(np.bincount(data.observations.run).max())
    kept = max(_FRAMES / data.observations.n_frames, 2 * data.training.homeostasis_time_step / longest)
    return dataclasses.replace(data, observations=data.observations.split(1.0 - kept)[0]) if kept < 1 else data


def _training_faults(paths: list[Path], alone: Sequence[Entry], company: Sequence[Entry], learned: Path) -> list[str]:
    """Faults of the trainings on all systems: the first is repeated at the end, the last two begin also as if trained.

    Args:
        alone, company: strategies on simulated systems, and on the exploration's own data.
    """
    own = paths[-2:]
    trainings = [
        *((path.name, path, None) for path in paths),
        *((path.name + LATE, path, trained_start) for path in own),
        (REPEATED, paths[0], None),
    ]
    found = {}
    for place, path, begin in trainings:
        data = _with(load_system(path), *(company if path in own else alone))
        # Functions that were compiled for equal arguments would tell what an earlier training had.
        jax.clear_caches()  # type: ignore[no-untyped-call]
        # The second copy of the checkpoint is out of reach of the strategy.
        found[place] = contract.train(data, load_system(path).phase1, most_steps=_STEPS, begin=begin)
        faults = contract.result_faults(found[place])
        if faults:
            return faults
    # Only now: what is in the folder can be read.
    for place, result in found.items():
        save_phase2(learned / place, result, 0.0)
    return contract.repetition_faults(found[paths[0].name], found[REPEATED])


def _company(data: Phase2Data, name: str) -> tuple[str, ...]:
    """The strategies with which the strategy trains on the exploration's own data."""
    for company in _COMPANIES:
        with contextlib.suppress(InputError):
            make_plan(_with(data, *company, name))
            return *company, name
    return (name,)


def _declared(kind: type[Strategy]) -> dict[str, object]:
    return {
        "number": kind.number,
        "summary": kind.summary,
        "reference": kind.reference,
        "sets": sorted(kind.sets),
        "needs": kind.needs,
        "draws_minibatches": kind.draws_minibatches,
        "options": kind.model_json_schema(),
    }


def _with(data: Phase2Data, *entries: Entry) -> Phase2Data:
    # A new object: cached properties are computed again from observations and checkpoint.
    training = data.training.model_copy(update={"strategies": entries})
    return Phase2Data(data.observations, data.phase1, data.graph_model, training)
