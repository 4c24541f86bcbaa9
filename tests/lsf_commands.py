"""The commands of LSF, by a stand-in for them that lies beside the checkout."""

import os
from pathlib import Path

import pytest

STAND_IN = Path(__file__).resolve().parents[2] / "shared" / "cluster" / "fakelsf"


def use_stand_in(folder, monkeypatch):
    """Put the commands into PATH; the stand-in keeps its jobs in `folder`/lsf."""
    if not STAND_IN.exists():
        pytest.skip("the stand-in for LSF is not at hand")
    place = folder / "lsf-bin"
    place.mkdir()
    for name in ("bsub", "bjobs", "bkill"):
        path = place / name
        path.write_text(f'#!/bin/bash\nexport FAKELSF={folder}/lsf\nexec {STAND_IN / name} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
