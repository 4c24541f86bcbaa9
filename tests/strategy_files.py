"""Strategy files as text, and the base run of an exploration, for tests of their review."""

import json
import textwrap

from metabolismgraph.config import load_config
from metabolismgraph.explore.review.trial_systems import KEY
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs.checkpoint import save_observations, save_phase1


def written(apply: str = "return plan", *, top: str = "", body: str = "", head: str = "class Odd(Strategy):") -> str:
    """A strategy file around what is odd about it."""
    parts = [
        '"""Odd."""\n\nfrom __future__ import annotations\n\nimport dataclasses\nimport functools',
        "from typing import ClassVar\n\nimport equinox as eqx\nimport jax\nimport jax.numpy as jnp\nimport numpy as np",
        "from pydantic import Field\n\nfrom metabolismgraph.homeostasis.residuals import Phase2Data",
        "from metabolismgraph.homeostasis.training_plan import Penalty, Plan, Schedule",
        "from metabolismgraph.homeostasis.strategies.base import Part, Strategy\n",
        textwrap.dedent(top),
        f'\n{head}\n    """Odd."""\n',
        '    number: ClassVar = 11\n    summary: ClassVar = "odd"\n    reference: ClassVar = "none"\n',
        '    adjusts: ClassVar = frozenset({"penalties", "steps", "schedule", "embeddings_wait", "start", "finish"})\n',
        textwrap.indent(textwrap.dedent(body), "    "),
        "\n    def apply(self, plan: Plan, data: Phase2Data) -> Plan:",
        textwrap.indent(textwrap.dedent(apply).strip(), " " * 8),
    ]
    return "\n".join(parts) + "\n"


def base_run(run, *overrides):
    """The training folder of a base run of twelve metabolites, the truth beside it."""
    # The sizes of `command_line.QUICK`, which other tests have compiled.
    sizes = ("simulation.n_metabolites=12", "simulation.n_reactions=24", "simulation.n_frames=400")
    config, folder = load_config("small", (*sizes, *overrides)), run / "training"
    simulated = simulate(config)
    simulated.truth.save(run / "data" / "truth")
    # The same draws every time: in one of three, groups drawn at random are by chance like the types.
    (run / "data" / KEY).write_bytes(b"\1" * 32)
    save_observations(folder / "observations", simulated.observations)
    seen, _ = simulated.observations.split(config.training.held_out_fraction)
    save_phase1(folder / "phase1", fit_reactions(seen, config.graph_model, config.training), 1.0)
    sections = {name: getattr(config, name).model_dump(mode="json") for name in ("graph_model", "training")}
    (folder / "settings.json").write_text(json.dumps(sections))
    return folder
