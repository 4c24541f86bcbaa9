"""What the explorer shows: status, pages, trees, in text and as a picture."""

import io
import itertools

import journals
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from rich.console import Console

from metabolismgraph.cli import explore_tables as display
from metabolismgraph.cli.explore_tables import board, follow, iteration_page, status_table, tree_text
from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Answered, Refused
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.published_format import tree_figure as figure
from metabolismgraph.explore.published_format.tree_figure import draw_tree, short_mutation
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import best, nodes
from metabolismgraph.figures.style import applied

HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnorw [link=http://a]b[/link] [/nothing]"
VALIDATION = Config().replace({"exploration.primary": "validation"})


def state_of(n=8, **given):
    return State.of(journals.exploration(n, **given))


def text_of(renderable, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def row(text, iteration):
    """The words in the row of an iteration in the table of slots."""
    return next(found for found in map(str.split, text.splitlines()) if is_row(found) and found[2] == str(iteration))


def is_row(words):
    return len(words) > 4 and all(word.isdigit() for word in words[:4])


# Status


def test_an_exploration_that_was_only_opened():
    state = state_of(0)
    for text in (text_of(status_table(state, iterations=16)), text_of(tree_text(state))):
        assert "nothing has been proposed yet" in text
    text = text_of(status_table(state, iterations=16))
    assert "0/16 iterations done" in text
    assert "no node is called best with fewer than 3 replicates" in text


def test_slots_of_a_batch_that_runs():
    state = state_of(8, in_flight=3)
    text = text_of(status_table(state, {7: "2026-11-26T10:11:12.000+00:00", 8: ""}, 16), 120)
    assert "block 0, 5/16 iterations done; proposer rules" in text
    assert "converged" in row(text, 5) or "partial" in row(text, 5)
    assert "submitted" in row(text, 6)
    assert "running since 10:11:12 UTC" in " ".join(row(text, 7))
    assert "since" not in row(text, 8)
    assert row(text, 7)[:4] == ["2", "32", "7", "7"]
    assert row(text, 7)[-1] == "-"
    assert sum(is_row(line.split()) for line in text.splitlines()) == 4  # none of the batch before
    assert "submitted" in row(text_of(status_table(state)), 6)


def test_what_was_proposed_is_not_called_submitted():
    events = [journals.opened(), journals.proposed(1)]
    assert "proposed" in row(text_of(status_table(State.of(events))), 1)


def test_failures_and_nan_are_no_rewards():
    state = state_of(4, failing={2: "ended with code 1"}, ratios=lambda i: (None, 1.0) if i == 3 else (0.9, 1.0))
    text = text_of(status_table(state))
    assert " ".join(row(text, 2)[6:9]) == "failed: ended wit…"
    assert "NaN" in row(text, 3)
    assert [row(text, i)[-1] for i in (1, 2, 3, 4)] == ["0.950", "-", "-", "0.950"]


def test_best_only_with_enough_replicates():
    two, three = (state_of(n, replicates=dict.fromkeys((5, 6), 2), ratios=lambda i: (0.8, 1.25)) for n in (5, 6))
    assert best(two) is None
    text = text_of(status_table(two), 200)
    assert "no node is called best with fewer than 3 replicates" in text
    assert "leading: " in text
    text = text_of(status_table(three), 200)
    assert (
        "best: node 2, reward 0.800 ± 0.000 (3 replicates), slope ratios 0.800, 1.250; residual + contrastive" in text
    )
    assert "no node is called best" not in text


def test_the_oracle_is_marked_and_only_that():
    oracle = state_of(8, replicates={5: 1, 6: 1})
    blind = state_of(8, replicates={5: 1, 6: 1}, config=VALIDATION, metrics=lambda i: {"held_out_skill": 0.5})
    assert best(blind) is not None
    for show in (status_table, tree_text):
        assert "oracle: uses the truth" in text_of(show(oracle))
        assert "oracle" not in text_of(show(blind))
    assert "slope ratios" in text_of(status_table(oracle))
    assert "slope ratios" not in text_of(status_table(blind))  # they would be the truth


def answered(iteration, **given):
    values = {"kind": "proposal", "attempt": 0, "by": "llm", "answer": "{}", "error": None, "seconds": 3.6}
    return Answered(
        **(values | {"iteration": iteration, "input_tokens": 900, "output_tokens": 100, "cost": 0.5} | given)
    )


def refused(iteration, reason, **given):
    return Refused(
        **({"kind": "proposal", "attempt": 0, "by": "llm"} | {"iteration": iteration, "reason": reason} | given)
    )


def test_budget_refusals_and_fallback():
    config = Config().replace({"exploration.max_cost": 3, "exploration.max_hours": 2, "exploration.n_workers": 1})
    events = journals.exploration(2, config=config)
    events += [answered(3), answered(3, attempt=1), refused(3, "batch_size is out of range")]
    events += [journals.proposed(3, by="rules", note="3 answers of llm were refused")]
    text = text_of(status_table(State.of(events), iterations=16), 200)
    assert "budget: 3 of 16 iterations, 0.04 of 2 h, 1.00 of 3 US$, 2000 tokens in 2 answers" in text
    assert "1 answers refused; the last, proposal for iteration 3: batch_size is out of range" in text
    assert "note: iteration 3: 3 answers of llm were refused" in text


# One iteration


def test_page_of_an_iteration(tmp_path):
    events = journals.exploration(4)
    at = next(i for i, event in enumerate(events) if event.event == "proposed" and event.iteration == 3)
    events[at:at] = [refused(3, "batch_size may not be -1"), refused(4, "of another one")]
    folder = tmp_path / "runs" / "0003"
    events = [e.model_copy(update={"folder": "runs/0003/run"}) if e.event == "started" else e for e in events]
    (folder / "run" / "tmp_training").mkdir(parents=True)
    (folder / "run" / "tmp_training" / "loss.tif").touch()
    (folder / "stdout.txt").touch()
    text = text_of(iteration_page(State.of(events), 3, tmp_path), 200)
    assert "attempt 1 by llm: batch_size may not be -1" in text
    assert "of another one" not in text
    assert "slopes move" in text
    assert "training.homeostasis_time_step: 1 as opened, here 32" in text
    assert "3, made from the root of block 0, replicate 1 of 1" in text
    assert "slopes of iteration 3 have moved" in text
    assert str(folder / "stdout.txt") in text
    assert str(folder / "run" / "tmp_training" / "loss.tif") in text
    places = [text.index(f" {name} ") for name in ("avg_slope_ratio", "MLP_node_slope_ratio_1", "training_time_min")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(2, "ended with code 1"), (5, "1, made from the root of block 0, replicate 2 of 2"), (6, "submitted")],
)
def test_pages_of_failures_replicates_and_runs(number, expected, tmp_path):
    state = state_of(6, in_flight=1, failing={2: "ended with code 1"}, replicates={5: 1})
    assert expected in text_of(iteration_page(state, number, tmp_path), 100)


# The tree


def test_tree_has_every_node_once_below_its_parent():
    state = state_of(12, parents={5: 2, 6: 5, 9: 2}, replicates={7: 2, 8: 2}, failing={6: "x"}, in_flight=1)
    lines = text_of(tree_text(state), 120).splitlines()
    indent = {}
    for line in lines:
        words = line.strip("│├└─ ").split()
        if words[0].isdigit():
            indent[int(words[0])] = len(line) - len(line.lstrip("│├└─ "))
    assert set(indent) == {node.id for node in nodes(state)}
    assert indent[2] < indent[5] < indent[6]
    of = {i: next(line for line in lines if line.strip("│├└─ ").startswith(f"{i}  ")) for i in indent}
    assert "(3); iterations 2, 7, 8" in of[2]
    assert of[6].endswith("failed")
    assert of[12].endswith("in flight")
    assert "from node 2" in of[9]  # a child in another block
    assert "block 1, iterations 9-12, root as opened" in text_of(tree_text(state), 120)


def test_tree_marks_the_best():
    state = state_of(8, replicates={5: 2, 6: 2}, ratios=lambda i: (1.0, 1.0) if i in {2, 5, 6} else (0.5, 0.5))
    marked = [line for line in text_of(tree_text(state), 120).splitlines() if line.endswith("best")]
    assert len(marked) == 1
    assert "2  residual + contrastive" in marked[0]


def test_a_long_line_of_descent_stays_readable():
    config = Config().replace({"exploration.n_iter_block": 136, "exploration.n_parallel": 1})
    state = state_of(40, config=config, parents={i: i - 1 or None for i in range(1, 41)})
    text = text_of(tree_text(state))
    assert "from node 39" in text
    assert len(text.splitlines()) < 3 * 40


# Whatever they write


def hostile_state():
    """Somebody else's words wherever there is room for them."""
    events = journals.exploration(
        8, name=f"demo {HOSTILE}", failing={6: HOSTILE}, texts=lambda i: {"visual": HOSTILE, "observation": HOSTILE}
    )
    of_hostile = {"mutations": (Mutation(param=HOSTILE, old=HOSTILE, new=HOSTILE),), "hypothesis": HOSTILE}
    events = [
        e.model_copy(update={"proposal": e.proposal.model_copy(update=of_hostile), "note": HOSTILE, "by": HOSTILE})
        if e.event == "proposed"
        else e
        for e in events
    ]
    return State.of([*events, refused(7, HOSTILE, by=HOSTILE), answered(7, error=HOSTILE)])


def test_text_of_others_is_neither_markup_nor_commands(tmp_path):
    state = hostile_state()
    shown = [status_table(state), tree_text(state), *(iteration_page(state, i, tmp_path) for i in (5, 6, 7))]
    for each in shown:
        console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system=None)
        console.print(each)
        text = console.file.getvalue()
        assert "[bold red]x[/]" in text
        assert "[/nothing]" in text
        assert not set(text) & set("\x1b\x07\x9b\u202e")


