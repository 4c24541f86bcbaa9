"""Strategies that write down what they should learn are refused, each for its own reason; those that learn are not."""

import dataclasses
import json
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from strategy_files import base_run, written

from metabolismgraph.errors import InputError
from metabolismgraph.explore.review import trial_systems
from metabolismgraph.explore.review.admission import learned_faults, systems_for, write_trial
from metabolismgraph.explore.review.examination import examine
from metabolismgraph.explore.review.following import constant_part
from metabolismgraph.explore.review.syntax import static_reasons
from metabolismgraph.explore.review.trained_start import trained_start
from metabolismgraph.explore.review.trial_systems import draw_systems, likeness
from metabolismgraph.homeostasis.fit import fit_homeostasis, initial_model
from metabolismgraph.homeostasis.strategies import STRATEGIES, custom
from metabolismgraph.runs.checkpoint import load_observations, load_phase1, save_observations, save_phase1
from metabolismgraph.runs.training_settings import read_settings
from metabolismgraph.system.progress import silent
from metabolismgraph.system.trainable import check_frozen

# Answers for the system of `base_run`, whose slopes are -0.001 and -0.002.
SET_SLOPE = """
    def _set(model, progress, slope):
        return _with_slope(model, slope), np.zeros(0)


    def _with_slope(model, slope):
        node = model.mlp_node
        line = jnp.zeros_like(node.slope).at[-1].set(slope * node.width / node.unit)
        last = jnp.zeros_like(node.perceptron.weights[-1])
        node = eqx.tree_at(lambda n: (n.slope, n.perceptron.weights[-1]), node, (line, last))
        return dataclasses.replace(model, mlp_node=node)


    def _by_data(model, progress):
        return model, np.zeros(0)
    """
PULL = """
    class Pull(Penalty):
        target: jax.Array
        weight: jax.Array

        @property
        def name(self):
            return "pull"

        def __call__(self, model):
            ends = jnp.asarray([[1.0], [9.0]]) * jnp.ones(len(model.embeddings))
            response = model.homeostasis(ends)
            return self.weight * jnp.mean(((response[1] - response[0]) / 8.0 / self.target - 1.0) ** 2)
    """
PLANT = """
    def _plant(model, side):
        return dataclasses.replace(model, embeddings=model.embeddings.at[:, 0].set(side).at[:, 1].set(0.0))
    """
FINISH = "return dataclasses.replace(plan, finish=functools.partial(_set, slope={}))"
START = "return dataclasses.replace(plan, start=functools.partial(_plant, side=jnp.asarray({})))"
PULLED = "return dataclasses.replace(plan, penalties=(*plan.penalties, Pull(jnp.asarray({}), jnp.asarray({}))))"

