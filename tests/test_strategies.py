"""The strategies of Phase 2: what all of them keep to, what is refused, and what each of them does."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import sys
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recovered import assert_types, ratios

import metabolismgraph as mg
from metabolismgraph.config import Training
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import evaluate
from metabolismgraph.explore.review import contract
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.homeostasis.binned_regression import Regress, condense, regress
from metabolismgraph.homeostasis.fit import fit_homeostasis, initial_model
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.species_blocks import divide
from metabolismgraph.homeostasis.strategies import STRATEGIES, chosen, make_plan, orthogonalised
from metabolismgraph.homeostasis.strategies.contrastive import Similarity
from metabolismgraph.homeostasis.strategies.weak_form import Windows
from metabolismgraph.homeostasis.training_plan import FixedLength, Plan, Rollouts, Schedule, Starts, optimiser
from metabolismgraph.reactions.gradient import Snapshot, conclude
from metabolismgraph.runs import train_folder
from metabolismgraph.runs.checkpoint import save_observations
from metabolismgraph.system.integrate import euler
from metabolismgraph.system.trainable import check_frozen, phase2_parameters

KEY, START = jax.random.key(0), jnp.asarray(0.0)
QUICK = {
    "graph_model.hidden_dim_node": 8,
    "graph_model.n_layers_node": 2,
    "training.phase2_steps": 100,
    "training.data_augmentation_loop": 1,
    "training.batch_size": 16,
    "training.homeostasis_time_step": 4,
}
CASES = {"plain rollouts": [], "default": None, **{name: [name] for name in STRATEGIES}}


@pytest.fixture(scope="module")
def setting_for(small, small_phase1, small_config):
    """The small benchmark, its checkpoint or another, and quick settings."""

    def inner(strategies, phase1=small_phase1, **training):
        changes = QUICK | {"training.strategies": strategies}
        config = small_config.replace(changes | {f"training.{key}": value for key, value in training.items()})
        return Phase2Data(small.observations, phase1, config.graph_model, config.training)

    return inner


@pytest.fixture(scope="module")
def plain(setting_for):
    """The classical trainer."""
    data = setting_for([])
    return data, Plan.classical(data)


def train(data):
    return fit_homeostasis(data.observations, data.phase1, data.graph_model, data.training)


@dataclasses.dataclass(frozen=True)
class Trained:
    data: Phase2Data
    plan: Plan
    before: object
    result: object


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def trained(request, setting_for):
    """Every strategy alone, a hundred steps."""
    data = setting_for(request.param)
    plan = make_plan(data)
    return Trained(data, plan, initial_model(data, plan.residuals), train(data))


# -- what all of them keep to


def test_frozen_stays_frozen(trained):
    check_frozen(trained.before, trained.result.model)
    phase1, model = trained.data.phase1, trained.result.model
    np.testing.assert_array_equal(model.log_k, phase1.log_k)
    for a, b in zip(jax.tree.leaves(model.mlp_sub), jax.tree.leaves(phase1.mlp_sub), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loss_falls(trained):
    losses, plan = trained.result.losses, trained.plan
    assert np.isfinite(losses).all()
    assert len(losses) >= 100
    # While MLP_node is amplified it is another quantity that is small.
    first, last = losses[:10], losses[-10:]
    assert last.mean() < 0.9 * first.mean()
    assert trained.result.loss_unit == plan.objective.unit
    assert trained.result.node_magnitude > 0
    # And by one measure for all: MLP_node against the residual of the checkpoint.
    points = condense(trained.data.checkpoint_residuals())
    before, after = (float(regress(m, points).misfit) for m in (trained.before, trained.result.model))
    assert before == pytest.approx(1.0, abs=0.1)
    assert after < 0.9 * before


def test_the_seed_decides(trained):
    """The same seed gives the same bits; another seed, other weights."""
    again = train(trained.data)
    for a, b in zip(jax.tree.leaves(again.model), jax.tree.leaves(trained.result.model), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.losses, trained.result.losses)
    training = trained.data.training.model_copy(update={"seed": 99})
    other = train(dataclasses.replace(trained.data, training=training))
    assert (other.model.mlp_node.perceptron.weights[0] != trained.result.model.mlp_node.perceptron.weights[0]).all()
    assert not np.array_equal(other.losses, trained.result.losses)


@eqx.filter_jit
def gradient_of(model, objective):
    return jax.value_and_grad(lambda m: objective(m, KEY, START).value)(model)


def test_gradients_at_the_start(trained):
    """MLP_node is zero there; what it is to say gets through all the same."""
    model, plan = trained.before, trained.plan
    assert float(jnp.abs(model.mlp_node.perceptron.weights[-1]).max()) == 0.0
    objective = plan.objective
    if isinstance(objective, Rollouts):  # rollouts of one length, as one compilation serves
        steps = jnp.asarray(int(objective.lengths(KEY, START, objective.batch).max()))
        objective = dataclasses.replace(objective, lengths=FixedLength(steps))
    value, found = gradient_of(model, objective)
    for leaf in (value, *jax.tree.leaves(eqx.filter(found, phase2_parameters(model)))):
        assert np.isfinite(leaf).all()
    for output in (found.mlp_node.slope, found.mlp_node.offset, found.mlp_node.perceptron.weights[-1]):
        assert float(jnp.abs(output).max()) > 0
    assert 0.05 < float(value) < 50  # of order one, whatever the units


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_keep_the_contract(name, plain):
    """The one that strategies of an exploration's own are held to as well."""
    data, plan = plain
    assert contract.declaration_faults(STRATEGIES[name]) == []
    assert contract.behaviour_faults(STRATEGIES[name](), plan, data) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_combine_or_are_refused(name, setting_for, monkeypatch):
    # How residuals are found has tests of its own, and takes seconds each time.
    found = SimpleNamespace(residuals=setting_for([]).checkpoint_residuals())
    monkeypatch.setattr(orthogonalised, "refine_reactions", lambda *_, **__: found)
    others = [other for other in STRATEGIES if other != "orthogonalised"]
    assert contract.combination_faults(others, lambda *entries: make_plan(setting_for(list(entries))), name) == []


