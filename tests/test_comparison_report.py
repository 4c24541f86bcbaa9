"""Pages that compare runs, or two explorations, and the command that writes pages."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import HOSTILE, Page, in_a_browser, opened
from command_line import call, refused
from journals import exploration, journal

from metabolismgraph.explore.report import render_comparison as of_explorations
from metabolismgraph.runs.comparison import render_comparison

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(finished_run, tmp_path):
    """Two copies of a finished run, to be changed."""
    return [shutil.copytree(finished_run, tmp_path / name) for name in ("first", "second")]


def change(path, name, at, **values):
    table = pd.read_csv(path / name)
    for column, value in values.items():
        table.loc[at, column] = value
    table.to_csv(path / name, index=False)


def row_of(page, table, name):
    return next(row for row in page.data[table]["rows"] if row[0] == name)


def test_equal_runs_do_not_differ(runs):
    page = Page(render_comparison(runs))
    assert "All were trained on the same data" in page.texts["main"]
    assert "All settings and versions are the same." in page.texts["main"]
    assert {row[-1] for row in page.data["constants"]["rows"]} == {0}


def test_a_difference_is_in_units_of_its_standard_error(runs):
    table = pd.read_csv(runs[0] / "rate_constants.csv")
    at = int(np.flatnonzero(table["identifiable"])[0])
    name, log_k = table.loc[at, ["reaction", "log10_k"]]
    change(runs[0], "rate_constants.csv", at, standard_error=0.03)
    change(runs[1], "rate_constants.csv", at, standard_error=0.04, log10_k=log_k + 0.2)
    assert row_of(Page(render_comparison(runs)), "constants", name)[-1] == pytest.approx(4.0, rel=1e-4)


def test_what_only_one_run_determines_has_no_difference(runs):
    table = pd.read_csv(runs[0] / "rate_constants.csv")
    at = int(np.flatnonzero(table["identifiable"])[0])
    change(runs[1], "rate_constants.csv", at, identifiable=False, reason="only a combination")
    row = row_of(Page(render_comparison(runs)), "constants", table.loc[at, "reaction"])
    assert row[2] is not None
    assert row[4:] == [None, None, None]


def test_reactions_of_the_same_name_in_other_networks_are_not_compared(runs):
    table = pd.read_csv(runs[0] / "rate_constants.csv")
    at = int(np.flatnonzero(table["identifiable"])[0])
    change(runs[1], "rate_constants.csv", at, equation="X -> Y", log10_k=5.0)
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    (runs[1] / "manifest.json").write_text(json.dumps(manifest | {"observations": "other"}))
    page = Page(render_comparison(runs))
    assert "They are of different networks" in page.texts["main"]
    rows = [row for row in page.data["constants"]["rows"] if row[0] == table.loc[at, "reaction"]]
    assert [row[-1] for row in rows] == [None, None]


def test_settings_that_differ_are_shown(runs):
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    manifest["config"]["training"]["seed"] = 77
    (runs[1] / "manifest.json").write_text(json.dumps(manifest))
    text = Page(render_comparison(runs)).texts["main"]
    assert "training.seed" in text
    assert "77" in text


def test_the_command_writes_every_kind_of_page(runs, tmp_path, monkeypatch, capsys):
    explorations = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(explorations):
        journal(folder, exploration(8, seed=seed))
    out = tmp_path / "page.html"
    assert call(monkeypatch, "report", *runs, "--out", out) == 0
    assert "Comparison of 2 runs" in out.read_text()
    message = refused(monkeypatch, capsys, "report", *explorations, "--out", out)
    assert message == f"error: {out} exists; choose another file with --out, or give --overwrite"
    assert call(monkeypatch, "report", *explorations, "--out", out, "--overwrite") == 0
    assert "Comparison of two explorations" in out.read_text()
    assert call(monkeypatch, "report", explorations[0]) == 0
    assert "report of an exploration" in (explorations[0] / "report.html").read_text()
    capsys.readouterr()
    for folders, said in (
        ((runs[0], explorations[0]), "a run and an exploration cannot be compared"),
        ((*explorations, explorations[0]), "a page compares two"),
        ((runs[0], tmp_path), "no run"),
        ((runs[0],) * 27, "at most 26"),
    ):
        assert said in refused(monkeypatch, capsys, "report", *folders, "--out", tmp_path / "none.html")
    assert "--out is for a comparison" in refused(monkeypatch, capsys, "report", runs[0], "--out", out)
    assert not (tmp_path / "none.html").exists()


def test_an_unfinished_run_is_not_compared(runs, tmp_path, monkeypatch, capsys):
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    del manifest["stages"]["evaluate"]
    (runs[1] / "manifest.json").write_text(json.dumps(manifest))
    message = refused(monkeypatch, capsys, "report", *runs, "--out", tmp_path / "page.html")
    assert message == f"error: {runs[1]}: has no results; continue it with --resume"


def test_explorations_are_compared_by_their_best_nodes(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, ratio in zip(folders, (0.5, 0.75), strict=True):
        found = exploration(
            8, replicates={5: 1, 6: 1}, ratios=lambda i, ratio=ratio: (ratio if i in {1, 5, 6} else 0.1, 1)
        )
        journal(folder, found)
    text = Page(of_explorations(*folders)).texts["main"]
    assert "Rewards of the best nodes: " in text
    assert text.count("is the best") == 2
    assert "effects of changes on the reward" in text


@in_a_browser
def test_a_browser_fills_the_tables_and_asks_for_nothing(runs, tmp_path):
    table = pd.read_csv(runs[1] / "rate_constants.csv")
    known = table[table["identifiable"]].iloc[[0]]
    table = pd.concat([table, *[known] * len(HOSTILE)], ignore_index=True)
    table.loc[table.index[-len(HOSTILE) :], ["reaction", "equation"]] = [[text, text] for text in HOSTILE]
    table.to_csv(runs[1] / "rate_constants.csv", index=False)
    path = tmp_path / "comparison.html"
    path.write_text(render_comparison(runs), encoding="utf-8", errors="replace")
    page, console, asked = opened(path, tmp_path)
    assert (console, asked) == ([], set())
    assert page.texts["title"] == "Comparison of 2 runs"
    assert sum("tabulator-row" in (a.get("class") or "").split() for _, a in page.elements) > 20
