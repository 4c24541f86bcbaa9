"""Continuous processes for tests: small mass-action networks, integrated to ten digits."""

from __future__ import annotations

import numpy as np
import scipy.integrate

from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

MICHAELIS_MENTEN = (
    {
        "bind": ({"E": 1, "S": 1}, {"ES": 1}),
        "free": ({"ES": 1}, {"E": 1, "S": 1}),
        "turn": ({"ES": 1}, {"E": 1, "P": 1}),
    },
    {"bind": 1.2, "free": 0.4, "turn": 0.9},
    {"E": 1.0, "S": 10.0, "ES": 0.0, "P": 0.0},
)
LOTKA_VOLTERRA = (
    {"grow": ({"H": 1}, {"H": 2}), "eat": ({"H": 1, "W": 1}, {"W": 2}), "die": ({"W": 1}, {})},
    {"grow": 1.1, "eat": 0.1, "die": 0.4},
    {"H": 10.0, "W": 5.0},
)
BRUSSELATOR = (
    {
        "feed": ({}, {"X": 1}),
        "auto": ({"X": 2, "Y": 1}, {"X": 3}),
        "conv": ({"X": 1}, {"Y": 1}),
        "out": ({"X": 1}, {}),
    },
    {"feed": 1.0, "auto": 1.0, "conv": 2.5, "out": 1.0},
    {"X": 1.0, "Y": 1.0},
)
EPIDEMIC = (
    {"infect": ({"S": 1, "I": 1}, {"I": 2}), "recover": ({"I": 1}, {"R": 1})},
    {"infect": 0.0005, "recover": 0.1},
    {"S": 990.0, "I": 10.0, "R": 0.0},
)
CHAIN = (
    {"first": ({"A": 1}, {"B": 1}), "second": ({"B": 1}, {"C": 1})},
    {"first": 0.7, "second": 0.25},
    {"A": 5.0, "B": 0.0, "C": 0.0},
)


def network_of(reactions, species, *, mass_action=True, **more):
    """A network from {id: (substrates, products)}."""
    written = []
    for name, (left, right) in reactions.items():
        net = {s: float(right.get(s, 0) - left.get(s, 0)) for s in {**left, **right}}
        substrates = {s: float(order) for s, order in left.items()}
        written.append(Reaction(name, substrates, {s: d for s, d in net.items() if d}, mass_action))
    return ReactionNetwork.from_reactions("test", species, written, **more)


def observe(system, time, *, mass_action=True, starts=None, truth=None):
    """Observations of a system (reactions, k, start) at given times.

    Args:
        starts: initial states of several runs; None: the system's own.
        truth: reactions and k that the data really come from; None: the system's own.
    """
    reactions, k, start = system
    names = list(start)
    real, real_k = truth or (reactions, k)
    network = network_of(reactions, names, mass_action=mass_action)
    source = network_of(real, names)
    rates = np.array([real_k[r] for r in source.reactions])
    orders = np.zeros((source.n_reactions, source.n_species))
    orders[source.edge_reaction, source.edge_species] = source.edge_order

    def rate(_, c):
        return source.stoichiometry @ (rates * np.prod(np.maximum(c, 0.0) ** orders, axis=1))

    runs = [start] if starts is None else [{**start, **one} for one in starts]
    tables = []
    for one in runs:
        solution = scipy.integrate.solve_ivp(
            rate, (time[0], time[-1]), [one[s] for s in names], t_eval=time, method="LSODA", rtol=1e-11, atol=1e-13
        )
        tables.append(np.maximum(solution.y.T, 0.0))
    return Observations(
        network=network,
        time=np.tile(time, len(runs)),
        run=np.repeat(np.arange(len(runs)), len(time)),
        concentration=np.concatenate(tables),
    )
