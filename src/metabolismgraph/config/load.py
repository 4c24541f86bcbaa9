"""Configurations from files: by path, or by name for those of the package."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

from metabolismgraph.config.messages import shown
from metabolismgraph.config.published_keys import (
    IGNORED_KEYS,
    NEUTRAL_KEYS,
    OLDER_SECTIONS,
    current_name,
    older_name,
)
from metabolismgraph.config.tree import SECTIONS, Config, check_known, merge, parse_overrides, validate
from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError

DEFAULT_CONFIG = "oscillatory_rank50"


class OldKeyWarning(UserWarning):
    """A configuration contains obsolete keys of older versions, which have no effect."""


def load_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        source: path of a YAML file, or name of a configuration of the package; None: `oscillatory_rank50`.
        overrides: changes such as "training.learning_rate_k=0.003"; the value is read as YAML.

    Raises:
        InputError: the source does not exist or is unreadable, an unknown key, an invalid value, or a key for a
            feature that this program does not have.

    Warns:
        OldKeyWarning: the file contains obsolete keys.

    Example:
        >>> import metabolismgraph as mg
        >>> mg.load_config("small", ["training.seed=3"]).training.seed
        3
        >>> mg.load_config("small", ["training.sede=3"])
        Traceback (most recent call last):
        ...
        metabolismgraph.errors.InputError: --set: unknown key training.sede; did you mean training.seed?
    """
    name, text = _read(DEFAULT_CONFIG if source is None else source)
    tree, old = normalise(parse_yaml(text, name), name)
    tree.setdefault("dataset", Path(name).stem)
    changes = parse_overrides(overrides)
    old += [key for key, value in changes.items() if _is_ignored(key, value, "--set")]
    changed = merge(tree, {key: value for key, value in changes.items() if key not in old}, "--set")
    if old:
        old = list(dict.fromkeys(old))
        warnings.warn(
            f"{name}: these keys are obsolete and have no effect: {', '.join(old)}", OldKeyWarning, stacklevel=2
        )
    return validate(tree, name, "--set", changed)


def shipped_configs() -> dict[str, str]:
    """The configurations in the package: one-line descriptions by name."""
    return {
        name: str(cast("dict[str, object]", parse_yaml(path.read_text(encoding="utf-8"), name))["description"])
        for name, path in _shipped_files().items()
    }


def _shipped_files() -> dict[str, Traversable]:
    folder = resources.files("metabolismgraph.config") / "shipped"
    files = {path.name.removesuffix(".yaml"): path for path in folder.iterdir() if path.name.endswith(".yaml")}
    return dict(sorted(files.items()))


def _read(source: str | Path) -> tuple[str, str]:
    """Name for messages, and text; a file takes precedence over a configuration of the package with the same name."""
    path = Path(source)
    shipped = _shipped_files()
    # A folder may have the name of a configuration, for instance that of an earlier run. It is not a file.
    if not path.is_file() and str(source) in shipped:
        return str(source), shipped[str(source)].read_text(encoding="utf-8")
    try:
        return str(source), path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.stem, shipped, 1, 0.0)
        raise InputError(
            f"{source}: neither a file nor a shipped configuration; did you mean {near[0]}? "
            f"(shipped: {', '.join(shipped)})"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{source}: not a text file; a configuration is YAML in UTF-8") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); give a YAML file") from None


def normalise(raw: object, where: str) -> tuple[dict[str, Any], list[str]]:
    """The tree with current names of keys, and the obsolete keys that were removed.

    Raises:
        InputError: the tree is not a mapping of sections, a key is unknown, or a key and its older name have different
            values.
    """
    tree: dict[str, Any] = {}
    old: list[str] = []
    for written, key, value in _leaves(raw, where):
        if _is_ignored(written, value, where):
            old.append(written)
            continue
        check_known(written, key, where)
        section, _, name = key.rpartition(".")
        target = tree.setdefault(section, {}) if section else tree
        if name in target and target[name] != value:
            raise InputError(f"{where}: {key} and its older name {older_name(key)} differ; keep one of them")
        target[name] = value
    return tree, old


def _leaves(raw: object, where: str) -> Iterator[tuple[str, str, object]]:
    """Every (key in the file, current name, value) of a tree."""
    if not isinstance(raw, Mapping | None):
        raise InputError(f"{where}: found {shown(raw)}, expected sections such as `training:` with keys below them")
    for top, value in (raw or {}).items():
        if OLDER_SECTIONS.get(top, top) not in SECTIONS:
            yield str(top), str(top), value
            continue
        if not isinstance(value, Mapping | None):
            raise InputError(f"{where}: {top} is {shown(value)}, expected keys below it, such as `seed: 42`")
        for name, leaf in (value or {}).items():
            yield f"{top}.{name}", current_name(f"{top}.{name}"), leaf


def _is_ignored(written: str, value: object, where: str) -> bool:
    """Whether a key is obsolete.

    Raises:
        InputError: its value requests a feature that this program does not have.
    """
    key = current_name(written)
    neutral = NEUTRAL_KEYS.get(key)
    if neutral is not None and not neutral.accepts(value):
        raise InputError(
            f"{where}: {written} is {shown(value)}, but {neutral.missing}; remove the key, or set it to "
            f"{neutral.example}"
        )
    return neutral is not None or key in IGNORED_KEYS