def test_a_loss_term_twice_is_refused(setting_for, monkeypatch):
    monkeypatch.setitem(STRATEGIES, "again", STRATEGIES["contrastive"])
    with pytest.raises(InputError, match="training.strategies: two of them add the loss term similarity; leave one"):
        make_plan(setting_for(["contrastive", "again"]))


def test_numbers_are_those_of_the_requirement():
    assert sorted(strategy.number for strategy in STRATEGIES.values()) == list(range(1, 12))


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_see_no_labels(name):
    tree = ast.parse(inspect.getsource(sys.modules[STRATEGIES[name].__module__]))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert "metabolismgraph.homeostasis.strategies.base" in imported
    parts = {part for name in imported for part in name.lower().split(".")}
    assert not parts & {"truth", "simulator", "evaluation", "benchmarks", "figures"}
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not read & {"truth", "lam", "baseline", "type", "rate_law"}


# -- what is refused


def refusal(strategies, **training):
    with pytest.raises(InputError) as caught:
        chosen(Training(strategies=strategies, **training))
    message = str(caught.value)
    assert message.startswith("training.strategies: ")
    assert "\n" not in message
    return message


def test_an_unknown_name_is_met_with_the_nearest():
    assert "unknown strategy amplifcation; did you mean amplification?" in refusal(["amplifcation"])
    assert all(name in refusal(["x"]) for name in STRATEGIES)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"amplification": {"facto": 2}},
            "option facto of amplification: there is no such option (options: factor, until)",
        ),
        ({"amplification": {"factor": 0.5}}, "option factor of amplification: Input should be greater than or equal"),
        ({"warmup": {"share": 1.0}}, "option share of warmup: Input should be less than 1"),
        ({"accumulation": {"batches": 1}}, "option batches of accumulation"),
        ({"multi_scale": {"scales": "many"}}, "option scales of multi_scale"),
        ({"residual": {"weight": 1.0}}, r"(options: none)"),
    ],
)
def test_options_are_checked(strategy, message):
    assert message in refusal([strategy])