def test_lines_of_others_cannot_be_steered_either():
    console = Console(file=io.StringIO(), width=80)
    with board(console, 8, quiet=False) as watch:
        watch(State.of(journals.exploration(0)), {})
        watch(hostile_state(), {})
    text = console.file.getvalue()
    assert len(text.splitlines()) == 8
    assert "[bold red]x[/]" in text
    assert not set(text) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("n", [0, 8, 136])
def test_everything_fits_eighty_columns(n, tmp_path):
    state = state_of(n, in_flight=min(n, 2), failing={n - 3: "a long reason " * 20})
    shown = [status_table(state, {n: ""}, 136), tree_text(state)]
    shown += [iteration_page(state, i, tmp_path) for i in (n - 3, n) if n]
    for each in shown:
        assert max(len(line) for line in text_of(each).splitlines()) <= 80
    if n == 136:
        slots = [line for line in text_of(status_table(state)).splitlines() if is_row(line.split())]
        assert len(slots) == 4  # one line each, however long the reason


# Following


def test_lines_tell_every_iteration_once():
    console = Console(file=io.StringIO(), width=80)
    events = journals.exploration(8)
    with board(console, 8, quiet=False) as watch:
        for number in range(1, len(events) + 1):
            watch(State.of(events[:number]), {})
    lines = console.file.getvalue().splitlines()
    assert [line.split("]")[0] for line in lines] == [f"[{i}/8" for i in range(1, 9)]
    assert all("reward 0." in line for line in lines)


