"""Residuals smoothed in time by a penalised spline before they are regressed on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.strategies.residual import Residual
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.system.progress import Progress

Column = Float[np.ndarray, " transitions"]


def hat_basis(n: int, knots: int) -> Float[np.ndarray, "n knots"]:
    """Linear B-splines on equally spaced knots."""
    position = np.linspace(0.0, knots - 1.0, n)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None, :]))


def smooth(values: Column, weight: Column, basis: np.ndarray, penalty: float) -> Column:
    second = np.diff(np.eye(basis.shape[1]), n=2, axis=0)
    left = basis.T @ (weight[:, None] * basis) + penalty * second.T @ second + 1e-9 * np.eye(basis.shape[1])
    return basis @ np.linalg.solve(left, basis.T @ (weight * values))


def runs(run: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of the transitions of every run."""
    for r in np.unique(run):
        yield np.flatnonzero(run == r)


class SmoothedResidual(Strategy):
    """Smooth dc/dt minus reactions in time by a penalised spline, and regress MLP_node on the result."""

    number: ClassVar = 25
    summary: ClassVar = "regress MLP_node on residuals smoothed by a penalised spline"
    reference: ClassVar = "Eilers & Marx 1996 (P-splines)"
    sets: ClassVar[frozenset[Part]] = frozenset({"residuals", "objective"})
    adjusts: ClassVar[frozenset[Part]] = Residual.adjusts

    spacing: int = Field(8, ge=2, le=200, description="frames between two knots")
    penalty: float = Field(0.1, ge=0, description="weight of squared second differences of the coefficients")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        changed = Residual().apply(plan, data)
        return dataclasses.replace(changed, notes=(*changed.notes, f"residual smoothed over {self.spacing} frames"))

    def find_residuals(self, data: Phase2Data, progress: Progress) -> Residuals:
        before = data.checkpoint_residuals()
        residual = before.residual.copy()
        at = before.at.copy()
        run = data.observations.run[data.transitions.frame]
        for index in runs(run):
            basis = hat_basis(len(index), max(4, math.ceil(len(index) / self.spacing)))
            for species in np.flatnonzero(data.moving):
                weight = before.keep[index, species].astype(float)
                if weight.sum() < 4:
                    continue
                residual[index, species] = smooth(before.residual[index, species], weight, basis, self.penalty)
                at[index, species] = smooth(before.at[index, species], weight, basis, self.penalty)
            progress("phase 2", 0.05, "smoothed the residual of a run")
        noise = before.noise / np.sqrt(self.spacing)
        return dataclasses.replace(before, at=np.maximum(at, 0.0), residual=residual, noise=noise)
