"""What the fit of a PEtab problem finds."""

from __future__ import annotations

import dataclasses

import pandas as pd

from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.overview import Overview, Rows

AT_LOWER, AT_UPPER, FLAT, OTHER = "at its lower bound", "at its upper bound", "not determined", "not unique"
STILL_IMPROVING, OUT_OF_TIME = "MAXITER", "OUT_OF_TIME"  # endings of a start that has not reached an optimum
SAME = 0.1  # difference of the objective below which two starts have found the same optimum


@dataclasses.dataclass(frozen=True, repr=False)
class PetabFit(Overview):
    """Estimates of the parameters of a PEtab problem.

    Attributes:
        problem: as it was read.
        quantity: what is minimised: "-log L", or "-log posterior" with priors.
        objective: its value at the estimates, with the natural logarithm. Densities of priors are those on linear
            scale, or on that of the parameter table where they are given so.
        estimates: by parameter: `estimate`, `lower_95`, `upper_95` on linear scale, `standard_error` on the scale of
            the parameter table, in version 2 on log10 scale for a positive lower bound (NaN at a bound), `note`: empty,
            "at its lower bound", "at its upper bound", "not determined", or "not unique": another start has an equal
            likelihood with a value far outside the interval.
        starts: by number: `objective`, `evaluations`, `seconds`, `ending`: the reason as fides names it, or
            "OUT_OF_TIME".
        points: by number of the start: the parameters that it found, on linear scale.
        simulation: see `simulate_petab`, at the estimates.
        held_out: see `predicted`; without rows if nothing was held out.
        notes: sentences on what not to trust.
    """

    problem: PetabProblem
    quantity: str
    objective: float
    estimates: pd.DataFrame
    starts: pd.DataFrame
    points: pd.DataFrame
    simulation: pd.DataFrame
    held_out: pd.DataFrame
    notes: tuple[str, ...]

    def _overview(self) -> tuple[str, Rows]:
        rows: list[tuple[str, object]] = [
            (self.quantity, f"{self.objective:.6g}"),
            ("starts that found it", f"{self.reached} of {len(self.starts)}"),
        ]
        return "fit of a PEtab problem", [*rows, *(("note", note) for note in self.notes)]

    def _frame(self) -> pd.DataFrame:
        return self.estimates.reset_index()

    @property
    def reached(self) -> int:
        """The number of starts that found the best likelihood."""
        return int((self.starts["objective"] < self.objective + SAME).sum())

    @property
    def ended(self) -> bool:
        """Whether the best start reached an optimum, not a limit of time or steps."""
        best = int(self.starts["objective"].argmin())
        return self.starts["ending"].iloc[best] not in (STILL_IMPROVING, OUT_OF_TIME)
