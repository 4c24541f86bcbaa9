"""The report of the strategy benchmark, from its file of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from metabolismgraph.benchmarks.markdown import median, shown, shown_spread, spread, table
from metabolismgraph.benchmarks.results_file import STRATEGY_LINES, Results, ResultsFile, Row
from metabolismgraph.homeostasis.strategies import STRATEGIES
from metabolismgraph.metrics import Value

_LAST_LISTED = 8  # strategies 1-8 are those of the published design, which do not correct the frozen reactions
_GOOD = 0.2  # a slope ratio within 0.8-1.2 is converged
# Checkpoint -> largest |slope ratio - 1| and lowest accuracy of the best set.
_TARGETS = {"projection": (0.01, 1.0), "imperfect 0.87": (0.02, 0.98), "imperfect 0.70": (0.05, 0.95)}


class StrategyResults(ResultsFile):
    """The file of results of this benchmark."""

    lines: ClassVar = STRATEGY_LINES
    keys: ClassVar = ("config", "checkpoint", "seed", "strategies", "T", "sweep")


def summarise(results: Results) -> Row:
    """All tables of the report, and their cases."""
    cases, header = results.cases, results.header
    grid = on_grid(cases)
    checkpoints = list(dict.fromkeys(c["checkpoint"] for c in grid))
    pairs = [(a, b) for a in header["configs"] for b in checkpoints]
    return {
        "settings": header,
        "n_cases": len(cases),
        "n_failed": sum("error" in c for c in cases),
        "targets": _targets(grid, cases),
        "checkpoints": [row for pair in pairs for row in _checkpoint_row(_at(grid, *pair), *pair)],
        "grid": [
            {"config": a, "checkpoint": b, **row}
            for a, b in pairs
            for row in _by(_at(grid, a, b), ("strategies", "T"), header["strategies"])
        ],
        "sweeps": _sweeps(cases, header["defaults"]),
        "diverged": results.diverged,
        "cases": cases,
    }


def worst_deviation(case: Row) -> float:
    """Largest |slope ratio - 1| over the types; infinite without a ratio."""
    found = case.get("slope_ratio") or [None]
    return max(math.inf if ratio is None else abs(ratio - 1) for ratio in found)


def on_grid(cases: Iterable[Row]) -> list[Row]:
    return [c for c in cases if c["sweep"] is None]


def _at(cases: Iterable[Row], config: str, checkpoint: str) -> list[Row]:
    return [c for c in cases if (c["config"], c["checkpoint"]) == (config, checkpoint)]


# -- targets


def _targets(grid: list[Row], cases: list[Row]) -> list[Row]:
    rows = []
    for checkpoint, (within, accuracy) in _TARGETS.items():
        mine = [c for c in grid if c["checkpoint"] == checkpoint]
        best = best_set(mine)
        if best is None:
            continue
        rows.append(_nearness(f"{checkpoint}: slope ratios, farthest from 1", *best, within))
        lowest = min(c.get("embedding_cluster_acc") or 0.0 for c in mine if c["strategies"] == best[0])
        what = f"{checkpoint}: accuracy, lowest"
        rows.append(_target(what, best[0], f"at least {accuracy:g}", lowest, lowest >= accuracy))
        listed = best_set(mine, _listed) if checkpoint == "imperfect 0.87" else None
        if listed is not None:
            rows.append(_nearness(f"{checkpoint}: the same, strategies 1-8 only", *listed, _GOOD))
    failed = sum("error" in c for c in cases)
    return [*rows, _target("failed cases", "", "none", failed, failed == 0)]


def _nearness(what: str, name: str, worst: float, within: float) -> Row:
    target = f"within {within:g}" + (" (0.8-1.2)" if within == _GOOD else "")
    return _target(what, name, target, _number(worst), worst <= within)


def _target(what: str, name: str, target: str, measured: Value, met: bool) -> Row:
    return {"what": what, "set": name, "target": target, "measured": measured, "met": met}


def _listed(strategies: str) -> bool:
    return all(name in STRATEGIES and STRATEGIES[name].number <= _LAST_LISTED for name in strategies.split("+"))


def best_set(cases: list[Row], wanted: Callable[[str], bool] = lambda _: True) -> tuple[str, float] | None:
    """The set of strategies with the best worst case, and the largest distance of its slope ratios from 1.

    Worst over every configuration, seed, type and rollout length; a failed case counts as infinite. Only sets with the
    largest number of simulations compete: in an unfinished benchmark, fewer cases would be an advantage.
    """
    worst: dict[str, float] = {}
    simulations: dict[str, set[tuple[str, int]]] = {}
    for case in cases:
        name = case["strategies"]
        if wanted(name):
            worst[name] = max(worst.get(name, 0.0), worst_deviation(case))
            simulations.setdefault(name, set()).add((case["config"], case["seed"]))
    most = max(map(len, simulations.values()), default=0)
    return min(
        ((name, value) for name, value in worst.items() if len(simulations[name]) == most),
        key=lambda item: item[1],
        default=None,
    )


# -- tables


def _checkpoint_row(cases: list[Row], config: str, checkpoint: str) -> list[Row]:
    """Properties of the checkpoints of one kind, one value per simulation."""
    by_seed = {c["seed"]: c for c in cases if "error" not in c}
    if not by_seed:
        return []
    row: Row = {"config": config, "checkpoint": checkpoint, "simulations": len(by_seed)}
    for name in ("checkpoint_R2_identifiable", "checkpoint_residual_rms"):
        row[name] = spread([c[name] for c in by_seed.values()])
    return [row]


def _by(cases: list[Row], keys: Sequence[str], order: Sequence[str]) -> list[Row]:
    """A row for every combination of keys: statistics over its seeds and types."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for case in sorted(cases, key=lambda c: (order.index(c["strategies"]), c["T"] or 0)):
        groups.setdefault(tuple(case[key] for key in keys), []).append(case)
    return [dict(zip(keys, group, strict=True)) | _figures(mine) for group, mine in groups.items()]