def test_a_name_twice():
    assert "curriculum is named twice" in refusal(["curriculum", {"curriculum": {"stages": 3}}])


@pytest.mark.parametrize(
    ("first", "second", "part"), [("curriculum", "multi_scale", "lengths"), ("residual", "weak_form", "objective")]
)
def test_two_that_decide_on_the_same(first, second, part):
    assert f"{first} and {second} both set the {part}; keep one" in refusal([first, second])
    assert f"{second} and {first} both set the {part}; keep one" in refusal([second, first])


@pytest.mark.parametrize("trained", ["residual", "orthogonalised", "weak_form"])
@pytest.mark.parametrize("name", ["amplification", "curriculum", "multi_scale", "separate"])
def test_rollout_strategies_need_rollouts(trained, name):
    message = f"{name} works on rollouts, and {trained} does not use them; leave one of them out"
    assert message in refusal([name, trained])
    assert message in refusal([trained, name])


@pytest.mark.parametrize("trained", ["residual", "orthogonalised"])
def test_accumulation_needs_minibatches(trained):
    assert f"accumulation works on minibatches, and {trained} does not use them" in refusal(["accumulation", trained])


def test_weak_form_needs_a_window(setting_for):
    with pytest.raises(InputError, match="weak_form averages over homeostasis_time_step = 1 frames; set it to 3 or"):
        make_plan(setting_for(["weak_form"], homeostasis_time_step=1))


@pytest.mark.parametrize(
    "names",
    [
        ("residual", "orthogonalised"), ("weak_form", "orthogonalised"), ("weak_form", "accumulation"),
        ("orthogonalised", "weak_form", "accumulation", "warmup"), ("amplification", "curriculum", "separate"),
        *(("contrastive", name) for name in STRATEGIES if name != "contrastive"),
    ],
)  # fmt: skip
def test_what_goes_together(names):
    """In any order, which does not matter for residuals and objective."""
    for order in (names, names[::-1]):
        found = list(chosen(Training(strategies=order)))
        assert sorted(found) == sorted(names)
        leading = [name for name in found if name in {"orthogonalised", "residual", "weak_form"}]
        assert found[: len(leading)] == leading
        assert leading == sorted(leading, key=["orthogonalised", "residual", "weak_form"].index)


def test_a_setting_without_effect_refuses_nothing(setting_for):
    """No run has 2000 frames, but nothing is trained on rollouts either."""
    assert (
        "homeostasis_time_step = 2000 has no effect"
        in make_plan(setting_for(["residual"], homeostasis_time_step=2000)).notes[0]
    )
    with pytest.raises(InputError):
        make_plan(setting_for([], homeostasis_time_step=2000))


@pytest.mark.parametrize("entry", ["python", "folder"])
@pytest.mark.parametrize(
    ("missing", "settings", "message"),
    [
        (True, {"strategies": ["residual"]}, "Phase 2 needs the strategy shooting"),
        (
            False,
            {"strategies": [], "homeostasis_time_step": 9999},
            "homeostasis_time_step is 9999, but the longest run",
        ),
        (False, {"strategies": ["weak_form", "residual"]}, "weak_form and residual both set the objective"),
    ],
)
def test_strategies_that_cannot_work_are_refused_before_phase_1(
    small, small_config, monkeypatch, tmp_path, missing, settings, message, entry
):
    """Which can take hours."""
    for module in (importlib.import_module("metabolismgraph.fitting.fit"), train_folder):
        monkeypatch.setattr(module, "fit_reactions", lambda *_: pytest.fail("Phase 1 was begun"))
    observations = small.observations
    if missing:
        c = observations.concentration.copy()
        c[7, 3] = np.nan
        observations = mg.Observations.with_gaps(observations.network, observations.time, observations.run, c)
    config = small_config.replace({f"training.{key}": value for key, value in settings.items()})
    if entry == "folder":
        save_observations(tmp_path / "observations", observations)
        sections = {name: getattr(config, name).model_dump(mode="json") for name in ("graph_model", "training")}
        (tmp_path / "settings.json").write_text(json.dumps(sections))
    with pytest.raises(InputError, match=message):
        mg.fit(observations, config) if entry == "python" else train_folder.train_folder(tmp_path)


