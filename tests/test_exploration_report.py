"""report.html of an exploration: what it says, that clicks show what they should, and that nothing becomes markup."""

import json

import pytest
from browser import HOSTILE, Page, in_a_browser, opened, scripted
from journals import exploration, journal, proposal, proposed, reviewed, strategy_file
from journals import opened as begun
from PIL import Image

from metabolismgraph.config import Config
from metabolismgraph.explore import views
from metabolismgraph.explore.events import Answered, Lost, Paused, Validated
from metabolismgraph.explore.report import render_report
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import best, nodes, standard_error

THREE = {5: 1, 6: 1, 9: 2, 10: 2}  # replicates


def events(**given):
    """Two blocks: a proven node, a failure, a refused file, an answer with a cost."""
    found = exploration(
        12,
        replicates=THREE,
        failing={7: "time limit of 30 minutes"},
        ratios=lambda i: (0.9, 1.0) if i in {1, 5, 6} else (0.5, 0.6 + i / 100),
        reviews={1: reviewed(1, file=strategy_file(), reasons=["imports os"])},
        **given,
    )
    answer = {"answer": "{}", "error": None, "input_tokens": 1000, "output_tokens": 200, "seconds": 2.0}
    return [*found, Answered(kind="proposal", iteration=1, attempt=0, by="model", cost=0.25, **answer)]


def page_of(folder, found, **given):
    return Page(render_report(folder, found, **given))


def node_of(page, number):
    return next(node for node in page.data["nodes"] if node["id"] == number)


def test_it_says_which_node_is_the_best_and_what_that_rests_on(tmp_path):
    found = events()
    state = State.of(found)
    winner = best(state)
    assert winner.id == 1
    page = page_of(tmp_path, found)
    error = standard_error(winner, nodes(state))
    said = f"Node 1 is the best of those with at least 3 replicates: reward {winner.mean:.3f} ± {error:.1g} "
    assert said in page.texts["main"]
    assert "Rewards use the true values" in page.texts["main"]
    assert "0.25 US$; 1200 tokens in 1 answers" in page.texts["main"]
    assert "imports os" in page.texts["main"]
    assert "+class Mine(Strategy):" in page.texts["main"]
    assert page.data["best"] == 1


def test_a_node_says_why_it_was_proposed_what_it_changed_and_what_it_cost(tmp_path):
    found = events()
    page = page_of(tmp_path, found)
    first = next(event for event in found if getattr(event, "node", None) == 4)
    facts = dict(node_of(page, 4)["facts"])
    assert facts["why: hypothesis"] == first.proposal.hypothesis
    assert facts["why: move"] == first.proposal.mode
    assert facts["proposed by"] == "rules"
    assert facts["parent"] == ("the root of block 0" if first.parent is None else f"node {first.parent}")
    assert facts["changed against it"] == "homeostasis_time_step: 1 -> 64"
    assert facts["time"] == "75.0 s in 1 run"
    assert dict(node_of(page, 1)["facts"])["cost"] == "0.25 US$"
    assert [run[0] for run in node_of(page, 1)["runs"]] == [1, 5, 6]
    assert "time limit of 30 minutes" in node_of(page, 7)["runs"][0]


def test_it_says_what_a_reward_is_and_why_it_is_zero(tmp_path):
    found = exploration(4, ratios=lambda i: (-2.0, 0.5) if i == 2 else (None, 1.0) if i == 3 else (0.9, 1.0))
    page = page_of(tmp_path, found)
    assert "weighted mean of MLP_node_slope_ratio (weight 1). A ratio to the true value" in page.texts["main"]
    assert node_of(page, 2)["runs"][0][-1].startswith("no reward: the metric is below zero")
    assert node_of(page, 3)["runs"][0][-1] == "no reward: a metric is not a number"


def test_reasons_against_the_fits_of_the_best_node_are_said(tmp_path):
    (tmp_path / "runs/0006").mkdir(parents=True)
    (tmp_path / "runs/0006/metrics.json").write_text(json.dumps({"why_not": ["residuals are <large>"]}))
    page = page_of(tmp_path, events())
    assert "The fits of node 1 are not to be trusted as a whole: residuals are <large>." in page.texts["main"]
    assert any(attributes.get("class") == "verdict bad" for _, attributes in page.elements)


