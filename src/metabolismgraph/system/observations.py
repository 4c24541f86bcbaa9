"""Observations: concentrations over time and their reaction network, the only data that training may use."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.system.network import ReactionNetwork


@dataclasses.dataclass(frozen=True)
class Transitions:
    """Pairs of consecutive frames of the same run.

    Attributes:
        start, end: concentrations at both ends.
        dt: length of the step, in the time unit of the data, > 0.
        frame: index of the start frame in the observations.
    """

    start: Float[np.ndarray, "transitions species"]
    end: Float[np.ndarray, "transitions species"]
    dt: Float[np.ndarray, " transitions"]
    frame: Int[np.ndarray, " transitions"]

    def select(self, keep: slice | Bool[np.ndarray, " transitions"]) -> Transitions:
        """The chosen transitions."""
        return Transitions(self.start[keep], self.end[keep], self.dt[keep], self.frame[keep])

    @property
    def derivative(self) -> Float[np.ndarray, "transitions species"]:
        """Forward differences (end - start) / dt, in concentration/time: the mean of dc/dt over each step."""
        return np.asarray((self.end - self.start) / self.dt[:, None])


@dataclasses.dataclass(frozen=True, repr=False)
class Observations(Overview):
    """Concentration time series of every species of a network, from one or more runs.

    Attributes:
        network: the reaction network; its order of species is that of `concentration`.
        time: time of each frame, strictly increasing within a run, in the unit of the data.
        run: index of the run of each frame, non-decreasing, from 0.
        concentration: >= 0 and finite, in the unit of the data; interpolated where it was not measured.
        notes: plain sentences on assumptions made when the files were read.
        interpolated: True where a concentration was not measured, see `with_gaps`; None if all were.

    Raises:
        InputError: on construction, if one of these conditions is violated.

    Example:
        >>> import numpy as np
        >>> import metabolismgraph as mg
        >>> network = mg.simulate(mg.load_config("small")).observations.network
        >>> time, run = np.arange(3.0), np.zeros(3, dtype=np.int64)
        >>> observations = mg.Observations(network, time, run, np.ones((3, network.n_species)))
        >>> observations.n_frames, observations.transitions().dt
        (3, array([1., 1.]))
    """

    network: ReactionNetwork
    time: Float[np.ndarray, " frames"]
    run: Int[np.ndarray, " frames"]
    concentration: Float[np.ndarray, "frames species"]
    notes: tuple[str, ...] = ()
    interpolated: Bool[np.ndarray, "frames species"] | None = None

    def _overview(self) -> tuple[str, Rows]:
        filled = 0 if self.interpolated is None else int(self.interpolated.sum())
        rows: list[tuple[str, object]] = [
            ("network", f"{self.network.id}: {self.network.n_species} species, {self.network.n_reactions} reactions"),
            ("frames", self.n_frames),
            ("runs", len(np.unique(self.run))),
            ("time", f"{self.time.min():g} to {self.time.max():g}"),
            ("concentrations not measured", f"{filled} of {self.concentration.size}"),
        ]
        return "observations", [*rows, *(("note", note) for note in self.notes)]

    @classmethod
    def with_gaps(
        cls,
        network: ReactionNetwork,
        time: Float[np.ndarray, " frames"],
        run: Int[np.ndarray, " frames"],
        concentration: Float[np.ndarray, "frames species"],
        notes: tuple[str, ...] = (),
    ) -> Observations:
        """Observations with NaN for a concentration that was not measured.

        Gaps are interpolated by monotone cubics within a run (Fritsch & Carlson 1980), and take the nearest value at
        its ends. Only a fit of trajectories can use such data, and it does not compare with interpolated values.

        Raises:
            InputError: a species was not measured in a run, or as for `Observations`.

        Example:
            >>> network = ReactionNetwork.from_reactions("decay", ["A"], [])
            >>> c = np.array([[4.0], [np.nan], [2.0]])
            >>> observations = Observations.with_gaps(network, np.arange(3.0), np.zeros(3, dtype=int), c)
            >>> observations.concentration[:, 0].tolist(), observations.measured[:, 0].tolist()
            ([4.0, 3.0, 2.0], [True, False, True])
        """
        gaps = np.isnan(concentration)
        if not gaps.any():
            return cls(network, time, run, concentration, notes)
        filled = concentration.copy()
        for r in np.unique(run):
            frames = np.flatnonzero(run == r)
            for i in np.flatnonzero(gaps[frames].any(axis=0)):
                seen = frames[~gaps[frames, i]]
                if not seen.size:
                    where = f" in run {r}" if len(np.unique(run)) > 1 else ""
                    raise InputError(
                        f"observations: {network.species[i]} was not measured{where}; fill it in, remove the run, or "
                        "use `metabolismgraph fit-model`, which takes unmeasured species"
                    )
                filled[frames, i] = _interpolated(time[frames], time[seen], concentration[seen, i])
        return cls(network, time, run, filled, notes, gaps)

    def __post_init__(self) -> None:
        if self.interpolated is not None and self.interpolated.shape != self.concentration.shape:
            raise InputError(
                f"observations: interpolated has shape {self.interpolated.shape}, expected that of concentration, "
                f"{self.concentration.shape}"
            )
        if self.concentration.shape != (len(self.time), self.network.n_species) or len(self.run) != len(self.time):
            raise InputError(
                f"observations: concentration has shape {self.concentration.shape}, expected "
                f"{len(self.time)} frames x {self.network.n_species} species"
            )
        finite = np.isfinite(self.concentration)
        if not finite.all():
            self._complain(~finite, "is not a finite number", "fill or drop it")
        if (self.concentration < 0).any():
            self._complain(self.concentration < 0, "is negative", "set it to 0 if it is noise, or leave it empty")
        if not np.isfinite(self.time).all():
            raise InputError(f"observations: the time of frame {int(np.argmin(np.isfinite(self.time)))} is not finite")
        if (np.diff(self.run) < 0).any():
            k = int(np.argmax(np.diff(self.run) < 0)) + 1
            raise InputError(
                f"observations: frame {k} goes back to run {self.run[k]}; sort the rows by run, then by time"
            )
        within = np.diff(self.run) == 0
        back = np.flatnonzero(within & (np.diff(self.time) <= 0))
        if back.size:
            k = int(back[0])
            raise InputError(
                f"observations: time does not increase at frame {k + 1} ({self.time[k]:g} -> {self.time[k + 1]:g}); "
                "sort the rows by time and remove repeats"
            )
        if len(self.time) < 2 or not within.any():
            raise InputError("observations: at least two frames of one run are needed for a change of concentration")

    def _complain(self, bad: np.ndarray, what: str, remedy: str) -> None:
        """Raise an InputError on the first of the `bad` concentrations."""
        frame, species = (int(x) for x in np.argwhere(bad)[0])
        more = int(bad.sum()) - 1
        raise InputError(
            f"observations: concentration of {self.network.species[species]} at frame {frame} "
            f"(time {self.time[frame]:g}) is {self.concentration[frame, species]:g}, which {what}"
            f"{f' (and {more} more)' if more else ''}; {remedy}"
        )

    @property
    def n_frames(self) -> int:
        return len(self.time)

    @property
    def measured(self) -> Bool[np.ndarray, "frames species"]:
        """True where a concentration was measured."""
        return np.ones(self.concentration.shape, dtype=bool) if self.interpolated is None else ~self.interpolated

    def transitions(self) -> Transitions:
        """All pairs of consecutive frames of the same run."""
        frame = np.flatnonzero(np.diff(self.run) == 0)
        return Transitions(
            start=self.concentration[frame],
            end=self.concentration[frame + 1],
            dt=self.time[frame + 1] - self.time[frame],
            frame=frame,
        )

    def held_out(self, fraction: float, part: int = 0) -> Bool[np.ndarray, " frames"]:
        """True for a part of the frames of every run; all False if it contains no pair of frames.

        Args:
            fraction: share of the frames in a part.
            part: counted from the end of the run, 0 is the last one; after the first part of the run comes the last.
        """
        held = np.zeros(self.n_frames, dtype=bool)
        for r in np.unique(self.run):
            frames = np.flatnonzero(self.run == r)
            length = int(len(frames) * fraction)
            end = len(frames) - length * (part % (len(frames) // length)) if length else 0
            held[frames[end - length : end]] = True
        return held if (np.diff(self.run[held]) == 0).any() else np.zeros_like(held)

    def split(self, fraction: float, part: int = 0) -> tuple[Observations, Observations | None]:
        """The other frames, and those of `held_out` (None if there are none).

        What remains on both sides of a part within a run are two runs: there is no step across the gap.
        """
        held = self.held_out(fraction, part)
        if not held.any():
            return self, None
        kept = np.flatnonzero(~held)
        begins = (np.diff(kept) > 1) | (np.diff(self.run[kept]) != 0)
        seen = self.select(~held)
        run = np.concatenate([[0], np.cumsum(begins)]) if part else seen.run
        return dataclasses.replace(seen, run=run), self.select(held)

    def select(self, keep: np.ndarray) -> Observations:
        """The observations at the frames with `keep` True."""
        return dataclasses.replace(
            self,
            time=self.time[keep],
            run=self.run[keep],
            concentration=self.concentration[keep],
            interpolated=None if self.interpolated is None else self.interpolated[keep],
        )


def _interpolated(
    time: Float[np.ndarray, " frames"], seen: Float[np.ndarray, " some"], values: Float[np.ndarray, " some"]
) -> Float[np.ndarray, " frames"]:
    """Values at some times from those seen: monotone cubics between them, the nearest value beyond."""
    within = np.clip(time, seen[0], seen[-1])
    if len(seen) == 1 or not (np.diff(seen) > 0).all():  # time that goes back is refused later
        return np.asarray(np.interp(within, seen, values))
    found = scipy.interpolate.PchipInterpolator(seen, values)(within)
    return np.asarray(np.clip(found, values.min(), values.max()))  # rounding can lead below zero
