"""The prompts: templates and their placeholders, the reference generated from the code, facts, loss curves, files."""

import ast
import inspect
import re
from importlib import import_module, resources
from typing import get_args

import numpy as np
import pytest
from journals import failed, metrics_of, reviewed, strategy_file
from journals import proposed as proposed_one
from PIL import Image
from questions import SmallLoop, Steady, fences, metrics, opened

from metabolismgraph.config import load_config
from metabolismgraph.explore.events import Finished, Started
from metabolismgraph.explore.proposers import loss_curves, reference
from metabolismgraph.explore.proposers import prompt as prompts
from metabolismgraph.explore.proposers.prompt import Context, for_proposal, for_reading, for_submission
from metabolismgraph.explore.proposers.system_facts import budget, system_facts
from metabolismgraph.explore.review.syntax import modules, static_reasons
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import shipped_space
from metabolismgraph.explore.start import opening, prepared
from metabolismgraph.explore.state import State
from metabolismgraph.homeostasis.fit import Phase2Result, initial_model
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import STRATEGIES, make_plan
from metabolismgraph.homeostasis.strategies.base import Part
from metabolismgraph.runs.checkpoint import save_observations, save_phase1, save_phase2

PHASE2 = shipped_space("phase2")
FOLDER = resources.files("metabolismgraph.explore.proposers") / "prompts"
TEMPLATES = {entry.name.removesuffix(".md"): entry.read_text(encoding="utf-8") for entry in FOLDER.iterdir()}
PLACEHOLDER = re.compile(r"\$(\w+)")


@pytest.fixture
def state():
    return SmallLoop(opened(), Steady(), lambda i: metrics(0.4 + 0.05 * i)).run(4).state


def three(state, folder=None):
    context = Context(folder)
    return (
        for_proposal(state, 5, 0, ["because"], context),
        for_reading(state, (3, 4), ["because"], context),
        for_submission(state, 1, ["because"], context),
    )


# Templates


@pytest.mark.parametrize("space", ["phase2", "joint", "phase1"])
def test_every_placeholder_is_filled_in_every_search_space(state, space):
    config = prepared(load_config("small").replace({"exploration.space": space}))
    begun = State.of([opening(config, proposer="x", data="y")])
    questions = (for_proposal(begun, 1, 0, ()), for_submission(begun, 1, ()))
    for prompt in (*questions, *(three(state) if space == "phase2" else ())):
        assert not PLACEHOLDER.search(prompt.system + prompt.text)
        assert ("Strategies of Phase 2" in prompt.system) == (space == "phase2")
        assert all(f"- {name} (" in prompt.system for name in shipped_space(space).by_name)


def test_every_template_is_used():
    used = {name for text in TEMPLATES.values() for name in PLACEHOLDER.findall(text)}
    named = {f"{part}{kind}" for part in ("", "message_") for kind in ("proposal", "reading", "submission")}
    variants = (prompts._OF_A_SPACE, prompts._OF_DESCENT, prompts._WITHOUT_STRATEGIES)
    of_spaces = {name for each in variants for name in each.values()}
    assert set(TEMPLATES) - used == {*named, *of_spaces, "message_refusals", "metrics_oracle", "metrics_validation"}
    assert set(reference.GENERATED) <= used
    assert not set(TEMPLATES) & set(reference.GENERATED)


def test_a_placeholder_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        prompts._filled("$no_such_thing", {})


# The reference