def test_settings_that_differ_stand_beside_the_reward(tmp_path):
    table = page_of(tmp_path, events()).data["table"]
    at = table["columns"].index("learning_rate_node_homeostasis")
    assert len({row[at] for row in table["rows"]}) > 1
    assert "batch_size" not in table["columns"]
    assert [row[0] for row in table["rows"]] == [node["id"] for node in page_of(tmp_path, events()).data["nodes"]]


@pytest.mark.parametrize(
    ("more", "live", "said"),
    [
        ([], True, "The exploration goes on"),
        ([], False, "The exploration is not running"),
        ([Paused(id="1", by="<b>anna</b>", on=True)], True, "Paused by <b>anna</b>"),
    ],
)
def test_it_says_whether_the_exploration_goes_on(tmp_path, more, live, said):
    page = page_of(tmp_path, [*events(), *more], live=live)
    assert page.texts["now"].startswith(said)
    assert bool(page.data["reload"]) == live


def test_without_a_reward_of_the_truth_it_says_so(tmp_path):
    real = Config().replace({"exploration.primary": "validation"})
    found = exploration(6, config=real, ratios=lambda i: (), metrics=lambda i: {"held_out_skill": i / 10})
    text = page_of(tmp_path, found).texts["main"]
    assert "no truth is used" in text
    assert "true values" not in text
    assert "No node is called the best yet" in text


def test_an_exploration_that_has_only_begun(tmp_path):
    page = page_of(tmp_path, [begun()])
    assert "0 runs of 0 configurations" in page.texts["main"]
    assert page.data["nodes"] == []


def test_lost_runs_and_fresh_seeds_are_shown(tmp_path):
    found = events()
    at = next(i for i, event in enumerate(found) if getattr(event, "event", "") == "started")
    found.insert(at + 1, Lost(iteration=1, seconds=10.0, reason="node failure", kind="node"))
    fresh = {"metrics": {}, "reason": None, "seconds": 9.0, "state": "scored", "classification": "converged"}
    found.append(Validated(node=1, number=0, seed=100, reward=0.875, **fresh))
    page = page_of(tmp_path, found)
    assert "node 1" in page.texts["main"].split("made again")[1][:40]
    assert "on seeds that the search has not seen: 0.875" in page.texts["main"]
    assert page.data["validations"]["rows"] == [[1, "100", 0.875, "converged", ""]]
    assert "node failure" in node_of(page, 1)["runs"][0][-1]


def test_arguments_of_programs_stay_private(tmp_path):
    config = Config().replace({"exploration.proposer": "command", "exploration.command": ["ask", "--password", "abc"]})
    assert "--password" not in render_report(tmp_path, exploration(4, config=config))


def test_figures_of_the_best_node_are_in_the_page_and_others_beside_it(tmp_path):
    for number in (1, 4, 5, 6):
        path = tmp_path / f"runs/{number:04d}/tmp_training/a #1?.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path)
    page = page_of(tmp_path, events())
    assert node_of(page, 4)["figures"] == [["4: a #1?.png", "./runs/0004/tmp_training/a%20%231%3F.png"]]
    sources = [a["src"] for tag, a in page.elements if tag == "img"]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")


def test_figures_that_somebody_removed_do_not_stop_the_explorer(tmp_path):
    path = tmp_path / "runs/0006/tmp_training/a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(path)
    assert "data:image/png" in render_report(tmp_path, events())
    path.unlink()
    assert "data:image/png" not in render_report(tmp_path, events())


@pytest.mark.parametrize("place", ["../other/run", "/tmp", "javascript:alert(1)", "", "a\0b", "x" * 5000])
def test_a_journal_cannot_point_out_of_its_folder(tmp_path, place):
    (tmp_path / "other/run/tmp_training").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "other/run/tmp_training/a.png")
    folder = tmp_path / "exploration"
    folder.mkdir()
    changed = [event.model_copy(update={"folder": place}) if event.event == "started" else event for event in events()]
    page = page_of(folder, changed)
    assert not any(node["figures"] for node in page.data["nodes"])


