"""The simulator, against steps computed by hand in NumPy from the truth that it gives out."""

import itertools
import re

import numpy as np
import pytest

from metabolismgraph.config import Config, Simulation
from metabolismgraph.errors import InputError, SimulationDivergedError
from metabolismgraph.ground_truth.simulator import random_network, simulate

BASE = {"simulation.n_metabolites": 10, "simulation.n_reactions": 14, "simulation.n_frames": 60}


def configured(**changes):
    keys = {("graph_model." if key == "aggr_type" else "simulation.") + key: value for key, value in changes.items()}
    return Config().replace(BASE | keys)


def run(**changes):
    return simulate(configured(**changes))


@pytest.fixture(scope="module")
def plain():
    return run()


def change(settings, truth, network, c, frame, aggregation="mul"):
    """dc/dt at one state, by hand."""
    rates = np.zeros(network.n_species)
    K = settings.michaelis_constant
    written = network.to_reactions()
    fluxes = truth.k.copy()
    for j, reaction in enumerate(written):
        f = [c[network.species.index(s)] for s in reaction.substrates]
        if not settings.use_mass_action:
            f = [x * (1 + K) / (x + K) for x in f]
        f = [x**order for x, order in zip(f, reaction.substrates.values(), strict=True)]
        fluxes[j] *= (np.sum(f) if aggregation == "add" else np.prod(f)) if f else 1.0
    if settings.flux_limit:
        demand = settings.delta_t * np.maximum(-network.stoichiometry, 0) @ fluxes
        for j in range(network.n_reactions):
            used = network.stoichiometry[:, j] < 0
            fluxes[j] *= min([1.0, *(c[used] / np.maximum(demand[used], 1e-300))])
    rates = network.stoichiometry @ fluxes
    wave = 1 + settings.circadian_amplitude * np.sin(2 * np.pi * frame / settings.circadian_period)
    return rates - truth.lam * (c - truth.baseline * wave)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delta_t": 0.03, "homeostatic_lambda_per_type": [0.5, 0.1]},
        {"use_mass_action": False, "michaelis_constant": 2.0, "cycle_fraction": 0.5},
        {"aggr_type": "add", "cycle_fraction": 0.0, "log_k_max": -2.0, "log_k_min": -3.0},
        {"flux_limit": True, "cycle_fraction": 0.0, "log_k_min": -1.0, "log_k_max": 0.0},
        {"circadian_amplitude": 0.5, "circadian_period": 20.0, "homeostatic_lambda_per_type": [0.5, 0.1]},
        {"baseline_mode": "initial", "homeostatic_lambda_per_type": [0.5, 0.1]},
    ],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_every_frame_follows_from_the_one_before(changes):
    config = configured(**changes)
    observations, truth = simulate(config)
    settings, c = config.simulation, observations.concentration
    for frame in range(len(c) - 1):
        by_hand = c[frame] + settings.delta_t * change(
            settings, truth, observations.network, c[frame], frame, config.graph_model.aggr_type
        )
        np.testing.assert_allclose(c[frame + 1], np.maximum(by_hand, 0), rtol=1e-5, atol=1e-6)


def test_the_flux_limit_bites():
    """The same system without it makes matter from nothing, and blows up."""
    fast = {"cycle_fraction": 0.0, "log_k_min": -1.0, "log_k_max": 0.0, "homeostatic_lambda_per_type": [0.0, 0.0]}
    limited = run(flux_limit=True, **fast).observations.concentration
    np.testing.assert_allclose(limited.sum(axis=1), limited[0].sum(), rtol=1e-5)
    with pytest.raises(SimulationDivergedError, match="set simulation.flux_limit to true"):
        run(**fast)


