"""What results show in a notebook."""

import dataclasses
import importlib
import io
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from journals import exploration, opened
from test_documentation import HOOKS

import metabolismgraph as mg
from metabolismgraph.explore.state import State
from metabolismgraph.fitting.trust import Trust
from metabolismgraph.overview import Overview

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


def test_identify_names_what_is_not_determined_alone(small):
    network = small.observations.network
    found = mg.identify(network)
    cells = shown(found).cells
    assert found.groups
    for group, combinations in zip(found.groups, found.combinations, strict=True):
        named = cells.index(", ".join(network.reactions[j] for j in group))
        assert cells[named + 1] == ", ".join(one.written(network.reactions) for one in combinations)
    assert repr(mg.identify(network, homeostasis=False)).count("\n") < 20


def test_a_console_shows_the_same_and_no_arrays(small, small_config):
    config = small_config.replace({"training.homeostasis_training": False})
    result = mg.fit(small.observations, config)
    evaluation = mg.evaluate(result, small.truth)
    found = result.phase1.identifiability
    for thing in (small, small.observations, small.truth, small.observations.network, result, evaluation, found):
        text = repr(thing)
        assert len(text) < 4000
        cells = [" ".join(cell.split()) for cell in shown(thing).cells]
        flat = " ".join(text.split())
        assert [cell for cell in cells if cell not in flat] == []
    assert repr(result.trust) == "trust\n  trusted  yes"


def test_reasons_and_hostile_names_are_lines_of_their_own(small):
    network = dataclasses.replace(small.observations.network, id="a\n  trusted  yes\x1b[31m")
    assert repr(network).splitlines()[0] == "network a trusted yes [31m"
    nothing = np.zeros(1)
    trust = Trust(("no frames were held out", "a systematic residual"), nothing, nothing, nothing, nothing)
    assert [line.split(maxsplit=1)[0] for line in repr(trust).splitlines()] == ["trust", "trusted", "why", "why"]


def test_a_figure_is_a_picture(small, small_config):
    config = small_config.replace({"training.homeostasis_training": False})
    evaluation = mg.evaluate(mg.fit(small.observations, config), small.truth)
    figure = mg.plot.rates(evaluation)
    picture = matplotlib.image.imread(io.BytesIO(figure._repr_png_()))
    assert picture.shape[:2] == tuple(int(100 * side) for side in figure.get_size_inches()[::-1])
    assert picture.std() > 0.01
    figure = mg.plot.rates(evaluation)
    with matplotlib.rc_context({"xtick.color": "white", "ytick.labelsize": 40}):
        np.testing.assert_array_equal(matplotlib.image.imread(io.BytesIO(figure._repr_png_())), picture)


def test_every_result_is_an_overview():
    for name in (*HOOKS.RESULTS, *(f"metabolismgraph.{name}" for name in mg.__all__)):
        module, _, attribute = name.rpartition(".")
        kind = getattr(importlib.import_module(module), attribute)
        if dataclasses.is_dataclass(kind):
            assert issubclass(kind, Overview), name


def test_an_exploration():
    cells = shown(State.of(exploration(6))).cells
    assert value(cells, "iterations with a verdict") == "6"
    assert value(cells, "cost") == "0.00 US$"
    assert value(shown(State.of([opened()])).cells, "highest reward of a run") == "none"


def test_names_stay_text():
    found = shown(State.of([opened(name="<script>alert(1)</script>")]))
    assert found.cells[0] == "exploration <script>alert(1)</script>"
    assert "script" not in found.tags