def test_a_replaced_schedule_is_named(setting_for):
    plan = make_plan(setting_for(["residual", "warmup"]))
    assert plan.schedule.kind == "restarts"
    assert "training.strategies: warmup replaces the schedule of residual" in plan.notes
    notes = make_plan(setting_for(["residual", "contrastive"])).notes
    assert [note for note in notes if "replaces" in note] == []


def test_a_plan_is_cheap(setting_for, monkeypatch):
    """The residuals are found once, by Phase 2, with progress; apply computes nothing."""
    data = setting_for(["orthogonalised", "contrastive"])
    calls = []

    def found(data, progress, **options):
        calls.append((progress, options))
        return SimpleNamespace(residuals=data.checkpoint_residuals())

    monkeypatch.setattr(orthogonalised, "refine_reactions", found)
    STRATEGIES["orthogonalised"]().apply(Plan.classical(data), data)
    assert calls == []
    report = lambda *_: None  # noqa: E731
    make_plan(data, report)
    assert calls == [(report, {"iterations": 100, "tolerance": 1e-3})]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda plan: {"steps": plan.steps + 1}, "steps"),
        (lambda plan: {"schedule": Schedule("onecycle")}, "schedule"),
        (lambda plan: {"schedule": dataclasses.replace(plan.schedule, embeddings_wait=0.3)}, "embeddings_wait"),
        (lambda plan: {"start": lambda model: model}, "start"),
        (lambda plan: {"finish": lambda model, progress: (model, np.zeros(0))}, "finish"),
        (lambda plan: {"accumulate": 2}, "accumulation"),
        (lambda plan: {"penalties": (*plan.penalties, *applied_penalties(plan))}, "penalties"),
    ],
)
def test_every_changed_part_is_declared(plain, change, part):
    _, plan = plain
    changed = dataclasses.replace(plan, **change(plan))
    assert contract.undeclared(frozenset(), plan, changed) == [
        f"apply changes the plan's {part}, which neither sets nor adjusts names"
    ]
    assert contract.undeclared(frozenset({part}), plan, changed) == []


def applied_penalties(plan):
    del plan
    return (Similarity(jnp.ones(3), jnp.ones(()), jnp.arange(2)[None], jnp.ones(())),)


def test_notes_and_penalties_of_others_stay(plain):
    _, plan = plain
    noted = dataclasses.replace(plan, notes=("one",), penalties=applied_penalties(plan))
    every = frozenset({"penalties"})
    assert len(contract.undeclared(every, noted, dataclasses.replace(noted, notes=()))) == 1
    assert len(contract.undeclared(every, noted, dataclasses.replace(noted, penalties=()))) == 1


def test_defaults_follow_phase1():
    assert list(chosen(Training())) == ["residual", "contrastive"]
    assert list(chosen(Training(phase1_method="gradient"))) == ["orthogonalised", "contrastive"]
    assert chosen(Training(strategies=())) == {}


# -- what each of them does


def applied(name, data, plan, **options):
    return STRATEGIES[name].model_validate(options).apply(plan, data)


def test_plain_rollouts_are_the_published_trainer(plain):
    data, plan = plain
    assert isinstance(plan.objective, Rollouts)
    assert plan.objective.batch == 16
    assert isinstance(plan.objective.lengths, FixedLength)
    assert int(plan.objective.lengths.steps) == 4
    assert plan.penalties == ()
    assert plan.accumulate == 1
    assert plan.schedule == Schedule()
    assert plan.steps == data.training.steps_per_epoch(1501) == 18


