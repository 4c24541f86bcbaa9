"""Tables of the benchmark of textbook networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from metabolismgraph.benchmarks.markdown import table

Row = dict[str, Any]  # a case, see `models.row`

_LINE = 90  # characters of a message in a table


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927); (NaN, NaN) for a total of zero."""
    if not total:
        return math.nan, math.nan
    low, high = scipy.stats.binomtest(hits, total).proportion_ci(method="wilson")
    return float(low), float(high)


def totals(rows: Sequence[Row]) -> dict[str, Any]:
    """Totals over all cases in the units of the textbooks."""
    plain = [r for r in rows if r["units"] == [1.0, 1.0]]
    clean = [r for r in plain if r["kind"] == "clean"]
    corrupted = [r for r in plain if r["kind"] != "clean"]
    answered = [r for r in clean if "n_determined" in r]
    misses = [r for r in corrupted if r["verdict"] == "miss"]
    compared = [r for r in rows if r.get("contradictions") is not None]
    return {
        "clean": len(clean),
        "false_alarms": _count(clean, "false alarm", "refused"),
        "clean_errors": _count(clean, "error"),
        "constants": sum(r["reactions"] for r in clean),
        "determined": sum(r["n_determined"] for r in answered),
        "close": sum(r["n_close"] for r in answered),
        "far_warned": sum(len(r["far"]) for r in answered if not r["trustworthy"]),
        "far_silent": sum(len(r["far"]) for r in answered if r["trustworthy"]),
        "bounded": sum(r["n_bounded"] for r in answered),
        "inside": sum(r["n_inside"] for r in answered),
        "corrupted": len(corrupted),
        "misses": len(misses),
        "harmful_misses": sum(bool(r["off"]) for r in misses),
        "recovered": _count(corrupted, "recovered"),
        "corrupted_errors": _count(corrupted, "error"),
        "compared": len(compared),
        "contradicted": sum(bool(r["contradictions"]) for r in compared),
        "contradictions": sum(len(r["contradictions"]) for r in compared),
    }


def markdown(result: dict[str, Any]) -> str:
    """The report: totals, kinds of corruption, every case, other units, twins that cannot be made."""
    rows = result["cases"]
    tables = (_totals(rows), _by_kind(rows), _by_case(rows), _in_units(rows), _no_twin(result["no_twin"]))
    lines = [
        "# Textbook networks",
        "",
        f"{len(rows)} cases, {_count(rows, 'error')} without an answer. Intervals are 95 % (Wilson); those of rate "
        "constants assume independence, which rate constants of one network lack. A warning is `trustworthy` false; "
        "a refusal of clean data is a false alarm too. Coarse samples are recovered if the fit is trustworthy and "
        "determines rate constants that are all within 10 % of the truth. Errors count as neither alarm nor miss, and "
        "are left out of rates.",
        "",
    ]
    lines += [line for table in tables if table for line in (*table, "")]
    return "\n".join(lines)


def _count(rows: Iterable[Row], *verdicts: str) -> int:
    return sum(r["verdict"] in verdicts for r in rows)


def _rate(hits: int, total: int) -> str:
    if not total:
        return "-"
    low, high = wilson(hits, total)
    return f"{hits} of {total}, {hits / total:.1%} ({low:.1%} to {high:.1%})"


def _totals(rows: list[Row]) -> list[str]:
    t = totals(rows)
    answering = t["corrupted"] - t["corrupted_errors"]
    seconds = [r["cpu_s"] for r in rows if r["cpu_s"] is not None]
    measured = [
        ("clean cases with a false alarm", _rate(t["false_alarms"], t["clean"] - t["clean_errors"])),
        ("corrupted twins missed", _rate(t["misses"], answering)),
        (
            "- with a constant called determined that is wrong by more than 10 %",
            _rate(t["harmful_misses"], answering),
        ),
        ("- with all of them right", _rate(t["misses"] - t["harmful_misses"], answering)),
        ("corrupted twins recovered", _rate(t["recovered"], answering)),
        ("errors, clean and corrupted", f"{t['clean_errors']} and {t['corrupted_errors']}"),
        ("constants of clean cases called determined", _rate(t["determined"], t["constants"])),
        ("- within 10 % of the truth", _rate(t["close"], t["determined"])),
        ("- wrong by more than 2-fold, with a warning", _rate(t["far_warned"], t["determined"])),
        ("- wrong by more than 2-fold, without", _rate(t["far_silent"], t["determined"])),
        ("- inside their interval, where one is given", _rate(t["inside"], t["bounded"])),
        ("cases in which `identify` contradicts", _rate(t["contradicted"], t["compared"])),
        ("constants determined by `fit` and not by `identify`", t["contradictions"]),
        ("CPU seconds per case, median (quartiles; range)", _spread(seconds)),
    ]
    return table("what | measured", measured)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    low, quarter, middle, three, high = np.percentile(values, [0, 25, 50, 75, 100])
    return f"{middle:.1f} ({quarter:.1f} to {three:.1f}; {low:.1f} to {high:.1f})"


