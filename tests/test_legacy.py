"""The published UCB file: golden files worked out by hand, and each defect by itself."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import exploration

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore import views
from metabolismgraph.explore.published_format.legacy_scores import ucb_file
from metabolismgraph.explore.published_format.ucb_scores import current_block
from metabolismgraph.explore.state import State

GOLDEN = Path(__file__).parent / "golden"
LOG = (GOLDEN / "legacy_log.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "block_size"),
    [
        ("legacy_ucb_scores.txt", 16),
        ("legacy_ucb_scores_without_blocks.txt", None),
        ("legacy_ucb_scores_blocks_of_8.txt", 8),
    ],
)
def test_golden_log_gives_the_file_worked_out_by_hand(name, block_size):
    assert ucb_file(LOG, block_size=block_size).encode() == (GOLDEN / name).read_bytes()


def test_line_endings_of_other_systems_change_nothing():
    assert ucb_file(LOG.replace("\n", "\r\n"), block_size=16) == ucb_file(LOG, block_size=16)


def entry(number, *lines, parent="root", metrics="avg_slope_ratio=0.5", heading="##"):
    return "\n".join(
        [f"{heading} Iter {number}: partial", f"Node: id={number}, parent={parent}", f"Metrics: {metrics}", *lines]
    )


def nodes(*entries, **options):
    """The file as {node: {name: text}}."""
    text = ucb_file("\n\n".join(entries), **{"block_size": None} | options)
    return {
        int(found[1]): dict(pair.split("=", 1) for pair in found[2].split(", "))
        for found in re.finditer(r"^Node (\d+): (.*)$", text, re.MULTILINE)
    }


def test_next_line_overrides_the_node_line_after_it():
    found = nodes(entry(1), entry(2, "Next: parent=1", parent=1), entry(3, parent=2))
    assert [found[i]["parent"] for i in (1, 2, 3)] == ["root", "1", "1"]


def test_next_line_naming_the_following_node_is_passed_over():
    assert nodes(entry(1), entry(2, "Next: parent=3"), entry(3, parent=1))[3]["parent"] == "1"


def test_parent_may_run_later_than_its_child():
    found = nodes(entry(1, "Next: parent=3"), entry(2, parent=1), entry(3, parent=1))
    assert found[2]["parent"] == "3"
    assert [found[i]["visits"] for i in (1, 2, 3)] == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("written", "read"),
    [("1.2e-05", "1.200"), ("nan", "0.000"), ("0.75.", "0.750"), ("10.0", "10.000"), ("3", "3.000")],
)
def test_what_a_number_reads(written, read):
    assert nodes(entry(1, metrics=f"avg_slope_ratio={written}, x=1"))[1]["R2"] == read


@pytest.mark.parametrize("written", ["-0.1", "inf", "-1e-3", ".."])
def test_what_is_no_number_drops_the_node_or_says_so(written):
    log = (entry(1, metrics=f"avg_slope_ratio={written}"), entry(2))
    if written == "..":
        with pytest.raises(InputError, match="line 3: avg_slope_ratio=.. is not a number"):
            nodes(*log)
    else:
        assert list(nodes(*log)) == [2]


def test_observation_overwrites_the_reward_and_what_stood_beside_it():
    log = entry(1, "Observation: not avg_slope_ratio=9.0", metrics="avg_slope_ratio=0.5, embedding_cluster_acc=0.9")
    assert nodes(log)[1] | {"UCB": ""} == {
        "UCB": "",
        "parent": "root",
        "visits": "1",
        "R2": "9.000",
        "Pearson": "0.000",
    }


def test_mutation_line_is_not_searched_for_a_reward():
    assert nodes(entry(1, "Mutation: avg_slope_ratio=9.0"))[1]["R2"] == "0.500"


def test_node_logged_twice_keeps_its_place_and_takes_the_later_values():
    log = [entry(1), entry(2), entry(1, "Mutation: again")]
    assert list(nodes(*log)) == [1, 2]
    assert nodes(*log)[1]["Mutation"] == "again"


def test_other_metric_weight_and_block():
    log = "\n".join(entry(i, metrics=f"held_out_skill=0.{i}") for i in range(1, 6))
    text = ucb_file(log, metric="held_out_skill", c=2.0, block_size=2, iteration=3)
    assert text.splitlines()[0] == "=== UCB Scores (Simulation block 1, iters 3-4, N=2, c=2.0) ==="
    assert text.splitlines()[2:] == [
        "Node 4: UCB=1.814, parent=root, visits=1, R2=0.400, Pearson=0.000",
        "Node 3: UCB=1.714, parent=root, visits=1, R2=0.300, Pearson=0.000",
    ]


@pytest.mark.parametrize("log", ["", "# nothing here\n", "## Iter 1: failed\nNode: id=1, parent=root\n"])
def test_no_node_no_file(log):
    assert not ucb_file(log)


@given(st.data())
@settings(deadline=None)
def test_formula_on_any_tree(data):
    n = data.draw(st.integers(1, 9))
    parents = [data.draw(st.integers(0, i)) for i in range(n)]  # 0 is root; node i + 1 may come from any before it
    rewards = [data.draw(st.integers(0, 3)) / 4 for _ in range(n)]
    log = [entry(i + 1, parent=p or "root", metrics=f"avg_slope_ratio={rewards[i]}") for i, p in enumerate(parents)]

    def descends(i, ancestor):
        return i != ancestor and i > 0 and (parents[i - 1] == ancestor or descends(parents[i - 1], ancestor))

    expected = {}
    for i in range(1, n + 1):
        visits = 1 + sum(descends(j, i) for j in range(1, n + 1))
        expected[i] = rewards[i - 1] + 1.414 * math.sqrt(n) / (1 + visits)
    found = nodes(*log)
    assert {i: float(found[i]["UCB"]) for i in found} == pytest.approx(expected, abs=6e-4)
    assert list(found) == sorted(expected, key=lambda i: (-expected[i], i))


def test_view_is_the_published_file_with_a_line_on_its_basis():
    config = Config().replace({"exploration.ucb": "legacy", "exploration.ucb_c": 2.0})
    events = exploration(14, config=config, failing={10: "stopped"})
    found = views.render(events)
    assert current_block(State.of(events)) == 1
    *lines, last = found["demo_ucb_scores.txt"].splitlines(keepends=True)
    assert "".join(lines) == ucb_file(found["demo_analysis.md"], c=2.0, block_size=8)
    assert "".join(lines).startswith("=== UCB Scores (Simulation block 1, iters 9-16, N=5, c=2.0) ===\n\nNode ")
    assert last == "oracle: scored by avg_slope_ratio, which uses the truth\n"