def test_residual_regresses(plain):
    data, plan = plain
    changed = applied("residual", *plain)
    assert isinstance(changed.objective, Regress)
    assert changed.steps == data.training.phase2_steps
    assert changed.residuals is plan.residuals


def test_amplification_enters_the_loss(plain):
    _, plan = plain
    changed = applied("amplification", *plain, factor=20.0, until=0.5)
    assert np.asarray(changed.objective.amplification).tolist() == [20.0, 0.5]
    assert np.asarray(plan.objective.amplification).tolist() == [1.0, 1.0]
    data = plain[0]
    model = initial_model(data, plan.residuals)
    (before, slow), (after, fast) = (gradient_of(model, p.objective) for p in (plan, changed))
    assert float(before) == float(after)  # zero times anything
    for part in (lambda g: g.mlp_node.slope, lambda g: g.mlp_node.offset, lambda g: g.mlp_node.perceptron.weights[-1]):
        np.testing.assert_allclose(part(fast), 20.0 * part(slow), rtol=1e-9, atol=1e-12)


def test_curriculum_goes_from_long_to_short(plain):
    changed = applied("curriculum", *plain, stages=3, late=2.0).objective
    lengths = [np.unique(changed.lengths(KEY, jnp.asarray(s), 5)).tolist() for s in (0.0, 0.3, 0.34, 0.66, 0.67, 1.0)]
    assert lengths == [[4], [4], [2], [2], [1], [1]]
    assert float(changed.late) == 2.0
    halves = applied("curriculum", *plain).objective
    assert [int(halves.lengths(KEY, jnp.asarray(s), 1)[0]) for s in (0.0, 0.49, 0.5, 1.0)] == [4, 4, 2, 2]
    many = applied("curriculum", *plain, stages=8).objective
    assert int(many.lengths(KEY, jnp.asarray(1.0), 1)[0]) == 1


def test_multi_scale_takes_given_lengths_at_any_rollout_length(plain):
    """Those of the published design too, in the slot of the shortest rollouts."""
    found = applied("multi_scale", *plain, lengths=(4, 16, 32, 64)).objective
    assert set(np.asarray(found.lengths(KEY, START, 300)).tolist()) == {4, 16, 32, 64}
    assert found.capacity >= 64
    data, _ = plain
    assert int(found.starts.count) == len(data.observations.run) - 64 * len(np.unique(data.observations.run))


def test_multi_scale_takes_no_length_twice(plain):
    """At T = 4: 4, 2 and 1, equally often."""
    lengths = np.asarray(applied("multi_scale", *plain, scales=5).objective.lengths(KEY, START, 3000))
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == [1, 2, 4]
    assert counts.min() > 900


def test_multi_scale_mixes_lengths(plain):
    lengths = applied("multi_scale", *plain, scales=3).objective.lengths(KEY, START, 300)
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == [1, 2, 4]
    assert counts.min() > 70
    assert not np.array_equal(lengths, applied("multi_scale", *plain).objective.lengths(jax.random.key(1), START, 300))


def test_warmup_rises_then_falls_and_restarts(plain):
    schedule = applied("warmup", *plain, share=0.1, restarts=3, peak=5.0).schedule
    rate = np.asarray(schedule.rate(400, 0.01)(np.arange(400)))
    assert rate[0] == 0.0
    assert rate.max() == pytest.approx(0.05)
    assert int(rate.argmax()) == 40
    assert (np.diff(rate[:41]) > 0).all()
    ups = np.flatnonzero(np.diff(rate[40:]) > 0) + 41
    assert ups.tolist() == [160, 280]
    np.testing.assert_allclose(rate[[160, 280]], 0.05)
    np.testing.assert_allclose(rate[[159, 279, 399]], 0.0005, rtol=0.05)


