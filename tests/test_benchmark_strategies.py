"""The strategy benchmark: which cases there are, what their lines become, and that none is run twice."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
from collections import Counter, deque

import pytest
from command_line import QUICK, call, refused
from jobs_here import Here, without_processes, wrong_engines
from rich.console import Console

from metabolismgraph.benchmarks import simulations, speed, strategies, workers
from metabolismgraph.benchmarks.results_file import Results
from metabolismgraph.benchmarks.strategies import (
    CHECKPOINTS,
    STRATEGY_SETS,
    Settings,
    plan,
    run_strategies,
    settings_of,
    write_report,
)
from metabolismgraph.benchmarks.strategy_report import (
    StrategyResults,
    best_set,
    markdown,
    summarise,
    worst_deviation,
)
from metabolismgraph.cli.tables import StrategyBoard
from metabolismgraph.errors import InputError, SimulationDivergedError
from metabolismgraph.explore.engines.base import Ended

TINY = Settings(configs=("small",), seeds=1, strategies=("classical", "residual"), time_steps=(4,), sweeps=False)
HEADER = json.loads(json.dumps(TINY.header()))


def case(strategies="classical", T=4, checkpoint="projection", seed=0, sweep=None, slopes=(1.0, 1.0), **more):
    keys = {"config": "small", "checkpoint": checkpoint, "seed": seed, "strategies": strategies, "T": T}
    found = {
        "slope_ratio": list(slopes),
        "embedding_cluster_acc": 1.0,
        "seconds": 2.0,
        "checkpoint_R2_identifiable": 0.9,
        "checkpoint_residual_rms": 0.1,
    }
    return keys | {"sweep": sweep} | found | more


def failed(**keys):
    row = case(**keys)
    return {key: row[key] for key in ("config", "checkpoint", "seed", "strategies", "T", "sweep")} | {"error": "boom"}


class Watched:
    """Takes the place of the board; can be made to stop the benchmark."""

    def __init__(self, stop_after=None):
        self.planned, self.before, self.rows, self.stop_after = [], [], [], stop_after

    def begin(self, planned, done):
        self.planned, self.before = list(planned), list(done)

    def add(self, row):
        self.rows.append(row)
        if len(self.rows) == self.stop_after:
            raise KeyboardInterrupt


# -- the plan


@pytest.fixture(scope="module")
def everything():
    return plan(Settings(), {"oscillatory_rank50": [0, 1, 2, 3, 5], "types3": [0, 1, 2, 3, 4]})


def test_every_case_is_there_once(everything):
    cases = [c for group in everything for c in group.cases]
    assert len(everything) == 2 * (2 * 3 * 5)
    # 13 sets at four lengths, 5 without; twelve more of the sweeps for each seed of rank50
    assert len(STRATEGY_SETS) == 18
    assert len(cases) == 30 * (13 * 4 + 5) + 5 * 12
    assert len({StrategyResults.identity(c.row()) for c in cases}) == len(cases)
    assert {c.seed for c in cases if c.config == "oscillatory_rank50"} == {0, 1, 2, 3, 5}


def test_sets_without_rollouts_run_once(everything):
    without = {c.strategies for group in everything for c in group.cases if c.T is None}
    alone = {"residual", "orthogonalised", "shooting"}
    assert without == alone | {"residual+contrastive", "orthogonalised+contrastive"}
    quick, slow = everything[0], everything[30]
    assert quick[:3] == slow[:3] == ("oscillatory_rank50", "projection", 0)
    assert Counter(c.strategies for c in quick.cases) == dict.fromkeys(without, 1)
    grid = Counter(c.strategies for c in slow.cases if c.sweep is None)
    assert grid == {name: 4 for name in STRATEGY_SETS if name not in without}


def test_quick_ones_and_first_seeds_come_first_and_sweeps_leave_out_what_the_grid_has(everything):
    assert all(c.T is None for group in everything[:30] for c in group.cases)
    assert {group.seed for group in everything[:6]} == {group.seed for group in everything[30:36]} == {0}
    swept = Counter(c.sweep[0] for c in everything[30].cases if c.sweep)
    assert swept == {
        "learning_rate_node_homeostasis": 3,
        "learning_rate_embedding_homeostasis": 2,
        "data_augmentation_loop": 4,
        "embedding_start": 3,
    }
    assert all(c.sweep is None for group in everything[31:36] for c in group.cases)


def test_quick_form_keeps_every_strategy_alone():
    quick = settings_of(quick=True, seeds=None, configs=("small",))
    assert (quick.seeds, quick.time_steps, quick.sweeps, quick.configs) == (1, (4, 64), False, ("small",))
    assert set(quick.strategies) >= {"classical", *strategies.STRATEGIES}
    assert settings_of(seeds=2).time_steps == (4, 16, 32, 64)


# -- the report


def test_best_set_is_the_one_whose_worst_case_is_least_bad():
    rows = [
        case("residual", None, slopes=(1.0, 1.0), seed=0),
        case("residual", None, slopes=(1.0, 1.5), seed=1),
        case("classical", 4, slopes=(0.7, 1.1)),
        case("classical", 16, slopes=(0.8, 1.1), seed=1),
        case("contrastive", 4),
        failed(strategies="contrastive", T=16, seed=1),
        case("warmup", 4),  # perfect, on fewer simulations
    ]
    assert best_set(rows) == ("classical", pytest.approx(0.3))
    assert best_set(rows, lambda name: name != "classical") == ("residual", 0.5)
    assert best_set([], lambda _: True) is None


def test_report_by_hand(tmp_path):
    sweep = {"key": "learning_rate_node_homeostasis", "value": 0.1}
    rows = [
        case("classical", 4, slopes=(0.5, 0.9), embedding_cluster_acc=0.8),
        case("classical", 4, slopes=(1.0, 1.1), seed=1, embedding_cluster_acc=0.9, seconds=4.0),
        failed(strategies="classical", T=4, seed=2),
        *(case("residual", None, slopes=(1.001, 0.996), seed=seed) for seed in (0, 1, 2)),
        case("residual", None, "imperfect 0.87", slopes=(1.5, 0.9)),
        case("orthogonalised", None, "imperfect 0.87", slopes=(1.01, None)),
        case("classical", 4, sweep=sweep, slopes=(2.0, 3.0)),
    ]
    header = HEADER | {"strategies": ["classical", "residual", "orthogonalised"]}
    report = summarise(Results(header, [{"config": "small", "seed": 7, "error": "blew up"}], rows))
    first = report["grid"][0]
    assert first == {
        "config": "small",
        "checkpoint": "projection",
        "strategies": "classical",
        "T": 4,
        "cases": 3,
        "failed": 1,
        "slope_ratio": [pytest.approx(0.95), 0.5, 1.1],
        "converged_share": pytest.approx(1 / 3),
        "embedding_cluster_acc": pytest.approx(0.85),
        "seconds": 3.0,
    }
    targets = {t["what"]: t for t in report["targets"]}
    best = targets["projection: slope ratios, farthest from 1"]
    assert (best["set"], best["measured"], best["met"]) == ("residual", pytest.approx(0.004), True)
    # A slope that is no number is infinitely far, so the other set is best although it misses.
    imperfect_phase1 = targets["imperfect 0.87: slope ratios, farthest from 1"]
    assert (imperfect_phase1["set"], imperfect_phase1["measured"], imperfect_phase1["met"]) == ("residual", 0.5, False)
    listed = targets["imperfect 0.87: the same, strategies 1-8 only"]
    assert (listed["set"], listed["met"]) == ("residual", False)
    assert targets["failed cases"]["measured"] == 1
    # The sweep has the grid's own three cases at the default.
    assert [(row["value"], row["cases"]) for row in report["sweeps"]] == [(0.01, 3), (0.1, 1)]
    json.dumps(report, allow_nan=False)
    text = markdown(report)
    assert "| classical | 4 | 0.95 (0.5, 1.1) | 33 % | 0.85 | 3 | 3 | 1 |" in text
    assert "| residual | any | 0.9985 (0.996, 1.001) | 100 % | 1 | 2 | 3 | 0 |" in text
    assert "- small, projection, seed 2, classical, T 4: boom" in text
    assert "- small seed 7: blew up" in text
    assert write_report(Results(header, [], rows), tmp_path) == (tmp_path / "strategies.md").read_text()
    assert (tmp_path / "strategies.png").stat().st_size > 10_000


def test_strategies_beyond_the_eighth_do_not_count_as_listed():
    rows = [
        case("contrastive+warmup", 4, "imperfect 0.87", slopes=(1.1, 0.85)),
        case("weak_form+contrastive", 4, "imperfect 0.87"),
        case("classical", 4, "imperfect 0.87", slopes=(1.05, 1.05)),
    ]
    header = HEADER | {"strategies": [row["strategies"] for row in rows]}
    targets = {t["what"]: t for t in summarise(Results(header, [], rows))["targets"]}
    assert targets["imperfect 0.87: slope ratios, farthest from 1"]["set"] == "weak_form+contrastive"
    listed = targets["imperfect 0.87: the same, strategies 1-8 only"]
    assert (listed["set"], listed["measured"], listed["met"]) == ("contrastive+warmup", pytest.approx(0.15), True)


def test_deviation_of_failed_cases_is_infinite():
    assert worst_deviation(case(slopes=(0.9, 1.3))) == pytest.approx(0.3)
    assert worst_deviation(failed()) == worst_deviation(case(slopes=(1.0, None))) == float("inf")


# -- the journal


def test_torn_last_line_is_forgotten_and_done_again(tmp_path):
    journal = StrategyResults.open(tmp_path, HEADER)
    journal.append(case())
    with (tmp_path / "strategies.jsonl").open("ab") as stream:
        stream.write(json.dumps(case(T=16)).encode()[:40])
    again = StrategyResults.open(tmp_path, HEADER)
    assert again.has(case())
    assert not again.has(case(T=16))
    again.append(case(T=16))
    assert [row["T"] for row in StrategyResults.read(tmp_path).cases] == [4, 16]


def test_other_settings_are_refused_and_overwritten_on_demand(tmp_path):
    StrategyResults.open(tmp_path, HEADER).append(case())
    with pytest.raises(InputError, match="other settings \\(seeds\\).*--overwrite"):
        StrategyResults.open(tmp_path, HEADER | {"seeds": 9})
    assert StrategyResults.open(tmp_path, HEADER | {"seeds": 9}, overwrite=True).cases == []


def test_damaged_or_missing_results_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no strategies.jsonl"):
        StrategyResults.read(tmp_path)
    (tmp_path / "strategies.jsonl").write_text('{"seeds": 1}\nnonsense\n{}\n')
    with pytest.raises(InputError, match="strategies.jsonl, line 2: damaged"):
        StrategyResults.read(tmp_path)


# -- running


def done_by_hand(group, settings, folder):
    """Takes the place of the training, in this process."""
    for each in group.cases:
        yield each.row() | {"error": "not trained"}


@pytest.fixture
def untrained(monkeypatch):
    without_processes(monkeypatch)
    monkeypatch.setattr(strategies, "results_of", done_by_hand)


def test_interrupted_benchmark_goes_on_where_it_was(untrained, tmp_path):
    first = Watched(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run_strategies(TINY, tmp_path, 1, first)
    second = Watched()
    run_strategies(TINY, tmp_path, 1, second)
    assert [row["strategies"] for row in second.before] == ["residual", "residual"]
    assert len(second.planned) == 2 * len(CHECKPOINTS)
    assert Counter(map(StrategyResults.identity, first.rows + second.rows)) == Counter(
        map(StrategyResults.identity, second.planned)
    )
    third = Watched()
    run_strategies(TINY, tmp_path, 1, third)
    assert third.rows == []


def half_done(group, settings, out):
    """The first case of a job has a row, and its process then ends."""
    yield group.cases[0].row() | {"error": "not trained"}


def test_what_the_machine_loses_is_listed_and_run_again_by_the_next_command(untrained, monkeypatch, tmp_path):
    monkeypatch.setattr(strategies, "results_of", lambda group, settings, out: iter(()))
    for kind, lost in (("memory", {"memory"}), ("cancelled", {"cancelled"})):
        watched = Watched()
        ends = [Ended(0, f"lost ({kind})", 1.0, "machine", kind)] * 6
        run_strategies(TINY, tmp_path, 1, watched, engine=Here(*ends))
        assert {row["lost"] for row in watched.rows} == lost
        assert len(watched.rows) == len(watched.planned) == len(StrategyResults.read(tmp_path).cases) == 6
    monkeypatch.setattr(strategies, "results_of", half_done)
    run_strategies(TINY, tmp_path, 1, Watched(), engine=Here())
    rows = StrategyResults.read(tmp_path).cases
    assert [row["error"] for row in rows] == ["not trained"] * 6
    assert len(set(map(StrategyResults.identity, rows))) == 6
    assert not (tmp_path / "jobs").exists()


def test_a_case_at_which_a_job_ends_twice_has_its_reason_and_the_others_go_on(untrained, monkeypatch, tmp_path):
    def trained(group, settings, out):
        for case in group.cases:
            if case.strategies == "classical" and case.T == 4:
                return
            yield case.row() | {"error": "not trained"}

    monkeypatch.setattr(strategies, "results_of", trained)
    settings = dataclasses.replace(TINY, time_steps=(4, 16))
    ends = [Ended(0, "was killed by SIGSEGV", 1.0)] * 99
    run_strategies(settings, tmp_path, 1, Watched(), engine=Here(*ends))
    reasons = {(row["strategies"], row["T"]): row["error"] for row in StrategyResults.read(tmp_path).cases}
    assert reasons == {
        ("classical", 4): "was killed by SIGSEGV",
        ("classical", 16): "not trained",
        ("residual", None): "not trained",
    }


@wrong_engines
def test_wrong_engines_are_refused_before_anything_is_written(monkeypatch, capsys, tmp_path, options, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert message in refused(monkeypatch, capsys, "benchmark", "strategies", "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_configuration_without_data_is_named(untrained, monkeypatch, tmp_path):
    def survey(name, settings):
        yield {"kind": "seeds", "config": name, "seeds": [], "diverged": [{"config": name, "seed": 0, "error": "why"}]}

    monkeypatch.setattr(simulations, "survey", survey)
    for _ in range(2):  # the second time from what is written down
        with pytest.raises(InputError, match="small: no seed gives data \\(why\\)"):
            run_strategies(TINY, tmp_path, 1, Watched())


def test_survey_takes_the_next_seed_for_one_that_blew_up(monkeypatch):
    def simulate(config):
        if config.simulation.seed == 1:
            raise SimulationDivergedError("blew up")

    monkeypatch.setattr(simulations, "simulate", simulate)
    (found,) = simulations.survey("small", dataclasses.replace(TINY, seeds=3))
    assert found["seeds"] == [0, 2, 3]
    assert found["diverged"] == [{"config": "small", "seed": 1, "error": "blew up"}]


def test_speed_command_prints_and_writes_both_figures(monkeypatch, capsys, tmp_path):
    seconds = iter([2.0, 10.0] * 5)
    monkeypatch.setattr(speed, "_seconds", lambda _: next(seconds))
    found = speed._compared(lambda: None, lambda: None, 100, 10)
    assert found == {"steps_per_second": 50.0, "plain_steps_per_second": 1.0, "ratio": 50.0}
    monkeypatch.setattr(speed, "gradient_phase1", lambda: found)
    monkeypatch.setattr(speed, "rollout_step", lambda: found | {"ratio": 13.8})
    assert call(monkeypatch, "benchmark", "speed", "--out", tmp_path) == 0
    assert "13.8" in capsys.readouterr().out
    assert json.loads((tmp_path / "speed.json").read_text())["Phase 2, rollout step"]["ratio"] == 13.8


def test_board_without_a_terminal_prints_lines():
    stream = io.StringIO()
    board = StrategyBoard(Console(file=stream, width=200))
    rows = [case(slopes=(0.9, 1.25)), failed(T=16)]
    board.begin(rows, [])
    for row in rows:
        board.add(row)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 cases, 0 of them finished before"
    assert lines[1].endswith("small, projection, seed 0, classical, T 4: slope ratios 0.9, 1.25, 2.0 s")
    assert "about 0:00:00 left" in lines[2]
    assert lines[2].endswith("T 16: failed, boom")
    Console(file=stream, width=200).print(board)
    assert "2/2  0.25  1 failed" in stream.getvalue()


def test_wrong_strategies_are_refused_before_anything_runs(monkeypatch, capsys, tmp_path):
    command = ("benchmark", "strategies", "--out", tmp_path / "out")
    assert "did you mean residual" in refused(monkeypatch, capsys, *command, "--strategies", "residul")
    assert "both set the" in refused(monkeypatch, capsys, *command, "--strategies", "multi_scale+curriculum")
    assert "named twice" in refused(monkeypatch, capsys, *command, "--strategies", "classical,classical")
    assert not (tmp_path / "out").exists()


def killed_at_the_second(group, settings, folder):
    """Runs in a process: the first case comes out, the second takes the process with it."""
    for each in group.cases:
        if each.strategies == "residual":
            os.kill(os.getpid(), signal.SIGKILL)
        yield each.row() | {"error": "not trained"}


def test_killed_worker_is_tried_once_more_and_costs_its_group_only(tmp_path):
    groups = plan(TINY, {"small": [0]})
    group = groups[3]._replace(cases=(*groups[3].cases, *groups[0].cases))
    journal = StrategyResults.open(tmp_path, HEADER)
    killed = deque([workers.Job(killed_at_the_second, (group, TINY, tmp_path))])
    before = dict(os.environ)
    with workers.environment(1, tmp_path / "compiled"):
        workers.run_jobs(killed, 1, journal)
    assert dict(os.environ) == before
    assert [(row["strategies"], row["error"]) for row in StrategyResults.read(tmp_path).cases] == [
        ("classical", "not trained"),
        ("residual", "the worker process ended twice, with exit code -9"),
    ]


def test_environment_gives_a_worker_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    with workers.environment(1, tmp_path):
        assert {os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")} == {"1"}
        assert os.environ["XLA_FLAGS"] == "--mine --xla_cpu_multi_thread_eigen=false"
    with workers.environment(4, tmp_path):
        assert os.environ["NPROC"] == "4"
        assert "eigen" not in os.environ["XLA_FLAGS"]


def test_cases_are_trained_and_a_failed_one_is_a_row(tmp_path, monkeypatch):
    """A real checkpoint and a real training; then from the saved checkpoint again, with one that cannot work."""
    settings = dataclasses.replace(TINY, data_augmentation_loop=5, overrides=tuple(QUICK[1::2]))
    group = plan(settings, {"small": [0]})[3]
    good = group._replace(cases=group.cases[:1])
    (row,) = strategies.results_of(good, settings, tmp_path)
    assert row.items() >= good.cases[0].row().items()
    assert len(row["slope_ratio"]) == len(row["offset_ratio"]) == 2
    assert row["avg_slope_ratio"] == pytest.approx(sum(row["slope_ratio"]) / 2)
    assert row["phase2_loss_unit"] == "concentration²"
    assert row["gradient_steps"] == 100
    assert row["checkpoint_R2_identifiable"] > 0.999
    assert {path.suffix for path in (tmp_path / "checkpoints").iterdir()} == {".json", ".safetensors", ".lock"}
    monkeypatch.setattr(strategies, "fit_reactions", None)  # the checkpoint is read, not made
    bad = group._replace(cases=(group.cases[0]._replace(T=10_000),))
    (row,) = strategies.results_of(bad, settings, tmp_path)
    assert row["error"].startswith("InputError: training.homeostasis_time_step is 10000")
    (row,) = strategies.results_of(good._replace(config="nowhere"), settings, tmp_path)
    assert row["error"].startswith("InputError: nowhere: neither a file nor a shipped configuration")


def test_report_of_what_is_there(monkeypatch, capsys, tmp_path):
    StrategyResults.open(tmp_path, HEADER).append(case())
    assert call(monkeypatch, "benchmark", "strategies", "--report-only", "--out", tmp_path) == 0
    assert "1 cases, 0 failed" in capsys.readouterr().out
    again = ("benchmark", "strategies", "--out", tmp_path, "--configs", "small", "--seeds", 2)
    assert "holds results of other settings" in refused(monkeypatch, capsys, *again)
