"""Comparison of models of the same measurements: other rate laws, with and without homeostasis."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import chi2

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.estimation import fit_petab
from metabolismgraph.kinetic_models.fit_result import AT_LOWER, AT_UPPER, SAME, PetabFit
from metabolismgraph.kinetic_models.held_out import skill
from metabolismgraph.kinetic_models.problem import ModelProblem, write_model_problem
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.system.progress import Progress, silent

_GLOB = r"[^\w.-]"  # characters, such as those of patterns, that the name of a folder should not have
_EQUAL = 2.0  # difference of AICc within which models are about equally good (Burnham & Anderson 2002)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(Overview):
    """Several models, fitted to the same measurements.

    Attributes:
        problems, fits: by the name of the model.
        table: by the name of the model, the best one first: numbers of estimated `parameters` and `measurements`,
            `minus_log_L` at the estimates, `AIC`, `AICc` (infinite with too few measurements), `difference` of AICc
            from the least one, `special_case`: the largest of the other models that it contains, `p_value` of the
            likelihood-ratio test against that one (NaN if further parameters have priors, or the best start of one of
            the two has not reached an optimum), `R2_held_out`: median over held-out observables, `found` and `starts`:
            how many starts found the estimates, of how many.
        notes: sentences on what not to trust.
    """

    problems: Mapping[str, ModelProblem]
    fits: Mapping[str, PetabFit]
    table: pd.DataFrame
    notes: tuple[str, ...]

    def _overview(self) -> tuple[str, Rows]:
        return "models", [("least AICc", self.best), *(("note", note) for note in self.notes)]

    def _frame(self) -> pd.DataFrame:
        return self.table.reset_index()

    @property
    def best(self) -> str:
        """The model with the least AICc."""
        return str(self.table.index[0])


def variants_of(laws: Mapping[str, Sequence[str]], homeostasis: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The variants of a model that are to be compared, by name.

    Args:
        laws: laws by reaction; one variant for each combination.
        homeostasis: see `write_model_problem`; each variant with it and without it.

    Returns:
        Options of `write_model_problem`, by names that may be those of folders.
    """
    open_ones = [reaction for reaction, names in laws.items() if len(names) > 1]
    found = dict[str, dict[str, Any]]()
    for choice in itertools.product(*laws.values()):
        chosen = dict(zip(laws, choice, strict=True))
        labels = [chosen[r] if len(open_ones) == 1 else f"{re.sub(_GLOB, '_', r)}={chosen[r]}" for r in open_ones]
        name = ",".join(labels)
        found[name or ("no_homeostasis" if homeostasis else "model")] = {"laws": chosen}
        if homeostasis:
            found[f"{name}+homeostasis".strip("+")] = {"laws": chosen, "homeostasis": tuple(homeostasis)}
    return found


def compare_models(
    model: str | Path,
    tables: Sequence[str | Path],
    variants: Mapping[str, Mapping[str, Any]],
    folder: str | Path,
    *,
    starts: int = 20,
    minutes: float = math.inf,
    seed: int = 0,
    processes: int = 1,
    progress: Progress = silent,
    **options: Any,
) -> Comparison:
    r"""Fit variants of an SBML model to tables of concentrations, and compare them by likelihood and parameters.

    The criterion is AIC = 2 k - 2 log L, for k parameters, with its correction for few measurements (Burnham & Anderson
    2002). The likelihood-ratio test compares a model with its largest special case
    (Wilks 1938), with as many degrees of freedom as there are more parameters. Where one of these is at a bound in
    the special case, as the pull of homeostasis is, the p-value is too large, not too small. The larger model has one
    more start for each special case, with its estimates.

    Args:
        model, tables: as for `write_model_problem`.
        variants: options of `write_model_problem`, such as `laws` and `homeostasis`, by the name of the variant.
        folder: for the problems, one folder in it for each.
        starts, minutes, seed, processes, progress: as for `fit_petab`.
        options: of `write_model_problem`, for all variants.

    Raises:
        InputError: as for `write_model_problem` and `fit_petab`; or there are fewer than two variants.

    Example:
        >>> from pathlib import Path
        >>> import metabolismgraph as mg
        >>> law = "<apply><times/><ci> k </ci><ci> A </ci></apply>"
        >>> _ = Path("model.xml").write_text(
        ...     f'''<sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4"><model>
        ...   <listOfCompartments><compartment id="cell" size="1"/></listOfCompartments>
        ...   <listOfSpecies><species id="A" compartment="cell" initialConcentration="4"/></listOfSpecies>
        ...   <listOfParameters><parameter id="k" value="1"/></listOfParameters>
        ...   <listOfReactions><reaction id="loss">
        ...     <listOfReactants><speciesReference species="A"/></listOfReactants>
        ...     <kineticLaw><math xmlns="http://www.w3.org/1998/Math/MathML">{law}</math></kineticLaw>
        ...   </reaction></listOfReactions></model></sbml>'''
        ... )
        >>> _ = Path("line.csv").write_text("time,A\n0,4.0\n1,3.02\n2,2.09\n3,1.2\n4,0.52\n5,0.18\n6,0.05\n")
        >>> laws = {law: {"laws": {"loss": law}} for law in ("mass_action", "michaelis_menten")}
        >>> found = mg.compare_models("model.xml", ["line.csv"], laws, "problems", starts=2, noise=0.05)
        >>> found.best
        'michaelis_menten'
        >>> found.table.loc["michaelis_menten", "special_case"]
        'mass_action'
    """
    if len(variants) < 2:
        raise InputError(f"{model}: expected at least two models to compare, not {len(variants)}")
    problems = {
        name: write_model_problem(model, tables, Path(folder) / name, **{**options, **own})
        for name, own in variants.items()
    }
    return compare_problems(problems, starts, minutes=minutes, seed=seed, processes=processes, progress=progress)


