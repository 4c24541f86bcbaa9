"""Search spaces: what an exploration may change and within which ranges, how runs are judged, which moves there are.

A search space is a YAML file. Those of the package are in the folder `search_spaces`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metabolismgraph.config import Config
from metabolismgraph.config.messages import explain, nearest_name
from metabolismgraph.config.tree import KEYS
from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.metrics import find

Range = tuple[float | None, float | None]
Way = Literal["up", "down", "any"]
Role = Literal["ucb", "best", "second", "explore", "principle"]

DEFAULT = "phase2"
# Quantities of a run besides its metrics that a condition may use.
DERIVED = ("reward", "separated", "lowest_slope_ratio", "highest_slope_ratio")
_OWN_MODES = ("exploit", "explore", "replicate", "test-principle")
_FORBIDDEN = ("simulation", "exploration", "plotting", "dataset", "description")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Parameter(_Part):
    """A key of the configuration that an exploration may change.

    Attributes:
        key: dotted.
        name: short, as in logs and proposals.
        range: a proposal outside it is refused.
        typical: what prompts recommend.
        search: where the rules search; without it, `typical`, then `range`.
        factor: of the first change by the rules.
        first: direction of the first change.
    """

    key: str
    name: str
    range: Range | None = None
    typical: Range | None = None
    search: Range | None = None
    factor: float = Field(10**0.5, gt=1)
    first: Literal["up", "down"] = "up"

    @property
    def searched(self) -> Range:
        """The range in which the rules search."""
        return self.search or self.typical or self.range or (None, None)

    @functools.cached_property
    def default(self) -> Any:
        """Its value in the default configuration."""
        return Config().value(self.key)

    @property
    def is_number(self) -> bool:
        """Whether it has steps, upwards and downwards."""
        return isinstance(self.default, (int, float)) and not isinstance(self.default, bool)


class Term(_Part):
    """A part of a reward: a metric, within [0, 1] and best at 1.

    Attributes:
        metric: as in metrics.json; with `{t}`, the mean over types.
        weight: relative to the other terms.
        gate: later terms count only where this metric is at least so large.
    """

    metric: str
    weight: float = Field(1.0, gt=0)
    gate: float | None = None


class Class(_Part):
    """A class of runs: the first one in the list whose conditions hold is the class of a run.

    Attributes:
        name: converged, partial or failed, or one of these with a suffix, such as partial-k.
        when: range of each metric.
    """

    name: Annotated[str, Field(pattern=r"^(converged|partial|failed)(-[a-z]+)?$")]
    when: Mapping[str, Range] = {}


class Reward(_Part):
    """How a run is judged.

    Attributes:
        metric: gives the class of a run where `classes` is empty; below zero, the reward is zero. None: the name of
            the reward.
        terms: the reward is their weighted mean.
    """

    metric: str | None = None
    terms: Annotated[tuple[Term, ...], Field(min_length=1)]
    classes: tuple[Class, ...] = ()


class Move(_Part):
    """A row of the table of moves. The first one whose conditions hold is made, otherwise `exploit`.

    Attributes:
        mode: its name in proposals.
        why: the situation, for people and models.
        last: its conditions must hold in this number of last runs; None: in the last run of the leading node.
        when: range of each metric, or of reward, separated (embeddings: 1 or 0), lowest_slope_ratio and
            highest_slope_ratio.
        classes: one of these is the class of the runs.
        unless_near: not where all slope ratios are within 0.5-1.5 in the last three runs.
        strategies: whether an untried set of strategies is tried: always, or in turn with a change, first or second.
        require: a strategy that is added where it is missing.
        changes: the first one that leads to settings that were not tried: parameter -> up, down, any, or a value.
        extreme: one parameter is set to an end of its range.
    """

    mode: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]
    why: str
    last: int | None = Field(None, ge=1)
    when: Mapping[str, Range] = {}
    classes: tuple[str, ...] = ()
    unless_near: bool = False
    strategies: Literal["always", "first", "second"] | None = None
    require: str | None = None
    changes: tuple[Mapping[str, Any], ...] = ()
    extreme: bool = False


class Log(_Part):
    """What an entry of the log shows.

    Attributes:
        config: parameters by their short names, and seed.
        metrics: by their names in logs; slope_ratios stands for slope and offset ratios of all types.
        visual: MLP_sub, MLP_node, Embeddings and k.
        parent_rule: whether there is a line `Parent rule:`.
    """

    config: tuple[str, ...]
    metrics: tuple[str, ...]
    visual: tuple[Literal["MLP_sub", "MLP_node", "Embeddings", "k"], ...]
    parent_rule: bool = False


class SearchSpace(_Part):
    """A search space.

    Attributes:
        description: in one line.
        trains: `phase2`, from a frozen checkpoint that all runs share, or `everything`, from the data.
        fixed: settings of every run, by dotted key.
        time_step_by_slot: whether training.homeostasis_time_step is fixed per slot, by exploration.time_steps.
        strategies: whether strategies of Phase 2 may be changed, and strategy files submitted.
        parameters: what may be changed.
        order: parameters that the rules change, the first one first.
        rewards: by name; exploration.primary selects one.
        slots: what each slot does, in turn: ucb, the node with the highest score; best and second, those with the
            highest rewards; explore, a parameter that was never tried; principle, runs that test an effect.
        first_batch: changes of the configuration in each slot of the first batch.
        moves, log: see there.
    """

    description: str
    trains: Literal["phase2", "everything"]
    fixed: Mapping[str, Any] = {}
    time_step_by_slot: bool = False
    strategies: bool = False
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1)]
    order: tuple[str, ...]
    rewards: Annotated[Mapping[str, Reward], Field(min_length=1)]
    slots: Annotated[tuple[Role, ...], Field(min_length=1)] = ("ucb",)
    first_batch: tuple[Mapping[str, Any], ...] = ()
    moves: tuple[Move, ...] = ()
    log: Log

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Short names of the parameters by key."""
        return {parameter.key: parameter.name for parameter in self.parameters}

    @functools.cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by short name."""
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the settings that make a node: the parameters, and the rollout length of a slot."""
        return (*self.names, *((TIME_STEP,) if self.time_step_by_slot else ()))

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of proposals."""
        return tuple(dict.fromkeys((*_OWN_MODES, *(move.mode for move in self.moves))))

    def parameter(self, key: str) -> Parameter:
        """The parameter of a key."""
        return next(parameter for parameter in self.parameters if parameter.key == key)

    def primary(self, wanted: str | None) -> str:
        """The name of the reward that is asked for; None: the first one.

        Raises:
            InputError: there is no such reward.
        """
        if wanted is not None and wanted not in self.rewards:
            raise InputError(f"exploration.primary is {wanted}; the search space has: {', '.join(self.rewards)}")
        return wanted or next(iter(self.rewards))

    def uses_truth(self, primary: str) -> bool:
        """Whether a reward, or the class of a run by it, depends on the truth."""
        reward = self.rewards[primary]
        used = {reward.metric or primary, *(term.metric for term in reward.terms)}
        used |= {name for each in reward.classes for name in each.when}
        return any((metric := find(name.replace("{t}", "0"))) is not None and metric.uses_truth for name in used)

    def prepare(self, config: Config) -> Config:
        """The initial configuration of an exploration: `fixed`, and section `exploration` applied to `training`.

        Raises:
            InputError: Phase 2 is switched off, or a value is out of range.
        """
        training = config.training
        if self.trains == "everything":
            return config.replace(self.fixed)
        if not training.homeostasis_training:
            raise InputError("training.homeostasis_training is false: there is nothing to explore; set it to true")
        given = {f"training.{key}": getattr(config.exploration, key) for key in ("n_epochs", "data_augmentation_loop")}
        return config.replace({"training.skip_phase1": True, **given, **self.fixed})

    @model_validator(mode="after")
    def _consistent(self) -> SearchSpace:
        for key in (*(p.key for p in self.parameters), *self.fixed):
            if key not in KEYS or key.partition(".")[0] in _FORBIDDEN:
                raise ValueError(f"{key} is not a key of the sections training and graph_model")
        known = {*self.by_name}
        named = [*self.order, *(name for each in self.first_batch for name in each)]
        named += [name for move in self.moves for each in move.changes for name in each]
        named += [name for name in self.log.config if name != "seed"]
        for name in named:
            if name not in known:
                raise ValueError(f"{name} is not one of the parameters; did you mean {nearest_name(name, known)}?")
        conditions = [*(c.when for r in self.rewards.values() for c in r.classes), *(move.when for move in self.moves)]
        metrics = [name for each in conditions for name in each if name not in DERIVED]
        metrics += [term.metric for reward in self.rewards.values() for term in reward.terms]
        metrics += [reward.metric or name for name, reward in self.rewards.items()]
        for name in metrics:
            if find(name.replace("{t}", "0")) is None:
                raise ValueError(f"{name} is not a metric")
        if self.strategies != (STRATEGY in self.names):
            raise ValueError(f"strategies is {str(self.strategies).lower()}: then {STRATEGY} is a parameter, or is not")
        return self


@functools.cache
def shipped_space(name: str) -> SearchSpace:
    """A search space of the package.

    Raises:
        InputError: there is none of that name.
    """
    return parse_space(name)[0]


def parse_space(source: str) -> tuple[SearchSpace, dict[str, Any]]:
    """A search space, and the content of its file.

    Args:
        source: path of a YAML file, or name of a search space of the package.

    Raises:
        InputError: there is no such file, or it does not describe a search space.
    """
    content = parse_yaml(_text(source), source)
    return space_of(content, source), content  # type: ignore[return-value]


def space_of(content: object, where: str) -> SearchSpace:
    """The search space that the content of a file describes.

    Raises:
        InputError: it does not describe one.
    """
    try:
        return SearchSpace.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{where}: {explain(first['loc'], first)}") from None


def _text(source: str) -> str:
    path = Path(source)
    shipped = {
        entry.name.removesuffix(".yaml"): entry
        for entry in (resources.files("metabolismgraph.explore") / "search_spaces").iterdir()
        if entry.name.endswith(".yaml")
    }
    if not path.is_file() and source in shipped:
        return shipped[source].read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"exploration.space is {source}, neither a readable file nor a search space of the package "
            f"({', '.join(sorted(shipped))})"
        ) from None