def _by_kind(rows: list[Row]) -> list[str]:
    heads = "kind | cases | warned | refused | recovered | missed | - some wrong | - all right | errors | missed, rate"
    corrupted = [r for r in rows if r["kind"] != "clean"]
    kinds = dict.fromkeys(r["kind"] for r in corrupted)
    return table(heads, (_of_kind([r for r in corrupted if r["kind"] == k]) for k in kinds)) if kinds else []


def _of_kind(cases: list[Row]) -> tuple[object, ...]:
    refused = sum(r["refused"] is not None for r in cases)
    recovered, missed, errors = (_count(cases, verdict) for verdict in ("recovered", "miss", "error"))
    harmful = sum(bool(r["off"]) for r in cases if r["verdict"] == "miss")
    found = (_count(cases, "caught") - refused, refused, recovered, missed, harmful, missed - harmful, errors)
    return cases[0]["kind"], len(cases), *found, _rate(missed, len(cases) - errors)


def _by_case(rows: list[Row]) -> list[str]:
    heads = (
        "network | kind | points | verdict | determined | within 10 % | wrong by more than 10 % | - than 2-fold "
        "| not by `identify` | CPU s | what was changed | why not"
    )
    return table(heads, map(_of_case, rows))


def _of_case(r: Row) -> tuple[object, ...]:
    units = "" if r["units"] == [1.0, 1.0] else f" × {r['units'][0]:g}, time × {r['units'][1]:.3g}"
    seconds = "-" if r["cpu_s"] is None else f"{r['cpu_s']:.1f}"
    texts = (_cell(r["detail"]), _cell(_why(r)))
    return r["network"], r["kind"] + units, r["points"], _marked(r), *_scores(r), seconds, *texts


def _marked(row: Row) -> str:
    return row["verdict"] if row["verdict"] in {"passed", "caught", "recovered"} else f"**{row['verdict']}**"


def _scores(row: Row) -> tuple[object, ...]:
    if "n_determined" not in row:
        return ("-",) * 5
    named = (", ".join(row[key] or ()) for key in ("off", "far", "contradictions"))
    return f"{row['n_determined']} of {row['n_constants']}", row["n_close"], *named


def _why(row: Row) -> str:
    reason = row["error"] or row["refused"] or "; ".join(row.get("why_not", ()))
    return reason if len(reason) <= _LINE else f"{reason[: _LINE - 3]}..."


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _in_units(rows: list[Row]) -> list[str]:
    """Table of every case in other units against the same case in its own."""
    heads = (
        "network | concentrations × | times × | verdict in its own units | in these | called determined: same "
        "| largest relative difference of those determined in both | of all"
    )
    own = {r["network"]: r for r in rows if r["kind"] == "clean" and r["units"] == [1.0, 1.0]}
    found = [(own[r["network"]], r) for r in rows if r["units"] != [1.0, 1.0] and r["network"] in own]
    return table(heads, (_of_units(*pair) for pair in found)) if found else []


def _of_units(own: Row, other: Row) -> tuple[object, ...]:
    same, known, every = differences(own, other)
    concentration, time = other["units"]
    verdicts = (own["verdict"], other["verdict"])
    return own["network"], f"{concentration:g}", f"{time:.3g}", *verdicts, same, f"{known:.2g}", f"{every:.2g}"


def differences(own: Row, other: Row) -> tuple[str, float, float]:
    """Two rows of one network in different units.

    Returns:
        Whether the same constants are called determined ("yes", "NO" or "-" without two answers), and the largest
        relative difference of k, converted to the same units, among those that both call determined, and among all.
    """
    if "constants" not in own or "constants" not in other:
        return "-", math.nan, math.nan
    a, b = own["constants"], other["constants"]
    names = a.keys() & b.keys()
    known = {n for n in names if a[n]["determined"] and b[n]["determined"]}
    same = a.keys() == b.keys() and all(a[n]["determined"] == b[n]["determined"] for n in names)
    of_known, of_all = (max((_apart(a[n], b[n]) for n in some), default=math.nan) for some in (known, names))
    return "yes" if same else "NO", of_known, of_all


def _apart(a: Row, b: Row) -> float:
    """Relative difference of two results for one constant."""
    one, two = a["k_plain"], b["k_plain"]
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    return float(abs(one - two) / max(abs(one), abs(two), 1e-300))


def _no_twin(missing: list[dict[str, str]]) -> list[str]:
    return ["Twins that cannot be made:", ""] * bool(missing) + [
        f"- {m['network']}, {m['kind']}: {m['reason']}" for m in missing
    ]
