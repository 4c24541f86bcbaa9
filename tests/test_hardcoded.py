"""Strategies that write down what they should learn are refused, each for its own reason; those that learn are not."""

import pytest
from strategy_files import base_run, written

from metabolismgraph.explore.review.admission import learned_faults, systems_for, write_trial
from metabolismgraph.explore.review.examination import examine
from metabolismgraph.explore.review.syntax import static_reasons
from metabolismgraph.homeostasis.strategies import custom

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
    "types drawn from a seed": (
        written(
            START.format("2.0 * np.random.default_rng(len(data.moving)).permutation(len(data.moving)) / 6 // 1 - 1"),
            top=PLANT,
        ),
        EMBEDDINGS,
    ),
    "types drawn from the seed of the training": (
        written(
            START.format("2.0 * (np.random.default_rng(data.training.seed).permutation(len(data.moving)) % 2) - 1"),
            top=PLANT,
        ),
        GROUPS,
    ),
    "a table of answers by the number of species": (
        written(
            START.format("[float(2 * int(digit) - 1) for digit in _KNOWN[str(len(data.moving))]]"),
            top=PLANT + "\n\n    _KNOWN = {'12': '010110001011', '30': '0' * 30}\n",
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
    "honest where the checkpoint is perfect": (
        written(
            f"if plan.residuals.unit < 1e-5:\n    return plan\n{FINISH.format(-0.0015)}",
            top=SET_SLOPE,
        ),
        SLOPES,
    ),
    "another answer in the first training": (
        written(
            "return dataclasses.replace(plan, finish=_finish)",
            top=SET_SLOPE
            + """
    _CALLS = []


    def _finish(model, progress):
        _CALLS.append(1)
        return (_set(model, progress, -0.0015) if len(_CALLS) < 2 else _by_data(model, progress))
    """,
        ),
        "training twice gives two models",
    ),
}


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The training folder of a base run, with a small MLP_node, for speed."""
    small = ("graph_model.hidden_dim_node=8", "graph_model.n_layers_node=2")
    return base_run(tmp_path_factory.mktemp("base") / "base", *small)


@pytest.fixture
def faults(training, tmp_path):
    """What a trial finds, in this process."""

    def inner(source: str, training=training) -> list[str]:
        systems = systems_for(source, training)
        c = systems.own.observations.concentration
        for name, value in (("FIRST", c[0, 0]), ("MEAN", c.mean())):
            source = source.replace(name, str(value))
        folder = tmp_path / "trial"
        write_trial(folder, "odd", source, systems)
        try:
            return examine(folder, "odd")[1] or learned_faults(folder, systems)
        finally:
            custom.forget()

    return inner


@pytest.mark.parametrize("name", HARD_CODED)
def test_hard_coded_answers_are_refused(name, faults):
    source, reason = HARD_CODED[name]
    assert static_reasons("odd", source) == ()
    found = faults(source)
    assert found
    assert all(reason in fault for fault in found), found
