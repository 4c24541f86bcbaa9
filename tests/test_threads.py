"""One thread for small matrices: on a busy machine, several threads wait for one another."""

import pytest
import scipy.linalg  # noqa: F401 - has a library of its own
import threadpoolctl

import metabolismgraph as mg
from metabolismgraph.system.threads import ONE_THREAD, in_single_thread, training_threads


@pytest.fixture(autouse=True)
def any_number(monkeypatch):
    """As for a user: tests run with one thread."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_a_function_in_a_single_thread():
    assert in_single_thread(threads)() == {1}


def test_a_fit_in_a_single_thread_and_its_caller_as_before(small, small_config):
    seen = set()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        config = small_config.replace({"training.homeostasis_training": False})
        mg.fit(small.observations, config, lambda *_: seen.update(threads()))
        assert threads() == {2}
    assert seen == {1}


def test_a_training_of_a_small_network_has_one_thread_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    assert training_threads(100) == {**ONE_THREAD, "NPROC": "1"}
    assert training_threads(1000) == ONE_THREAD
    monkeypatch.setenv("NPROC", "4")
    assert training_threads(100) == ONE_THREAD