def test_shapes_and_labels(plain):
    observations, truth = plain
    assert observations.concentration.shape == (61, 10)
    assert observations.network.n_reactions == 14
    np.testing.assert_allclose(observations.time, 0.1 * np.arange(61))
    assert truth.reactions == observations.network.reactions
    assert truth.species == observations.network.species
    assert ((truth.k >= 0.01) & (truth.k <= 0.1)).all()
    assert ((observations.concentration[0] >= 1) & (observations.concentration[0] <= 9)).all()
    assert truth.lam.tolist() == [(0.001, 0.002)[t] for t in truth.type]
    assert truth.baseline.tolist() == [(4, 6)[t] for t in truth.type]
    assert truth.rate_law is None


def test_same_seed_same_bits(plain):
    again, other = run(), run(seed=43)
    np.testing.assert_array_equal(again.observations.concentration, plain.observations.concentration)
    assert again.observations.network.to_json() == plain.observations.network.to_json()
    for name in ("k", "type", "lam", "baseline"):
        np.testing.assert_array_equal(getattr(again.truth, name), getattr(plain.truth, name))
    assert (other.observations.concentration != plain.observations.concentration).all()
    assert other.observations.network.to_json() != plain.observations.network.to_json()
    assert (other.truth.k != plain.truth.k).all()


def test_concentrations_have_the_precision_of_published_data(plain):
    c = plain.observations.concentration
    assert c.dtype == np.float64
    np.testing.assert_array_equal(c, c.astype(np.float32))


def test_runs_start_from_different_states(plain):
    observations, truth = run(n_runs=3)
    assert observations.run.tolist() == [0] * 61 + [1] * 61 + [2] * 61
    assert observations.time[[0, 61, 122]].tolist() == [0, 0, 0]
    assert len(observations.transitions().dt) == 180
    starts = observations.concentration[[0, 61, 122]]
    assert (np.diff(starts, axis=0) != 0).all()
    # The first run is the one that there is without more of them, and all have the same rate constants.
    np.testing.assert_array_equal(observations.concentration[:61], plain.observations.concentration)
    np.testing.assert_array_equal(truth.k, plain.truth.k)


def test_frames_before_the_first_are_not_stored(plain):
    later = run(start_frame=-20).observations
    assert later.n_frames == 61
    np.testing.assert_array_equal(later.concentration[:41], plain.observations.concentration[20:])
    assert later.time[0] == 0


def test_more_frames_than_a_chunk(plain):
    longer = run(n_frames=500).observations
    assert longer.n_frames == 501
    np.testing.assert_array_equal(longer.concentration[:61], plain.observations.concentration)


def test_baseline_initial():
    observations, truth = run(baseline_mode="initial")
    np.testing.assert_allclose(truth.baseline, observations.concentration[0], rtol=1e-7)


def test_measurement_noise(plain):
    noisy = run(measurement_noise_level=0.05).observations.concentration
    clean = plain.observations.concentration
    assert (noisy >= 0).all()
    far = clean > 0.5
    assert np.std((noisy - clean)[far]) == pytest.approx(0.05, rel=0.15)
    assert abs(np.mean((noisy - clean)[far])) < 0.01
    assert np.corrcoef((noisy - clean)[:-1, 0], (noisy - clean)[1:, 0])[0, 1] < 0.5  # not summed up in the state


def test_noise_of_the_process(plain):
    level = 0.01
    moved = run(noise_model_level=level).observations.concentration
    np.testing.assert_array_equal(moved[0], plain.observations.concentration[0])
    first = (moved - plain.observations.concentration)[1]
    assert (first != 0).all()
    assert np.abs(first).max() < 5 * level
    settings = configured().simulation
    observations, truth = plain
    kicks = [
        moved[t + 1] - moved[t] - 0.1 * change(settings, truth, observations.network, moved[t], t) for t in range(60)
    ]
    assert np.std(kicks) == pytest.approx(level, rel=0.1)
    other = run(noise_model_level=level, n_runs=2).observations.concentration
    np.testing.assert_array_equal(other[:61], moved)


@pytest.mark.parametrize("types", [2, 3, 7])
def test_types_are_balanced_and_in_no_order(types):
    same = {"homeostatic_lambda_per_type": [0.001] * types, "homeostatic_baseline_per_type": [5.0] * types}
    truth = run(n_metabolite_types=types, n_frames=1, **same).truth
    counts = np.bincount(truth.type, minlength=types)
    assert counts.max() - counts.min() <= 1
    assert (np.diff(truth.type) < 0).any()


