"""What several test files share: the small benchmark, and Phase 1 and Phase 2 on it."""

# The package is imported inside the fixtures: pytest reads this file before the shape checks are in place,
# and whatever is imported before them goes unchecked.
# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import QUICK, call
from hypothesis import settings
from lsf_commands import use_stand_in
from private_slurm import running_slurm

# ci: every clone gets the same answer every time. long: looks elsewhere each time, and further.
LONGER = 10
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=LONGER * 100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))  # --hypothesis-profile comes later, and wins


# Kept between sessions: most of what the first one does is compile. For this interpreter and these flags alone, which
# JAX sees to itself.
COMPILED = Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"
MOST_COMPILED = 2e9  # bytes; then it begins again


def pytest_configure():
    """One store of compiled programs, and one thread of linear algebra, for all workers and child processes."""
    # Child processes read modules that another one has compiled, as they do for users.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Two workers with as many threads as cores each would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Without these emitters of code, programs are compiled in two thirds of the time, and are as fast.
    flags = "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        if COMPILED.is_dir() and sum(path.stat().st_size for path in COMPILED.iterdir()) > MOST_COMPILED:
            shutil.rmtree(COMPILED, ignore_errors=True)
        COMPILED.mkdir(parents=True, exist_ok=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_collection_finish():
    """The garbage collector need not look at thousands of tests, whenever a program is traced."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


# Files whose tests train, or start processes, for longer than one wants to wait: `make test-fast` leaves them out. The
# longest come first, so that both workers end at about the same time.
SLOW = (
    *(
        "cli",
        "strategies",
        "review",
        "trajectories",
        "explore_commands",
        "projection",
        "uncertainty",
        "parameters",
        "firewall_attacks",
        "phase2",
        "jobs",
    ),
    *("documentation", "verdict", "explorer_crashes", "docstrings", "answer", "rate_law", "benchmark_strategies"),
    *(
        "benchmark_models",
        "trust",
        "gradient",
        "firewall_shared",
        "firewall_watcher",
        "rules",
        "units",
        "shared_cases",
        "explorer_models",
    ),
    *("asking", "bad_input", "hardcoded", "llm", "metrics", "new_strategies", "prompts", "published", "registries"),
    *("sbml_semantic", "testing", "noise_benchmark", "bound", "unconfined", "malformed_inputs", "firewall_calls"),
    *("canary", "full_disk", "edited_journal", "explorer_kills", "clusters", "slurm_faults"),
    *("shared_residuals", "cluster_commands", "in_job", "dask", "benchmark_kills"),
)


def pytest_collection_modifyitems(items):
    """Put slow files first, and mark them.

    Under the profile `long`, tests with a number of examples of their own get more, too.
    """
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker("slow")
    rank = {name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.stem.removeprefix("test_"), len(SLOW)))
    if settings.get_current_profile_name() != "long":
        return
    functions = {id(item.obj): item.obj for item in items if getattr(item.obj, "is_hypothesis_test", False)}
    for function in functions.values():
        function = getattr(function, "__func__", function)  # noqa: PLW2901 - attributes of a method are its function's
        own = function._hypothesis_internal_use_settings
        if own.max_examples != settings.default.max_examples:
            function._hypothesis_internal_use_settings = settings(own, max_examples=LONGER * own.max_examples)


@pytest.fixture(scope="session")
def small_config():
    from metabolismgraph.config import load_config

    return load_config("small")


@pytest.fixture(scope="session")
def small(small_config):
    """Observations and truth of thirty metabolites and 72 reactions."""
    from metabolismgraph.ground_truth.simulator import simulate

    return simulate(small_config)


@pytest.fixture(scope="session")
def small_phase1(small, small_config):
    from metabolismgraph.reactions.fit import fit_reactions

    return fit_reactions(small.observations, small_config.graph_model, small_config.training)


@pytest.fixture(scope="session")
def small_phase2(small, small_phase1, small_config):
    from metabolismgraph.homeostasis.fit import fit_homeostasis

    return fit_homeostasis(small.observations, small_phase1, small_config.graph_model, small_config.training)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A small run by the command itself, in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "first"
    subprocess.run(
        [sys.executable, "-m", "metabolismgraph", "run", "small", "--out", out, *QUICK], check=True, capture_output=True
    )
    return out


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    assert call(monkeypatch, "simulate", "small", "--out", folder, "--quiet", *QUICK) == 0
    return folder


@pytest.fixture(scope="session")
def private_slurm():
    """One Slurm for all tests that do no harm to it."""
    with running_slurm() as slurm:
        yield slurm


@pytest.fixture
def slurm(private_slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(private_slurm.path))
    return "slurm"


@pytest.fixture
def lsf(tmp_path, monkeypatch):
    use_stand_in(tmp_path, monkeypatch)
    return "lsf"


@pytest.fixture(params=["slurm", pytest.param("lsf", marks=pytest.mark.on_demand)])
def cluster(request):
    """The name of a scheduler that is at hand."""
    return request.getfixturevalue(request.param)