def names_imported(source):
    """Public names that a file imports from the package, with their modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("metabolismgraph"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_review_shows_every_name_that_a_strategy_imports(state, strategy):
    shown = for_submission(state, 1, []).system
    found = list(names_imported(inspect.getsource(inspect.getmodule(STRATEGIES[strategy]))))
    assert found
    for module, name in found:
        (part,) = re.findall(rf"^# from {re.escape(module)} import .*\n(?:(?!# from ).*\n)*", shown, re.MULTILINE)
        assert re.search(rf"^(class {name}\b|def {name}\(|{name} = )", part, re.MULTILINE), (module, name)


def test_signatures_are_those_of_the_code():
    tree = {node.name: node for node in ast.parse(reference.interface()).body if hasattr(node, "name")}
    for module, names in modules().items():
        for name in names or () if module.startswith("metabolismgraph.") else ():
            found = getattr(import_module(module), name)
            if inspect.isfunction(found):
                assert [a.arg for a in tree[name].args.args] == list(inspect.signature(found).parameters)[
                    : len(tree[name].args.args)
                ]
            elif inspect.isclass(found):
                methods = {part.name for part in tree[name].body if isinstance(part, ast.FunctionDef)}
                own = {key for key, value in vars(found).items() if inspect.isfunction(value) and key[0] != "_"}
                assert own - set(getattr(found, "__dataclass_fields__", ())) <= methods, name


def test_the_reference_is_without_code_and_examples_are_whole():
    for node in ast.walk(ast.parse(reference.interface())):
        if isinstance(node, ast.FunctionDef):
            assert len(node.body) == 1
            assert isinstance(node.body[0], ast.Expr)
    sources = re.findall(r"```python\n(.*?)```", reference.examples(), re.DOTALL)
    assert len(sources) == 3
    assert all(static_reasons("copied", source) == () for source in sources)
    kinds = {kind.sets | kind.adjusts for kind in reference.EXAMPLES.values()}
    assert {"penalties", "lengths", "objective"} <= frozenset().union(*kinds)


def test_instructions_name_every_part_of_a_plan(state):
    rules = for_submission(state, 1, []).system.partition("## What its syntax")[0].rpartition("## What a strategy")[2]
    assert [part for part in get_args(Part) if not re.search(rf"\b{part}\b", rules)] == []


def test_settings_without_effect_are_listed_by_strategy():
    lines = reference.without_effect().splitlines()
    (full,) = (line for line in lines if line.startswith("- residual, orthogonalised, shooting: "))
    assert "homeostasis_time_step, batch_size, data_augmentation_loop, n_epochs (training uses all frames" in full
    (steps,) = (line for line in lines if "phase2_steps" in line)
    assert "weak_form" in steps
    assert "residual" not in steps


# Facts of the system


@pytest.fixture
def base(tmp_path, small, small_phase1):
    folder = tmp_path / "base"
    save_observations(folder / "training" / "observations", small.observations)
    save_phase1(folder / "training" / "phase1", small_phase1, 1.0)
    (folder / "metrics.json").write_text('{"rate_constants_R2": 0.8712, "MLP_sub_R2": 0.9}')
    return folder


def test_facts_of_the_system_are_in_every_prompt(state, base, tmp_path, small, small_phase1):
    facts = system_facts(state, 0, base)
    network = small.observations.network
    assert f"species: {network.n_species}, of which {network.n_species} follow" in facts
    assert f"reactions: {network.n_reactions}" in facts
    frames = small.observations.split(state.config.training.held_out_fraction)[0].n_frames
    assert f"{frames} are for training" in facts
    training = state.config.training
    assert (
        f"With the root's settings: {frames * training.data_augmentation_loop // (5 * training.batch_size)}," in facts
    )
    assert f"noise of dc/dt as estimated by Phase 1: {np.median(small_phase1.noise):.3g}" in facts
    assert facts.endswith("R2 of log10 k of the checkpoint, by the truth: 0.8712")
    for prompt in three(state, tmp_path):
        assert fences(prompt)[0]["system"] == facts


def test_without_the_truth_the_quality_of_the_checkpoint_is_not_told(base):
    facts = system_facts(State.of([opened("validation")]), 0, base)
    assert "checkpoint: Phase 1 by projection" in facts
    assert "R2" not in facts


def test_a_system_without_files_is_unknown(state, tmp_path):
    assert system_facts(state, 0, None) == system_facts(state, 0, tmp_path) == "unknown"


def test_the_budget_says_what_is_left(state):
    limited = State.of([opened(max_hours=2.0, max_cost=1.0)])
    assert "iterations: 0 proposed, 16 left" in budget(limited, 16)
    assert "hours: 0.00 spent, 2.00 left" in budget(limited, 16)
    assert "US dollars: 0.00 spent, 1.00 left" in budget(limited, 16)
    assert "time per iteration so far: unknown" in budget(limited, None)
    assert "time per iteration so far: 1 s on average, 1 s at most" in budget(state, None)
    assert "iterations: 4 proposed, no limit known" in budget(state, None)


# Metrics and loss curves


def test_metrics_that_differ_are_shown_by_run_and_others_once(state):
    inside, _ = fences(for_proposal(state, 5, 0, []))
    assert "rate_constants_R2=0.87775" in inside["metrics that are the same in all runs"]
    runs = fences(for_submission(state, 1, []))[0]["iterations of block 0"]
    assert "rate_constants_R2" not in runs
    assert [f"MLP_node_slope_ratio_0={ratio:g}" in runs for ratio in (0.45, 0.5, 0.55, 0.6)] == [True] * 4


@pytest.fixture
def curves(tmp_path, state, small, small_phase1):
    """Run folders with the losses of 400 steps, which fall as 1/step and 1/step^2."""
    data = Phase2Data(small.observations, small_phase1, state.config.graph_model, state.config.training)
    model = initial_model(data, make_plan(data).residuals)
    for i in range(1, 5):
        losses = 2.0 / np.arange(1.0, 401.0) ** i
        polish = np.array([1e-6, 1e-7])
        result = Phase2Result(
            model, np.concatenate([losses, polish]), "concentration²", {"similarity": losses}, 0.1, ()
        )
        save_phase2(tmp_path / f"runs/{i:04d}/run/training/phase2", result, 1.0)
    return tmp_path


def test_loss_curves_are_shown_as_numbers_and_figure(curves, state):
    prompt = for_reading(state, (3, 4), [], Context(curves))
    inside, _ = fences(prompt)
    batch = inside["iterations of the batch"]
    assert "phase2_loss [concentration²] step 1: 2, step 2: 0.25, " in batch
    assert "final slope -3 decades per decade of steps" in batch
    assert "final slope -2 decades" in inside["earlier iterations of this block"]
    assert "then L-BFGS, 2 values: 1e-06 to 1e-07" in batch
    assert "other terms: similarity 2 to " in batch
    assert prompt.images == (curves / "questions" / "0003-loss.png",)
    with Image.open(prompt.images[0]) as image:
        assert image.format == "PNG"
        assert min(image.size) > 200
    assert inside["figures, in the order in which they are attached"] == "figure 1: loss curves of the batch"
    assert for_reading(state, (3, 4), [], Context(curves, images=False)).images == ()


def test_a_curve_that_is_not_finite_or_short_has_no_slope():
    assert loss_curves.final_slope(np.full(100, np.nan)) is None
    assert loss_curves.final_slope(np.zeros(100)) is None
    assert loss_curves.final_slope(np.ones(3)) is None
    assert loss_curves.thinned(np.zeros(0)) == []
    assert loss_curves.thinned(np.ones(1)) == [(1, 1.0)]


# Strategy files


def with_file(*outcomes):
    """An exploration whose strategy file landed before block 1, and was used by runs with these outcomes."""
    file = strategy_file(source="# its source\n")
    events = [opened(n_iter_block=4), reviewed(1, n_iter_block=4, file=file)]
    for i in range(1, 5):
        events += [proposed_one(i), Finished(iteration=i, metrics=metrics_of(0.5, 0.5), seconds=1.0)]
        events.append(score(events[-1], PHASE2, "avg_slope_ratio"))
    for i, outcome in enumerate(outcomes, 5):
        events += [proposed_one(i, files={"mine": file.digest}), Started(iteration=i, folder=f"runs/{i:04d}/run")]
        events += [outcome(i), score(outcome(i), PHASE2, "avg_slope_ratio")]
    return State.of(events)


def broken(i):
    return failed(i, "strategies/mine.py: line 7: TypeError: no")


def fine(i):
    return Finished(iteration=i, metrics=metrics_of(0.5, 0.5), seconds=1.0)


def test_a_file_in_force_is_shown_whole():
    inside, _ = fences(for_submission(with_file(fine, broken), 2, []))
    assert inside["strategy files in force"] == "mine.py:\n# its source\n"
    assert inside["strategy files that are rolled back now, since all their trainings failed"] == "none"


def test_a_file_that_is_rolled_back_is_named_with_its_error():
    inside, _ = fences(for_submission(with_file(broken, broken), 2, []))
    assert inside["strategy files in force"] == "none"
    told = inside["strategy files that are rolled back now, since all their trainings failed"]
    assert told == "mine: strategies/mine.py: line 7: TypeError: no"
    # In the review after it, the roll back is history.
    later = with_file(broken, broken).after(reviewed(2, n_iter_block=4, rolled_back={"mine": None}))
    inside, _ = fences(for_submission(later, 3, []))
    assert "before block 2: mine rolled back" in inside["files submitted before"]
