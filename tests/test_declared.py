"""What a strategy file declares by its text, and a trial that declares something else."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
from strategy_files import written

from metabolismgraph.explore.review import admission
from metabolismgraph.explore.review.declared import Written, disagreements, read_declaration
from metabolismgraph.explore.review.examination import _declared
from metabolismgraph.homeostasis.strategies import STRATEGIES
from metabolismgraph.processes import Completed

OPTIONS = """
width: float = Field(_WIDTH, gt=0, le=2, description="of the window")
count: int = 3
sets: ClassVar[frozenset[Part]] = frozenset({"steps", "objective"})
needs: ClassVar = "roll" + "outs"
_private: int = 2
"""
SOURCE = written(top="_WIDTH = 0.5", body=OPTIONS)
DECLARED = {
    "number": 11,
    "summary": "odd",
    "reference": "none",
    "sets": ["objective", "steps"],
    "needs": "rollouts",
    "draws_minibatches": False,
    "options": {
        "title": "Odd",
        "type": "object",
        "description": "Odd.",
        "additionalProperties": False,
        "properties": {
            "width": {
                "title": "Width",
                "type": "number",
                "default": 0.5,
                "exclusiveMinimum": 0,
                "maximum": 2,
                "description": "of the window",
            },
            "count": {"title": "Count", "type": "integer", "default": 3},
        },
    },
}


def test_literals_are_read_and_expressions_are_left_open():
    found = read_declaration(SOURCE)
    assert found.values == {
        "number": 11, "summary": "odd", "reference": "none", "draws_minibatches": False,
        "sets": frozenset({"steps", "objective"}),
    }  # fmt: skip
    assert found.options["width"] == {
        "type": "number", "default": 0.5, "description": "of the window", "exclusiveMinimum": 0, "maximum": 2,
    }  # fmt: skip
    assert found.options["count"] == {"type": "integer", "default": 3}
    assert found.options.keys() == {"width", "count"}
    assert found.complete
    assert list(disagreements(found, DECLARED)) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_packages_own_strategies_declare_what_their_text_says(name):
    kind = STRATEGIES[name]
    found = read_declaration(Path(sys.modules[kind.__module__].__file__).read_text(encoding="utf-8"))
    assert found.options.keys() == kind.model_fields.keys()
    assert found.values.keys() >= {"number", "summary", "reference"}
    assert list(disagreements(found, json.loads(json.dumps(_declared(kind))))) == []


FORGED = {
    "another number": (("number", 1), "number"),
    "true for a number": (("number", True), "number"),
    "another summary": (("summary", "fine"), "summary"),
    "other parts": (("sets", []), "sets"),
    "no options": (("options", "properties", {}), "option count"),
    "options that are no schema": (("options", [1]), "options"),
    "options that are no mapping": (("options", "properties", [1]), "options"),
    "a very large schema": (("options", "description", "x" * 30_000), "options"),
    "a title that is no text": (("options", "title", 1), "options"),
    "further parts of a schema": (("options", "$defs", {}), "options"),
    "any option is allowed": (("options", "additionalProperties", True), "options"),
    "one more option": (("options", "properties", "more", {"type": "integer", "default": 1}), "option more"),
    "another default": (("options", "properties", "width", "default", 5.0), "option width"),
    "another bound": (("options", "properties", "width", "maximum", 9), "option width"),
    "another type": (("options", "properties", "count", "type", "string"), "option count"),
    "another description": (("options", "properties", "width", "description", "x"), "option width"),
    "an option that refers": (("options", "properties", "count", "$ref", "#"), "option count"),
    "an option that is no mapping": (("options", "properties", "count", 1), "option count"),
    "an option that is no name": (("options", "properties", "a b", {}), "option a b"),
}


@pytest.mark.parametrize("name", FORGED)
def test_another_declaration_is_seen(name):
    (*path, key, value), seen = FORGED[name]
    forged = copy.deepcopy(DECLARED)
    place = forged
    for part in path:
        place = place[part]
    place[key] = value
    assert seen in list(disagreements(read_declaration(SOURCE), forged))


def test_options_of_a_base_class_are_left_open():
    found = read_declaration(written(head="class Odd(Residual):"))
    assert not found.complete
    assert "sets" not in found.values
    assert list(disagreements(found, DECLARED | {"sets": ["steps"]})) == []
    assert read_declaration("x = 1") == Written({}, {}, complete=False)


def _said(*events: dict[str, object]) -> Completed:
    return Completed(0, None, "\n".join(map(json.dumps, events)).encode(), b"")


def test_the_verdict_is_that_of_the_text():
    honest = admission._verdict("odd", SOURCE, _said({"event": "passed", "declared": DECLARED}), 1.0)
    assert honest.accepted
    assert honest.declaration.number == 11
    forged = {"event": "passed", "declared": DECLARED | {"number": 5, "summary": "fine"}}
    refused = admission._verdict("odd", SOURCE, _said({"event": "passed", "declared": DECLARED}, forged), 1.0)
    assert refused.reasons == ("declares something else on trial than in its text (number, summary)",)
    assert refused.declaration is None
