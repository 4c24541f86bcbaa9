"""Output of the command line: tables of results, and the board of a benchmark of strategies."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from metabolismgraph.metrics import METRICS, Classification, Value, find
from metabolismgraph.reactions.equations import written_equation
from metabolismgraph.reactions.verdict import NOT_APART, seen_in_part
from metabolismgraph.text import printable

if TYPE_CHECKING:
    from metabolismgraph.benchmarks.results_file import Row
    from metabolismgraph.evaluation.evaluate import Evaluation
    from metabolismgraph.homeostasis.strategies.base import Strategy
    from metabolismgraph.kinetic_models.comparison import Comparison
    from metabolismgraph.kinetic_models.fit_result import PetabFit
    from metabolismgraph.reactions.identifiability import Identifiability
    from metabolismgraph.runs.uncertainty import Uncertainty
    from metabolismgraph.system.network import ReactionNetwork

_VERDICTS: Mapping[Classification | None, str] = {
    "converged": "[green]pass[/]",
    "partial": "[yellow]partial[/]",
    "failed": "[red]fail[/]",
}
_FOR_VARIANCE = 3  # least number of measurements of an observable for R2
_MOST_ROWS = 40
_FILES = {
    "rate_constants.csv, homeostasis.csv, parameters.csv": "all rows, with errors and reasons",
    "model_fitted.xml": "the network file with these values",
    "figures/summary.png": "overview figure",
    "metrics.json": "the verdict, all metrics, all notes",
}
_MEASUREMENTS = {"once": "once more", "series": "ten times more", "start": "initial state"}
_FIRST_CONSTANTS, _FIRST_SPECIES, _MOST_NOTES = 10, 5, 5


def verdict_lines(evaluation: Evaluation) -> Text:
    """Whether the fit is to be trusted, with the reasons if not; the first lines for a user."""
    if evaluation.trust.trustworthy:
        return Text("The fit is trustworthy: it explains the training frames and predicts the others.", style="green")
    reasons = "".join(f"\n  - {reason}" for reason in evaluation.trust.why_not)
    return Text(f"The fit is NOT to be trusted:{reasons}", style="red")


def answer_page(evaluation: Evaluation, folder: Path) -> list[Table | Text]:
    """The results in less than forty lines: verdict, first rate constants and homeostasis, notes, files."""
    constants, homeostasis = evaluation.rate_constants, evaluation.homeostasis
    known = int(constants["identifiable"].sum())
    page: list[Table | Text] = [verdict_lines(evaluation)]
    page.append(Text(f"\nRate constants: {known} of {len(constants)} determined", style="bold"))
    page.append(_constants_table(constants, trustworthy=evaluation.trust.trustworthy))
    resolved = int(homeostasis["resolved"].sum())
    if evaluation.trust.trustworthy:
        page.append(Text(f"\nHomeostasis: resolved for {resolved} of {len(homeostasis)} species", style="bold"))
        page += [_homeostasis_table(homeostasis)] if resolved else []
    else:
        page.append(
            Text(
                "\nHomeostasis: not shown, because the fit is not trustworthy and so small a term is wrong first",
                style="bold",
            )
        )
    notes = [f"note: {note}" for note in evaluation.notes]
    if len(notes) > _MOST_NOTES:
        notes = [*notes[: _MOST_NOTES - 1], f"... and {len(notes) - _MOST_NOTES + 1} more notes in metrics.json"]
    page += [Text("\n" * (number == 0) + printable(note)) for number, note in enumerate(notes)]
    page.append(Text(f"\nIn {folder}:"))
    files = Table(box=None, pad_edge=False, show_header=False)
    for name, what in _FILES.items():
        files.add_row(f"  {name}", what)
    return [*page, files]


def _constants_table(constants: pd.DataFrame, *, trustworthy: bool) -> Table:
    """The first rate constants, determined ones first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("reaction", "equation", "k", "95 % interval", "unit"):
        table.add_column(name, no_wrap=name in {"reaction", "k", "95 % interval"})
    shown = constants.sort_values("identifiable", ascending=False, kind="stable").head(_FIRST_CONSTANTS)
    for row in shown.to_dict("records"):
        table.add_row(row["reaction"], row["equation"], *_shown_constant(row, trustworthy=trustworthy), row["unit"])
    if len(constants) > _FIRST_CONSTANTS:
        table.add_row("...", f"and {len(constants) - _FIRST_CONSTANTS} more")
    return table


