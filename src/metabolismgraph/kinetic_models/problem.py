"""A parameter estimation problem (PEtab) from an SBML model and tables of concentrations."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import libsbml
import pandas as pd

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import read_petab, write_petab
from metabolismgraph.formats.petab_formula import parse_formula
from metabolismgraph.formats.sbml import read_sbml
from metabolismgraph.formats.wording import some
from metabolismgraph.kinetic_models.edited_model import EditedModel
from metabolismgraph.kinetic_models.experiments import Experiment, experiments_of, read_experiments, values_of
from metabolismgraph.kinetic_models.observable_formulas import in_ids_of
from metabolismgraph.kinetic_models.observable_table import ObservableTable
from metabolismgraph.kinetic_models.rate_laws import FROM_MODEL, LOG10, SPECIAL_CASE_OF, Parameter

_NEAR, _FOLD = 0.1, 3.0  # starts and bounds of a measured initial value: relative distance, and factor
_NEARER = 30.0  # starts of an initial value of which a limit was measured: factor beyond it
_BEYOND_LIMIT = 1e4  # bounds of an initial value of which a limit was measured: factor beyond it
_EVERYTHING = "*"


@dataclasses.dataclass(frozen=True)
class ModelProblem:
    """A problem that was written.

    Attributes:
        path: its YAML file.
        held_out: conditions whose measurements are not to be fitted.
        estimated: ids of its parameters.
        notes: assumptions, in sentences.
        hold_out_after: later measurements are not to be fitted.
        laws: by reaction, as for `write_model_problem`.
        pulled: species with homeostasis.
    """

    path: Path
    held_out: tuple[str, ...]
    estimated: tuple[str, ...]
    notes: tuple[str, ...] = ()
    hold_out_after: float = math.inf
    laws: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pulled: frozenset[str] = frozenset()

    def contains(self, other: ModelProblem) -> bool:
        """Whether the model of another problem is a special case of this one."""
        pairs = ((law, self.laws.get(reaction, FROM_MODEL)) for reaction, law in other.laws.items())
        return (
            set(other.estimated) < set(self.estimated)
            and other.pulled <= self.pulled
            and all(one == larger or larger in SPECIAL_CASE_OF.get(one, ()) for one, larger in pairs)
        )


def write_model_problem(
    model: str | Path,
    tables: Sequence[str | Path],
    folder: str | Path,
    *,
    held_out: Sequence[str | Path] = (),
    hold_out_after: float = math.inf,
    estimate: Sequence[str] = (_EVERYTHING,),
    fold: float = 100.0,
    prior: float | None = None,
    inputs: Sequence[str] = (),
    laws: Mapping[str, str] | None = None,
    homeostasis: Sequence[str] = (),
    noise: float | None = None,
    deviations: str | None = None,
    relative: Sequence[str] = (),
    offset: Sequence[str] = (),
    observables: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    skip_unknown: bool = False,
) -> ModelProblem:
    r"""Write a PEtab problem (version 1) for an SBML model and tables of concentrations, for `fit_petab`.

    Every run of a table is an experiment. Initial concentrations are estimated near the measured ones; those of
    held-out experiments are the measured ones; those of species without measurements are those of the model. A cell
    such as <0.5 states that the value is below this limit, >9 that it is above (censored; see `Likelihood`).

    Args:
        model: SBML or Antimony file with a kinetic law for every reaction.
        tables: as for `fit_from_files`, but species may be missing.
        folder: a new folder for the problem.
        held_out: tables that are not fitted but predicted.
        hold_out_after: time after the first measurement of a run; later measurements are not fitted but predicted, and
            bounds and starts do not depend on them.
        estimate: ids, with `*` and `?`, of parameters to be estimated, and of species without measurements whose
            initial concentration is. `*` alone: all parameters. A parameter of the law of one reaction is called
            REACTION_PARAMETER.
        fold: bounds are the value of the model divided and multiplied by it.
        prior: parameters are within this factor of their values in the model with a probability of 68 % (log-normal);
            None: all values between the bounds are equally likely.
        inputs: species that follow their measured values, on straight lines between them.
        laws: for reactions, by id with `*` and `?`, one of `LAWS` instead of the law of the model ("from_model").
        homeostasis: ids, with `*` and `?`, of measured species that are pulled to a baseline: their concentration c
            changes by pull * (baseline - c) as well. Species of one pattern have the same pull.
        noise: standard deviation relative to the concentration; None: one absolute standard deviation per species is
            estimated.
        deviations: columns of standard deviations: "*_sd" for A_sd beside A, or the name of the column of a long table;
            they take the place of the noise.
        relative: species, with `*` and `?`, whose values are only proportional to their concentrations. The scale of a
            species in each table is estimated.
        offset: species, with `*` and `?`, whose values have an offset, such as a background. That of a species in each
            table is estimated; with `relative`, it is added to scale times concentration.
        observables: formulas of concentrations, parameters and compartments, by name, such as
            {"total": "A + 2*B"}. A column of that name has their values, and other options take the name as that of a
            species.
        names: what names in the tables stand for.
        skip_unknown: leave out columns that the model does not have, with a note.

    Raises:
        InputError: a file is missing or invalid; an option names what the model does not have; a species has no
            initial value; or nothing is to be fitted.

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
        >>> _ = Path("decay.csv").write_text("time,A\n0,4.0\n1,2.1\n2,1.0\n3,0.5\n")
        >>> problem = mg.write_model_problem("model.xml", ["decay.csv"], "problem", noise=0.05)
        >>> fit = mg.fit_petab(problem.path, starts=2)
        >>> fit.estimates["estimate"].rename_axis(None).round(2)
        k                  0.70
        initial_A_decay    4.07
        Name: estimate, dtype: float64
    """
    source = Path(model)
    if not tables:
        raise InputError(f"{source}: no table of measurements is given")
    if not 1 < fold < math.inf:
        raise InputError(f"fold must be larger than 1, not {fold:g}")
    if prior is not None and not 1 < prior < math.inf:
        raise InputError(f"prior must be larger than 1, not {prior:g}")
    if math.isnan(hold_out_after):
        raise InputError("hold_out_after must be a time, not nan")
    if noise is not None and not 0 < noise < math.inf:
        raise InputError(f"noise must be positive, not {noise:g}")
    read = read_sbml(source)
    experiments, notes = read_experiments(
        [Path(table) for table in tables],
        [Path(table) for table in held_out],
        read,
        names or {},
        deviations=deviations,
        relative=relative,
        offset=offset,
        observables=observables or {},
        last=hold_out_after,
        skip_unknown=skip_unknown,
    )
    late = [float(experiment.time[-1]) > hold_out_after for experiment in experiments if not experiment.held_out]
    if hold_out_after < math.inf and not any(late):
        raise InputError(f"{source}: no measurement is later than {hold_out_after:g} after the first one of its run")
    if hold_out_after < 0:
        raise InputError(f"{source}: all measurements are held out; nothing is left to be fitted")
    edited = EditedModel(source, experiments)
    edited.clamp(inputs)
    edited.replace_laws(laws or {})
    edited.add_homeostasis(homeostasis)
    made = _Tables(edited, in_ids_of(edited, observables or {}), estimate, fold, prior, noise)
    path = made.write(Path(folder))
    held = [experiment.id for experiment in experiments if experiment.held_out]
    predicted = tuple(name for name in held if name in made.measured)
    empty = [name for name in held if name not in predicted]
    said = (*notes, *made.notes, *([f"Held out, without a measurement to predict: {some(empty)}."] if empty else []))
    return ModelProblem(path, predicted, made.estimated, said, hold_out_after, edited.laws, edited.pulled)


def write_with_homeostasis(path: str | Path, homeostasis: Sequence[str], folder: str | Path) -> ModelProblem:
    """Write a PEtab problem again, with homeostasis added to its model; see `write_model_problem`.

    Args:
        path: YAML file of the problem.
        homeostasis: as for `write_model_problem`. A species counts as measured if the formula of an
            observable is its id.
        folder: a new folder for the new problem.

    Raises:
        InputError: as for `fit_petab` and `write_model_problem`; or the problem is of version 2.
    """
    problem = read_petab(Path(path))
    if problem.experiments:
        raise InputError(f"{path}: homeostasis is not supported for PEtab version 2 yet; give a problem of version 1")
    edited = EditedModel(problem.model, experiments_of(problem))
    edited.add_homeostasis(homeostasis)
    more = pd.DataFrame([_row(parameter) for parameter in edited.parameters])
    tables = {
        "parameters": pd.concat([problem.parameters.reset_index(), more], ignore_index=True),
        "conditions": problem.conditions.reset_index(),
        "observables": problem.observables.reset_index(),
        "measurements": problem.measurements,
    }
    written = write_petab(Path(folder), libsbml.writeSBMLToString(edited.document), tables)
    return ModelProblem(written, (), read_petab(written).estimated, laws=edited.laws, pulled=edited.pulled)


class _Tables:
    """The tables of a problem.

    Attributes:
        notes: assumptions, in sentences.
    """

    def __init__(
        self,
        model: EditedModel,
        formulas: Mapping[str, str],
        estimate: Sequence[str],
        fold: float,
        prior: float | None,
        noise: float | None,
    ):
        self._model, self._index = model, model.index
        self._estimate, self._fold, self._prior = estimate, fold, prior
        self.notes: list[str] = []
        self._parameters = [_row(parameter) for parameter in model.parameters]
        self._parameters += [_row(parameter, value) for parameter, value in self._of_model(formulas.values())]
        self._of_laws = {row["parameterId"] for row in self._parameters}
        self._observed = ObservableTable(model, formulas, noise)
        self._parameters += [_row(parameter) for parameter in self._observed.parameters]
        self.notes += self._observed.notes
        self._conditions = self._initial_values()

    @property
    def estimated(self) -> tuple[str, ...]:
        """Ids of the parameters."""
        return tuple(row["parameterId"] for row in self._parameters)

    @property
    def measured(self) -> set[str]:
        """Ids of the experiments with measurements."""
        return {row["simulationConditionId"] for row in self._observed.measurements}

    def write(self, folder: Path) -> Path:
        """Write all files, or none; returns the path of the YAML file."""
        self._check_ids()
        tables = {
            "parameters": self._parameters,
            "conditions": self._conditions,
            "observables": self._observed.rows,
            "measurements": self._observed.measurements,
        }
        frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
        return write_petab(folder, libsbml.writeSBMLToString(self._model.document), frames)

    def _check_ids(self) -> None:
        """Raise an error where the id of an observable or parameter is one of the model, or of another parameter."""
        taken = self._model.taken
        ids = list(self.estimated)
        for name in taken & {row["observableId"] for row in self._observed.rows}:
            raise InputError(
                f"{self._model.path}: {name} is needed as the id of an observable; rename that of the model"
            )
        twice = [name for k, name in enumerate(ids) if name in ids[:k] or (name in taken and name not in self._of_laws)]
        if twice:
            raise InputError(
                f"{self._model.path}: {twice[0]} is needed as the id of a new parameter; rename that of the model"
            )

    def _named(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._estimate)

    def _of_model(self, measured: Iterable[str]) -> Iterable[tuple[Parameter, float]]:
        """Parameters of the model that are to be estimated, with their values.

        Args:
            measured: formulas whose values are measured.
        """
        index, path = self._index, self._model.path
        new = {parameter.id for parameter in self._model.parameters} | {self._model.number}
        for pattern in self._estimate:
            if not fnmatch.filter({*index.parameters, *index.species}, pattern):
                near = nearest_name(pattern, {*index.parameters, *index.species})
                raise InputError(f"{path}: no parameter or species is named {pattern}; nearest: {near}")
        laws = [written.getKineticLaw() for written in index.reactions.values()]
        formulas = [*(law.getMath() for law in laws if law is not None), *index.assigned.values()]
        formulas += [rule.getMath() for rule in index.model.getListOfRules() if rule.isRate()]
        formulas += [parse_formula(formula) for formula in measured]
        formulas += [a.getMath() for event in index.model.getListOfEvents() for a in event.getListOfEventAssignments()]
        used = set[str]().union(*(index.mentioned(formula) for formula in formulas if formula is not None))
        left, timed = [], index.times_of_events
        for name, written in index.parameters.items():
            if name in new or name not in used | timed or name in index.assigned or name in index.rated:
                continue
            if name in timed and self._named(name):
                self.notes.append(f"Not estimated, since the time of an event depends on it: {name}.")
            elif self._named(name):
                value = float(written.getValue()) if written.isSetValue() else math.nan
                if 0 < value < math.inf:
                    within = min(self._fold, self._prior or self._fold)
                    prior = None if self._prior is None else (math.log10(value), math.log10(self._prior))
                    start = (value / within, value * within)
                    yield Parameter(name, LOG10, value / self._fold, value * self._fold, start, prior), value
                else:
                    left.append(name)
        if left:
            self.notes.append(
                f"Not estimated, since their value in the model is not positive: {some(left, len(left))}."
            )

    def _initial_values(self) -> list[dict[str, Any]]:
        """Rows of the condition table: number of the experiment, and initial values."""
        index = self._index
        ruled = {*index.assigned, *self._model.inputs}
        seen = {name for name in index.species if any(len(e.known(name)[0]) for e in self._model.experiments)}
        changing = [name for name in index.species if name not in ruled and (name not in index.fixed or name in seen)]
        still = [name for name in changing if name in index.fixed and name not in index.rated | index.events]
        if still:
            self.notes.append(
                f"Constant in the model, at the first measurement: {some(still, len(still))}; as an input, a species "
                "follows its measurements."
            )
        rows = []
        from_model: set[str] = set()
        limits = [name for name in changing if any(e.limit_at_start(name) for e in self._model.experiments)]
        if limits:
            self.notes.append(
                f"Limits at time zero ({some(limits, len(limits))}): initial concentrations are estimated below or "
                "above these, and are those of the model in held-out tables."
            )
        for number, experiment in enumerate(self._model.experiments):
            row: dict[str, Any] = {"conditionId": experiment.id}
            if self._model.number:
                row[self._model.number] = number
            for name in changing:
                entry = self._initial_value(name, experiment)
                if entry is None:
                    from_model.add(name)
                    row[name] = self._of_file(name)
                else:
                    row[name] = entry
            rows.append(row)
        if from_model:
            names = [name for name in changing if name in from_model]
            self.notes.append(
                f"Initial concentrations without a measurement are those of the model: {some(names, len(names))}."
            )
        return rows

    def _of_file(self, name: str) -> float:
        value = self._index.initial(name)
        if value is None:
            raise InputError(
                f"{self._model.path}: species {name} has neither a measured initial value nor one in the model"
            )
        return value * self._index.volume_of(name)

    def _initial_value(self, name: str, experiment: Experiment) -> float | str | None:
        """A number, the id of a parameter, or None for the value of the model."""
        value, volume = experiment.at_start(name), self._index.volume_of(name)
        if math.isfinite(value) and (experiment.held_out or value == 0):
            return value * volume
        seen = values_of(self._model.fitted, name)
        seen = seen[seen > 0]
        if math.isfinite(value):
            bounds, start = (value / _FOLD, value * _FOLD), (value * (1 - _NEAR), value * (1 + _NEAR))
        elif experiment.held_out:
            return None
        elif (limit := experiment.limit_at_start(name)) is not None:
            most, side = limit
            bounds = (most / _BEYOND_LIMIT, most * _FOLD) if side < 0 else (most / _FOLD, most * _BEYOND_LIMIT)
            start = (most / _NEARER, most) if side < 0 else (most, most * _NEARER)
        elif seen.size:
            start = (float(seen.min()), float(seen.max()) * (1 + _NEAR))
            bounds = (start[0] / _FOLD, start[1] * _FOLD)
        elif self._named(name) and list(self._estimate) != [_EVERYTHING] and (self._index.initial(name) or 0) > 0:
            given = float(self._index.initial(name) or 0)
            bounds = start = (given / self._fold, given * self._fold)
        else:
            return None
        scaled = [(low * volume, high * volume) for low, high in (bounds, start)]
        parameter = Parameter(f"initial_{name}_{experiment.id}", LOG10, *scaled[0], scaled[1])
        self._parameters.append(_row(parameter))
        return parameter.id


def _row(parameter: Parameter, nominal: float | None = None) -> dict[str, Any]:
    """A row of the parameter table."""
    scaled = [math.log10(end) if parameter.scale == LOG10 else end for end in parameter.start]
    row: dict[str, Any] = {
        "parameterId": parameter.id,
        "parameterScale": parameter.scale,
        "lowerBound": parameter.lower,
        "upperBound": parameter.upper,
        "nominalValue": parameter.nominal if nominal is None else nominal,
        "estimate": 1,
        "initializationPriorType": "parameterScaleUniform",
        "initializationPriorParameters": ";".join(f"{end:.12g}" for end in scaled),
    }
    if parameter.prior is not None:
        row["objectivePriorType"] = "parameterScaleNormal"
        row["objectivePriorParameters"] = ";".join(f"{number:.12g}" for number in parameter.prior)
    return row
