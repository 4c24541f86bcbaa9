"""Strategy 11: lines of homeostasis from trajectories."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.strategies.residual import Residual
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.homeostasis.types_from_lines import Types, find_types
from metabolismgraph.system.progress import Progress


class Shooting(Strategy):
    """Learn MLP_node and embeddings from the slopes and offsets of Phase 1, with their covariance.

    A fit of trajectories has the covariance of all species, another Phase 1 that of each. Types are found without
    labels, from the lines and their errors; the line of a species is the mean of those of its possible types, weighted
    by their probabilities.
    """

    number: ClassVar = 11
    summary: ClassVar = "lines of homeostasis from trajectories, and types from their covariance"
    reference: ClassVar = "Bock 1983 (multiple shooting); Schwarz 1978 (BIC)"
    sets: ClassVar[frozenset[Part]] = frozenset({"residuals"})
    adjusts: ClassVar[frozenset[Part]] = Residual.adjusts | Residual.sets

    share: bool = Field(True, description="species of a type have the same line; false: every species its own")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        changed = Residual().apply(plan, data)
        notes = _notes(self._types(data)) if self.share else ()
        return dataclasses.replace(changed, notes=(*changed.notes, *notes))

    def find_residuals(self, data: Phase2Data, progress: Progress) -> Residuals:
        """The lines as a residual, without the noise of single frames."""
        del progress
        phase1 = data.phase1
        line = np.column_stack([phase1.slope, phase1.offset])
        error, cross = np.column_stack([phase1.slope_error, phase1.offset_error]), phase1.slope_offset_covariance.copy()
        types = self._types(data) if self.share else None
        moving = _moving(data)
        if types is not None and types.plausible:
            mean = types.probability @ types.line
            # What is left of the errors: those of the lines of types, and doubt about the type.
            variance = np.diag(types.line_covariance).reshape(2, -1).T
            apart = types.line - mean[:, None]
            line[moving] = mean
            error[moving] = np.sqrt(np.einsum("ik,ika->ia", types.probability, apart**2 + variance))
            together = np.diag(types.line_covariance, len(types.line)) + apart[..., 0] * apart[..., 1]
            cross[moving] = np.einsum("ik,ik->i", types.probability, together)
        return Residuals(
            at=data.at,
            residual=line[:, 0] * data.at + line[:, 1],
            keep=data.keep,
            # Of single entries, so that the mean of all has the error of the line.
            noise=error[:, 0] * data.at.std(axis=0) * np.sqrt(len(data.at)),
            slope=line[:, 0],
            offset=line[:, 1],
            slope_error=error[:, 0],
            offset_error=error[:, 1],
            slope_offset_covariance=cross,
        )

    def _types(self, data: Phase2Data) -> Types | None:
        """The types of the species with a line; None for fewer than two."""
        moving, phase1 = _moving(data), data.phase1
        if len(moving) < 2:  # a type needs company
            return None
        lines = np.concatenate([moving, len(phase1.slope) + moving])
        covariance = phase1.line_covariance[np.ix_(lines, lines)]
        return find_types(phase1.slope[moving], phase1.offset[moving], covariance, data.training.seed)


def _moving(data: Phase2Data) -> Int[np.ndarray, " moving"]:
    """Species with entries in use."""
    return np.flatnonzero(data.moving & data.keep.any(axis=0))


def _notes(types: Types | None) -> tuple[str, ...]:
    """What is not certain about the types."""
    if types is None:
        return ()
    if not types.plausible:
        return ("homeostasis: the lines of the species do not form a few types, so every species has its own line",)
    if len(types.line) == 1:
        return ("homeostasis: only one type is resolved; differences between species are within their errors",)
    if types.doubtful:
        return (f"homeostasis: the type of {types.doubtful} of {len(types.member_of)} species is uncertain",)
    return ()
