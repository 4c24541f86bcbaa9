"""Parts that the pages of runs and explorations have in common: listed sentences, and settings that were changed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from metabolismgraph.config import Config
from metabolismgraph.metrics import Value


def listed(metrics: Mapping[str, Value], name: str) -> list[str]:
    """The sentences of a metric, such as the reasons against a fit."""
    found = metrics.get(name)
    return [str(sentence) for sentence in found] if isinstance(found, list) else []


def changed(config: Config) -> list[tuple[str, str, str]]:
    """Keys of a configuration that differ from the defaults: name, value, default."""
    own, default = (each.model_dump(mode="json") for each in (config, Config()))
    return [
        (f"{section}.{key}", json.dumps(value), json.dumps(default[section][key]))
        for section, found in own.items()
        if isinstance(found, dict)
        for key, value in found.items()
        if value != default[section][key]
    ]