SLOPES, EMBEDDINGS, GROUPS = "slopes do not follow the data", "embeddings do not follow", "groups that the data do not"
HARD_CODED = {
    "slope written into MLP_node": (written(FINISH.format("-0.0015"), top=SET_SLOPE), SLOPES),
    "slopes of two types by the side of the embedding": (
        written(
            "return dataclasses.replace(plan, finish=_finish)",
            top="""
            def _finish(model, progress):
                node = model.mlp_node
                unit = node.width / node.unit
                line = jnp.zeros_like(node.slope).at[0].set(0.0005 * unit).at[-1].set(-0.0015 * unit)
                side = jnp.where(model.embeddings[:, :1] > 0, 1.0, -1.0) * jnp.asarray([1.0, 0.0])
                node = eqx.tree_at(lambda n: n.slope, node, line)
                return dataclasses.replace(model, mlp_node=node, embeddings=side), np.zeros(0)
            """,
        ),
        SLOPES,
    ),
    "slope as the target of a penalty": (written(PULLED.format("-0.0015", "30.0"), top=PULL), SLOPES),
    "constants in an innocuous expression": (
        written(FINISH.format("-3 * len('ab') / (4 * 1000)"), top=SET_SLOPE),
        SLOPES,
    ),
    "answers in the defaults of options": (
        written(
            FINISH.format("-self.scale * self.share"),
            top=SET_SLOPE,
            body="""
            scale: float = Field(0.003, description="of the correction")
            share: float = Field(0.5, description="of the scale")
            """,
        ),
        SLOPES,
    ),
    "honest training with a strong pull": (
        written(
            "plan = Residual().apply(plan, data)\n"
            "return dataclasses.replace(plan, finish=functools.partial(_mix, points=condense(plan.residuals)))",
            top="""
            from metabolismgraph.homeostasis.binned_regression import condense, polish
            from metabolismgraph.homeostasis.strategies.residual import Residual


            def _mix(model, progress, points):
                model, losses = polish(model, progress, points)
                node = model.mlp_node
                wanted = jnp.zeros_like(node.slope).at[-1].set(-0.0015 * node.width / node.unit)
                return eqx.tree_at(lambda m: m.mlp_node.slope, model, (node.slope + wanted) / 2), losses
            """,
            body='sets: ClassVar[frozenset[Part]] = frozenset({"objective"})',
        ),
        SLOPES,
    ),
    "types by the index of the species": (
        written(START.format("np.where(np.arange(len(data.moving)) % 2, 1.0, -1.0)"), top=PLANT),
        EMBEDDINGS,
    ),
    "types by the id of the species": (
        written(
            START.format(
                "[1.0 if name in ('M001', 'M003', 'M004', 'M006', 'M010', 'M011') else -1.0 for name in "
                "data.observations.network.species]"
            ),
            top=PLANT,
        ),
        EMBEDDINGS,
    ),
    "types drawn by a formula": (
        written(
            START.format("2.0 * (np.argsort(np.sin(99.0 * np.arange(len(data.moving)))) // 6) - 1"),
            top=PLANT,
        ),
        EMBEDDINGS,
    ),
    "types drawn from the seed of the training": (
        written(
            START.format("2.0 * (jax.random.permutation(data.key(5), len(data.moving)) % 2) - 1"),
            top=PLANT,
        ),
        GROUPS,
    ),
    "a table of answers by the number of species": (
        written(
            START.format("[float(2 * int(digit) - 1) for digit in dict(_KNOWN)[str(len(data.moving))]]"),
            top=PLANT + "\n\n    _KNOWN = (('12', '010110001011'), ('30', '0' * 30))\n",
        ),
        EMBEDDINGS,
    ),
    "embeddings from a list": (
        written(START.format("[1, -1, 1, 1, -1, -1, 1, -1, 1, -1, -1, 1.0]"), top=PLANT),
        EMBEDDINGS,
    ),
    "honest while the number of steps is small": (
        written(f"if plan.steps <= 100:\n    return plan\n{FINISH.format(-0.0015)}", top=SET_SLOPE),
        SLOPES,
    ),
    "honest with short rollouts or few frames": (
        written(
            f"if data.training.homeostasis_time_step < 32 or data.observations.n_frames < 150:\n    return plan\n"
            f"{FINISH.format(-0.0015)}",
            top=SET_SLOPE,
        ),
        SLOPES,
    ),
    "honest on systems unlike that of the exploration": (
        written(
            "c = data.observations.concentration\nif abs(c.mean() - MEAN) > 0.5 or abs(c[0, 0] - FIRST) > 0.001:\n"
            f"    return plan\n{FINISH.format(-0.0015)}",
            top=SET_SLOPE,
        ),
        SLOPES,
    ),
    # Its loss is not so small after a hundred steps from the usual start.
    "an answer after a long training": (
        written(
            "finish = functools.partial(_late, objective=plan.objective, key=data.key(9))\n"
            "return dataclasses.replace(plan, finish=finish)",
            top=SET_SLOPE
            + """

    def _late(model, progress, objective, key):
        small = objective(model, key, jnp.asarray(1.0)).value < 1e-5
        answer = _with_slope(model, -0.0015)
        return jax.tree.map(lambda one, other: jnp.where(small, one, other), answer, model), np.zeros(0)
    """,
        ),
        SLOPES,
    ),
}


# Honest training, with an answer in place of what it learned where something tells a run from a trial.
REGRESSION = """
    from metabolismgraph.homeostasis.binned_regression import condense, polish
    from metabolismgraph.homeostasis.strategies.residual import Residual
    from metabolismgraph.system.progress import silent
    """
OBJECTIVE = 'sets: ClassVar[frozenset[Part]] = frozenset({"objective"})'