def _figures(cases: list[Row]) -> Row:
    done = [c for c in cases if "error" not in c]
    return {
        "cases": len(cases),
        "failed": len(cases) - len(done),
        "slope_ratio": spread([ratio for c in done for ratio in c["slope_ratio"]]),
        "converged_share": sum(worst_deviation(c) <= _GOOD for c in cases) / len(cases),
        "embedding_cluster_acc": median([c["embedding_cluster_acc"] for c in done]),
        "seconds": median([c["seconds"] for c in done]),
    }


def _sweeps(cases: list[Row], defaults: Row) -> list[Row]:
    """Rows of every sweep, with the case of the grid among its values."""
    swept = [c for c in cases if c["sweep"] is not None]
    rows = []
    for key, _ in dict.fromkeys((c["sweep"]["key"], None) for c in swept):
        mine = [c for c in swept if c["sweep"]["key"] == key]
        for name, length in dict.fromkeys((c["strategies"], c["T"]) for c in mine):
            same = (mine[0]["config"], mine[0]["checkpoint"], name, length)
            values = {c["sweep"]["value"]: None for c in mine} | {defaults[key]: None}
            for value in sorted(values, key=lambda v: (isinstance(v, str), v)):
                many = [c for c in mine if (c["strategies"], c["T"], c["sweep"]["value"]) == (name, length, value)]
                if value == defaults[key]:
                    grid = on_grid(cases)
                    many = [c for c in grid if (c["config"], c["checkpoint"], c["strategies"], c["T"]) == same]
                if many:
                    rows.append({"key": key, "strategies": name, "T": length, "value": value, **_figures(many)})
    return rows


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- Markdown


def markdown(report: Row) -> str:
    """The report as a page."""
    settings = report["settings"]
    lines = [
        "# Strategies of Phase 2",
        "",
        f"{report['n_cases']} cases, {report['n_failed']} failed. batch_size {settings['batch_size']}, "
        f"data_augmentation_loop {settings['data_augmentation_loop']}, T = homeostasis_time_step. Sets whose objective "
        "has neither rollouts nor windows ran once per seed; their figures (T: any) hold for every T.",
        "",
        "The best set is the one whose worst slope ratio, over all configurations, seeds, types and T, is nearest to "
        "1; a failed case counts as infinitely far, and only sets that ran on the most simulations compete.",
        "",
        *table("what | best set | target | measured | met", map(_of_target, report["targets"])),
        "",
        *table(
            "configuration | checkpoint | simulations | R² of identifiable log10 k | rms of dc/dt left by reactions",
            map(_of_checkpoint, report["checkpoints"]),
        ),
    ]
    for pair in dict.fromkeys((row["config"], row["checkpoint"]) for row in report["grid"]):
        mine = [row for row in report["grid"] if (row["config"], row["checkpoint"]) == pair]
        lines += ["", f"## {pair[0]}, {pair[1]}", "", *_table(mine, ("strategies", "T"))]
    if report["sweeps"]:
        lines += ["", "## Sweeps (projection checkpoint; all else as above)"]
    for key in dict.fromkeys(row["key"] for row in report["sweeps"]):
        mine = [row for row in report["sweeps"] if row["key"] == key]
        lines += ["", f"{key}:", "", *_table(mine, ("strategies", "T", "value"))]
    if report["diverged"]:
        lines += ["", "## Diverging simulations, which have no data (the next seed was used)", ""]
        lines += [f"- {d['config']} seed {d['seed']}: {d['error']}" for d in report["diverged"]]
    failed = [c for c in report["cases"] if "error" in c]
    if failed:
        lines += ["", "## Failed cases", "", *(f"- {described(c)}: {c['error']}" for c in failed)]
    return "\n".join(lines) + "\n"


def described(case: Row) -> str:
    """A case in a few words."""
    text = f"{case['config']}, {case['checkpoint']}, seed {case['seed']}, {case['strategies']}, T {case['T'] or 'any'}"
    sweep = case["sweep"]
    return f"{text}, {sweep['key']} {shown(sweep['value'])}" if sweep else text


def _of_target(row: Row) -> tuple[str, ...]:
    return row["what"], row["set"], row["target"], shown(row["measured"]), "yes" if row["met"] else "NO"


def _of_checkpoint(row: Row) -> tuple[object, ...]:
    spreads = (shown_spread(row[key]) for key in ("checkpoint_R2_identifiable", "checkpoint_residual_rms"))
    return row["config"], row["checkpoint"], row["simulations"], *spreads


def _table(rows: list[Row], keys: Sequence[str]) -> list[str]:
    heads = (
        "slope ratio, median (min, max) | every type in 0.8-1.2 | accuracy, median | seconds, median | cases | failed"
    )
    return table(" | ".join((*keys, heads)), (_of_cases(row, keys) for row in rows))


def _of_cases(row: Row, keys: Sequence[str]) -> tuple[object, ...]:
    place = ("any" if row[key] is None else shown(row[key]) for key in keys)
    medians = (shown(row[key]) for key in ("embedding_cluster_acc", "seconds"))
    converged = f"{100 * row['converged_share']:.0f} %"
    return *place, shown_spread(row["slope_ratio"]), converged, *medians, row["cases"], row["failed"]
