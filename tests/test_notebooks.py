"""The notebooks of the documentation run, and show what they show there."""

import re

import nbformat
import notebooks
import numpy as np
import pytest

pytestmark = pytest.mark.slow

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


def outputs(notebook):
    """The text of every output, or that it is a picture."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield "a picture" if "image/png" in data else data.get("text/plain") or output.get("text", "")


def parted(text):
    """Words and numbers; the width of columns is that of their numbers."""
    words = " ".join(NUMBER.sub("#", text).split())
    return words, np.array([float(number) for number in NUMBER.findall(text)])


@pytest.mark.filterwarnings("default")  # of the kernel's own packages
@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_gives(path):
    stored, new = (list(outputs(notebook)) for notebook in (nbformat.read(path, 4), notebooks.execute(path)))
    assert len(stored) == len(new)
    for before, now in zip(map(parted, stored), map(parted, new), strict=True):
        assert before[0] == now[0]
        np.testing.assert_allclose(now[1], before[1], rtol=0.05, atol=1e-4)


def test_numbers_are_found():
    words, numbers = parted("R001  0.5 -1e-3 (12 of 30)")
    assert words == "R001 # # (# of #)"
    np.testing.assert_array_equal(numbers, [0.5, -1e-3, 12, 30])


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_no_path_of_a_computer(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text())
