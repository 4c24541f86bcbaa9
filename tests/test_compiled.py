"""How many programs a fit compiles and what it imports, and where commands keep compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metabolismgraph.cli.compiled import keep_compiled_programs

NAME = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache folder of the user's own, and an environment that says nothing."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.setenv(NAME, "")  # so that it is restored afterwards
    monkeypatch.delenv(NAME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_commands_that_compile_share_a_folder(home):
    keep_compiled_programs("run")
    folder = Path(os.environ[NAME])
    assert folder.is_dir()
    assert folder.is_relative_to(home / "cache" / "metabolismgraph")
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"


@pytest.mark.parametrize("command", ["", "configs", "explore", "benchmark"])
def test_other_commands_write_nothing(home, command):
    keep_compiled_programs(command)
    assert NAME not in os.environ
    assert list(home.iterdir()) == []


def test_what_the_user_has_set_stays(home, monkeypatch):
    monkeypatch.setenv(NAME, "mine")
    keep_compiled_programs("run")
    assert os.environ[NAME] == "mine"
    assert list(home.iterdir()) == []


def test_without_a_place_to_write_nothing_is_kept(home, monkeypatch):
    (home / "cache").write_text("a file")
    keep_compiled_programs("run")
    assert NAME not in os.environ

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    keep_compiled_programs("fit")
    assert NAME not in os.environ


def test_a_fit_compiles_about_a_dozen_programs_and_its_evaluation_none():
    """Every jax.numpy call outside a compiled function would be a program of its own."""
    code = """
import jax, metabolismgraph as mg
config = mg.load_config("small", ["simulation.n_frames=300"])
simulated = mg.simulate(config)
compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
count = lambda: compiled.count("/jax/core/compile/backend_compile_duration")
result = mg.fit(simulated.observations, config)
fit = count()
mg.evaluate(result, simulated.truth)
print(fit, count() - fit)
"""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    of_fit, of_evaluation = map(int, done.stdout.split())
    assert 1 <= of_fit <= 12
    assert of_evaluation == 0


def test_training_imports_what_it_needs():
    code = "import sys, metabolismgraph.runs.train_folder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"scipy.signal", "scipy.stats", "scipy.interpolate", "pandas", "xarray", "sklearn", "matplotlib", "libsbml"}
    assert "jax" in loaded
    assert not slow & set(loaded)
