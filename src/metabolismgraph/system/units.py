"""Internal units: data are scaled on entry, so that results do not depend on the units of the data.

Concentrations (1e-9 mol/l, or counts of 1e6) and times are scaled to the order of one by powers of ten; results
are scaled back. A power of ten does not change the digits of the data. Gradient Phase 1 is not scaled, as
published.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Float

from metabolismgraph.config import GraphModel
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.model import AnySubstrateFunction, MetabolismModel, NodeFunction, SubstrateFunction
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations

_STEPS = 10  # sampling intervals per unit of time, approximately


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of concentration and time of a computation, in the units of the data.

    Attributes:
        concentration, time: powers of ten; 1 if the data are of that order.
    """

    concentration: float
    time: float

    @classmethod
    def of(cls, observations: Observations, graph_model: GraphModel) -> Units:
        """The powers of ten nearest to the typical concentration and to ten sampling intervals.

        Concentration is not scaled for additive rate laws and for MLP_sub with raw input, which are not invariant.
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
        """Observations in units of the data, converted to these units."""
        return dataclasses.replace(
            given, time=given.time / self.time, concentration=given.concentration / self.concentration
        )

    def inverse(self) -> Units:
        """The units of the data, in these units."""
        return Units(1 / self.concentration, 1 / self.time)

    def substrate_function(self, own: AnySubstrateFunction) -> AnySubstrateFunction:
        """A rate law in these units, converted to the units of the data."""
        if self.concentration == 1:
            return own
        assert isinstance(own, SubstrateFunction)  # a raw input is not scaled, see `of`
        # log c in units of the data is log c in these units plus log(unit); so are its mean and the reference. f in the
        # unit of c^s changes by unit^s, which the term |s| log c at the reference contains.
        shift = float(np.log(self.concentration))
        moved = tuple(on_device(np.asarray(x) + shift) for x in (own.center, own.reference))
        shifted: SubstrateFunction = eqx.tree_at(lambda f: (f.center, f.reference), own, moved)
        return shifted

    def model(self, own: MetabolismModel, network: ReactionNetwork) -> MetabolismModel:
        """A model in these units, converted to the units of the data."""
        if self == Units(1.0, 1.0):
            return own
        scaled: MetabolismModel = eqx.tree_at(
            lambda m: (m.log_k, m.mlp_sub, m.mlp_node),
            own,
            (
                on_device(np.asarray(own.log_k) + self.rate_constants(network)),
                self.substrate_function(own.mlp_sub),
                self.node_function(own.mlp_node),
            ),
        )
        return scaled

    def node_function(self, own: NodeFunction) -> NodeFunction:
        """An MLP_node in these units, converted to the units of the data."""
        factors = (own.center, self.concentration), (own.width, self.concentration), (own.unit, self.rate)
        by_unit = tuple(on_device(np.asarray(x) * factor) for x, factor in factors)
        scaled: NodeFunction = eqx.tree_at(lambda f: (f.center, f.width, f.unit), own, by_unit)
        return scaled


def _decade(values: Float[np.ndarray, " values"]) -> float:
    """The power of ten nearest to the geometric mean; 1 without values."""
    return float(10.0 ** np.round(np.mean(np.log10(values)))) if values.size else 1.0
