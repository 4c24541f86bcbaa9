"""The examples in docstrings run, and every public name has one, with its units or shapes and its errors."""

import doctest
import importlib
import inspect
import logging
from pathlib import Path

import pytest

import metabolismgraph as mg


def modules_with_examples():
    """Looked for in their text, since importing every module takes seconds."""
    root = Path(mg.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if ">>> " in path.read_text():
            parts = path.relative_to(root.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples():
    """Every docstring with an example, once, at the module that defines it."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules_with_examples():
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("test", list(examples()))
def test_examples_run(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    out = []
    runner.run(test, out=out.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(out)


@pytest.mark.parametrize("name", mg.__all__)
def test_public_names_are_documented(name):
    text = inspect.getdoc(getattr(mg, name))
    assert ">>>" in text
    if not name.endswith("Error"):
        assert "Raises:" in text or not inspect.isfunction(getattr(mg, name))
        assert inspect.ismodule(getattr(mg, name)) or any(
            word in text for word in ("Returns:", "Attributes:", "Args:", "unit")
        )


def test_version():
    assert mg.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mg.nothing  # noqa: B018


def test_a_fit_is_logged(small, small_config, small_phase1, caplog):
    """For programs that use the library; without a handler it is silent."""
    with caplog.at_level(logging.INFO, logger="metabolismgraph"):
        mg.fit(small.observations, small_config.replace({"training.phase2_steps": 10}), checkpoint=small_phase1)
    assert "Phase 1: rule forward for dc/dt, 62 of 72 rate constants determined" in caplog.text
    assert "Phase 2: mean |MLP_node|" in caplog.text
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("metabolismgraph").handlers)
