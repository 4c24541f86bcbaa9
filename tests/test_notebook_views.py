"""What results show in a notebook."""

from html.parser import HTMLParser

import pytest
from journals import exploration, opened

import metabolismgraph as mg
from metabolismgraph.explore.state import State

pytestmark = pytest.mark.slow


class _Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.cells, self.tags, self._open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        del attrs
        self.tags.append(tag)
        self._open = tag in {"th", "td", "caption"}
        if self._open:
            self.cells.append("")

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data


def shown(thing):
    return _Cells(thing._repr_html_())


def value(cells, name):
    return cells[cells.index(name) + 1]


def test_a_fit_and_its_evaluation(small, small_config):
    config = small_config.replace({"training.homeostasis_training": False})
    result = mg.fit(small.observations, config)
    fit = shown(result).cells
    known = int(result.phase1.identifiability.identifiable.sum())
    assert value(fit, "rate constants that are determined") == f"{known} of {len(result.rate_constants)}"
    assert value(fit, "trusted") == "yes"
    assert value(fit, "types of homeostasis") == "no Phase 2"
    assert result.rate_constants["reaction"][0] in fit
    evaluation = shown(mg.evaluate(result, small.truth)).cells
    assert evaluation[:3] == ["evaluation", "trusted", "yes"]
    assert any(cell.startswith("rate_constants_R2_identifiable: ") for cell in evaluation)
    found = shown(result.phase1.identifiability).cells
    assert value(found, "rate constants that are determined") == f"{known} of {len(result.rate_constants)}"
    directions = result.phase1.identifiability.null_space.shape[1]
    assert value(found, "directions that the data leave open") == str(directions)


def test_an_exploration():
    cells = shown(State.of(exploration(6))).cells
    assert value(cells, "iterations with a verdict") == "6"
    assert value(cells, "cost") == "0.00 US$"
    assert value(shown(State.of([opened()])).cells, "highest reward of a run") == "none"


def test_names_stay_text():
    found = shown(State.of([opened(name="<script>alert(1)</script>")]))
    assert found.cells[0] == "exploration <script>alert(1)</script>"
    assert "script" not in found.tags
