"""The commands of examples/README.md, in a short form."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from command_line import call

import metabolismgraph as mg
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.problem import write_with_homeostasis

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--starts", "1", "--minutes", "0.01", "--processes", "1"]


def command(name):
    """The words of the command of an example, without that of the program."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    (line,) = (block.replace("\\\n", " ") for block in blocks if f"examples/{name}/" in block)
    program, *words = shlex.split(line)
    assert program == "metabolismgraph"
    return words


@pytest.mark.slow
def test_carotenoids_are_fitted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES.parent)
    words = command("bruno")
    words[words.index("--out") + 1] = str(tmp_path / "fit")
    assert call(monkeypatch, *words, *SHORT) == 0, capsys.readouterr().err
    table = pd.read_csv(tmp_path / "fit" / "comparison.csv", index_col=0)
    assert set(table.index) == {"no_homeostasis", "homeostasis"}
    # No start of this short form ends.
    assert table["p_value"].isna().all()
    assert "p-values are left out" in (tmp_path / "fit" / "notes.txt").read_text()
    for variant in table.index:
        assert len(pd.read_csv(tmp_path / "fit" / variant / "held_out.tsv", sep="\t"))


def test_the_problem_of_the_histones_is_written(tmp_path):
    words = command("zheng")
    species = words[words.index("--homeostasis") + 1]
    problem = write_with_homeostasis(EXAMPLES.parent / words[1], [species], tmp_path / "problem")
    assert len(problem.estimated) == 48
    times = read_petab(problem.path).measurements["time"]
    assert (times <= float(words[words.index("--hold-out-after") + 1])).sum() == 45


def test_the_problem_of_the_pulses_is_written(tmp_path):
    # A fit takes minutes.
    words = command("van_heerden")
    files = [EXAMPLES.parent / word for word in words if word.endswith(".csv")]
    assert [file.name for file in files] == ["FF1.csv", "FF2.csv", "FF3.csv"]
    problem = mg.write_model_problem(
        EXAMPLES.parent / words[1],
        files[:1],
        tmp_path / "problem",
        held_out=files[1:],
        inputs=[words[words.index("--input") + 1]],
        prior=float(words[words.index("--prior") + 1]),
        homeostasis=[words[words.index("--homeostasis") + 1]],
        skip_unknown=True,
    )
    assert problem.held_out == ("FF2", "FF3")
    assert {"pull_ICATP", "baseline_ICATP", "p_HXK_Vmax", "sd_ICATP"} < set(problem.estimated)
