"""Input of the figures: data and metrics of an evaluation, and groups of species."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int
from matplotlib.lines import Line2D

from metabolismgraph.evaluation.variables import model_trace
from metabolismgraph.figures.style import palette
from metabolismgraph.metrics import Value


@dataclasses.dataclass(frozen=True)
class Groups:
    """Species by type or by cluster.

    Attributes:
        name: "type" or "cluster".
        member: group of each species; -1: none.
        colours: colour of each group, in ascending order of groups.
    """

    name: str
    member: Int[np.ndarray, " species"]
    colours: dict[int, str]

    @classmethod
    def of(cls, name: str, member: Int[np.ndarray, " species"], colormap: str) -> Groups:
        ids = [int(g) for g in np.unique(member[member >= 0])]
        return cls(name, member, dict(zip(ids, palette(len(ids), colormap), strict=True)))

    def coloured_like(self, other: Groups) -> Groups:
        """The same groups, each in the colour of that group of `other` with the most common species.

        Larger groups have priority; colours are unique if there are enough of them.
        """
        free = [*other.colours.values(), *(c for c in self.colours.values() if c not in other.colours.values())]
        colours: dict[int, str] = {}
        for g in sorted(self.colours, key=lambda g: -int((self.member == g).sum())):
            shared = other.member[(self.member == g) & (other.member >= 0)]
            wanted = other.colours[int(np.bincount(shared).argmax())] if shared.size else None
            colour = wanted if wanted in free else next(iter(free), self.colours[g])
            if colour in free:
                free.remove(colour)
            colours[g] = colour
        return dataclasses.replace(self, colours=dict(sorted(colours.items())))

    def species(self, group: int) -> Int[np.ndarray, " members"]:
        """Indices of the species of a group."""
        return np.flatnonzero(self.member == group)

    def handles(self, **line: Any) -> list[Line2D]:
        """Legend entries: a marker per group (`line` changes its style), with the number of species."""
        look: dict[str, Any] = {"linestyle": "none", "marker": "o", **line}
        return [
            Line2D([], [], color=colour, label=f"{self.name} {g} ({len(self.species(g))})", **look)
            for g, colour in self.colours.items()
        ]


@dataclasses.dataclass(frozen=True)
class Scene:
    """The data of all figures.

    Attributes:
        data: `Evaluation.data`.
        metrics: `Evaluation.metrics`.
        types: by true type; None without truth or without Phase 2.
        clusters: by cluster of embeddings; None without Phase 2.
    """

    data: xr.Dataset
    metrics: Mapping[str, Value]
    types: Groups | None
    clusters: Groups | None

    @classmethod
    def of(cls, data: xr.Dataset, metrics: Mapping[str, Value], colormap: str) -> Scene:
        types = clusters = None
        if "true_type" in data:
            types = Groups.of("type", np.where(data["moving"].values, data["true_type"].values, -1), colormap)
        if "cluster" in data:
            clusters = Groups.of("cluster", data["cluster"].values, colormap)
            clusters = clusters.coloured_like(types) if types else clusters
        return cls(data, metrics, types, clusters)

    def has(self, *names: str) -> bool:
        """Whether the data contain all of the variables."""
        return all(name in self.data for name in names)

    def values(self, name: str) -> np.ndarray:
        """The array of a variable."""
        return np.asarray(self.data[name].values)

    @property
    def model_trace(self) -> str | None:
        """The variable of the concentrations of the model in held-out frames; None if there is none."""
        return model_trace(self.data)

    @property
    def groups(self) -> Groups:
        """Types if they are known, otherwise clusters."""
        found = self.types or self.clusters
        assert found is not None, "without Phase 2 there are no groups"
        return found

    @property
    def moving(self) -> Bool[np.ndarray, " species"]:
        """False for fixed species; all True if the data do not contain this."""
        return self.values("moving") if self.has("moving") else np.ones(self.data.sizes["species"], dtype=bool)
