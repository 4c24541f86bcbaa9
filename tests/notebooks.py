"""Executes the notebooks of the documentation.

`python tests/notebooks.py` writes their outputs into the files, as `make notebooks` does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_SECONDS = 300  # of one cell


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; its files go to a folder that is removed.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=place, record_timing=False)
        return client.execute()


if __name__ == "__main__":
    for each in NOTEBOOKS:
        nbformat.write(execute(each), each)
