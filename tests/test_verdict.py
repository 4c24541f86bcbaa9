import contextlib

import numpy as np
import pytest
from continuous import BRUSSELATOR, CHAIN, LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe
from hypothesis import settings

import metabolismgraph as mg
from metabolismgraph.reactions.identifiability import Identifiability
from metabolismgraph.reactions.verdict import Estimates, judge, notes

CONFIG = mg.load_config("small", ["training.homeostasis_training=false"])
LONG = settings.get_current_profile_name() == "long"


def promised(identifiable):
    known = np.array(identifiable)
    return Identifiability(known, np.eye(len(known))[:, ~known], np.ones(len(known)), (), ())


def estimates(n, **changes):
    made = {
        "k": np.ones(n),
        "error": np.full(n, 0.01),
        "seen": np.ones(n, dtype=bool),
        "at_bound": np.zeros(n, dtype=bool),
        "sampling_error": np.full(n, np.nan),
    }
    return Estimates(**(made | changes))


def test_every_reason_is_named_and_takes_the_constant_out():
    n = 6
    found = judge(
        promised([True, True, True, True, True, False]),
        promised([True] * n),
        estimates(
            n,
            error=np.array([0.01, 1.0, 0.01, 0.01, 0.01, 0.01]),
            seen=np.array([True, True, False, True, True, True]),
            at_bound=np.array([False, False, False, True, False, False]),
            k=np.array([1.0, 1.0, 1.0, -0.001, 1.0, 1.0]),
            sampling_error=np.array([0.001, 0.0, 0.0, 0.0, 0.3, 0.0]),
        ),
    )
    assert found.reason == (
        "",
        "its 95 % interval spans more than a decade",
        "only in excluded steps",
        "zero within its error",
        "samples are too far apart",
        "not distinguishable from homeostasis",
    )
    assert found.determined.tolist() == [True, False, False, False, False, False]
    assert np.isinf(found.log_k_error[1:]).all()
    assert found.upper[3] == pytest.approx(0.0196)
    assert np.isnan(np.delete(found.upper, 3)).all()
    assert found.lost.tolist() == [False, True, True, True, True, False]
    said = notes(found, tuple("abcdef"))
    assert len(said) == 4
    assert any("too far apart for e" in line for line in said)


def test_noise_may_be_as_large_as_an_error_by_sampling():
    found = judge(
        promised([True]), promised([True]), estimates(1, error=np.full(1, 0.1), sampling_error=np.full(1, 0.3))
    )
    assert found.determined[0]
    assert found.log_k_error[0] == pytest.approx(np.hypot(0.1, 0.3) / np.log(10))


@pytest.mark.parametrize(
    ("system", "law", "n"),
    [
        *((system, "auto", n) for system in (MICHAELIS_MENTEN, LOTKA_VOLTERRA, BRUSSELATOR, CHAIN) for n in (40, 401)),
        (MICHAELIS_MENTEN, "learned", 40),
        (LOTKA_VOLTERRA, "learned", 401),
    ],
)
def test_fit_never_claims_what_identify_does_not_promise(system, law, n):
    observations = observe(system, np.linspace(0, 20, n))
    result = mg.fit(observations, CONFIG.override([f"graph_model.rate_law={law}"]))
    seen, _ = observations.split(CONFIG.training.held_out_fraction)
    ours, theirs = (
        result.rate_constants["identifiable"].to_numpy(),
        mg.identify(observations.network, seen).identifiable,
    )
    assert not (ours & ~theirs).any()
    assert all(result.rate_constants["reason"][theirs & ~ours])
    said = " ".join(result.phase1.notes)
    for name, reason in zip(observations.network.reactions, result.phase1.reasons, strict=True):
        assert not reason or name in said or not theirs[observations.network.reactions.index(name)]


def test_intervals_cover_the_truth():
    """Errors by sampling and by noise together: of all determined constants about 95 % lie within."""
    inside = []
    for system in (MICHAELIS_MENTEN, LOTKA_VOLTERRA, BRUSSELATOR, CHAIN):
        for n in (61, 101, 151, 251, 301, 401, 601) if LONG else (61, 151, 401):
            table = mg.fit(observe(system, np.linspace(0, 20, n)), CONFIG).rate_constants
            given = table[table["lower"].notna() & table["identifiable"]].to_dict("records")
            inside += [row["lower"] <= system[1][row["reaction"]] <= row["upper"] for row in given]
    assert len(inside) > (25 if LONG else 10)
    assert np.mean(inside) > 0.9


@pytest.mark.parametrize("n", [6, 7, 8, 10, 12])
def test_a_handful_of_frames_is_no_crash(n):
    """Either there are too few equations, and that is said, or there is an answer."""
    for system in (LOTKA_VOLTERRA, CHAIN):
        result = None
        with contextlib.suppress(mg.InputError):  # too few equations for so many unknowns
            result = mg.fit(observe(system, np.linspace(0, 5, n)), CONFIG)
        assert result is None or len(result.rate_constants) == len(system[1])


def test_parallel_losses_are_hidden_by_homeostasis_and_not_by_each_other_alone():
    reactions = {"one": ({"A": 1}, {}), "two": ({"A": 1}, {}), "make": ({"B": 1}, {"A": 1, "B": 1})}
    system = (reactions, {"one": 0.1, "two": 0.2, "make": 0.3}, {"A": 4.0, "B": 2.0})
    table = mg.fit(observe(system, np.linspace(0, 20, 201)), CONFIG).rate_constants.set_index("reaction")
    assert table.loc["one", "reason"] == table.loc["two", "reason"] == "not distinguishable from homeostasis"
    assert table.loc["one", "k"] + table.loc["two", "k"] == pytest.approx(0.3, rel=0.01)
