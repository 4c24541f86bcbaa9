"""The engines by name."""

import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines import ENGINES, make_engine
from metabolismgraph.explore.engines.base import Engine


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_can_be_made_and_closed(name):
    engine = make_engine(name, 2, 60.0)
    assert isinstance(engine, Engine)
    assert engine.wait(0.0) == []
    engine.close()


def test_an_engine_that_is_not_there():
    with pytest.raises(InputError, match="engine cluster: there is none of that name .all: local"):
        make_engine("cluster", 2, 60.0)
