"""What the README shows runs as it stands there."""

import importlib
import pkgutil
import re
from inspect import ismodule
from pathlib import Path

import metabolismgraph as mg
from metabolismgraph.config import shipped_configs

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert abs(float(capsys.readouterr().out.split()[-1]) - 1) < 0.01


def test_no_module_hides_a_public_name():
    """Importing a submodule sets an attribute of its name on the package."""
    for module in pkgutil.walk_packages(mg.__path__, "metabolismgraph."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in mg.__all__:
        assert not ismodule(getattr(mg, name)), name


def test_configurations_named_in_commands_exist():
    named = re.findall(r"metabolismgraph run (\w+)", README)
    assert named
    assert set(named) <= set(shipped_configs())
