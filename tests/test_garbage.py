"""When Python looks for garbage."""

import shutil
import subprocess
import sys

import pytest

AT_END = "import atexit, gc, sys; atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000))"
COMMAND = "sys.argv[1:] = ['configs']; from metabolismgraph.cli import main; main()"
TRAINING = "from pathlib import Path; from metabolismgraph.runs.train_process import main; main(Path(sys.argv[1]))"


@pytest.mark.parametrize("program", [COMMAND, TRAINING])
def test_a_process_looks_for_garbage_seldom_and_not_at_its_end(program, finished_run, tmp_path):
    folder = shutil.copytree(finished_run / "training", tmp_path / "training")
    words = [sys.executable, "-P", "-c", f"{AT_END}; {program}", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "100000 True", done.stderr
