"""The complete configuration, and changes by dotted keys."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import Field, ValidationError

from metabolismgraph.config.exploration import Exploration
from metabolismgraph.config.graph_model import GraphModel
from metabolismgraph.config.messages import explain
from metabolismgraph.config.plotting import Plotting
from metabolismgraph.config.published_keys import current_name
from metabolismgraph.config.section import Section
from metabolismgraph.config.simulation import FOR_ALL_TYPES, Simulation
from metabolismgraph.config.training import Training
from metabolismgraph.config.yaml_text import Dumper, parse_yaml
from metabolismgraph.errors import InputError


class Config(Section):
    """The complete configuration of `simulate` and `fit`: sections with their keys, frozen.

    Every key has a default, bounds, and a description with its unit, printed by `metabolismgraph configs --show NAME`
    and listed in the documentation.

    Raises:
        pydantic.ValidationError: on construction, for an invalid value. `replace` and `load_config` raise an
            InputError of one line instead.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.Config().replace({"training.nuisance_degree": 2, "simulation.n_reactions": 64})
        >>> config.training.nuisance_degree, config.simulation.delta_t
        (2, 0.1)
    """

    description: str = Field("", description="purpose of this configuration, in one line")
    dataset: str = Field("", description="name of the data set; by default, the name of the file")
    simulation: Simulation = Field(default_factory=Simulation, description="the simulated system")
    graph_model: GraphModel = Field(default_factory=GraphModel, description="the learned model")
    training: Training = Field(default_factory=Training, description="Phase 1 and Phase 2")
    exploration: Exploration = Field(default_factory=Exploration, description="the search over configurations")
    plotting: Plotting = Field(default_factory=Plotting, description="appearance of the figures")

    def value(self, key: str) -> Any:
        """The value of a dotted key, in the types of YAML.

        Raises:
            InputError: there is no such key.

        Example:
            >>> import metabolismgraph as mg
            >>> mg.load_config("small").value("training.homeostasis_time_step")
            1
        """
        check_known(key, key, "value")
        section, _, name = key.rpartition(".")
        part = getattr(self, section) if section else self
        return part.model_dump(mode="json", include={name})[name]

    def to_yaml(self) -> str:
        """The complete tree as YAML, including defaults; `load_config` restores an equal configuration from it."""
        tree = self.model_dump(mode="json")
        return str(yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True))

    def replace(self, changes: Mapping[str, object]) -> Config:
        """A copy with other values, by dotted key: `config.replace({"training.seed": 3})`.

        Raises:
            InputError: unknown key or invalid value.
        """
        tree = self.model_dump()
        changed = merge(tree, changes, "replace")
        return validate(tree, "configuration", "replace", changed)

    def override(self, overrides: Sequence[str]) -> Config:
        """A copy with changes in the form of --set: `config.override(["training.seed=3"])`.

        Raises:
            InputError: as for `replace`; or a change is not of the form key=value.
        """
        return self.replace(parse_overrides(overrides))


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
KEYS = [
    *(key for key in Config.model_fields if key not in SECTIONS),
    *(f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields),
]


def merge(tree: dict[str, Any], changes: Mapping[str, object], where: str) -> list[str]:
    """Apply changes by dotted key to a normalised tree; returns the current names of the changed keys.

    Raises:
        InputError: unknown key, or a change without effect.
    """
    changed: list[str] = []
    for written, value in changes.items():
        key = current_name(written)
        check_known(written, key, where)
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
        changed.append(key)
    for for_all, per_type in FOR_ALL_TYPES.items():
        values = tree.get("simulation", {}).get(per_type)
        if f"simulation.{for_all}" in changed and f"simulation.{per_type}" not in changed and values:
            raise InputError(
                f"{where}: simulation.{for_all} has no effect beside simulation.{per_type} {list(values)}; "
                "set that one, or set it to [] as well"
            )
    return changed


def validate(tree: dict[str, Any], where: str, where_changed: str, changed: Sequence[str]) -> Config:
    """The configuration of a tree of keys.

    Args:
        tree: normalised.
        where: source of the tree, for messages.
        where_changed, changed: source of these keys, for messages.

    Raises:
        InputError: an invalid value, or inconsistent values.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        place = where_changed if key in changed else where
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{place}: {explain(first['loc'], first)}{more}") from None


def parse_overrides(overrides: Sequence[str]) -> dict[str, object]:
    """Changes by dotted key, from texts such as "training.seed=3"; values are read as YAML.

    Raises:
        InputError: a text is not of the form key=value.
    """
    changes: dict[str, object] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise InputError(f"--set {override}: expected section.key=value, such as training.seed=3")
        changes[key.strip()] = parse_yaml(value, f"--set {override}")
    return changes


def check_known(written: str, key: str, where: str) -> None:
    """Check that a key exists.

    Args:
        written, key: the key in the file, and its current name.
        where: file or option, for the message.

    Raises:
        InputError: there is no such key; the message suggests the most similar one.
    """
    if key in KEYS:
        return
    if key in SECTIONS:
        example = next(k for k in KEYS if k.startswith(f"{key}."))
        raise InputError(f"{where}: {written} is a section; set one of its keys, such as {example}")
    raise InputError(f"{where}: unknown key {written}; did you mean {nearest_key(key)}?")


def nearest_key(key: str) -> str:
    """The most similar valid key, or section."""
    section, _, name = key[:100].lower().rpartition(".")
    words = ["learning_rate" if word == "lr" else word for word in name.split("_")]
    name = "_".join(words)

    def similarity(other: str) -> float:
        own_section, _, own_name = other.lower().rpartition(".")
        # Whole words, or their beginnings, tell more than letters, and the name tells more than the section.
        found = sum(f"_{word}" in f"_{own_name}" for word in words) / len(words)
        whole = _ratio(f"{section}.{name}", other.lower())
        return found + _ratio(name, own_name) + 0.5 * _ratio(section, own_section) + 0.1 * whole

    return max([*KEYS, *SECTIONS], key=similarity)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