def test_a_saturating_rate_law_is_part_of_the_truth():
    table = run(use_mass_action=False, michaelis_constant=3.0, cycle_fraction=0.3).truth.rate_law
    assert set(table[:, 0]) == {1.0, 2.0}
    for order, c, f in table[::97]:
        assert f == pytest.approx((c * 4 / (c + 3)) ** order)


def test_progress_goes_up_to_one():
    seen = []
    simulate(configured(n_runs=2, n_frames=500), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == 6


# -- networks


def drawn(seed=0, **changes):
    return random_network(Simulation(**changes), "drawn", np.random.default_rng(seed))


@pytest.mark.parametrize("length", [2, 3, 5])
def test_cycles_are_closed(length):
    network = drawn(n_metabolites=20, n_reactions=5 * length, cycle_length=length)
    reactions = network.to_reactions()
    for begin in range(0, len(reactions), length):
        ring = reactions[begin : begin + length]
        losers = [next(s for s, v in r.net.items() if v == -1) for r in ring]
        winners = [next(s for s, v in r.net.items() if v == 1) for r in ring]
        assert winners == [*losers[1:], losers[0]]
        assert len(set(losers)) == length
        for reaction, a, b in zip(ring, losers, winners, strict=True):
            assert reaction.substrates == {a: 1.0, b: 1.0}
            assert reaction.net == {a: -1.0, b: 1.0}


@pytest.mark.parametrize("cycle_fraction", [1.0, 0.0])
def test_hubs_take_part_in_most_reactions(cycle_fraction):
    """Of a thousand species, the most connected one takes part in hundreds of reactions, without hubs in few."""

    def most(hub_share):
        network = drawn(n_metabolites=1000, n_reactions=1800, cycle_fraction=cycle_fraction, hub_share=hub_share)
        return np.sort(np.bincount(network.net_species, minlength=1000))[::-1]

    alike, hubs = most(0.0), most(0.65)
    assert alike[0] < 30
    assert hubs[0] > 250
    assert hubs[:5].sum() > 10 * alike[:5].sum()
    # Zipf's law: the second one has about half as many, the tenth a tenth.
    assert 0.3 < hubs[1] / hubs[0] < 0.8
    assert hubs[9] / hubs[0] < 0.3


def test_what_is_left_of_the_cycles_is_empty():
    network = drawn(n_metabolites=100, n_reactions=256)
    empty = [r for r in network.to_reactions() if not r.substrates and not r.net]
    assert [r.id for r in empty] == ["R255"]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_random_reactions(most):
    network = drawn(n_metabolites=12, n_reactions=200, cycle_fraction=0.0, max_metabolites_per_reaction=most)
    sizes = set()
    for reaction in network.to_reactions():
        gained = {s: v for s, v in reaction.net.items() if v > 0}
        lost = {s: -v for s, v in reaction.net.items() if v < 0}
        assert lost == reaction.substrates
        assert not gained.keys() & lost.keys()
        assert set(gained.values()) | set(lost.values()) <= {1.0, 2.0}
        assert sum(gained.values()) == sum(lost.values())
        sizes |= {len(gained), len(lost)}
    assert sizes == set(range(1, most + 1))


def test_a_share_of_cycles():
    reactions = drawn(n_metabolites=30, n_reactions=40, cycle_fraction=0.3).to_reactions()
    assert [len(r.substrates) == 2 and min(r.net.values()) == -1 for r in reactions[:12]] == [True] * 12
    assert sum(any(s in r.substrates and r.net.get(s, -1) > 0 for s in r.substrates) for r in reactions) == 12


# -- a secret key


def test_a_secret_key_changes_all_but_the_network_and_gives_it_again(plain):
    noisy = configured(secret=True, noise_model_level=0.01, measurement_noise_level=0.01)
    one, other = simulate(noisy), simulate(noisy)
    assert one.observations.network.to_json() == plain.observations.network.to_json()
    again = simulate(noisy, secret=one.truth.secret)
    np.testing.assert_array_equal(again.observations.concentration, one.observations.concentration)
    np.testing.assert_array_equal(again.truth.k, one.truth.k)
    for first, second in itertools.combinations([plain, one, other], 2):
        assert not np.isin(first.truth.k, second.truth.k).any()
        assert not np.isin(first.observations.concentration[0], second.observations.concentration[0]).any()
    assert plain.truth.secret is None
    assert simulate(configured(), secret=one.truth.secret).truth.secret == one.truth.secret


def test_noise_depends_on_the_key():
    still = {
        "log_k_min": -20.0,
        "log_k_max": -20.0,
        "homeostatic_lambda_per_type": [0.0, 0.0],
        "noise_model_level": 0.1,
    }
    changes = []
    for seed, key in ((1, None), (1, bytes(32)), (1, bytes(31) + b"1"), (2, bytes(32))):
        c = simulate(configured(seed=seed, concentration_min=50.0, concentration_max=51.0, **still), secret=key)
        changes.append(np.diff(c.observations.concentration, axis=0)[0])
    assert all(not np.allclose(a, b, atol=1e-3) for a, b in itertools.combinations(changes, 2))


@pytest.mark.parametrize("types", [1, 2, 5])
def test_homeostasis_from_ranges(types):
    ranges = {"homeostatic_lambda_range": [1e-3, 4e-3], "homeostatic_baseline_range": [3, 7]}
    ranges |= {"homeostatic_lambda_per_type": [], "homeostatic_baseline_per_type": []}
    found = [run(seed=seed, n_metabolite_types=types, **ranges).truth for seed in range(5)]
    for truth in found:
        lam, baseline = ([x[truth.type == t][0] for t in range(types)] for x in (truth.lam, truth.baseline))
        assert min(lam) > 1e-3
        assert max(lam) < 4e-3
        assert min(baseline) > 3
        assert max(baseline) < 7
        # Types are apart: by at least half of an equal share of the range.
        assert (np.diff(np.sort(np.log(lam))) > 0.499 * np.log(4) / types).all()
        np.testing.assert_array_equal(truth.lam, np.array(lam)[truth.type])
    assert len({truth.lam.max() for truth in found}) == 5
    fixed = {"homeostatic_lambda_per_type": [0.001] * types, "homeostatic_baseline_per_type": [5.0] * types}
    np.testing.assert_array_equal(found[0].k, run(seed=0, n_metabolite_types=types, **fixed).truth.k)


# -- blow-up


def test_a_blow_up_names_frame_metabolite_and_reaction():
    # Additive rates do not stop where a substrate is used up: mass appears from nothing.
    fast = {"aggr_type": "add", "log_k_min": 0.9, "log_k_max": 1.0, "n_frames": 1000}
    with pytest.raises(SimulationDivergedError) as caught:
        run(**fast)
    message = str(caught.value)
    found = re.match(r"the simulation diverged at frame (\d+): (M\d+) passed 1e\+09, fastest reaction (R\d+) ", message)
    assert found, message
    assert "simulation.delta_t" in message
    frame, metabolite, reaction = int(found[1]), found[2], found[3]
    # Right up to that frame all is well.
    config = configured(**fast | {"n_frames": frame - 1})
    observations, truth = simulate(config)
    with pytest.raises(SimulationDivergedError):
        run(**fast | {"n_frames": frame})
    settings, last = config.simulation, observations.concentration[-1]
    rate = change(settings, truth, observations.network, last, frame - 1, "add")
    species = observations.network.species.index(metabolite)
    assert last[species] + settings.delta_t * rate[species] > 1e9
    fluxes = {
        r.id: k * sum(last[observations.network.species.index(s)] for s in r.substrates)
        for r, k in zip(observations.network.to_reactions(), truth.k, strict=True)
    }
    assert reaction == max(fluxes, key=fluxes.get)
    assert not isinstance(caught.value, InputError)
