"""Internal units: data are scaled on entry, so that results do not depend on the units they came in.

Concentrations in mol/l near 1e-9, or counts near 1e6, are brought to the order of one by a power of ten,
and so is time; results are scaled back. A power of ten moves no digit of the data. Gradient Phase 1, as
published, is not scaled.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Float

from metabolismgraph.config import GraphModel
from metabolismgraph.system.model import AnySubstrateFunction, MetabolismModel, NodeFunction, SubstrateFunction
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations

_STEPS = 10  # sampling intervals that are about one unit of time


@dataclasses.dataclass(frozen=True)
class Units:
    """The unit of concentration and of time that a computation uses, in the units of the data.

    Attributes:
        concentration, time: powers of ten; 1 where the data are of that order already.
    """

    concentration: float
    time: float

    @classmethod
    def of(cls, observations: Observations, graph_model: GraphModel) -> Units:
        """The decade nearest to the typical concentration, and to ten sampling intervals.

        Concentration is not scaled for additive rate laws, nor for MLP_sub on raw concentrations: neither is invariant.
        """
        c, dt = observations.concentration, observations.transitions().dt
        scalable = graph_model.aggr_type == "mul" and graph_model.substrate_input == "log"
        return cls(_decade(c[c > 0]) if scalable else 1.0, _decade(_STEPS * dt))

    @property
    def rate(self) -> float:
        """Unit of dc/dt."""
        return self.concentration / self.time

    def rate_constants(self, network: ReactionNetwork) -> Float[np.ndarray, " reactions"]:
        """log10 of the unit of each rate constant, concentration^(1-order)/time."""
        order = np.zeros(network.n_reactions)
        np.add.at(order, network.edge_reaction, network.edge_order)
        return np.asarray((1 - order) * np.log10(self.concentration) - np.log10(self.time))

    def observations(self, given: Observations) -> Observations:
        """The data in these units."""
        return dataclasses.replace(
            given, time=given.time / self.time, concentration=given.concentration / self.concentration
        )

    def inverse(self) -> Units:
        """The units of the data, seen from these."""
        return Units(1 / self.concentration, 1 / self.time)

    def substrate_function(self, own: AnySubstrateFunction) -> AnySubstrateFunction:
        """A rate law of these units, in those of the data."""
        if self.concentration == 1:
            return own
        assert isinstance(own, SubstrateFunction)  # of a network of c itself, the unit is 1
        shift = float(np.log(self.concentration))
        shifted: SubstrateFunction = eqx.tree_at(
            lambda f: (f.center, f.reference), own, (own.center + shift, own.reference + shift)
        )
        return shifted

    def model(self, own: MetabolismModel, network: ReactionNetwork) -> MetabolismModel:
        """A model of these units, in those of the data."""
        if self == Units(1.0, 1.0):
            return own
        scaled: MetabolismModel = eqx.tree_at(
            lambda m: (m.log_k, m.mlp_sub, m.mlp_node),
            own,
            (
                own.log_k + self.rate_constants(network),
                self.substrate_function(own.mlp_sub),
                self.node_function(own.mlp_node),
            ),
        )
        return scaled

    def node_function(self, own: NodeFunction) -> NodeFunction:
        """An MLP_node of these units, in those of the data."""
        scaled: NodeFunction = eqx.tree_at(
            lambda f: (f.center, f.width, f.unit),
            own,
            (own.center * self.concentration, own.width * self.concentration, own.unit * self.rate),
        )
        return scaled


def _decade(values: Float[np.ndarray, " values"]) -> float:
    """The power of ten nearest to the geometric mean."""
    return float(10.0 ** np.round(np.mean(np.log10(values)))) if values.size else 1.0