def _shown_constant(row: Mapping[Hashable, Any], *, trustworthy: bool) -> tuple[str, str]:
    """k and its interval, or a remark in place of them."""
    if row["identifiable"]:
        interval = f"{row['lower']:.6g} to {row['upper']:.6g}" if trustworthy else "not given"
        return f"{row['k']:.6g}", interval
    if math.isfinite(row["upper"]):
        return "0", f"not above {row['upper']:.3g}"
    if row["reason"] == NOT_APART and trustworthy:
        return f"({row['k']:.4g})", "assuming the weakest homeostasis"
    return "?", row["combination"] or row["reason"]


def _homeostasis_table(homeostasis: pd.DataFrame) -> Table:
    columns = (Column(name, no_wrap=True) for name in ("species", "slope, 1/time", "baseline", "type"))
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    rows = homeostasis[homeostasis["resolved"]]
    for row in rows.head(_FIRST_SPECIES).to_dict("records"):
        slope = f"{row['slope']:.4g} ± {row['slope_error']:.1g}"
        table.add_row(row["species"], slope, f"{row['baseline']:.4g} ± {row['baseline_error']:.1g}", str(row["type"]))
    if len(rows) > _FIRST_SPECIES:
        table.add_row("...", f"and {len(rows) - _FIRST_SPECIES} more")
    return table


def uncertainty_page(found: Uncertainty) -> list[Table | Text]:
    """Suggested measurements as a table and in words, profiles, and the sentence of the bootstrap."""
    columns = (Column(name, no_wrap=True) for name in ("measurement", "species", "run", "time"))
    table = Table(*columns, "error of", "before", "after", box=None, pad_edge=False, header_style="dim")
    for row in found.suggestions.best().to_dict("records"):
        place = ("", "") if pd.isna(row["run"]) else (str(row["run"]), f"{row['time']:.4g}")
        errors = (f"{row['error_before']:.3g}", f"{row['error_after']:.3g}")
        table.add_row(_MEASUREMENTS[row["measurement"]], row["species"], *place, row["parameter"], *errors)
    page: list[Table | Text] = [Text("What to measure next", style="bold"), table]
    page += [Text(f"- {line}") for line in found.suggestions.sentences]
    if found.profiles:
        page.append(Text("\nProfiles of the least certain parameters", style="bold"))
        page += [Text(f"{one.name}: {one.sentence}") for one in found.profiles]
    if found.bootstrap is not None:
        page += [Text("\nBootstrap", style="bold"), Text(found.bootstrap.sentence)]
    return [*page, Text(f"\nfiles are in {found.folder}")]


def summary_table(metrics: Mapping[str, Value], notes: Sequence[str]) -> Table:
    """Recovered quantities, with a verdict where the truth is known."""
    table = Table(Column("quantity", no_wrap=True), Column("value", justify="right"), "verdict")
    table.add_column("meaning", style="dim")
    table.title, table.title_justify, table.caption_justify = "Recovered quantities", "left", "left"
    ranked = {metric.name: rank for rank, metric in enumerate(METRICS)}
    known = {name: metric for name in metrics if (metric := find(name)) is not None and metric.summary}
    for name in sorted(known, key=lambda name: ranked.get(name, len(ranked))):
        metric, value = known[name], metrics[name]
        if value is not None:
            unit = f" [{metric.unit}]" if metric.unit else ""
            # As Text: a unit in brackets would be taken for markup, and not be shown.
            verdict = _VERDICTS.get(metric.verdict(value), "")
            table.add_row(name, _shown(value), verdict, Text(f"{metric.meaning}{unit}"))
    if notes:
        table.caption = Text("\n".join(f"note: {printable(note)}" for note in notes))
    return table


def _shown(value: Value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.5f}".rstrip("0").rstrip(".")