def test_embeddings_wait_as_long_as_they_are_told(plain):
    changed = applied("contrastive", *plain, wait=0.3)
    late = np.asarray(changed.schedule.late_rate(100, 0.01)(np.arange(100)))
    assert (late[:30] == 0).all()
    assert (late[30:] == 0.01).all()
    assert applied("warmup", plain[0], changed).schedule.embeddings_wait == 0.3
    (term,) = changed.penalties
    assert term.name == "similarity"
    assert float(term.weight) == plain[0].training.coeff_similarity


def test_all_pairs_of_few_species_are_compared(plain):
    """Against the sum over pairs, with the median over all of them; a species without entries has no pairs."""
    data, plan = plain
    (term,) = applied("contrastive", *plain).penalties
    rng = np.random.default_rng(0)
    model = initial_model(data, plan.residuals)
    n, dim = model.embeddings.shape
    model = eqx.tree_at(
        lambda m: (m.embeddings, m.mlp_node.slope), model, (jnp.asarray(rng.normal(size=(n, dim))), jnp.ones(dim + 1))
    )
    informed = np.arange(n) != 3
    few = dataclasses.replace(term, blocks=jnp.asarray(divide(informed, 0)))
    curves = np.stack([model.homeostasis(np.full((1, n), c))[0] for c in np.asarray(term.grid)], axis=1) / term.unit
    a = np.asarray(model.embeddings)
    pairs = list(itertools.combinations(np.flatnonzero(informed), 2))
    distances = np.array([np.linalg.norm(curves[i] - curves[j]) for i, j in pairs])
    typical = np.sqrt(np.mean(np.sum(curves**2, axis=1)))
    w = np.exp(-0.5 * (distances / max(np.median(distances) / 4, 0.025 * typical)) ** 2)
    apart = np.array([np.linalg.norm(a[i] - a[j]) for i, j in pairs])
    expected = np.mean(w * apart**2 + (1 - w) * np.maximum(1 - apart, 0) ** 2)
    assert float(few(model)) == pytest.approx(float(term.weight) * expected, rel=1e-6)


def test_of_many_species_each_is_compared_with_about_as_many():
    rng = np.random.default_rng(0)
    informed = rng.random(1000) < 0.9
    blocks = divide(informed, 0)
    listed, counts = np.unique(blocks[blocks < 1000], return_counts=True)
    assert (listed == np.flatnonzero(informed)).all()
    assert (counts == 2).all()
    assert blocks.shape[1] <= 128
    # Each block of one division shares species with every block of the other: nothing falls into parts.
    half = len(blocks) // 2
    assert all(np.intersect1d(one, other).size for one in blocks[:half] for other in blocks[half:])
    assert divide(np.zeros(4, dtype=bool), 0).shape == (1, 0)


