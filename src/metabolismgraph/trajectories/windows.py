"""Time series cut into windows, each with an initial state of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from metabolismgraph.system.observations import Observations


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of consecutive frames of a run, padded to the same length.

    Attributes:
        frame: index of each frame in the observations; beyond the end of a window, that of its last frame.
        valid: 1 for a frame of the window, 0 for padding.
        dt: time to the next frame of the window; 0 at its end.
        wanted: largest number of frames of a window.
    """

    frame: Int[np.ndarray, "windows length"]
    valid: Float[np.ndarray, "windows length"]
    dt: Float[np.ndarray, "windows length"]
    wanted: int

    @classmethod
    def cut(cls, observations: Observations, length: int, *, tied: bool = False) -> Windows:
        """Windows of `length` frames, the last one of a run shorter.

        The frames of a run are divided as evenly as possible, so that no window is much shorter than the others.

        Args:
            tied: whether a window ends in the first frame of the next one, which is not valid in both.

        Example:
            >>> import metabolismgraph as mg
            >>> network = mg.ReactionNetwork.from_reactions("decay", ["A"], [])
            >>> data = mg.Observations(network, np.arange(5.0), np.zeros(5, dtype=int), np.ones((5, 1)))
            >>> Windows.cut(data, 3).frame.tolist()
            [[0, 1, 2], [3, 4, 4]]
        """
        parts, lengths = [], []
        for r in np.unique(observations.run):
            frames = np.flatnonzero(observations.run == r)
            own = np.array_split(frames, -(-len(frames) // length))
            lengths += [len(part) for part in own]
            ends = [part[:1] for part in own[1:]] if tied else []
            parts += [np.concatenate([part, *ends[i : i + 1]]) for i, part in enumerate(own)]
        return cls._of(parts, lengths, np.diff(observations.time, append=0.0), length)

    @classmethod
    def _of(
        cls, frames: list[Int[np.ndarray, " _"]], lengths: list[int], dt: Float[np.ndarray, " frames"], wanted: int
    ) -> Windows:
        """Windows of the given frames.

        Args:
            lengths: numbers of frames that are valid, the first ones of each window.
            dt: time after every frame of the observations.
        """
        longest = max(len(own) for own in frames)
        frame = np.stack([np.pad(own, (0, longest - len(own)), mode="edge") for own in frames])
        valid = np.arange(longest) < np.array(lengths)[:, None]
        moves = np.diff(frame, axis=1, append=frame[:, -1:]) > 0
        return cls(frame, valid.astype(np.float64), np.where(moves, dt[frame], 0.0), wanted)

    def split(self, chosen: Bool[np.ndarray, " windows"], parts: int) -> Windows:
        """The same windows, the chosen ones in parts of at least two frames that are tied to one another.

        Example:
            >>> import metabolismgraph as mg
            >>> network = mg.ReactionNetwork.from_reactions("decay", ["A"], [])
            >>> data = mg.Observations(network, np.arange(8.0), np.zeros(8, dtype=int), np.ones((8, 1)))
            >>> Windows.cut(data, 4, tied=True).split(np.array([True, False]), 2).frame.tolist()
            [[0, 1, 2, 2], [2, 3, 4, 4], [4, 5, 6, 7]]
        """
        found, lengths = [], []
        dt = np.zeros(int(self.frame.max()) + 1)
        moves = self.dt > 0
        dt[self.frame[moves]] = self.dt[moves]
        for frame, valid, long in zip(self.frame, self.valid > 0, chosen, strict=True):
            own = frame[valid]
            pieces = np.array_split(own, max(1, min(parts, len(own) // 2)) if long else 1)
            ends = [piece[:1] for piece in pieces[1:]] + [frame[-1:] if frame[-1] > own[-1] else frame[:0]]
            found += [np.concatenate(both) for both in zip(pieces, ends, strict=True)]
            lengths += [len(piece) for piece in pieces]
        return self._of(found, lengths, dt, self.wanted)

    @property
    def starts(self) -> Int[np.ndarray, " windows"]:
        """The first frame of every window."""
        return self.frame[:, 0]

    @property
    def follows(self) -> Bool[np.ndarray, " gaps"]:
        """For every window but the first one, whether the one before it ends where it starts."""
        return np.asarray(self.frame[:-1, -1] == self.starts[1:])

    @property
    def length(self) -> int:
        return int(self.frame.shape[1])

    def spread(
        self, values: Float[np.ndarray, "windows length species"], n_frames: int
    ) -> Float[np.ndarray, "frames species"]:
        """Values of the windows as a series over the frames."""
        series = np.zeros((n_frames, values.shape[-1]))
        valid = self.valid > 0
        series[self.frame[valid]] = values[valid]
        return series

    def select(self, part: slice | Int[np.ndarray, " some"]) -> Windows:
        """Some of the windows."""
        return Windows(self.frame[part], self.valid[part], self.dt[part], self.wanted)