def test_lines_of_a_resumed_exploration_begin_with_its_batch():
    console = Console(file=io.StringIO(), width=80)
    with board(console, 8, quiet=False) as watch:
        watch(state_of(8, in_flight=2), {})
    assert [line.split("]")[0] for line in console.file.getvalue().splitlines()] == ["[5/8", "[6/8"]


def test_board_on_a_terminal_shows_the_table_and_quiet_shows_nothing():
    for quiet in (False, True):
        console = Console(file=io.StringIO(), width=80, height=50, force_terminal=True)
        with board(console, 16, quiet=quiet) as watch:
            watch(state_of(4, in_flight=1), {4: ""})
        text = console.file.getvalue()
        assert ("3/16 iterations done" in text and "running" in text) is not quiet
        assert quiet == (text == "")


class Script:
    """Stands for `sleep`: does the next thing every time it is called."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def __call__(self, seconds):
        assert 0.2 <= seconds <= 2
        self.steps.pop(0)()


def interrupt():
    raise KeyboardInterrupt


def test_follow_shows_what_is_added_and_ends_with_the_file(tmp_path, monkeypatch):
    events = journals.exploration(4)
    journal = journals.journal(tmp_path, events[:-4])
    console = Console(file=io.StringIO(), width=80)
    told = []

    def go_on():
        told.append(console.file.getvalue())
        for event in events[-4:]:
            journal.append(event)

    script = Script(lambda: None, go_on, journal.path.unlink)
    monkeypatch.setattr(display.time, "sleep", script)
    follow(ExplorationFolder(tmp_path), console)
    assert not script.steps
    told.append(console.file.getvalue())
    assert [[line.split("]")[0] for line in text.splitlines()] for text in told] == [
        ["[1", "[2"],
        ["[1", "[2", "[3", "[4"],
    ]


def test_follow_ends_quietly_when_interrupted(tmp_path, monkeypatch):
    journals.journal(tmp_path, journals.exploration(4))
    monkeypatch.setattr(display.time, "sleep", Script(interrupt))
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True)
    follow(ExplorationFolder(tmp_path), console)
    assert "4 iterations done" in console.file.getvalue()


def test_follow_tells_of_a_damaged_journal(tmp_path):
    journal = journals.journal(tmp_path, journals.exploration(4))
    journal.path.write_text("{}\n" + journal.path.read_text())
    with pytest.raises(InputError, match="line 1: damaged"):
        follow(ExplorationFolder(tmp_path), Console(file=io.StringIO()))


# The picture


def drawn(state):
    with applied():
        found = figure._drawn(state)
        canvas = FigureCanvasAgg(found)
        canvas.draw()  # legends are laid out while they are drawn
        return found, canvas.get_renderer()


def texts_of(found, renderer):
    """All text of a figure with where it is."""
    shown = [text for text in found.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent(renderer) for text in shown]
    return [(text, box) for text, box in zip(shown, boxes, strict=True) if box.width > 0]


@pytest.mark.parametrize(
    ("n", "given"),
    [
        (16, {"replicates": {10: 8, 12: 8, 13: 8, 14: 11}, "failing": {6: "x"}, "in_flight": 1}),
        (136, {"replicates": {10: 8, 30: 27, 31: 27, 136: 131}, "failing": {50: "x"}}),
        (30, {"replicates": {9: 7, 10: 7}, "config": Config().replace({"exploration.n_iter_block": 30})}),
        (
            60,
            {
                "parents": {i: i - 1 or None for i in range(1, 61)},
                "config": Config().replace({"exploration.n_iter_block": 30}),
            },
        ),
    ],
    ids=["two blocks", "many blocks", "one large block", "long lines of descent"],
)
def test_no_text_covers_other_text_or_leaves_the_page(n, given):
    found, renderer = drawn(state_of(n, **given))
    boxes = texts_of(found, renderer)
    assert len(boxes) > 25
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) < 0.02 * found.dpi, (one.get_text(), other.get_text())
    # Matplotlib also keeps numbers of the axis that lie outside of it, and does not draw them.
    numbers = {id(label) for ax in found.axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())}
    for text, box in [each for each in boxes if id(each[0]) not in numbers]:
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= found.bbox.x1, text.get_text()
        assert text.get_fontsize() >= 9  # at the width of a page that is 6
    assert found.get_figheight() < 1.5 * found.get_figwidth()


def test_picture_says_what_it_shows():
    state = state_of(16, replicates={10: 8, 12: 8, 13: 8}, ratios=lambda i: (0.8, 1.25), name="demo")
    found, renderer = drawn(state)
    said = {text.get_text() for text, _ in texts_of(found, renderer)}
    assert {"demo", "scored by avg_slope_ratio (oracle: uses the truth)", "mean reward"} <= said
    assert {str(node.id) for node in nodes(state)} <= said
    assert {"block 0, iterations 1-8", "block 1, iterations 9-16", "best", "converged"} <= said
    assert "A  0.800 ± 0.000 (4)" in said
    assert "A: residual + contrastive" in said
    blind = state_of(8, config=VALIDATION, metrics=lambda i: {"held_out_skill": 0.5})
    said = {text.get_text() for text, _ in texts_of(*drawn(blind))}
    assert "scored by validation (held-out rollouts, no truth)" in said


@pytest.mark.parametrize("n", [0, 1, 5])
def test_picture_is_written_whole(n, tmp_path):
    path = draw_tree(state_of(n, in_flight=min(n, 1), failing={2: "x"}), tmp_path / "figures")
    assert path == tmp_path / "figures" / "tree.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["tree.png"]


def test_picture_takes_text_of_others_as_it_is(tmp_path):
    """Formulas that cannot be set, and signs that the font lacks, would raise or warn."""
    events = journals.exploration(6, name="$\\frac{ 中文 \x1b[31m $")
    hostile = (Mutation(param="$a_{$", old="x", new="$中\x1b$"),)
    events = [
        e.model_copy(update={"proposal": e.proposal.model_copy(update={"mutations": hostile})})
        if e.event == "proposed"
        else e
        for e in events
    ]
    state = State.of(events)
    draw_tree(state, tmp_path)
    said = {text.get_text() for text, _ in texts_of(*drawn(state))}
    assert "$\\frac{ ?? [31m $" in said


@pytest.mark.parametrize(
    ("param", "old", "new", "short"),
    [
        ("lr_node_homeo", 0.01, 0.03, "lr_node ×3"),
        ("training.batch_size", 8, 4, "batch_size ×0.5"),
        ("coeff_similarity", 0, 0.5, "coeff_similarity → 0.5"),
        ("strategies", ["residual", "contrastive"], ["weak_form", "contrastive"], "+weak_form −residual"),
        ("strategies", None, [{"residual": {"scale": 2}}], "+residual"),
        ("strategies", ["residual"], [{"residual": {"scale": 2}}], "strategy options"),
    ],
)
def test_changes_in_short(param, old, new, short):
    assert short_mutation(Mutation(param=param, old=old, new=new)) == short
