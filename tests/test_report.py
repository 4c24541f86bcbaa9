"""report.html of a run: what it says, that it asks nothing of a network, and that nothing in it becomes markup."""

import base64
import hashlib
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from browser import HOSTILE, Page, in_a_browser, opened, scripted
from command_line import call, refused

from metabolismgraph.errors import InputError
from metabolismgraph.reports.page import ASSETS
from metabolismgraph.runs.points import residual_cells, trace_lines
from metabolismgraph.runs.report import write_run_report

pytestmark = pytest.mark.slow


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run, to be changed."""
    return shutil.copytree(finished_run, tmp_path / "run")


def page_of(path):
    return Page(write_run_report(path).read_text(encoding="utf-8"))


def change(path, **entries):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | entries))


def test_a_run_leaves_a_page_that_says_what_was_found(finished_run):
    page = Page((finished_run / "report.html").read_text(encoding="utf-8"))
    constants = pd.read_csv(finished_run / "rate_constants.csv")
    n = int(constants["identifiable"].sum())
    assert f"{n} of {len(constants)} rate constants are determined" in page.texts["main"]
    assert [row[0] for row in page.data["constants"]["rows"]] == list(constants["reaction"])
    k = page.data["constants"]["columns"].index("k")
    assert [row[k] for row in page.data["constants"]["rows"]] == pytest.approx(list(constants["k"]), rel=1e-5)
    version = json.loads((finished_run / "manifest.json").read_text())["versions"]["metabolismgraph"]
    assert f"metabolismgraph {version}" in page.texts["main"]
    assert "compares with them" not in page.texts["main"]


def test_types_have_the_estimates_of_the_evaluation(run):
    metrics = json.loads((run / "metrics.json").read_text())
    table = pd.read_csv(run / "homeostasis.csv")
    table["resolved"], table["type"] = True, [0, 1] * (len(table) // 2) + [0] * (len(table) % 2)
    table.to_csv(run / "homeostasis.csv", index=False)
    own = {"lambda_cluster_0": 0.00125, "lambda_error_cluster_0": 3e-5, "baseline_cluster_0": 4.5}
    kept = {name: value for name, value in metrics.items() if "_cluster_" not in name}
    (run / "metrics.json").write_text(json.dumps(kept | own | {"baseline_error_cluster_0": 0.25}))
    text = page_of(run).texts["main"]
    assert "0.00125 ± 3e-05" in text
    assert "4.5 ± 0.2" in text
    assert text.count("not estimated") == 2  # of type 1


@pytest.mark.parametrize("value", [None, 1, "yes", []])
def test_only_a_fit_that_is_said_to_be_trusted_is(run, value):
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"trustworthy": value}))
    text = page_of(run).texts["main"]
    assert "Do not trust this fit" in text
    assert "Not to be trusted" in text


def test_it_can_be_written_again(run, monkeypatch, capsys):
    first = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert call(monkeypatch, "report", run) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text() == first.replace("Run folder first", "Run folder run")


def test_only_its_own_scripts_are_executed_and_nothing_is_loaded(finished_run):
    page = Page((finished_run / "report.html").read_text(encoding="utf-8"))
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    scripts = [(ASSETS / name).read_bytes() for name in ("tabulator.min.js", "d3.min.js", "report.js", "run.js")]
    allowed = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    assert policy.endswith(f"script-src {' '.join(allowed)}")
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_comes_from_data_stays_text(run, text):
    expected = [tag for tag, _ in page_of(run).elements]
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"]["description"] = manifest["config"]["dataset"] = text
    change(run, config=manifest["config"], host=dict.fromkeys(manifest["host"], text), git_commit=None)
    for name, column in (
        ("rate_constants.csv", "reaction"),
        ("rate_constants.csv", "equation"),
        ("homeostasis.csv", "species"),
    ):
        table = pd.read_csv(run / name)
        table[column] = text
        table.to_csv(run / name, index=False)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"notes": [text], "why_not": [text], "trustworthy": False}))
    page = page_of(run)
    found = [tag for tag, _ in page.elements]
    # Two lists and a heading more, no other element.
    assert sorted(set(found) - {"ul", "li", "h2", "section", "p"}) == sorted(
        set(expected) - {"ul", "li", "h2", "section", "p"}
    )
    assert found.count("script") == expected.count("script") == 5
    assert page.texts["h1"] == text
    assert {row[0] for row in page.data["constants"]["rows"]} == {text}
    assert "Do not trust this fit" in page.texts["main"]


def test_a_run_without_truth(run):
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {name: value for name, value in metrics.items() if not name.startswith("rate_constants_R2")}
    (run / "metrics.json").write_text(json.dumps(kept))
    assert "True values are not known" in page_of(run).texts["main"]


def test_a_run_in_which_no_species_may_change(run):
    header = (run / "homeostasis.csv").read_text().split("\n")[0]
    (run / "homeostasis.csv").write_text(f"{header}\n")
    page = page_of(run)
    assert "Homeostasis is not resolved" in page.texts["main"]
    assert page.data["homeostasis"]["rows"] == []


def test_homeostasis_without_types(run):
    """Without Phase 2, species have homeostasis and no types."""
    table = pd.read_csv(run / "homeostasis.csv")
    resolved = int(table["resolved"].sum())
    assert resolved
    table["type"] = pd.NA
    table.to_csv(run / "homeostasis.csv", index=False)
    said = page_of(run).texts["main"]
    assert f"homeostasis of {resolved} of {len(table)} species is resolved." in said
    assert "Without Phase 2, species have no types" in said
    assert "not resolved" not in said


def test_frames_at_a_steady_state_are_no_test(run):
    """Their dc/dt is all noise, so that R² is far below zero however small the errors are."""
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["trustworthy"]
    (run / "metrics.json").write_text(json.dumps(metrics | {"held_out_derivative_R2": -6e4}))
    said = page_of(run).texts["main"]
    assert "these test it little" in said
    assert "with an R²" not in said


def test_an_interrupted_run(run):
    change(run, stages={"simulate": {"seconds": 1.0}})
    (run / "training" / "stderr.txt").write_text("some lines\nkilled for <its> memory\n")
    page = page_of(run)
    assert "has not finished, and has no results. Finished stages: simulate." in page.texts["main"]
    assert "killed for <its> memory" in page.texts["main"]
    assert "--resume" in page.texts["main"]
    assert page.data == {}


def test_a_run_that_tried_to_reach_the_truth(run):
    change(run, leak={"attempt": "open /truth/k.csv"})
    text = page_of(run).texts["main"]
    assert "Its results are invalid and were removed" in text
    assert "open /truth/k.csv" in text


@pytest.mark.parametrize("name", ["metrics.json", "rate_constants.csv", "homeostasis.csv", "manifest.json"])
@pytest.mark.parametrize("content", [None, "", "[1]", "a,b\n1,2\n", '"'])
def test_damaged_files_are_refused_and_the_old_page_stays(run, monkeypatch, capsys, name, content):
    before = (run / "report.html").read_bytes()
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    assert re.match(r"^error: .*(missing|damaged|not what they were)", refused(monkeypatch, capsys, "report", run))
    assert (run / "report.html").read_bytes() == before


@in_a_browser
def test_a_browser_fills_the_tables_and_asks_for_nothing(run, tmp_path):
    table = pd.read_csv(run / "rate_constants.csv")
    table = pd.concat([table, *[table.iloc[[0]]] * len(HOSTILE)], ignore_index=True)
    table.loc[table.index[-len(HOSTILE) :], ["reaction", "equation"]] = [[text, text] for text in HOSTILE]
    table.to_csv(run / "rate_constants.csv", index=False)
    page, console, asked = opened(write_run_report(run), tmp_path)
    assert (console, asked) == ([], set())
    assert page.texts["title"] == "small: report of a run"
    rows = sum("tabulator-row" in (a.get("class") or "").split() for _, a in page.elements)
    assert rows > 20
    foreign = {"iframe", "object", "base", "textarea", "math", "template", "noscript"}
    assert not foreign & {tag for tag, _ in page.elements}


@in_a_browser
def test_a_page_that_asks_is_seen_and_a_foreign_script_is_not_executed(run, tmp_path):
    page = write_run_report(run)
    text = page.read_text(encoding="utf-8")
    foreign = "<img src='http://x.invalid/a.png'><script>document.title = 'run'</script>"
    page.write_text(text.replace("</main>", f"{foreign}</main>"), encoding="utf-8")
    found, console, asked = opened(page, tmp_path)
    assert len(console) == 2  # both were refused
    assert (found.texts["title"], asked) == ("small: report of a run", set())
    page.write_text(
        re.sub("<meta http-equiv[^>]*>", "", text).replace("</main>", f"{foreign}</main>"), encoding="utf-8"
    )
    found, _, asked = opened(page, tmp_path)
    assert (found.texts["title"], asked) == ("run", {"http://x.invalid/a.png"})


@in_a_browser
def test_a_click_sorts_and_the_search_filters(run, tmp_path):
    script = """
    const table = document.querySelector("[data-table=constants]");
    const first = () => table.querySelector(".tabulator-row .tabulator-cell").textContent;
    const said = [];
    setTimeout(() => {
      const heading = table.querySelector(".tabulator-col-content");
      heading.click(); said.push(first());
      const key = new KeyboardEvent("keydown", { key: "Enter", bubbles: true });
      heading.closest(".tabulator-col").dispatchEvent(key); said.push(first());
      const find = table.previousElementSibling.querySelector("input");
      find.value = said[0]; find.dispatchEvent(new Event("input"));
      said.push(first(), table.previousElementSibling.querySelector(".count").textContent);
      document.body.dataset.said = JSON.stringify(said);
    }, 500);
    """
    page, console, _ = opened(scripted(write_run_report(run), script), tmp_path)
    names = sorted(pd.read_csv(run / "rate_constants.csv")["reaction"], key=lambda name: (len(name), name))
    least, most, found, count = json.loads(page.said)
    assert (least, most, found) == (names[0], names[-1], names[0])
    assert count.endswith(f" of {len(names)}")
    assert console == []


@in_a_browser
def test_figures_answer_to_the_pointer(run, tmp_path):
    script = """
    const said = [];
    const point = (place, x, y) => {
      const svg = document.querySelector(place + " svg"), box = svg.getBoundingClientRect();
      const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
      svg.dispatchEvent(new PointerEvent("pointermove", at));
      said.push([...document.querySelectorAll(place + " .answer")].at(-1).textContent);
    };
    setTimeout(() => {
      point("[data-points=rate_points]", 0.1, 0.9);
      point("[data-points=embedding_points]", 0.5, 0.5);
      const select = document.querySelector("select");
      select.selectedIndex = 2; select.dispatchEvent(new Event("change"));
      point("[data-lines]", 0.1, 0.5);
      point("[data-lines]", 0.95, 0.5);
      said.push(document.querySelectorAll("[data-lines] .model").length);
      said.push(document.querySelector("[data-lines] svg").getAttribute("aria-label"));
      point("[data-cells]", 0.11, 0.05);
      document.body.dataset.said = JSON.stringify(said);
    }, 500);
    """
    page, console, asked = opened(scripted(write_run_report(run), script), tmp_path)
    assert (console, asked) == ([], set())
    rate, species, value, held_out, rollouts, label, residual = json.loads(page.said)
    constants = pd.read_csv(run / "rate_constants.csv").query("identifiable").sort_values("log10_k")
    least = constants.iloc[0]
    assert rate.startswith(f"{least['reaction']}: {least['equation']}: ")
    assert re.match(r"M\d+: .*, type \d", species)
    assert label == "concentration of M002 against time"
    table = pd.read_csv(run / "data/timeseries.csv.gz")
    time, concentration = map(float, re.fullmatch("time (.*): (.*)", value).groups())
    assert concentration == pytest.approx(table["M002"][(table["time"] - time).abs().idxmin()], rel=1e-3)
    _, concentration, predicted = map(float, re.fullmatch("time (.*): (.*), model (.*)", held_out).groups())
    assert predicted == pytest.approx(concentration, rel=0.05)
    assert rollouts == 1
    residuals = page.data["residuals"]
    name, time, share = re.fullmatch(r"(M\d+), from time (.*): (.*)", residual).groups()
    column, row = residuals["time"].index(float(time)), residuals["names"].index(name)
    assert residuals["values"][column][row] == float(share)


def test_residuals_are_those_of_the_evaluation_the_largest_first(run):
    found = page_of(run).data["residuals"]
    data = xr.load_dataset(run / "evaluation.nc", engine="h5netcdf").set_coords(["species"])
    residual = data["derivative"] - data["predicted_derivative"]
    share = residual / np.sqrt((data["derivative"] ** 2).mean("transition"))
    order = np.sqrt((share**2).mean("transition")).to_series().sort_values(ascending=False).index
    assert found["names"] == list(order[:100])
    assert found["left_out"] == max(0, len(order) - 100)
    values = np.array(found["values"])
    assert values.shape == (100, len(found["names"]))
    worst = np.abs(share).max("transition").sel(species=found["names"])
    np.testing.assert_allclose(np.abs(values).max(axis=0), worst, rtol=1e-2)


def test_a_model_that_diverges_is_shown_at_the_edge(small):
    observations = small.observations
    assert "model" not in trace_lines(observations, None)
    frames, half = observations.n_frames, observations.n_frames // 2
    rollouts = observations.concentration.copy()
    lowest, highest = rollouts.min(axis=0), rollouts.max(axis=0)
    rollouts[:half], rollouts[-1] = np.nan, 1e300
    rollouts[-1, :4] = [np.inf, -np.inf, -1e300, highest[3]]
    edge = 2 * highest - lowest
    edge[1:3], edge[3] = (2 * lowest - highest)[1:3], highest[3]
    found = trace_lines(observations, xr.Dataset({"predicted_concentration": (("frame", "species"), rollouts)}))
    species = [list(observations.network.species).index(name) for name in found["names"]]
    shown = np.unique(np.linspace(0, frames - 1, 300).astype(int))
    for i, measured, predicted in zip(species, found["values"], found["model"], strict=True):
        expected = [value if frame >= half else None for frame, value in zip(shown, measured, strict=True)]
        assert predicted[:-1] == expected[:-1]
        assert predicted[-1] == pytest.approx(edge[i], rel=1e-3)


def test_an_evaluation_of_other_data_is_refused(run):
    data = xr.load_dataset(run / "evaluation.nc", engine="h5netcdf")
    data.isel(frame=slice(1, None)).to_netcdf(run / "evaluation.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=r"evaluation.nc: made for other data than this run; `metabolismgraph eval"):
        write_run_report(run)


def test_residuals_of_species_without_data_or_change_are_left_out():
    derivative = np.array([[1.0, 0.0, np.nan], [-1.0, 0.0, np.nan]])
    data = xr.Dataset(
        {
            "derivative": (("transition", "species"), derivative),
            "predicted_derivative": (("transition", "species"), np.array([[1.0, 1.0, 1.0], [np.nan, 1.0, 1.0]])),
            "transition_time": ("transition", [0.0, 1.0]),
        },
        {"species": ["a", "b", "c"]},
    )
    found = residual_cells(data)
    assert (found["names"], found["values"], found["left_out"]) == (["a"], [[0.0], [None]], 0)
    assert residual_cells(data.drop_vars("predicted_derivative")) is None
    assert residual_cells(data.isel(species=[1, 2])) is None


@in_a_browser
def test_on_paper_tables_are_whole_and_details_open(run, tmp_path):
    script = """
    setTimeout(() => {
      const paper = () => [...document.querySelectorAll(".paper")];
      dispatchEvent(new Event("beforeprint"));
      const said = [paper().map((table) => table.rows.length), document.querySelector("section details").open];
      said.push(paper()[0].rows[1].textContent);
      dispatchEvent(new Event("afterprint"));
      said.push(paper().length, document.querySelector("section details").open);
      document.body.dataset.said = JSON.stringify(said);
    }, 500);
    """
    write_run_report(run)
    constants = pd.read_csv(run / "rate_constants.csv")
    constants.loc[0, "equation"] = "<b>A</b> -> B"
    constants.to_csv(run / "rate_constants.csv", index=False)
    page, console, _ = opened(scripted(write_run_report(run), script), tmp_path)
    rows, is_open, first, after, still = json.loads(page.said)
    assert rows[:2] == [1 + len(constants), 1 + len(pd.read_csv(run / "homeostasis.csv"))]
    assert "<b>A</b> -> B" in first
    assert (is_open, after, still, console) == (True, 0, False, [])


def test_without_truth_rate_constants_are_in_order_with_their_errors(run):
    (run / "evaluation.nc").unlink()
    found = page_of(run).data
    points = found["rate_points"]
    assert points["x"] == "rank of the rate constant"
    assert [point[1] for point in points["points"]] == list(range(1, len(points["points"]) + 1))
    assert [point[2] for point in points["points"]] == sorted(point[2] for point in points["points"])
    assert found["embedding_points"] is None


@pytest.mark.parametrize("content", [b"", b"not netCDF", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_damaged_evaluation_is_refused(run, monkeypatch, capsys, content):
    (run / "evaluation.nc").write_bytes(content)
    message = refused(monkeypatch, capsys, "report", run)
    assert f"{run / 'evaluation.nc'}: damaged" in message
    assert "`metabolismgraph evaluate` writes it again" in message


@pytest.mark.parametrize("left", ["species", "embedding", "true_log_k", "reaction", "moving", "cluster"])
def test_an_evaluation_without_a_variable_is_refused_or_shown_without_it(run, monkeypatch, capsys, left):
    whole = xr.load_dataset(run / "evaluation.nc", engine="h5netcdf")
    whole.drop_vars(left).to_netcdf(run / "evaluation.nc", engine="h5netcdf")
    if left in {"embedding", "true_log_k"}:
        assert call(monkeypatch, "report", run) == 0
    else:
        assert "evaluation.nc: " in refused(monkeypatch, capsys, "report", run)


def test_undetermined_rate_constants_without_a_combination_or_a_reason(run):
    table = pd.read_csv(run / "rate_constants.csv")
    table[["combination", "reason"]] = ""
    table["identifiable"] = table["identifiable"].to_numpy() & (table.index > 2)
    table.to_csv(run / "rate_constants.csv", index=False)
    text = page_of(run).texts["main"]
    assert "only a combination with others is determined: R000, R001, R002" in text
    assert "No measurement of" not in text


def test_reactions_with_the_same_substrates_are_told_apart_by_no_data(run):
    table = pd.read_csv(run / "rate_constants.csv")
    table["identifiable"], table["combination"] = True, None
    table = table.astype({"combination": object})
    for at, equation in ((0, "A + B -> C"), (1, "B + A -> D"), (2, "A -> C"), (3, "B -> C")):
        same = at < 2
        values = {"identifiable": False, "equation": equation, "combination": f"k({'a' if same else 'b'}) = 1"}
        for column, value in values.items():
            table.loc[at, column] = value
    table.to_csv(run / "rate_constants.csv", index=False)
    text = page_of(run).texts["main"]
    assert "No measurement of" in text
    assert "R000, R001: k(a) = 1" in text
    assert "R002, R003" not in text.split("No measurement of")[1].split("Others are determined")[0]


def test_a_run_that_determines_everything(run):
    table = pd.read_csv(run / "rate_constants.csv")
    table[["identifiable", "combination", "reason"]] = True, None, None
    table.to_csv(run / "rate_constants.csv", index=False)
    assert "Every rate constant is determined." in page_of(run).texts["main"]