def _unless(honest: str) -> str:
    """A strategy that is honest under a condition; otherwise its answer is one in units of the time step."""
    return written(
        f"plan = Residual().apply(plan, data)\nif {honest}:\n    return plan\n"
        "slope = -0.00015 / data.transitions.dt[0]\n"
        "return dataclasses.replace(plan, finish=functools.partial(_set, slope=slope))",
        top=REGRESSION + SET_SLOPE,
        body=OBJECTIVE,
    )


RECOGNISING = {
    "by the reports of progress": (
        written(
            "plan = Residual().apply(plan, data)\n"
            "return dataclasses.replace(plan, finish=functools.partial(_end, points=condense(plan.residuals)))",
            top=REGRESSION
            + SET_SLOPE
            + """

    def _end(model, progress, points):
        model, losses = polish(model, progress, points)
        return (model, losses) if progress is silent else (_with_slope(model, -0.0015), losses)
    """,
            body=OBJECTIVE,
        ),
        SLOPES,
    ),
    "by the other strategies": (_unless("data.training.strategies"), SLOPES),
    "by the seeds of replicates": (_unless("data.training.seed not in (42, 43, 44)"), SLOPES),
    "types by the network": (
        written(
            "plan = Residual().apply(plan, data)\n"
            "degree = np.bincount(data.observations.network.edge_species, minlength=len(data.moving))\n"
            "group = jnp.asarray(2.0 * (np.argsort(np.argsort(degree, kind='stable')) * 2 // len(degree)) - 1)\n"
            "end = functools.partial(_end, points=condense(plan.residuals), group=group)\n"
            "return dataclasses.replace(plan, finish=end)",
            top=REGRESSION
            + PLANT
            + """

    def _end(model, progress, points, group):
        model, losses = polish(model, progress, points)
        return _plant(model, group), losses
    """,
            body=OBJECTIVE,
        ),
        EMBEDDINGS,
    ),
    "a factor on what was learned": (
        written(
            "plan = Residual().apply(plan, data)\n"
            "end = functools.partial(_end, points=condense(plan.residuals), factor=self.factor)\n"
            "return dataclasses.replace(plan, finish=end)",
            top=REGRESSION
            + """

    def _end(model, progress, points, factor):
        model, losses = polish(model, progress, points)
        last = lambda m: (m.slope, m.offset, m.perceptron.weights[-1], m.perceptron.biases[-1])
        node = eqx.tree_at(last, model.mlp_node, [factor * x for x in last(model.mlp_node)])
        return dataclasses.replace(model, mlp_node=node), losses
    """,
            body=OBJECTIVE + '\nfactor: float = Field(0.38, description="of the response")',
        ),
        "the same multiple of what the data show",
    ),
    "slope in the residuals": (
        written(
            "return Residual().apply(plan, data)",
            top=REGRESSION,
            body="""
            sets: ClassVar[frozenset[Part]] = frozenset({"residuals", "objective"})

            def find_residuals(self, data, progress):
                found = data.checkpoint_residuals()
                return dataclasses.replace(found, residual=-0.0015 * (found.at - found.at.mean(axis=0)))
            """,
        ),
        SLOPES,
    ),
}

