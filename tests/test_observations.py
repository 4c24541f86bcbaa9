"""Observations: promises checked on construction, transitions, splitting, files."""

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import network_of

from metabolismgraph.errors import InputError
from metabolismgraph.system.observations import Observations

NETWORK = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), species="AB")


def observe(time, run=None, concentration=None):
    time = np.asarray(time, dtype=float)
    return Observations(
        network=NETWORK,
        time=time,
        run=np.zeros(len(time), dtype=np.int64) if run is None else np.asarray(run),
        concentration=np.ones((len(time), 2)) if concentration is None else np.asarray(concentration, dtype=float),
    )


def test_transitions_and_their_derivative():
    observed = observe([0, 1, 3], concentration=[[1, 2], [4, 2], [2, 8]])
    steps = observed.transitions()
    assert steps.dt.tolist() == [1, 2]
    assert steps.derivative.tolist() == [[3, 0], [-1, 3]]
    assert steps.frame.tolist() == [0, 1]
    assert observed.n_frames == 3
    assert steps.select(np.array([False, True])).derivative.tolist() == [[-1, 3]]


runs_of_frames = st.lists(st.integers(1, 6), min_size=1, max_size=5).filter(lambda lengths: max(lengths) > 1)


@settings(deadline=None)
@given(lengths=runs_of_frames, fraction=st.floats(0, 0.5))
def test_transitions_never_straddle_runs(lengths, fraction):
    run = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([np.arange(n) for n in lengths])
    # The concentration tells the run and the frame that it belongs to.
    observed = observe(time, run, np.stack([run, time], axis=1))
    first, rest = observed.split(fraction)
    for part in (observed, first, rest):
        if part is None:
            continue
        steps = part.transitions()
        assert len(steps.dt) == sum(n - 1 for n in np.bincount(part.run) if n)
        np.testing.assert_array_equal(steps.start[:, 0], steps.end[:, 0])
        np.testing.assert_array_equal(steps.end[:, 1] - steps.start[:, 1], steps.dt)
        np.testing.assert_array_equal(part.concentration[steps.frame], steps.start)
    if rest is not None:
        assert first.n_frames + rest.n_frames == observed.n_frames
        assert rest.n_frames <= fraction * observed.n_frames
        for r in np.unique(rest.run):
            assert first.time[first.run == r].max(initial=-1) < rest.time[rest.run == r].min()


def test_split_parts_off_the_end_of_every_run():
    observed = observe([*range(10), *range(10)], [0] * 10 + [1] * 10)
    first, rest = observed.split(0.2)
    assert first.time.tolist() == [*range(8), *range(8)]
    assert rest.time.tolist() == [8, 9, 8, 9]
    assert rest.run.tolist() == [0, 0, 1, 1]
    assert observed.held_out(0.2).tolist() == ([False] * 8 + [True] * 2) * 2


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_split_keeps_all_where_the_rest_would_hold_no_change(fraction):
    observed = observe([0, 1, 2, 3, 4])
    assert observed.split(fraction) == (observed, None)


@pytest.mark.parametrize(
    ("time", "run", "concentration", "message"),
    [
        (
            [0, 1],
            None,
            [[1, np.nan], [1, np.nan]],
            "concentration of B at frame 0 (time 0) is nan, which is not a finite number (and 1 more); fill or drop it",
        ),
        (
            [0, 1.5],
            None,
            [[1, 1], [np.inf, 1]],
            "concentration of A at frame 1 (time 1.5) is inf, which is not a finite number; fill or drop it",
        ),
        (
            [0, 1],
            None,
            [[1, 1], [1, -0.25]],
            "concentration of B at frame 1 (time 1) is -0.25, which is negative; set it to 0 if it is noise, or leave "
            "it empty",
        ),
        ([0, np.nan], None, None, "the time of frame 1 is not finite"),
        (
            [0, 2, 2],
            None,
            None,
            "time does not increase at frame 2 (2 -> 2); sort the rows by time and remove repeats",
        ),
        (
            [0, 2, 1],
            None,
            None,
            "time does not increase at frame 2 (2 -> 1); sort the rows by time and remove repeats",
        ),
        ([0], None, None, "at least two frames of one run are needed for a change of concentration"),
        ([0, 1], [0, 1], None, "at least two frames of one run are needed for a change of concentration"),
        ([0, 1, 2, 3], [0, 0, 1, 0], None, "frame 3 goes back to run 0; sort the rows by run, then by time"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(time, run, concentration, message):
    with pytest.raises(InputError) as caught:
        observe(time, run, concentration)
    assert str(caught.value) == f"observations: {message}"


def test_a_wrong_shape(monkeypatch):
    # The shape checks of the tests would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for shape in ((1, 2), (2, 1)):
        with pytest.raises(InputError, match=rf"has shape \({shape[0]}, {shape[1]}\), expected 2 frames x 2 species$"):
            observe([0, 1], concentration=np.ones(shape))


def test_time_may_start_again_with_another_run():
    assert len(observe([5, 6, 0, 1], [0, 0, 1, 1]).transitions().dt) == 2


@pytest.mark.parametrize("part", range(6))
def test_parts_of_the_frames_are_held_out_in_turn(part):
    """Five parts of a run; a part within the run leaves two runs, without a step across the gap."""
    data = observe(np.arange(10.0))
    held = data.held_out(0.2, part)
    first = 8 - 2 * (part % 5)
    assert np.flatnonzero(held).tolist() == [first, first + 1]
    seen, unseen = data.split(0.2, part)
    assert unseen.n_frames == 2
    assert set(np.unique(seen.transitions().dt)) == {1.0}
    assert len(np.unique(seen.run)) == (2 if 0 < first < 8 else 1)


def test_what_is_interpolated_between_a_small_value_and_zero_is_not_negative():
    """The last bits of a cubic can be, and a negative concentration would be refused."""
    c = np.full((9, 2), np.nan)
    c[[0, 3, 8], 0] = c[[0, 3, 8], 1] = 0.1, 2e-4, 0.0
    data = Observations.with_gaps(NETWORK, 0.1 * np.arange(9), np.zeros(9, dtype=np.int64), c)
    assert (data.concentration >= 0).all()
    np.testing.assert_array_equal(data.concentration[[0, 3, 8], 0], c[[0, 3, 8], 0])
    np.testing.assert_array_equal(np.flatnonzero(data.measured[:, 0]), [0, 3, 8])
