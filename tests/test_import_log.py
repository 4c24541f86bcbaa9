"""Logs of other programs into a journal: all that is in them, and nothing that is not."""

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import exploration, opened, reviewed, strategy_file

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Imported, Opened
from metabolismgraph.explore.journal import Journal
from metabolismgraph.explore.published_format import analysis
from metabolismgraph.explore.published_format.import_log import import_log, read_log
from metabolismgraph.explore.published_format.legacy_scores import ucb_file
from metabolismgraph.explore.state import State
from metabolismgraph.explore.views import render

# As people and programs write them.
LOG = """\
# Phase 2 log: rank50 (parallel)

### Batch 1 (Iter 1-4): PARALLEL START
- Config: seed=42, lr_k=0.005
- Mutation: None (baseline from before)

---

## Iter 1: failed
Node: id=1, parent=root
Mode/Strategy: baseline
Slot: slot_0 (time_step=4)
Config: lr_node_homeo=0.01, lr_emb_homeo=0.001, data_augmentation_loop=1000, batch_size=8
Metrics: avg_slope_ratio=-0.1008, slope_ratio_0=-0.1301, offset_ratio_0=0.0490, final_loss=1.2e-05, kino=4.448E+02
Visual: MLP_node=inactive: slopes +0.0001 vs GT -0.001 (wrong sign), Embeddings=collapsed: single cluster
Mutation: baseline (initial config)
Strategy: hyperparameter-only
Observation: if only avg_slope_ratio=1.0 were true
Next: parent=root

### Iter 2: partial (NEW BEST!)
- **Node**: id=2, parent=1, V=1, N_total=2
- **Mode/Strategy:** exploit
- **Metrics**: avg_slope_ratio=0.6000 (best), embedding_n_clusters=3, silhouette=nan, time=16.7min, top=inf,
- **Parent rule:** highest UCB (node 1, UCB=2.449)
* Observation: **works** — λ right
  and the line goes on here
Next: parent=2, then lower the rate

#### **Iter 3**: Converged
NODE: ID=3, PARENT=None
metrics: avg_slope_ratio = 1.02; embedding_cluster_acc=1; weights=[0.5, 1], R²=0.9
Next: parent=2

---

## Block 1 Complete - Code Review
| Iter | avg_slope_ratio |
|------|-----------------|
| 3 | **1.02** |

Observation: not of an entry
### Iterations so far
### Iter 1-3 in short

## Iter 4
Observation: nothing else is known

## Iter 3: PARTIAL
Node: id=3, parent=1
Metrics: avg_slope_ratio=0.5
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="rank50_analysis.md"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_real_looking_log(written):
    first, second, third, fourth, again = read_log(written(LOG))
    assert (first.iteration, first.status, first.node, first.parent, first.next_parent) == (1, "failed", 1, None, 0)
    assert first.metrics == {
        "avg_slope_ratio": -0.1008,
        "slope_ratio_0": -0.1301,
        "offset_ratio_0": 0.049,
        "final_loss": 1.2e-05,
        "kino": 444.8,
    }
    assert first.fields["Slot"] == "slot_0 (time_step=4)"
    assert first.fields["Observation"] == "if only avg_slope_ratio=1.0 were true"
    assert first.fields["(before)"].splitlines()[-3:] == ["- Mutation: None (baseline from before)", "", "---"]

    assert (second.status, second.node, second.parent, second.next_parent) == ("partial", 2, 1, 2)
    assert second.fields["(status)"] == "partial (NEW BEST!)"
    assert second.metrics == {
        "avg_slope_ratio": 0.6,
        "embedding_n_clusters": 3,
        "silhouette": None,
        "time": "16.7min",
        "top": "inf",
    }
    assert second.fields["Node"] == "id=2, parent=1, V=1, N_total=2"
    assert second.fields["Parent rule"] == "highest UCB (node 1, UCB=2.449)"
    assert second.fields["Mode/Strategy"] == "exploit"
    assert second.fields["Observation"] == "**works** — λ right"
    assert second.fields["(text)"] == "  and the line goes on here"
    assert second.fields["Next"] == "parent=2, then lower the rate"

    assert (third.status, third.node, third.parent, third.next_parent) == ("converged", 3, None, 2)
    assert third.metrics == {"avg_slope_ratio": 1.02, "embedding_cluster_acc": 1, "weights": "[0.5, 1]", "R²": 0.9}
    assert "| 3 | **1.02** |" in third.fields["(text)"]
    assert third.fields["(text)"].splitlines()[-3:] == [
        "Observation: not of an entry",
        "### Iterations so far",
        "### Iter 1-3 in short",
    ]
    assert "Observation" not in third.fields

    assert (fourth.iteration, fourth.status, fourth.node, fourth.parent, fourth.next_parent) == (4, "", 4, None, None)
    assert fourth.metrics == {}
    assert (again.iteration, again.status, again.parent) == (3, "partial", 1)
    assert again.metrics == {"avg_slope_ratio": 0.5}


def test_text_between_entries_is_quoted_once_however_often_it_is_read(written):
    found = read_log(written(LOG))
    again = read_log(written(analysis.render([opened(), *found])))
    assert again[2].fields["(text)"] == found[2].fields["(text)"]


@pytest.mark.parametrize(
    "text",
    [LOG.replace("\n", "\r\n"), LOG.replace("\n", "\r"), "\ufeff" + LOG, gzip.compress(LOG.encode())],
    ids=["CRLF", "CR", "BOM", "gzip"],
)
def test_how_the_file_is_stored_changes_nothing(written, text):
    assert read_log(written(text, "other.md")) == read_log(written(LOG))


def number(written, text):
    return read_log(written(f"## Iter 1: failed\nMetrics: x={text}, y=7\n"))[0].metrics


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.2e-05", 1.2e-05),
        ("-3E+2", -300.0),
        ("−0.5", -0.5),
        ("+.5", 0.5),
        ("7.", 7),
        ("0.85±0.1", 0.85),
        ("**0.9**", 0.9),
        ("0.5 (best, lr=3)", 0.5),
        ("NaN", None),
        ("1e999", "1e999"),
        ("12345678901234567890", 12345678901234567890.0),
        ("1.2.3", "1.2.3"),
        ("95%", "95%"),
        ("n/a", "n/a"),
        ("", ""),
    ],
)
def test_numbers(written, text, value):
    found = number(written, text)
    assert found == {"x": value, "y": 7}
    assert type(found["x"]) is type(value)


@pytest.mark.parametrize(
    ("status", "read"),
    [
        ("Partial", "partial"),
        ("**FAILED**", "failed"),
        ("[converged]", "converged"),
        ("partially, see below", "partial"),
        ("failed (not converged)", "failed"),
        ("not converged", "not"),
        ("5/10", ""),
        ("poor", "poor"),
        ("", ""),
    ],
)
def test_status(written, status, read):
    event = read_log(written(f"## Iter 1: {status}\n"))[0]
    assert event.status == read
    assert event.fields.get("(status)", read).strip("*") == status.strip("*")


@pytest.mark.parametrize(
    "heading",
    [
        "## Iter 5: failed",
        "## Iter 5 : failed",
        "### Iter 5 — failed",
        "## **Iter 5:** failed",
        "##Iter 5: failed",
        "## ITER 5 (failed)",
        "## Iteration 5: failed",
        " ## Iter #5: failed",
        "####### Iter 05: failed",
    ],
)
def test_headings(written, heading):
    assert [(e.iteration, e.status) for e in read_log(written(f"{heading}\nNode: id=5, parent=2\n"))] == [(5, "failed")]


@pytest.mark.parametrize("heading", ["# Iter 2: failed", "## Iter 2-4: all failed", "### Iteration log"])
def test_what_is_no_entry_is_kept_as_text(written, heading):
    found = read_log(written(f"## Iter 1: failed\n\n{heading}\n"))
    assert len(found) == 1
    assert heading in str(found[0].fields)


@pytest.mark.parametrize("heading", ["## Iter : converged", "## Iter X: failed", "### Iter", "## Iter converged"])
def test_entry_without_a_number_names_the_line(written, heading):
    with pytest.raises(InputError, match=r"log.md, line 3: an entry without a number .*`## Iter N: status`$"):
        read_log(written(f"## Iter 1: failed\n\n{heading}\n", "log.md"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# A log\n\nwithout entries\n", r"log.md: has no entry; a log has headings such as"),
        (b"", "log.md: the file is empty"),
        (b"## Iter 1: failed\nObservation: \xe9\n", "log.md, line 2: not text in UTF-8"),
        ("## Iter 1: failed\n".encode("utf-16"), "log.md, line 1: not text in UTF-8"),
    ],
)
def test_what_is_no_log_is_one_line(written, tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        import_log(written(content, "log.md"), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no such file"):
        read_log(tmp_path / "none.md")


def test_import_makes_a_folder_with_journal_and_views(written, tmp_path):
    out = tmp_path / "new" / "folder"
    path = written(LOG)
    assert import_log(path, out) == 5
    first, *events = Journal(out / "journal.jsonl").read()
    assert isinstance(first, Opened)
    assert (first.name, first.oracle) == ("rank50", True)
    assert [e.model_copy(update={"time": ""}) for e in events] == list(read_log(path))
    for name, text in render([first, *events]).items():
        assert (out / name).read_text(encoding="utf-8") == text
    assert len(re.findall("^## Iter 3:", (out / "rank50_analysis.md").read_text(encoding="utf-8"), re.MULTILINE)) == 2


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_existing_work_is_left_alone(written, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    kept = out / "notes.txt" if kind == "folder" else out
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not empty; name a new folder"):
        import_log(written(LOG), out)
    assert kept.read_text(encoding="utf-8") == "mine"
    assert len(list(tmp_path.rglob("*"))) == 2 + (kind == "folder")


def test_interrupted_import_leaves_no_half_journal(written, tmp_path, monkeypatch):
    append, count = Journal.append, iter(range(3))

    def full(self, event):
        if next(count, None) is None:
            raise InputError("no room left")
        return append(self, event)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(InputError, match="no room left"):
        import_log(written(LOG), tmp_path / "out")
    monkeypatch.undo()
    assert import_log(written(LOG), tmp_path / "out") == 5


RATIO = st.none() | st.floats(-1000, 1000, allow_nan=False)


@given(
    st.integers(1, 10),
    st.lists(st.tuples(RATIO, RATIO), min_size=10, max_size=10),
    st.sets(st.integers(1, 10), max_size=3),
    st.lists(st.text(), min_size=10, max_size=10),
)
@settings(deadline=None, max_examples=20)
def test_our_own_log_comes_back_with_the_same_numbers(tmp_path_factory, n, ratios, failing, texts):
    events = exploration(
        n,
        ratios=lambda i: ratios[i - 1],
        failing={i: texts[i - 1] for i in failing},
        texts=lambda i: {"observation": texts[i - 1], "visual": texts[-i]},
        reviews={1: reviewed(1, file=strategy_file(), reasons=["no"])},
    )
    path = tmp_path_factory.mktemp("log") / "demo_analysis.md"
    path.write_text(analysis.render(events), encoding="utf-8", newline="")
    found = read_log(path)
    assert [e.iteration for e in found] == list(range(1, n + 1))
    plans = {e.iteration: e for e in events if e.event == "proposed"}
    verdicts = {e.iteration: e for e in events if e.event == "scored"}
    outcomes = {e.iteration: e for e in events if e.event == "finished"}
    for event in found:
        i = event.iteration
        assert (event.node, event.parent) == (plans[i].node, plans[i].parent)
        assert event.status == verdicts[i].classification
        assert (event.next_parent is None) == (i == n and n != 8)  # not known yet
        if i in failing:
            assert event.metrics == {}
            continue
        assert event.metrics["reward"] == pytest.approx(verdicts[i].reward, abs=6e-5)
        for t in (0, 1):
            expected = outcomes[i].metrics[f"MLP_node_slope_ratio_{t}"]
            read = event.metrics[f"slope_ratio_{t}"]
            assert read is None if expected is None else read == pytest.approx(expected, abs=6e-5)


WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
PHRASE = st.lists(WORD, min_size=1, max_size=5).map(" ".join)
LABEL = st.sampled_from(["Node", "node", "**Metrics**", "- Config", "Observation", "Next", "Own label", "* **Slot**"])
NAMED = st.tuples(st.sampled_from(["a", "avg_slope_ratio", "x.y"]), st.floats(allow_nan=False).map(repr) | PHRASE)
LINE = st.one_of(
    PHRASE,
    st.tuples(LABEL, PHRASE).map(": ".join),
    st.lists(NAMED, min_size=1, max_size=3).map(lambda ps: "Metrics: " + ", ".join(f"{k}={v}" for k, v in ps)),
    st.sampled_from(
        ["---", "## Summary", ">>> BLOCK END", "> quoted", "Node: id=7, parent=3", "Next: parent=root", ""]
    ),
)
ENTRY = st.tuples(st.integers(0, 20), PHRASE, st.lists(LINE, max_size=8))


@given(st.lists(LINE, max_size=3), st.lists(ENTRY, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_any_log_is_kept_whole_and_read_the_same_again(tmp_path_factory, before, entries):
    path = tmp_path_factory.mktemp("log") / "any.md"
    lines = [*before]
    for iteration, status, body in entries:
        lines += [f"## Iter {iteration}: {status}", *body, ""]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    found = read_log(path)
    assert [e.iteration for e in found] == [iteration for iteration, _, _ in entries]

    log = analysis.render([opened(), *found])
    kept = squeezed(log)
    for line in lines:
        assert all(squeezed(word) in kept for word in re.split(r"[\s:*]+|(?<=\w)=", line))

    path.write_text(log, encoding="utf-8", newline="")
    assert [without_text(e) for e in read_log(path)] == [without_text(e) for e in found]


def squeezed(text):
    """Letters and figures only."""
    return re.sub(r"[\W_]", "", text).casefold()


def without_text(event):
    """An imported entry without what stood between the entries."""
    fields = {label: text for label, text in event.fields.items() if not label.startswith("(")}
    return Imported(**(event.model_dump() | {"fields": fields}))


# -- another metric, other blocks, the scores of the program that wrote it

OTHER = """\
## Block 1: first
## Iter 1: partial
Node: id=1, parent=root
Metrics: rate_constants_R2=0.7, test_pearson=0.5
## Iter 2: converged (NEW BEST!)
Node: id=2, parent=1
Metrics: rate_constants_R2=-0.2
## Block 2: second
## Iter 3: partial
Node: id=3, parent=root
Metrics: rate_constants_R2=0.81, cluster_accuracy=0.5
## Iter 4: failed
Node: id=4, parent=3
Metrics: test_pearson=0.1
"""
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "published"
RANK50 = PUBLISHED / "simulation_oscillatory_rank_50_Claude_analysis.md"


def imported(text, tmp_path, **given):
    """State and UCB scores of a log."""
    log = tmp_path / "demo_analysis.md"
    log.write_text(text, encoding="utf-8")
    out = tmp_path / f"out {len(list(tmp_path.iterdir()))}"
    import_log(log, out, **given)
    return State.of(Journal(out / "journal.jsonl").read()), (out / "demo_ucb_scores.txt").read_text()


def test_metric_and_blocks_are_read_from_the_log(tmp_path):
    state, scores = imported(OTHER, tmp_path)
    assert state.settings.n_iter_block == 2
    assert [i.scored.classification for i in state.iterations] == ["partial", "converged", "partial", "failed"]
    assert [i.scored.state for i in state.iterations] == ["scored", "negative", "scored", "nan"]
    assert [i.scored.reward for i in state.iterations] == [0.7, 0.0, 0.81, 0.0]
    assert scores.startswith("=== UCB Scores (Simulation block 1, iters 3-4, N=1, c=1.414) ===")
    assert "R2=0.810, Pearson=0.000, Cluster=0.500\n" in scores
    assert "oracle" not in scores


def test_metric_blocks_and_scores_can_be_chosen(tmp_path):
    state, scores = imported(OTHER, tmp_path, metric="test_pearson", block=12, ucb="spread")
    assert state.settings.n_iter_block == 12
    assert [i.scored.reward for i in state.iterations] == [0.5, 0.0, 0.0, 0.1]
    assert scores.startswith("=== UCB Scores (Simulation block 0, iters 1-12")
    with pytest.raises(InputError, match=r"no entry has the metric beauty; .* rate_constants_R2"):
        imported(OTHER, tmp_path, metric="beauty")


@pytest.mark.skipif(not RANK50.exists(), reason="the published log is not here")
def test_the_published_log_gives_the_published_scores_to_the_byte(tmp_path):
    """At its end; and after every iteration what the published formula gives for the log so far."""
    text = RANK50.read_text()
    state, scores = imported(text, tmp_path)
    assert len(state.iterations) == 136
    assert state.settings.n_iter_block == 12
    written = re.findall(r"^#+ Iter \d+: (\w+)", text, re.MULTILINE)
    assert [i.scored.classification for i in state.iterations] == written
    assert all(i.metrics["rate_constants_R2"] is not None for i in state.iterations)
    assert scores == RANK50.with_name(RANK50.name.replace("analysis.md", "ucb_scores.txt")).read_text()
    parts = re.split(r"^(?=#+ Iter \d+:)", text, flags=re.MULTILINE)
    for number in (1, 5, 12, 13, 40, 100, 135):
        before = "".join(parts[: number + 1])
        (folder := tmp_path / str(number)).mkdir()
        _, scores = imported(before, folder, metric="rate_constants_R2", block=12)
        assert scores == ucb_file(before, metric="rate_constants_R2", block_size=12)
