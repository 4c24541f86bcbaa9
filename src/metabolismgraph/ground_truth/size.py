"""The memory of a simulated system, which is checked before it is drawn."""

from __future__ import annotations

from metabolismgraph.config import Simulation
from metabolismgraph.memory import check_memory

# Bytes of a number, of which several copies exist: chunks of a trajectory, runs, noise, rounded values, and the table.
_NUMBER = 8 * 6
_SPECIES, _REACTION = 500, 4000  # bytes of names and Python objects


def check_size(settings: Simulation) -> None:
    """Check that a simulation fits the memory of this machine.

    Raises:
        InputError: it does not; the message says what it needs, and what to lower.
    """
    frames = (settings.n_frames - settings.start_frame + 1) * settings.n_runs
    network = _SPECIES * settings.n_metabolites + _REACTION * settings.n_reactions
    data = _NUMBER * frames * settings.n_metabolites
    keys = "n_metabolites or n_reactions" if network > data else "n_metabolites, n_frames - start_frame or n_runs"
    check_memory(
        network + data,
        f"simulation: {settings.n_metabolites} metabolites, {settings.n_reactions} reactions and {frames} frames",
        f"lower simulation.{keys}",
    )
