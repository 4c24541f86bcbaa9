"""What the README shows runs as it stands there."""

import re
from pathlib import Path

from metabolismgraph.config import shipped_configs

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert abs(float(capsys.readouterr().out.split()[-1]) - 1) < 0.01


def test_configurations_named_in_commands_exist():
    named = re.findall(r"metabolismgraph run (\w+)", README)
    assert named
    assert set(named) <= set(shipped_configs())