def compare_problems(
    problems: Mapping[str, ModelProblem], starts: int = 20, *, progress: Progress = silent, **options: Any
) -> Comparison:
    """Fit problems with the same measurements, and compare them as `compare_models` does.

    Args:
        problems: by name.
        starts, progress, options: as for `fit_petab`.

    Raises:
        InputError: as for `fit_petab`, or measurements are not the same.
    """
    measured = {name: read_petab(problem.path).measurements for name, problem in problems.items()}
    (first, same), *others = measured.items()
    for name, rows in others:
        if not rows.equals(same):
            path = problems[name].path
            raise InputError(f"{path}: {name} and {first} do not have the same measurements; they cannot be compared")
    fits = dict[str, PetabFit]()
    for name, problem in sorted(problems.items(), key=lambda item: len(item[1].estimated)):
        inside = [fits[other] for other in fits if problem.contains(problems[other])]
        best = [{str(key): float(value) for key, value in fit.estimates["estimate"].items()} for fit in inside]

        def report(stage: str, share: float, said: str, name: str = name) -> None:
            progress(f"{name}: {stage}", share, said)

        given = {"hold_out": problem.held_out, "hold_out_after": problem.hold_out_after, **options}
        fits[name] = fit_petab(problem.path, starts, also_from=best, progress=report, **given)
    ordered = {name: fits[name] for name in problems}
    table = _table(problems, ordered)
    return Comparison(problems, ordered, table, _notes(table, ordered))


def _table(problems: Mapping[str, ModelProblem], fits: Mapping[str, PetabFit]) -> pd.DataFrame:
    rows = {}
    for name, fit in fits.items():
        k, n = len(fit.estimates), len(fit.simulation)
        minus_log_likelihood = -float(fit.simulation["log_likelihood"].sum())
        criterion = 2 * k + 2 * minus_log_likelihood
        inside = _special_case(name, problems)
        rows[name] = {
            "parameters": k,
            "measurements": n,
            "minus_log_L": minus_log_likelihood,
            "AIC": criterion,
            "AICc": criterion + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf,
            "special_case": inside or "",
            "p_value": math.nan if inside is None else _p_value(fit, fits[inside]),
            "R2_held_out": float(skill(fit.held_out)["R2_simulation"].median()) if len(fit.held_out) else math.nan,
            "found": fit.reached,
            "starts": len(fit.starts),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    table = table.sort_values(["AICc", "AIC"], kind="stable")
    least = table["AICc"].iloc[0]
    table.insert(5, "difference", table["AICc"] - least if math.isfinite(least) else math.nan)
    return table


def _special_case(name: str, problems: Mapping[str, ModelProblem]) -> str | None:
    """The largest of the other models that are special cases of a model."""
    inside = [other for other in problems if problems[name].contains(problems[other])]
    return max(inside, key=lambda other: len(problems[other].estimated), default=None)


def _p_value(fit: PetabFit, inside: PetabFit) -> float:
    """The p-value of the likelihood-ratio test; NaN if further parameters have priors, or a fit has not ended."""
    if not (fit.ended and inside.ended):
        return math.nan
    more = fit.estimates.index.difference(inside.estimates.index)
    priors = fit.problem.parameters.get("objectivePriorType")
    if priors is not None and priors.loc[more].notna().any():
        return math.nan
    return float(chi2.sf(max(0.0, 2 * (inside.objective - fit.objective)), len(more)))


def _notes(table: pd.DataFrame, fits: Mapping[str, PetabFit]) -> tuple[str, ...]:
    notes, minus_log_likelihood = [], table["minus_log_L"]
    for name, inside in table["special_case"].items():
        if inside and minus_log_likelihood[str(name)] > minus_log_likelihood[inside] + SAME:
            notes.append(
                f"{name} has a lower likelihood than its special case {inside}: more starts are needed to compare them"
            )
    early = [str(name) for name in table.index if not fits[str(name)].ended]
    if early:
        notes.append(
            f"not ended: the best start of {', '.join(early)} ran out of time or steps before an optimum; with more of "
            "them, likelihood and AICc may be better; p-values are left out"
        )
    once = [str(name) for name in table.index if fits[str(name)].reached == 1 and len(fits[str(name)].starts) > 1]
    if once:
        notes.append(
            f"only one start found the best likelihood of {', '.join(once)}; more starts may change the comparison"
        )
    if not math.isfinite(table["AICc"].iloc[0]):
        notes.append("no model has more measurements than parameters; AICc does not tell which one is the best")
    close = [str(name) for name in table.index[1:] if table.loc[name, "difference"] < _EQUAL]
    if close:
        best = table.index[0]
        notes.append(f"by AICc, these are about as good as {best}: {', '.join(close)}")
    for name, fit in fits.items():
        bound = fit.estimates.index[fit.estimates["note"].isin([AT_LOWER, AT_UPPER])]
        if len(bound):
            notes.append(f"{name}: at a bound: {', '.join(map(str, bound))}")
    return tuple(notes)
