"""The benchmark of textbook networks: what is simulated, how it is corrupted, and how answers are scored."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from command_line import call, refused

from metabolismgraph.benchmarks import models, textbook_cases
from metabolismgraph.benchmarks.models import (
    Answer,
    Constant,
    Outcome,
    fit_case,
    plan,
    read_answer,
    row,
    run_case,
    run_models,
    score,
    verdict,
)
from metabolismgraph.benchmarks.models_report import differences, markdown, totals, wilson
from metabolismgraph.benchmarks.textbook_cases import KINDS, Case, NoTwin, in_units, make, unexplained
from metabolismgraph.benchmarks.textbook_networks import (
    NETWORKS,
    KnownReaction,
    as_network,
    as_observations,
    find,
    largest_step,
    rates,
    simulate,
    stoichiometry,
)
from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError, TrainingFailedError
from metabolismgraph.formats.dataset import NETWORK
from metabolismgraph.formats.network_and_table import read_with_model
from metabolismgraph.system.kinetics import Structure, aggregate, mass_action, pair_concentrations
from metabolismgraph.system.progress import silent

BY_NAME = {n.name: n for n in NETWORKS}
every_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)


# -- the networks


def test_there_are_enough_networks_of_all_sizes():
    assert len(NETWORKS) >= 20
    assert len({n.name for n in NETWORKS}) == len(NETWORKS)
    assert min(n.n_points for n in NETWORKS) == 50
    assert max(n.n_points for n in NETWORKS) == 1000
    assert sum(len(n.runs) > 1 for n in NETWORKS) >= len(NETWORKS) / 3


@every_network
def test_samples_follow_the_dynamics(network):
    table = simulate(network)
    assert table.n_points == network.n_points
    assert largest_step(table) < 0.3
    assert (table.concentration >= 0).all()
    assert set().union(*network.runs) <= set(network.species)


@every_network
def test_files_say_what_was_simulated(network, tmp_path):
    case = make(network, "clean")
    case.write(tmp_path)
    observations, model = read_with_model(tmp_path / NETWORK, tmp_path / textbook_cases.TABLE)
    expected = as_network(network.name, network.reactions, network.species, network.fixed)
    found = [dataclasses.replace(r, mass_action=True) for r in model.network.to_reactions()]
    assert found == expected.to_reactions()
    assert model.network.fixed.tolist() == expected.fixed.tolist()
    assert not any("not mass action" in note for note in model.notes)
    assert not model.rate_constants  # nobody is told the truth
    np.testing.assert_allclose(observations.concentration, case.table.concentration, rtol=1e-8)
    assert len(np.unique(observations.run)) == len(network.runs)


def test_equations_are_read():
    reaction = KnownReaction.parse("r", 2.0, "A + 2 B -> B + C")
    assert reaction.orders == {"A": 1, "B": 2}
    assert reaction.net == {"A": -1, "B": -1, "C": 1}
    assert reaction.order == 3
    assert KnownReaction.parse("in", 1.0, "-> A").net == {"A": 1}
    assert KnownReaction.parse("out", 1.0, "A ->").orders == {"A": 1}


def test_simulation_matches_the_solution_by_hand():
    table = simulate(BY_NAME["autocatalysis"])
    whole, b = 1.01, 0.01
    expected = whole / (1 + (whole - b) / b * np.exp(-whole * table.time))  # logistic growth
    np.testing.assert_allclose(table.concentration[:, 1], expected, rtol=1e-8)


def test_rates_agree_with_the_library():
    network = BY_NAME["brusselator"]
    table = simulate(network)
    observations = as_observations(as_network("b", network.reactions, network.species, network.fixed), table)
    structure = Structure.of(observations.network)
    log_c, present = pair_concentrations(jnp.asarray(table.concentration), structure)
    v = aggregate(mass_action(log_c, structure.pair_order), present, structure, "mul")
    ours = rates(network.reactions, network.species, table.concentration)
    np.testing.assert_allclose(np.asarray(v) * [r.k for r in network.reactions], ours, rtol=1e-12)
    np.testing.assert_array_equal(
        observations.network.stoichiometry, stoichiometry(network.reactions, network.species, network.fixed)
    )


def test_unknown_names_are_refused():
    assert [n.name for n in find(["sir", "linear_chain"])] == ["linear_chain", "sir"]
    assert len(find([])) == len(NETWORKS)
    with pytest.raises(InputError, match="'nonsense' is no textbook network"):
        find(["nonsense"])
    with pytest.raises(InputError, match="'dirty' is not a kind of case"):
        plan(["sir"], ["dirty"])


# -- corrupted twins


def test_loss_of_a_reaction_shows_only_where_nothing_absorbs_it():
    network = BY_NAME["lotka_volterra"]
    table = simulate(network)
    # first-order birth and death are lines, which homeostasis takes over; hunting is none
    assert max(unexplained(network, table, 0).values()) < 1e-6
    assert max(unexplained(network, table, 2).values()) < 1e-6
    assert max(unexplained(network, table, 1).values()) > 0.5
    case = make(network, "left out")
    assert "without hunt" in case.detail
    assert [r.id for r in case.reactions] == ["birth", "death"]
    assert set(case.truth) == {"birth", "death"}


def test_the_right_law_explains_everything():
    network = BY_NAME["sir"]
    table = simulate(network)
    assert max(unexplained(network, table, 0, network.reactions[0]).values()) < 1e-9


def test_wrong_order_is_in_the_file_and_has_no_truth(tmp_path):
    case = make(BY_NAME["dimerisation"], "wrong order")
    case.write(tmp_path)
    _, model = read_with_model(tmp_path / NETWORK, tmp_path / textbook_cases.TABLE)
    dimerise = model.network.to_reactions()[0]
    assert dimerise.substrates == {"P": 1}
    assert dimerise.net == {"P": -2, "P2": 1}
    assert set(case.truth) == {"split"}


@pytest.mark.parametrize("name", ["sir", "butene_isomers", "robertson", "cyclic_competition", "repressilator"])
def test_coarse_data_jump_in_every_run(name):
    case = make(BY_NAME[name], "coarse")
    assert case.table.n_points >= 20
    assert len(case.table.runs()) == len(BY_NAME[name].runs)
    assert all(largest_step(run) > 0.9 for run in case.table.runs())


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("lotka_volterra", {"Prey": 120, "Pred": 200}),  # circled for ever
        ("brusselator", {"X": 1, "Y": 3, "A": 1, "B": 3}),  # unstable
        ("linear_chain", {"A": 0, "B": 0, "C": 0, "D": 1}),
        ("cyclic_competition", {"A": 0.4, "B": 0.8 / 3, "C": 1 / 3}),
        ("robertson", {"A": 0, "B": 0, "C": 1}),
    ],
)
def test_steady_state_by_hand(name, state):
    case = make(BY_NAME[name], "steady")
    assert (np.diff(case.table.concentration, axis=0) == 0).all()
    found = dict(zip(case.table.species, case.table.concentration[0], strict=True))
    assert found == pytest.approx(state, rel=1e-4, abs=1e-5)


def test_twins_that_cannot_be_are_said_so():
    assert isinstance(make(BY_NAME["butene_isomers"], "left out"), NoTwin)  # linear throughout
    assert make(BY_NAME["autocatalysis"], "left out").reason == "it has only one reaction"
    assert make(BY_NAME["fed_batch"], "steady").reason == "it has no steady state"
    cases, missing = plan(["autocatalysis", "sir"])
    assert [(n.network, n.kind) for n in missing] == [("autocatalysis", "left out")]
    assert [c.kind for c in cases] == [k for k in KINDS if k != "left out"] + list(KINDS)


@pytest.mark.parametrize(("concentration", "time"), models.UNITS)
def test_units_change_numbers_and_not_the_model(concentration, time):
    case = make(BY_NAME["fed_batch"], "clean")
    other = in_units(case, concentration, time)
    known = [dataclasses.replace(r, k=other.truth[r.id]) for r in other.reactions]
    scaled = rates(known, other.table.species, other.table.concentration)
    plain = rates(case.reactions, case.table.species, case.table.concentration)
    np.testing.assert_allclose(scaled, plain * concentration / time, rtol=1e-12)


# -- answers


def case_of(kind="clean", ids=("a", "b", "c"), truth=None, units=(1.0, 1.0), name="made_up"):
    reactions = tuple(KnownReaction.parse(i, 1.0, "X + Y -> X") for i in ids)
    table = textbook_cases.Table(("X", "Y"), np.arange(3.0), np.zeros(3, dtype=np.int64), np.ones((3, 2)))
    return Case(name, kind, reactions, (), table, truth or dict.fromkeys(ids, 1.0), "as told", units)


def answer_of(trustworthy=True, **k):
    constants = {name: c if isinstance(c, Constant) else Constant(c, True) for name, c in k.items()}
    return Answer(constants, trustworthy, () if trustworthy else ("does not fit",))


def test_score_by_hand():
    answer = answer_of(a=1.05, b=Constant(1.5, True, 1.2, 1.8), c=Constant(0.4, True, 0.3, 1.1), d=Constant(9.0, False))
    found = score(case_of(ids="abcd"), answer, ["a", "b"])
    assert found == {
        "n_constants": 4,
        "n_determined": 3,
        "n_close": 1,
        "off": ["b", "c"],
        "far": ["c"],
        "n_bounded": 2,
        "n_inside": 1,
        "contradictions": ["c"],
    }
    assert score(case_of(), answer_of(a=1.0))["contradictions"] is None


def test_constant_of_a_wrong_law_is_wrong_and_a_missing_one_is_not_determined():
    found = score(case_of("wrong order", truth={"a": 1.0}), answer_of(a=1.0, b=1.0), ["a", "b"])
    assert (found["n_determined"], found["off"], found["far"]) == (2, ["b"], ["b"])
    assert score(case_of(), answer_of(a=math.nan))["far"] == ["a"]


@pytest.mark.parametrize(
    ("kind", "outcome", "expected"),
    [
        ("clean", Outcome(answer_of()), "passed"),
        ("clean", Outcome(answer_of(trustworthy=False)), "false alarm"),
        ("clean", Outcome(refused="too few"), "refused"),
        ("coarse", Outcome(answer_of()), "miss"),  # nothing is determined
        ("coarse", Outcome(answer_of(a=1.0, b=1.05)), "recovered"),
        ("coarse", Outcome(answer_of(a=1.0, b=1.2)), "miss"),
        ("coarse", Outcome(answer_of(trustworthy=False, a=1.0)), "caught"),
        ("left out", Outcome(answer_of(a=1.0)), "miss"),
        ("coarse", Outcome(answer_of(trustworthy=False)), "caught"),
        ("steady", Outcome(refused="constant"), "caught"),
        ("clean", Outcome(error="boom"), "error"),
        ("steady", Outcome(error="boom"), "error"),
    ],
)
def test_verdicts(kind, outcome, expected):
    assert verdict(case_of(kind), outcome) == expected


def test_totals_and_report_by_hand():
    cases = [
        (case_of(name="other"), Outcome(answer_of(a=1.0, b=1.01, c=3.0), identified=("a", "b"), cpu_s=10.0)),
        (case_of(), Outcome(answer_of(trustworthy=False, a=0.1), identified=("a",), cpu_s=20.0)),
        (case_of(), Outcome(refused="too | few")),
        (case_of(), Outcome(error="boom")),
        (case_of("coarse"), Outcome(answer_of(a=1.2), identified=("a",))),
        (case_of("coarse"), Outcome(answer_of(a=1.0), identified=("a",))),
        (case_of("steady"), Outcome(refused="constant")),
        (case_of(units=(1e-9, 1.0), name="other"), Outcome(answer_of(a=1e9, b=1.01e9, c=3.3e9))),
    ]
    rows = [row(*c) for c in cases]
    assert totals(rows) == {
        "clean": 4,
        "false_alarms": 2,
        "clean_errors": 1,
        "constants": 12,
        "determined": 4,
        "close": 2,
        "far_warned": 1,
        "far_silent": 1,
        "bounded": 0,
        "inside": 0,
        "corrupted": 3,
        "misses": 1,
        "harmful_misses": 1,
        "recovered": 1,
        "corrupted_errors": 0,
        "compared": 4,
        "contradicted": 1,
        "contradictions": 1,
    }
    text = markdown({"cases": rows, "no_twin": [{"network": "x", "kind": "steady", "reason": "never rests"}]})
    assert "| clean cases with a false alarm | 2 of 3, 66.7% (20.8% to 93.9%) |" in text
    assert "| coarse | 2 | 0 | 0 | 1 | 1 | 1 | 0 | 0 | 1 of 2, 50.0% (9.5% to 90.5%) |" in text
    assert "| made_up | clean | 3 | **refused** | - | - | - | - | - | - | as told | too / few |" in text
    assert "| other | 1e-09 | 1 | passed | passed | yes | 0.091 | 0.091 |" in text
    assert "- x, steady: never rests" in text
    assert "CPU seconds per case, median (quartiles; range) | 15.0 (12.5 to 17.5; 10.0 to 20.0)" in text
    json.dumps(rows, allow_nan=False)


def test_differences_of_what_is_not_a_number():
    one, two = (row(case_of(), Outcome(answer_of(a=Constant(k, False)))) for k in (math.nan, 1.0))
    assert differences(one, two)[2] == math.inf
    assert differences(one, one)[2] == 0
    assert differences(one, row(case_of(), Outcome(error="boom")))[0] == "-"


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilson_intervals(hits, total, low, high):
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)
    assert all(math.isnan(x) for x in wilson(0, 0))


def run_folder(folder, trustworthy=True):
    folder.mkdir()
    columns = ["reaction", "equation", "k", "unit", "log10_k", "standard_error", "lower", "upper"]
    columns += ["identifiable", "combination", "reason"]
    with (folder / "rate_constants.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerow(["a", "A -> B", 0.5, "1/time", -0.3, 0.01, 0.4, 0.6, True, "", ""])
        writer.writerow(["b", "B -> A", "", "1/time", "", "", "", "", False, "a + b", "as weak as, homeostasis"])
    verdict = {"trustworthy": trustworthy, "why_not": [] if trustworthy else ["does not fit"]}
    (folder / "metrics.json").write_text(json.dumps(verdict))
    return folder


def test_answer_is_read_from_the_run_folder(tmp_path):
    answer = read_answer(run_folder(tmp_path / "run", trustworthy=False), ["a note"])
    assert answer.constants["a"] == Constant(0.5, True, 0.4, 0.6)
    b = answer.constants["b"]
    assert math.isnan(b.k)
    assert (b.determined, b.reason) == (False, "as weak as, homeostasis")
    assert (answer.trustworthy, answer.why_not, answer.notes) == (False, ("does not fit",), ("a note",))


def fitted(folder, monkeypatch, fit, limit=30.0):
    make(BY_NAME["reversible_chain"], "clean").write(folder)
    monkeypatch.setattr(models, "fit_files", fit)
    return fit_case(folder, limit)


def test_a_case_is_fitted_with_default_settings_and_identify_is_asked(tmp_path, monkeypatch):
    def fit(network, table, config, out):
        assert (network.name, table.name) == ("network.xml", "timeseries.csv")
        assert config == load_config("oscillatory_rank50")
        run_folder(out)
        return SimpleNamespace(notes=("a note",))

    outcome = fitted(tmp_path, monkeypatch, fit)
    assert outcome.answer.notes == ("a note",)
    assert outcome.identified == ("ab", "ba", "bc", "cb")
    assert outcome.cpu_s > 0
    assert (outcome.error, outcome.refused) == (None, None)


@pytest.mark.parametrize(
    ("raised", "refused", "error"),
    [
        (InputError("nothing changes; measure more"), "nothing changes; measure more", None),
        (TrainingFailedError("code 1"), None, "TrainingFailedError: code 1"),
    ],
)
def test_refusals_and_errors_are_told_apart(tmp_path, monkeypatch, raised, refused, error):
    def fit(*_):
        raise raised

    outcome = fitted(tmp_path, monkeypatch, fit)
    assert (outcome.answer, outcome.refused, outcome.error) == (None, refused, error)


def test_a_fit_that_does_not_end_is_an_error(tmp_path, monkeypatch):
    """Also where it handles failures of its methods."""

    def fit(*_):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(60)

    outcome = fitted(tmp_path, monkeypatch, fit, limit=0.005)
    assert outcome.error == "given up after 0.005 minutes"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_quick_fits_have_processes_of_their_own(tmp_path):
    """Of the time limit, and of memory, this process knows nothing."""
    run_models(tmp_path, lambda *_: None, networks=["sir"], kinds=["steady", "clean"], quick=True)
    rows = json.loads((tmp_path / "models.json").read_text())["cases"]
    assert [row["verdict"] for row in rows] == ["passed", "caught"]
    assert rows[0]["constants"].keys() == {"infect", "recover"}


# -- the whole


@pytest.mark.skipif(sys.platform != "linux", reason="what the kernel does for a process, on Linux")
def test_processes_of_quick_fits_end_with_the_benchmark():
    """Otherwise, a fit goes on for up to half an hour after the benchmark was killed."""
    code = (
        "import os, time; from metabolismgraph.benchmarks.models import _executor; "
        "print(_executor(1, quick=True).submit(os.getpid).result(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as benchmark:
        worker = int(benchmark.stdout.readline())
        assert psutil.pid_exists(worker)
        benchmark.kill()
    gone, _ = psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=30)
    assert gone or not psutil.pid_exists(worker)


def test_every_case_is_run_and_written_down(tmp_path, monkeypatch):
    def answered(case, folder, limit):
        assert limit == 30
        assert os.environ["JAX_COMPILATION_CACHE_DIR"]
        if case.kind == "steady":
            return Outcome(refused="nothing changes")
        return Outcome(answer_of(trustworthy=case.kind == "clean", **case.truth), identified=tuple(case.truth))

    monkeypatch.setattr(models, "run_case", answered)
    seen = []
    text = run_models(tmp_path, lambda *x: seen.append(x), networks=["sir"], units=True, workers=1)
    result = json.loads((tmp_path / "models.json").read_text())
    assert [r["kind"] for r in result["cases"]] == [*KINDS, "clean", "clean", "clean"]
    assert {r["verdict"] for r in result["cases"]} == {"passed", "caught"}
    assert (tmp_path / "models.md").read_text() == text
    assert seen[-1][1] == 1.0
    assert text.count("| sir |") == 8 + 3


def test_cache_of_compiled_code_is_taken_away_again(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    with models._compiled_once():
        assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).is_dir()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


def test_what_cannot_be_fitted_is_an_error_and_not_the_end(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "Error" in run_case(make(BY_NAME["autocatalysis"], "clean"), tmp_path / "file", 30.0).error


def test_command_refuses_unknown_networks(monkeypatch, capsys, tmp_path):
    message = refused(monkeypatch, capsys, "benchmark", "models", "--networks", "nonsense", "--out", tmp_path)
    assert "no textbook network" in message


@pytest.mark.slow
def test_one_fit_from_files(monkeypatch, tmp_path):
    command = ("benchmark", "models", "--networks", "autocatalysis", "--kinds", "clean", "--out", tmp_path, "--keep")
    assert call(monkeypatch, *command) == 0
    (found,) = json.loads((tmp_path / "models.json").read_text())["cases"]
    assert found["cpu_s"] > 0
    assert (tmp_path / "cases" / "000_autocatalysis_clean" / "run" / "metrics.json").exists()


def test_progress_may_be_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "run_case", lambda case, folder, limit: Outcome(error="boom"))
    assert "**error**" in run_models(tmp_path, silent, networks=["sir"], kinds=["clean"])
