"""The report of the noise benchmark, from its file of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from metabolismgraph.benchmarks.markdown import median, shown, shown_spread, spread, table
from metabolismgraph.benchmarks.results_file import Results, ResultsFile, Row

_SPREADS = ("log_k_R2", "log_k_median_error", "accuracy")
_PER_TYPE = ("slope_ratio", "offset_ratio")
_MEDIANS = ("log_k_over_bound", "slope_over_bound", "bound_log_k", "bound_slope", "n_types", "window", "cpu_s")
_COUNTS = ("trustworthy", "silent", "silent_strict")


class NoiseResults(ResultsFile):
    """The file of results of this benchmark."""

    lines: ClassVar = "noise.jsonl"
    keys: ClassVar = ("config", "noise", "every", "seed", "method")


def summarise(results: Results) -> Row:
    """All tables of the report, and their cases."""
    cases, header = results.cases, results.header
    places = [
        (config, noise, every, method)
        for config in header["configs"]
        for noise in header["noise"]
        for every in header["every"]
        for method in header["methods"]
    ]
    keys = ("config", "noise", "every", "method")
    groups = [(place, [c for c in cases if tuple(c[key] for key in keys) == place]) for place in places]
    return {
        "settings": header,
        "n_cases": len(cases),
        "n_failed": sum("error" in c for c in cases),
        "methods": [
            {"method": name, **_totals([c for c in cases if c["method"] == name])} for name in header["methods"]
        ],
        "grid": [dict(zip(keys, place, strict=True)) | _figures(mine) for place, mine in groups if mine],
        "diverged": results.diverged,
        "cases": cases,
    }


def _totals(cases: list[Row]) -> Row:
    """Verdicts of one method over all cases, and the coverage of its intervals in trusted fits."""
    done = [c for c in cases if "error" not in c]
    trusted = [c for c in done if c["trustworthy"] and c["intervals"]]
    intervals = sum(c["intervals"] for c in trusted)
    return {
        "cases": len(cases),
        "failed": len(cases) - len(done),
        **{name: _count(done, name) for name in _COUNTS},
        "warned": None if _count(done, "trustworthy") is None else sum(bool(c["warnings"]) for c in done),
        "coverage": sum(c["covered"] for c in trusted) / intervals if intervals else None,
        "cpu_s": median([c["cpu_s"] for c in done]),
    }


def _figures(cases: list[Row]) -> Row:
    """Statistics over the seeds of one place of the grid; of slopes and offsets, over the types too."""
    done = [c for c in cases if "error" not in c]
    return {
        "cases": len(cases),
        "failed": len(cases) - len(done),
        **{name: spread([c[name] for c in done]) for name in _SPREADS},
        **{name: spread([ratio for c in done for ratio in c[name]]) for name in _PER_TYPE},
        **{name: median([c[name] for c in done]) for name in _MEDIANS},
        **{name: _count(done, name) for name in _COUNTS},
        "coverage": median([c["covered"] / c["intervals"] if c["intervals"] else None for c in done]),
    }


def _count(cases: Iterable[Row], name: str) -> int | None:
    """Number of cases for which something holds; None for a method that says nothing about it."""
    told = [c[name] for c in cases if c[name] is not None]
    return sum(told) if told else None


# -- Markdown


def markdown(report: Row) -> str:
    """The report as a page."""
    settings = report["settings"]
    lines = [
        "# Noise and coarse samples",
        "",
        f"{report['n_cases']} cases, {report['n_failed']} without a result. Noise in % of the standard deviation of "
        "each species; every n-th frame is a sample. Medians over the seeds, with the least and the largest value; "
        "slopes and offsets are learned / true, over the seeds and types. R² and error of log10 k are over the rate "
        "constants that `identify` calls determined on the noise-free samples. Errors in units of the Cramér-Rao bound "
        "are rms values; the bound is that of windows of up to 480 frames, or of those of the fit where they are "
        "longer, with the law known for a method that is handed it. "
        f"scipy had {settings['budget']:g} s of CPU time per case.",
        "",
        "Silent: trusted, without a warning on homeostasis, and the slope of a type is off by more than three standard "
        "errors and more than 1 %, or the accuracy of the types is below 0.9. Strict: without the condition of 1 %. A "
        "dash: the method says nothing about it.",
        "",
        *table(
            "method | cases | failed | trusted | warned | silent | silent, strict | coverage in trusted fits | "
            "CPU s, median",
            map(_of_method, report["methods"]),
        ),
    ]
    for config in settings["configs"]:
        for every in settings["every"]:
            mine = [row for row in report["grid"] if (row["config"], row["every"]) == (config, every)]
            if mine:
                lines += ["", f"## {config}, {sampling(every)}", "", *_table(mine)]
    silent = [c for c in report["cases"] if c.get("silent_strict")]
    lines += _listed("Silent", silent, lambda c: f"{_wrong(c)}{'' if c['silent'] else ' (strict only)'}")
    failed = [c for c in report["cases"] if "error" in c]
    lines += _listed("Without a result", failed, lambda c: c["error"])
    distrusted = [c for c in report["cases"] if c.get("why_not")]
    lines += _listed("Not trusted", distrusted, lambda c: "; ".join(c["why_not"]))
    if report["diverged"]:
        lines += ["", "## Diverging simulations, which have no data (the next seed was used)", ""]
        lines += [f"- {d['config']} seed {d['seed']}: {d['error']}" for d in report["diverged"]]
    return "\n".join(lines) + "\n"


def described(case: Row) -> str:
    """A case in a few words."""
    return f"{case['config']}, noise {case['noise']:g} %, every {case['every']}, seed {case['seed']}, {case['method']}"


def sampling(every: int) -> str:
    """Every n-th frame in words."""
    return {1: "every frame", 2: "every second frame", 3: "every third frame"}.get(every, f"every {every}th frame")


def _of_method(row: Row) -> tuple[object, ...]:
    coverage = "-" if row["coverage"] is None else f"{100 * row['coverage']:.0f} %"
    counts = (shown(row[name]) for name in ("trustworthy", "warned", "silent", "silent_strict"))
    return row["method"], row["cases"], row["failed"], *counts, coverage, shown(row["cpu_s"])


def _table(rows: list[Row]) -> list[str]:
    heads = (
        "noise, % | method | R² of log10 k | median error of log10 k (bound) | error / bound, k, slopes | "
        "slope ratio | offset ratio | accuracy | types | coverage | trusted | silent | window | CPU s | failed"
    )
    return table(heads, map(_of_place, rows))


def _of_place(row: Row) -> tuple[object, ...]:
    return (
        f"{row['noise']:g}",
        row["method"],
        shown_spread(row["log_k_R2"]),
        f"{shown_spread(row['log_k_median_error'])} ({shown(row['bound_log_k'])})",
        f"{_short(row['log_k_over_bound'])}, {_short(row['slope_over_bound'])}",
        shown_spread(row["slope_ratio"]),
        shown_spread(row["offset_ratio"]),
        shown_spread(row["accuracy"]),
        *(shown(row[name]) for name in ("n_types", "coverage")),
        *("-" if row[name] is None else f"{row[name]}/{row['cases']}" for name in ("trustworthy", "silent")),
        *(_short(row[name]) for name in ("window", "cpu_s")),
        row["failed"],
    )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _listed(title: str, cases: Sequence[Row], why: Callable[[Row], str]) -> list[str]:
    """A list of cases under a heading; nothing without any."""
    return ["", f"## {title}", "", *(f"- {described(c)}: {why(c)}" for c in cases)] if cases else []


def _wrong(case: Row) -> str:
    """What is wrong with a silent case."""
    slopes = ", ".join(
        f"{shown(ratio)} ± {_short(error)}"
        for ratio, error in zip(case["slope_ratio"], case["slope_ratio_error"], strict=True)
    )
    return f"slope ratios {slopes}, accuracy {shown(case['accuracy'])}"