def identifiability_table(network: ReactionNetwork, found: Identifiability, alone: Identifiability) -> Group:
    """Determined rate constants: their number, and every group that is known only in combination.

    Args:
        found: with an unknown homeostasis of every species.
        alone: without homeostasis, to identify the reactions that only homeostasis hides.
    """
    count = int(found.identifiable.sum())
    table, reactions = Table("reactions", "written as", "determined"), network.to_reactions()
    for members, combinations in list(zip(found.groups, found.combinations, strict=True))[:_MOST_ROWS]:
        table.add_row(
            "\n".join(network.reactions[j] for j in members),
            "\n".join(written_equation(reactions[j]) for j in members),
            "\n".join(c.written(network.reactions) for c in combinations)
            or (NOT_APART if seen_in_part(alone)[list(members)].all() else "nothing"),
        )
    if len(found.groups) > _MOST_ROWS:
        table.add_row(f"... and {len(found.groups) - _MOST_ROWS} more")
    verdict = f"{count} of {network.n_reactions} rate constants are determined by themselves"
    gap = (
        f"{found.null_space.shape[1]} linear combinations of rate constants are not identifiable; smallest eigenvalue "
        f"of the scaled normal matrix outside that null space: {found.smallest_determined:.1e}"
    )
    return Group(verdict, *([table] if found.groups else []), gap)


def strategies_table(strategies: Mapping[str, type[Strategy]]) -> Table:
    """All strategies of Phase 2."""
    table = Table(Column("", justify="right", style="dim"), Column("strategy", no_wrap=True), box=None, pad_edge=False)
    table.add_column("what it does")
    table.add_column("reference", style="dim")
    for name, strategy in strategies.items():
        table.add_row(str(strategy.number), name, strategy.summary, strategy.reference)
    return table


def strategy_page(name: str, strategy: type[Strategy]) -> str:
    """One strategy in full: what it does, what it needs, its options."""
    lines = [f"{name} (strategy {strategy.number})", "", inspect.cleandoc(strategy.__doc__ or ""), ""]
    lines += [f"Reference: {strategy.reference}", *([f"Needs: {strategy.needs}"] if strategy.needs else [])]
    options = strategy.model_fields.items()
    return "\n".join(lines + [f"Option {option} = {field.default}: {field.description}" for option, field in options])