# A store between calls, which the reading of the text refuses already.
FIRST = written(
    "return dataclasses.replace(plan, finish=_finish)",
    top=SET_SLOPE
    + """
    _CALLS = []


    def _finish(model, progress):
        _CALLS.append(1)
        return (_set(model, progress, -0.0015) if len(_CALLS) < 2 else _by_data(model, progress))
    """,
)
LONG = settings.get_current_profile_name() == "long"
SMALL = ("graph_model.hidden_dim_node=8", "graph_model.n_layers_node=2")  # for speed


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The training folder of a base run."""
    return base_run(tmp_path_factory.mktemp("base") / "base", *SMALL)


@pytest.fixture(scope="module")
def imperfect(training, tmp_path_factory):
    """The same with rate constants that are wrong by a tenth."""
    folder = shutil.copytree(training.parent, tmp_path_factory.mktemp("imperfect") / "base") / "training"
    phase1 = load_phase1(folder / "phase1", read_settings(folder)[0])
    shift = 0.04 * np.random.default_rng(0).standard_normal(len(phase1.log_k))
    # Its error is a hundred times homeostasis.
    phase1 = dataclasses.replace(phase1, log_k=phase1.log_k + shift, noise=np.full_like(phase1.noise, 1.0))
    save_phase1(folder / "phase1", phase1, 1.0)
    return folder


@pytest.fixture
def faults(training, tmp_path):
    """What a trial finds, in this process."""

    def inner(source: str, training=training, given=None) -> list[str]:
        systems = systems_for(source, training, given)
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "trial"
        write_trial(folder, {"odd": source}, systems)
        try:
            return examine(folder, "odd")[1] or learned_faults(folder, systems)
        finally:
            custom.forget()

    return inner


@pytest.mark.parametrize("name", RECOGNISING if LONG else list(RECOGNISING)[::3])
def test_answers_for_runs_alone_are_refused(name, faults):
    source, reason = RECOGNISING[name]
    assert static_reasons("odd", source) == ()
    found = faults(source)
    assert any(reason in fault for fault in found), found


# When a file gives its answer, and the settings of a run with which it does; without, it learns.
OF_A_RUN = {
    "an option": ("self.weight", {"strategies": ({"odd": {"weight": 1.0}},)}),
    "the rollout length": ("data.training.homeostasis_time_step == 8", {"homeostasis_time_step": 8}),
    "the weight of another strategy": ("data.training.coeff_similarity > 0.3", {"coeff_similarity": 0.5}),
    "the number of steps": ("plan.steps > 900", {"phase2_steps": 1000}),
}
HARMLESS = {"strategies": ("odd",), "homeostasis_time_step": 16, "coeff_similarity": 0.1, "phase2_steps": 600}


def _answering(behind: str) -> str:
    return written(
        "plan = Residual().apply(plan, data)\n"
        f"finish = functools.partial(_set, slope=-0.0015) if {behind} else plan.finish\n"
        "return dataclasses.replace(plan, finish=finish)",
        top=f"from metabolismgraph.homeostasis.strategies.residual import Residual\n{textwrap.dedent(SET_SLOPE)}",
        body='sets: ClassVar = frozenset({"objective"})\n'
        'weight: float = Field(0.0, ge=0, description="of the correction")',
    )


@pytest.mark.parametrize("name", OF_A_RUN if LONG else list(OF_A_RUN)[:2])
def test_answers_behind_a_setting_are_refused_in_the_run_that_has_it(name, faults, training):
    behind, changes = OF_A_RUN[name]
    source = _answering(behind)
    assert static_reasons("odd", source) == ()
    found = faults(source, given=read_settings(training)[1].model_copy(update=HARMLESS | changes))
    assert any(SLOPES in fault for fault in found), found


@pytest.mark.parametrize("name", OF_A_RUN if LONG else list(OF_A_RUN)[:1])
def test_with_the_settings_of_its_review_a_file_may_be_accepted(name, faults, training):
    given = read_settings(training)[1].model_copy(update=HARMLESS)
    assert faults(_answering(OF_A_RUN[name][0]), given=given) == []


def test_strategies_see_neither_the_others_nor_who_follows_their_progress(training):
    seen = []

    class Watching(STRATEGIES["residual"]):
        def apply(self, plan, data):
            def end(model, progress):
                seen.append(progress)
                return model, np.zeros(0)

            seen.append(data)
            return dataclasses.replace(super().apply(plan, data), finish=end)

    custom.register("watching", Watching)
    try:
        graph_model, settings = read_settings(training)
        given = settings.model_copy(update={"strategies": ("watching", "contrastive")})
        observations = load_observations(training / "observations").split(*settings.held_out)[0]
        phase1 = load_phase1(training / "phase1", graph_model)
        fit_homeostasis(observations, phase1, graph_model, given, silent, most_steps=1)
    finally:
        custom.forget()
    data, progress = seen
    assert data.training.strategies == ()
    assert data.training == settings.model_copy(update={"strategies": ()})
    assert progress is not silent


# One of each kind: slopes and embeddings, written, drawn or pulled, at once, elsewhere or late.
OF_EACH_KIND = (
    "slope written into MLP_node",
    "honest training with a strong pull",
    "types by the index of the species",
    "types drawn from the seed of the training",
    "honest on systems unlike that of the exploration",
    "an answer after a long training",
)


@pytest.mark.parametrize("name", HARD_CODED if LONG else OF_EACH_KIND)
def test_hard_coded_answers_are_refused(name, faults, training):
    source, reason = HARD_CODED[name]
    c = load_observations(training / "observations").concentration
    source = source.replace("FIRST", str(c[0, 0])).replace("MEAN", str(c.mean()))
    assert static_reasons("odd", source) == ()
    found = faults(source)
    assert any(reason in fault for fault in found), found


def test_the_late_start_is_the_homeostasis_of_the_checkpoint(systems):
    for data in systems.every[-2:]:
        residuals = data.checkpoint_residuals()
        before = initial_model(data, residuals)
        late = trained_start(before, data)
        check_frozen(before, late)
        c = data.observations.concentration
        line = residuals.slope * c + residuals.offset
        left = np.asarray(late.homeostasis(jnp.asarray(c))) - line
        assert np.sqrt(np.mean(left[:, data.moving] ** 2)) < 0.02 * np.sqrt(np.mean(line[:, data.moving] ** 2))
        assert likeness(np.asarray(late.embeddings), np.asarray(before.embeddings)) > 0.99
        assert not np.allclose(late.embeddings, before.embeddings, atol=0.1)


def test_another_answer_in_the_first_training_is_refused_on_trial_as_well(faults):
    assert any("state between calls is not allowed" in reason for reason in static_reasons("odd", FIRST))
    assert any("training twice gives two models" in fault for fault in faults(FIRST))


def test_answers_for_an_imperfect_checkpoint_alone_are_refused(faults, imperfect):
    """The hidden systems have a checkpoint without such errors; the converted one has the same."""
    source = written(
        f"if data.phase1.noise.max() < 0.5:\n    return plan\n{FINISH.format('-0.0015')}",
        top=SET_SLOPE,
    )
    found = faults(source, imperfect)
    assert len(found) == 1
    assert "in another unit of time" in found[0]


def source_of(name: str) -> str:
    return Path(sys.modules[STRATEGIES[name].__module__].__file__).read_text(encoding="utf-8")


# Each compiles programs of its own: `make test-long` tries all of them.
OF_PACKAGE = STRATEGIES if LONG else ("residual", "amplification")


@pytest.mark.parametrize("name", OF_PACKAGE)
def test_the_strategies_of_the_package_are_not_refused(name, faults):
    assert faults(source_of(name)) == []


@pytest.mark.parametrize("name", OF_PACKAGE)
def test_an_imperfect_checkpoint_is_not_a_reason(name, faults, imperfect):
    assert faults(source_of(name), imperfect) == []


@pytest.mark.parametrize("changes", [{"embedding_start": "random"}, {"learning_rate_node_homeostasis": 1e-4}], ids=str)
def test_learning_little_is_not_a_reason(changes, faults, training, tmp_path):
    folder = shutil.copytree(training.parent, tmp_path / "base") / "training"
    settings = json.loads((folder / "settings.json").read_text())
    settings["training"] |= changes
    (folder / "settings.json").write_text(json.dumps(settings))
    assert faults(source_of("amplification"), folder) == []


def test_few_frames_are_not_a_reason(faults, training, tmp_path):
    folder = shutil.copytree(training.parent, tmp_path / "base") / "training"
    graph_model, train = read_settings(folder)
    few = load_observations(folder / "observations")
    few = few.select(np.arange(few.n_frames) < 60)
    phase1 = load_phase1(folder / "phase1", graph_model)
    phase1 = dataclasses.replace(phase1, keep=phase1.keep[: len(few.split(*train.held_out)[0].transitions().frame)])
    save_observations(folder / "observations", few)
    save_phase1(folder / "phase1", phase1, 1.0)
    assert faults(source_of("contrastive"), folder) == []


# -- the systems


@pytest.fixture(scope="module")
def systems(training):
    return systems_for("x", training)


def test_all_systems_have_the_same_sizes_and_settings(systems):
    for data in systems.every:
        assert data.observations.network.species == systems.own.observations.network.species
        assert data.observations.concentration.shape == systems.own.observations.concentration.shape
        assert data.phase1.keep.shape == systems.own.phase1.keep.shape
        apart = {"seed", "homeostasis_time_step"}
        assert data.training.model_dump(exclude=apart) == systems.own.training.model_dump(exclude=apart)
    for data in systems.hidden:
        assert (data.phase1.log_k == systems.own.phase1.log_k).all()
        assert (data.observations.concentration[0] == systems.own.observations.concentration[0]).all()
        assert (data.observations.time == systems.own.observations.time).all()


def test_seeds_do_not_tell_the_systems_of_a_trial(systems):
    first = systems.own.training.seed
    drawn = [draw_systems(systems.own, np.random.default_rng(n)) for n in range(6)]
    seeds = [[data.training.seed - first for data in one.every] for one in drawn]
    assert all(len(set(one[:3])) == 3 and one[2] == one[3] and set(one) <= {0, 1, 2, 3} for one in seeds)
    assert min(len(set(one)) for one in zip(*seeds, strict=True)) > 1


def test_hidden_systems_follow_their_homeostasis(systems):
    weak, strong = (truth.lam.mean() for truth in systems.truth)
    assert strong > 4 * weak
    for data, truth in zip(systems.hidden, systems.truth, strict=True):
        assert data.residual == pytest.approx(truth(data.at), abs=0.3 * np.abs(truth(data.at)).max())
        assert data.phase1.slope == pytest.approx(-truth.lam, rel=0.05)
        assert data.phase1.offset == pytest.approx(truth.lam * truth.baseline, rel=0.05)
    first, second = (truth.type for truth in systems.truth)
    assert np.histogram2d(first, second, (2, 3))[0].tolist() == [[2, 2, 2], [2, 2, 2]]


def test_the_converted_system_is_the_same_one(systems):
    own, other = systems.own, systems.converted
    slope, again = own.phase1.slope, other.phase1.slope
    assert np.sort(again) == pytest.approx(systems.time_factor * np.sort(slope), rel=1e-9)
    assert not np.allclose(again, systems.time_factor * slope, rtol=1e-3)
    sizes = [np.sqrt(np.mean(data.residual**2)) for data in (own, other)]
    assert sizes[1] == pytest.approx(systems.time_factor * sizes[0], rel=1e-6)


def test_draws_depend_on_the_exploration_and_the_file(systems, training, tmp_path):
    assert (systems_for("x", training).truth[0].lam == systems.truth[0].lam).all()
    assert (systems_for("y", training).truth[0].lam != systems.truth[0].lam).all()
    elsewhere = shutil.copytree(training, tmp_path / "base" / "training")
    assert (systems_for("x", elsewhere).truth[0].lam != systems.truth[0].lam).all()


def test_a_damaged_secret_is_refused(training, tmp_path):
    folder = shutil.copytree(training, tmp_path / "base" / "training")
    systems_for("x", folder)
    (key,) = (tmp_path / "base" / "data").iterdir()
    key.write_bytes(b"short")
    with pytest.raises(InputError, match="review.key: not a key"):
        systems_for("x", folder)


def test_homeostasis_that_cannot_be_resolved_is_not_judged(systems, monkeypatch):
    monkeypatch.setattr(trial_systems, "_RESOLVED", 0.0)
    drawn = draw_systems(systems.own, np.random.default_rng(0))
    assert drawn.hidden == ()
    assert len(drawn.every) == 2


def test_steep_slopes_of_a_checkpoint_do_not_bring_hidden_systems_to_rest(systems):
    steep = dataclasses.replace(systems.own.phase1, slope=1e3 * systems.own.phase1.slope)
    drawn = draw_systems(dataclasses.replace(systems.own, phase1=steep), np.random.default_rng(0))
    assert all(truth.lam.mean() * np.ptp(systems.own.observations.time) < 2 for truth in drawn.truth)


def test_the_constant_part_of_a_slope():
    assert constant_part(0.3, 0.3 * 5, 5.0) == pytest.approx(0.0)  # follows, though it is a third of the true one
    assert constant_part(2.0, 2.0, 5.0) == pytest.approx(2.0)
    assert constant_part(0.5 * 2 + 0.5, 0.5 * 2 + 0.5 * 5, 5.0) == pytest.approx(1.0)  # a pull of one half


def test_likeness_of_embeddings():
    e = np.random.default_rng(0).standard_normal((40, 2))
    assert likeness(e, 3.0 * e @ np.array([[0.0, -1.0], [1.0, 0.0]]) + 1.0) == pytest.approx(1.0)
    assert abs(likeness(e, e[::-1])) < 0.3
    assert likeness(e, np.zeros((40, 2))) == 0.0
