"""The commands of examples/README.md, in a short form."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from test_cli import call

EXAMPLES = Path(__file__).parents[1] / "examples"
# Fewer starts, and few parameters of the largest model.
SHORT = {"bruno": [], "zheng": [], "van_heerden": ["--estimate", "*GLT*"]}


def commands():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("metabolismgraph ")]


def test_every_example_has_a_command():
    assert [next(name for name in SHORT if f"examples/{name}/" in " ".join(words)) for words in commands()] == [*SHORT]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_examples_run(name, tmp_path, monkeypatch, capsys):
    (words,) = (words for words in commands() if f"examples/{name}/" in " ".join(words))
    monkeypatch.chdir(EXAMPLES.parent)
    at = words.index("--out") + 1
    words[at] = str(tmp_path / "fit")
    more = ["--starts", "1", "--processes", "1", "--overwrite", *SHORT[name]]
    assert call(monkeypatch, *words, *more) == 0, capsys.readouterr().err
    table = pd.read_csv(tmp_path / "fit" / "comparison.csv", index_col=0)
    assert set(table.index) == {"no_homeostasis", "homeostasis"}
    assert table.loc["homeostasis", "p_value"] >= 0
    for variant in table.index:
        assert len(pd.read_csv(tmp_path / "fit" / variant / "held_out.tsv", sep="\t"))
