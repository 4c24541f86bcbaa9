"""Both phases of a fit in one call."""

from __future__ import annotations

import logging

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError, check_argument
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.homeostasis.joint import refine
from metabolismgraph.homeostasis.joint_descent import fit_jointly
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import check_strategies
from metabolismgraph.reactions.fit import Phase1Result, fit_reactions
from metabolismgraph.system.assumed_rate_laws import assume_rate_laws
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent

_log = logging.getLogger(__name__)


def fit(
    observations: Observations,
    config: Config | None = None,
    progress: Progress = silent,
    *,
    checkpoint: Phase1Result | None = None,
) -> FitResult:
    """Learn rate constants, rate law, homeostasis and types in this process.

    Args:
        observations: the data; the last `training.held_out_fraction` of the frames of every run is held out.
        config: `graph_model` and `training` are used; None: the defaults.
        progress: called with (stage, completed share of the stage, message).
        checkpoint: a result of Phase 1 from which Phase 2 starts; None: Phase 1 is carried out.

    Raises:
        InputError: too few observations for the network, inconsistent settings, or a checkpoint of another network.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["training.homeostasis_training=false"])
        >>> data = mg.simulate(config)
        >>> result = mg.fit(data.observations, config)
        >>> int(result.rate_constants["identifiable"].sum())
        62
    """
    check_argument("observations", observations, Observations, "read files with mg.read(network, table)")
    config = Config() if config is None else config
    check_argument("config", config, Config, "make one with mg.load_config(name, overrides)")
    graph_model, training = config.graph_model, config.training
    given = None if checkpoint is None else checkpoint.mass_action
    observations = assume_rate_laws(observations, graph_model, training, given)
    seen, _ = observations.split(*training.held_out)
    network = observations.network
    sizes = (seen.n_frames, observations.n_frames, network.n_species, network.n_reactions)
    _log.info("fitting %d of %d frames, %d species, %d reactions", *sizes)
    if checkpoint is None and training.skip_phase1:
        raise InputError("training.skip_phase1 is true, but there is no checkpoint to start from; give one")
    check_strategies(training, seen)
    phase2 = refined = None
    if checkpoint is None and training.trains_jointly:
        phase1, phase2 = fit_jointly(seen, graph_model, training, progress)
    else:
        phase1 = checkpoint or fit_reactions(seen, graph_model, training, progress)
    known = int(phase1.identifiability.identifiable.sum())
    _log.info("Phase 1: rule %s for dc/dt, %d of %d rate constants determined", phase1.rule, known, len(phase1.log_k))
    for note in phase1.notes:
        _log.info("Phase 1: %s", note)
    if training.homeostasis_training:
        phase2 = phase2 or fit_homeostasis(seen, phase1, graph_model, training, progress)
        _log.info("Phase 2: mean |MLP_node| %.3g [concentration/time]", phase2.node_magnitude)
        if training.joint_refinement:
            refined = refine(Phase2Data(seen, phase1, graph_model, training), phase2, progress)
    return FitResult(observations, graph_model, training, phase1, phase2, refined)