def test_accumulation_is_a_step_on_the_mean_gradient(plain):
    data, plan = plain
    assert applied("accumulation", *plain, batches=3).accumulate == 3
    model = initial_model(data, plan.residuals)
    parameters, _ = eqx.partition(model, phase2_parameters(model))
    rng = np.random.default_rng(0)
    gradients = [jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), parameters) for _ in range(6)]
    means = [jax.tree.map(lambda *g: sum(g) / 3, *gradients[i : i + 3]) for i in (0, 3)]

    def end(chosen, sequence):
        @jax.jit
        def step(p, state, gradient):
            updates, state = chosen.update(gradient, state, p)
            return eqx.apply_updates(p, updates), state

        p, state = parameters, chosen.init(parameters)
        ends = []
        for gradient in sequence:
            p, state = step(p, state, gradient)
            ends.append(p)
        return ends

    several = end(optimiser(Schedule(), 6, 0.01, 0.002, 3, 30), gradients)
    single = end(optimiser(Schedule(), 2, 0.01, 0.002, 1, 30), means)
    for a, b in zip(jax.tree.leaves(several[2::3]), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)  # Adam divides by small numbers
    for a, b in zip(jax.tree.leaves(several[1]), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_array_equal(a, b)  # not yet


@pytest.mark.parametrize("n_species", [30, 1000])
def test_small_errors_hardly_move_embeddings(n_species, plain):
    """A species with large errors moves by the learning rate; one with small errors by a share of it."""
    data, plan = plain
    model = initial_model(data, plan.residuals)
    parameters, _ = eqx.partition(model, phase2_parameters(model))
    parameters = eqx.tree_at(lambda m: m.embeddings, parameters, jnp.zeros((3, 2)))
    errors = jnp.asarray([1.0, 0.1, 1e-3])
    gradient = jax.tree.map(jnp.ones_like, parameters)
    gradient = eqx.tree_at(lambda m: m.embeddings, gradient, 2 / n_species * errors[:, None] * jnp.ones((3, 2)))
    chosen = optimiser(Schedule(), 1, 0.01, 0.002, 1, n_species)
    updates, _ = chosen.update(gradient, chosen.init(parameters), parameters)
    np.testing.assert_allclose(updates.embeddings[:, 0], -0.002 * errors / (errors + 0.1), rtol=1e-6)


def test_separate_watches_the_reactions_alone(setting_for):
    """The watched figure is that of rollouts without MLP_node, and stays what it is while the loss falls."""
    data = setting_for(["separate"])
    plan = make_plan(data)
    assert plan.objective.scheme.detach
    watched = train(data).components["reactions_alone"]
    assert watched.shape == (100,)
    c, dt = data.observations.concentration, float(data.transitions.dt[0])
    starts = np.arange(0, 1497, 7)
    states = np.asarray(euler(data.reactions, jnp.asarray(c[starts]), jnp.full((4, len(starts)), dt)))
    expected = np.mean((states - c[starts + np.arange(1, 5)[:, None]]) ** 2)
    assert watched.mean() == pytest.approx(expected, rel=0.2)


def test_weak_form_averages_over_windows(setting_for):
    """Against sums that are written out; noise in the residual averages out."""
    data = setting_for(["weak_form"])
    plan = make_plan(data)
    objective = plan.objective
    assert isinstance(objective, Windows)
    u = np.array([-0.6, -0.2, 0.2, 0.6])
    np.testing.assert_allclose(objective.bump[:4], (1 - u**2) ** 4)
    assert (objective.bump[4:] == 0).all()
    one = dataclasses.replace(objective, starts=Starts(jnp.full(1501, 100), jnp.asarray(1)))
    value, _ = gradient_of(initial_model(data, plan.residuals), one)
    mean = np.average(plan.residuals.residual[100:104], axis=0, weights=(1 - u**2) ** 4)
    assert float(value) == pytest.approx(np.mean(mean**2) / plan.residuals.unit**2, rel=1e-9)
    assert objective.starts.frames[:1497].tolist() == list(range(1497))
    assert int(objective.starts.count) == 1497


# -- a checkpoint that is only about right


@pytest.fixture(scope="module")
def spoilt(small, small_phase1, small_config):
    """Rate constants off by a tenth of a decade, the exponent of the rate law by 10 %."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(72)
    law = eqx.tree_at(lambda f: f.skip, small_phase1.mlp_sub, 1.1 * small_phase1.mlp_sub.skip)
    snapshot = Snapshot(0, small_phase1.log_k + noise, law, np.zeros(0))
    return conclude(snapshot, small.observations, small_config.graph_model, small_config.training)


def test_orthogonalised_sees_through_a_spoilt_checkpoint(small, small_config, spoilt, setting_for):
    found = train(setting_for(["orthogonalised", "contrastive"], spoilt, phase2_steps=300))
    assert_types(found.model, small.truth)
    np.testing.assert_array_equal(found.model.log_k, spoilt.log_k)
    alone = train(setting_for(["residual", "contrastive"], spoilt, phase2_steps=300))
    assert np.abs(ratios(alone.model, small.truth) - 1).max() > 1.0
    # Held-out rollouts tell the one from the other, without the truth.
    right, wrong = (
        evaluate(FitResult(small.observations, small_config.graph_model, small_config.training, spoilt, result)).metrics
        for result in (found, alone)
    )
    assert right["held_out_skill"] > 0.99
    assert wrong["held_out_skill"] < 0.5
