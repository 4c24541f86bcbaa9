"""The examination of a strategy in its trial: the contract, and a short training on the exploration's data.

It executes the file, in a sealed process only, see `trial.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from metabolismgraph.explore.review import contract
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import custom, make_plan
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.runs.checkpoint import load_observations, load_phase1
from metabolismgraph.runs.train_folder import read_settings
from metabolismgraph.system.observations import Observations

_STEPS = 100
_FRAMES, _FRAMES_PER_RUN = 400, 50
_SHORT_TRAINING = "trial_brief"
# One of each kind: points, windows, rollouts, loss terms, steps. The others change the same parts of a plan.
_PARTNERS = ("residual", "weak_form", "curriculum", "contrastive", "accumulation")


class ShortTraining(Strategy):
    """Limits the number of gradient steps of the strategy in trial."""

    number: ClassVar = 1
    summary: ClassVar = "few gradient steps"
    reference: ClassVar = "none"

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        return dataclasses.replace(plan, steps=min(plan.steps, _STEPS))


def examine(folder: Path, shared: Path, name: str) -> tuple[dict[str, object], list[str]]:
    """The declaration of the strategy, and its faults.

    Args:
        folder: of settings.json and the file.
        shared: folder of observations and the Phase 1 checkpoint.

    Raises:
        InputError: the strategy fails, or refuses these data.
        FirewallError: the strategy changes arrays of Phase 1.
    """
    path = folder / custom.FOLDER / f"{name}.py"
    with custom.as_input_error([path]):
        kind = custom.load(path)
        faults = contract.declaration_faults(kind)
        if faults:
            return {}, faults
        graph_model, training = read_settings(folder)
        observations = _beginning(load_observations(shared / "observations").split(*training.held_out)[0])
        # One for the strategy, one for comparison.
        phase1, frozen = (load_phase1(shared / "phase1", graph_model) for _ in range(2))
        data = Phase2Data(observations, phase1, graph_model, training)
        custom.register(_SHORT_TRAINING, ShortTraining)
        return _declared(kind), (
            contract.behaviour_faults(kind(), Plan.classical(data), data)
            or contract.combination_faults(_PARTNERS, lambda *entries: make_plan(_with(data, *entries)), name)
            or contract.training_faults(_with(data, name, _SHORT_TRAINING), frozen)
        )


def _beginning(observations: Observations) -> Observations:
    """The first frames of every run, enough for a trial."""
    shortest = int(np.unique(observations.run, return_counts=True)[1].min())
    kept = max(_FRAMES / observations.n_frames, _FRAMES_PER_RUN / shortest)
    return observations.split(1.0 - kept)[0] if kept < 1 else observations


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


def _with(data: Phase2Data, *entries: str) -> Phase2Data:
    # A new object: cached properties are computed again from observations and checkpoint.
    training = data.training.model_copy(update={"strategies": entries})
    return Phase2Data(data.observations, data.phase1, data.graph_model, training)
