"""The contracts that are offered to others find what breaks them."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import pytest

from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.homeostasis.strategies.residual import Residual
from metabolismgraph.testing import check_engine, check_strategy


class Undeclared(Residual):
    """Changes the number of minibatches of a step as well, in silence."""

    def apply(self, plan, data):
        return dataclasses.replace(super().apply(plan, data), accumulate=2)


class Nameless(Residual):
    """Has no summary."""

    summary: ClassVar = ""


class Thawed(Residual):
    """Changes a rate constant at the end of the training."""

    def apply(self, plan, data):
        def finish(model, progress):
            model, losses = plan.finish(model, progress)
            return eqx.tree_at(lambda m: m.log_k, model, model.log_k + 1.0), losses

        return dataclasses.replace(super().apply(plan, data), finish=finish)


def test_strategies_that_break_the_contract():
    with pytest.raises(AssertionError, match="Undeclared: apply changes the plan's accumulation"):
        check_strategy(Undeclared)
    with pytest.raises(AssertionError, match="Nameless: summary: expected one line"):
        check_strategy(Nameless)
    with pytest.raises(AssertionError, match="Thawed: Phase 2 changed log_k"):
        check_strategy(Thawed)


class Silent(ProcessEngine):
    def wait(self, timeout):
        return [ended._replace(reason=None) for ended in super().wait(timeout)]


class Twice(ProcessEngine):
    def wait(self, timeout):
        return 2 * super().wait(timeout)


class Immortal(ProcessEngine):
    def cancel(self, job):
        del job


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Silent, "a job that fails is reported without a reason"),
        (Twice, "not reported exactly once"),
        (Immortal, "a job still runs after cancel"),
    ],
)
def test_engines_that_break_the_contract(kind, message, tmp_path):
    made = []

    def make(*arguments):
        made.append(kind(*arguments))
        return made[-1]

    with pytest.raises(AssertionError, match=message):
        check_engine(make, tmp_path)
    for engine in made:
        for job in list(engine._running):
            ProcessEngine.cancel(engine, job)