def test_the_page_is_a_view_of_the_journal(tmp_path):
    kept = journal(tmp_path / "demo", events())
    views.write_views(tmp_path / "demo", kept.read())
    before = (tmp_path / "demo/report.html").read_bytes()
    (tmp_path / "demo/report.html").unlink()
    views.rebuild(tmp_path / "demo")
    assert (tmp_path / "demo/report.html").read_bytes() == before


def hostile():
    """Hostile texts at every place where a proposer or a log may write."""
    found = [begun(data=HOSTILE[0], version=HOSTILE[1], proposer=HOSTILE[2])]
    for number, text in enumerate(HOSTILE, start=1):
        plan = proposal(None, {text: (text, text)}, hypothesis=text, mode=text, strategy=text)
        found.append(proposed(number, proposal=plan, by=text, note=text))
    return found


def test_what_proposers_write_stays_text(tmp_path):
    plain = {tag for tag, _ in page_of(tmp_path, events()).elements}
    page = page_of(tmp_path, hostile())
    assert {tag for tag, _ in page.elements} <= plain | {"ul", "li"}
    assert len(page.data["nodes"]) == len(HOSTILE)


@in_a_browser
def test_a_browser_draws_the_tree_and_asks_for_nothing(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_report(tmp_path, hostile()), encoding="utf-8", errors="replace")
    page, console, asked = opened(path, tmp_path)
    assert (console, asked) == ([], set())
    assert page.texts["title"].startswith("demo: report of an exploration")
    assert sum("data-node" in attributes for _, attributes in page.elements) == len(HOSTILE)
    assert not {"iframe", "object", "base", "textarea", "math"} & {tag for tag, _ in page.elements}


@in_a_browser
def test_clicks_keys_and_the_search_show_nodes(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_report(tmp_path, events()), encoding="utf-8")
    script = """
    const panel = () => document.querySelector("#panel h3").textContent;
    const node = (id) => document.querySelector(`[data-node="${id}"]`);
    const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
    const said = [panel()];
    setTimeout(() => {
      node(4).dispatchEvent(new MouseEvent("click", { bubbles: true })); said.push(panel());
      key(node(4), "Home"); said.push(panel());
      key(document.activeElement, "ArrowDown"); said.push(panel());
      const find = document.querySelector("#find");
      find.value = "time limit"; find.dispatchEvent(new Event("input"));
      said.push(document.querySelector("#found").textContent);
      find.value = "failed"; find.dispatchEvent(new Event("input"));
      key(find, "Enter"); said.push(panel());
      const row = [...document.querySelectorAll("[data-table=table] .tabulator-row")].at(-1);
      row.querySelector(".tabulator-cell").click();
      said.push(panel(), row.querySelector(".tabulator-cell").textContent, location.hash);
      document.body.dataset.said = JSON.stringify(said);
    }, 500);
    """
    page, console, _ = opened(scripted(path, script), tmp_path)
    assert console == []
    first, clicked, home, down, found, failed, row, cell, address = json.loads(page.said)
    assert (first, clicked) == ("Node 1", "Node 4")
    assert home != down
    assert found == f"1 of {len(page.data['nodes'])}"
    assert failed == "Node 7"
    assert (row, address) == (f"Node {cell}", f"#node-{cell}")


def test_a_thousand_iterations_are_a_page_of_less_than_four_megabytes(tmp_path):
    sizes = {n: len(render_report(tmp_path, exploration(n)).encode()) for n in (16, 300)}
    assert sizes[16] < 1_000_000
    assert sizes[16] + (sizes[300] - sizes[16]) * 1000 / 300 < 4_000_000


def test_time_is_that_of_the_last_event(tmp_path):
    found = [*events(), Paused(id="1", by="anna", on=True, time="2026-01-02T03:04:05.678+00:00")]
    assert "2026-01-02 03:04:05 UTC" in page_of(tmp_path, found).texts["now"]