class StrategyBoard:
    """Progress of the strategy benchmark: an updated table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console):
        self._console = console
        self._started = time.monotonic()
        self._planned: Sequence[Row] = []
        self._before = 0
        self._done: list[Row] = []

    def begin(self, planned: Sequence[Row], done: Sequence[Row]) -> None:
        self._planned, self._before, self._done = planned, len(done), list(done)
        self._started = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{len(planned)} cases, {len(done)} of them finished before", highlight=False)

    def add(self, row: Row) -> None:
        self._done.append(row)
        if not self._console.is_terminal:
            self._console.print(f"[{self._standing()}] {_outcome(row)}", markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> Table | str:
        if not self._planned:
            return f"simulating, {_clock(time.monotonic() - self._started)}"
        checkpoints = list(dict.fromkeys(row["checkpoint"] for row in self._planned))
        table = Table("strategies", *checkpoints, title=self._standing(), title_justify="left", caption_justify="left")
        table.caption = _BOARD_CAPTION
        for name in dict.fromkeys(row["strategies"] for row in self._planned):
            table.add_row(name, *(self._cell(name, checkpoint) for checkpoint in checkpoints))
        return table

    def _cell(self, name: str, checkpoint: str) -> str:
        planned, done = (
            [row for row in rows if (row["strategies"], row["checkpoint"]) == (name, checkpoint)]
            for rows in (self._planned, self._done)
        )
        from metabolismgraph.benchmarks.strategy_report import worst_deviation

        deviations = [worst_deviation(row) for row in done if "error" not in row and row["sweep"] is None]
        failed = sum("error" in row for row in done)
        worst = f"  {max(deviations):.2g}" if deviations else ""
        return f"{len(done)}/{len(planned)}{worst}" + (f"  [red]{failed} failed[/]" if failed else "")

    def _standing(self) -> str:
        elapsed, now = time.monotonic() - self._started, len(self._done) - self._before
        left = elapsed / now * (len(self._planned) - len(self._done)) if now else math.nan
        about = f", about {_clock(left)} left" if now else ""
        return f"{len(self._done)}/{len(self._planned)} cases, {_clock(elapsed)}{about}"


_BOARD_CAPTION = "cases done, largest |slope ratio - 1| so far, failures"


@contextmanager
def strategy_board(console: Console) -> Iterator[StrategyBoard]:
    """A board that is updated while it is open."""
    board = StrategyBoard(console)
    if not console.is_terminal:
        yield board
        return
    with Live(board, console=console, refresh_per_second=1):
        yield board


def _outcome(row: Row) -> str:
    from metabolismgraph.benchmarks.strategy_report import described

    if "error" in row:
        return f"{described(row)}: failed, {row['error']}"
    shown = ", ".join("-" if ratio is None else f"{ratio:.4g}" for ratio in row["slope_ratio"])
    return f"{described(row)}: slope ratios {shown}, {row['seconds']:.1f} s"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def speed_table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """Steps per second of the inner loops, and of a plain implementation."""
    table = Table("inner loop", "steps/s", "plain steps/s", "ratio")
    for name, found in figures.items():
        table.add_row(
            name, f"{found['steps_per_second']:.0f}", f"{found['plain_steps_per_second']:.1f}", f"{found['ratio']:.1f}"
        )
    return table


def petab_page(fit: PetabFit, folder: Path, assumptions: Sequence[str] = ()) -> list[Table | Text]:
    """The results of a fit of a PEtab problem: likelihood, estimates, prediction, notes, files."""
    least = f"{fit.quantity} = {fit.objective:.8g}, found by {fit.reached} of {len(fit.starts)} starts"
    table = Table("parameter", Column("estimate", justify="right"), Column("95 % interval", justify="right"), "note")
    for name, row in fit.estimates.head(_MOST_ROWS).iterrows():
        interval = "" if math.isnan(row["lower_95"]) else f"{row['lower_95']:.4g} to {row['upper_95']:.4g}"
        table.add_row(str(name), f"{row['estimate']:.5g}", interval, str(row["note"]))
    page: list[Table | Text] = [Text(least, style="bold"), table]
    if len(fit.estimates) > _MOST_ROWS:
        page.append(Text(f"and {len(fit.estimates) - _MOST_ROWS} more in estimates.csv"))
    if len(fit.held_out):
        page += _prediction_table(fit.held_out)
    page += [Text(f"assumed: {note}") for note in assumptions]
    page += [Text(f"note: {printable(note)}", style="yellow") for note in fit.notes]
    page.append(Text(f"tables and figures are in {folder}"))
    return page


def comparison_page(comparison: Comparison, folder: Path) -> list[Table | Text]:
    """The models of a comparison, the best one first, and notes."""
    names = ("k", "-log L", "ΔAICc", "R2", "starts")
    columns = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table("model", *columns, "p, against")
    for name, row in comparison.table.iterrows():
        numbers = (row["minus_log_L"], row["difference"], row["R2_held_out"])
        log_likelihood, difference, predicted = ("" if math.isnan(number) else f"{number:.4g}" for number in numbers)
        test = "" if math.isnan(row["p_value"]) else f"{row['p_value']:.2g}, {row['special_case']}"
        found = f"{row['found']} of {row['starts']}"
        table.add_row(str(name), str(row["parameters"]), log_likelihood, difference, predicted, found, test)
    explained = (
        "k: number of parameters; AICc: difference from the least one; R2: of held-out data, median; "
        "starts: how many found the estimates; p: of the likelihood-ratio test against a special case"
    )
    page: list[Table | Text] = [table, Text(explained)]
    page += [Text(f"note: {printable(note)}", style="yellow") for note in comparison.notes]
    page.append(Text(f"the fit of every model is in {folder}, with its notes"))
    return page


def _prediction_table(held_out: pd.DataFrame) -> list[Table | Text]:
    """How well held-out measurements are predicted: medians over the observables of a condition."""
    from metabolismgraph.kinetic_models.held_out import PREDICTIONS, skill

    found = skill(held_out)
    # R2 relates to the variance, of which one or two values say little.
    few = found["measurements"].max() < _FOR_VARIANCE
    quantity, name = ("error", "root mean square error") if few else ("R2", "R2")
    table = Table(
        "held out",
        Column("observables", justify="right"),
        Column(f"{name} predicted", justify="right"),
        Column("with nominal values", justify="right"),
        Column("interpolated", justify="right"),
    )
    for condition, part in found.groupby(level=0, sort=False):
        medians = part[[f"{quantity}_{of}" for of in PREDICTIONS]].median()
        table.add_row(str(condition), str(len(part)), *(f"{value:.3g}" for value in medians))
    return [table, Text("medians over observables; all of them are in prediction.csv")]
