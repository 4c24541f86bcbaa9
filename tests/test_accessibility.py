"""A page of every kind in a narrow browser: axe finds nothing serious, all of it fits, and it asks for nothing."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from browser import in_a_browser, opened, scripted
from journals import exploration, journal, reviewed, strategy_file

from metabolismgraph.explore.report import render_comparison as of_explorations
from metabolismgraph.explore.report import render_report
from metabolismgraph.runs.comparison import render_comparison
from metabolismgraph.runs.report import write_run_report

pytestmark = [pytest.mark.slow, in_a_browser]
CHECK = """;
setTimeout(() => axe.run().then(({ violations, passes }) => {
  const found = violations.map(({ id, impact, nodes }) => [impact, id, nodes[0].html]);
  const beyond = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.said = JSON.stringify({ found, passed: passes.length, beyond });
}), 500);
"""


def checked(path, tmp_path):
    """The serious findings of axe on a page."""
    axe = Path(importlib.util.find_spec("axe_core_python").origin).with_name("axe.min.js").read_text(encoding="utf-8")
    page, console, asked = opened(scripted(path, axe + CHECK), tmp_path, width=500)  # the least that Chromium has
    said = json.loads(page.said)
    assert (console, asked) == ([], set())
    assert said["beyond"] <= 0
    assert said["passed"] > 10
    return [each for each in said["found"] if each[0] in {"serious", "critical"}]


def page(tmp_path, text):
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def events():
    review = reviewed(1, file=strategy_file())
    return exploration(12, replicates={5: 1, 6: 1}, failing={7: "time limit"}, reviews={1: review})


def test_the_page_of_a_run(finished_run, tmp_path):
    assert checked(page(tmp_path, (finished_run / "report.html").read_text(encoding="utf-8")), tmp_path) == []


def test_the_page_of_an_interrupted_run(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["stages"]["evaluate"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert checked(write_run_report(folder), tmp_path) == []


def test_the_page_of_an_exploration(events, tmp_path):
    assert checked(page(tmp_path, render_report(tmp_path, events)), tmp_path) == []


def test_the_page_of_two_runs(finished_run, tmp_path):
    assert checked(page(tmp_path, render_comparison([finished_run, finished_run])), tmp_path) == []


def test_the_page_of_two_explorations(events, tmp_path):
    for name in ("a", "b"):
        journal(tmp_path / name, events)
    assert checked(page(tmp_path, of_explorations(tmp_path / "a", tmp_path / "b")), tmp_path) == []
