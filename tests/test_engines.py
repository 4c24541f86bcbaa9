"""The engines by name."""

import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Engine
from metabolismgraph.explore.engines.registry import ENGINES, make_engine
from metabolismgraph.schedulers import SCHEDULERS
from metabolismgraph.schedulers.settings import ClusterSettings


@pytest.mark.parametrize("name", [*ENGINES, *SCHEDULERS])
def test_every_engine_can_be_made_and_closed(name):
    engine = make_engine(ClusterSettings(engine=name), 2, 60.0)
    assert isinstance(engine, Engine)
    assert engine.wait(0.0) == []
    engine.close()


def test_an_engine_that_is_not_there():
    with pytest.raises(InputError, match="engine cluster: there is none of that name .all: process, slurm, lsf, dask"):
        make_engine(ClusterSettings(engine="cluster"), 2, 60.0)
