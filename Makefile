# Everything runs from .venv, which is built on first use and again when the dependencies change.
PYTHON ?= python3
CONFIG ?= oscillatory_rank50
ARGS ?=
# Data that this project did not make, fitted as well where they are at hand.
EXTERNAL ?= $(wildcard ../shared/benchmarks/oscillatory_rank50)
BIN := .venv/bin
CLUSTERS := $(addprefix tests/test_,$(addsuffix .py,schedulers clusters slurm_faults cluster_commands in_job dask))

.PHONY: help run test test-fast test-long test-clusters test-malformed coverage lint docs notebooks bench bench-scale bench-models bench-noise bench-strategies
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

run: .venv/.ok  ## simulate, fit, evaluate and draw: make run CONFIG=small ARGS="--out DIR"
	$(BIN)/metabolismgraph run $(CONFIG) $(ARGS)

test: .venv/.ok  ## all tests but those of test-clusters that take minutes: make test ARGS="-k config"
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: .venv/.ok  ## the tests that take seconds: what to run after every change
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-long: .venv/.ok  ## all tests; reviews of every strategy; property tests look at ten times as many cases, others each time
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "" --hypothesis-profile=long $(ARGS)

test-clusters: .venv/.ok  ## explorations on Slurm, LSF and Dask with all faults that may happen there; ten minutes, and Slurm's packages
	$(BIN)/pytest -n 2 --dist load -m "" $(ARGS) $(CLUSTERS)

test-malformed: .venv/.ok  ## thousands of malformed inputs, each in a process with limits: make test-malformed ARGS="--family sbml"
	$(BIN)/python tests/malformed/runner.py $(ARGS)

coverage: .venv/.ok  ## all tests, with branch coverage; slower
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

lint: .venv/.ok  ## style, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.ok  ## the documentation as a website: site/index.html; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean

notebooks: .venv/.ok  ## execute the notebooks of the documentation in place
	$(BIN)/python tests/notebooks.py

# One thread, as a run of a network of this size has.
bench: .venv/.ok  ## the recovery benchmark: benchmarks/recovery.json and a table
	NPROC=1 $(BIN)/metabolismgraph benchmark recovery $(foreach d,$(EXTERNAL),--dataset $d) $(ARGS)

bench-scale: .venv/.ok  ## time and memory against the size of the network: make bench-scale ARGS="--sizes 100,300"
	$(BIN)/metabolismgraph benchmark scale $(ARGS)

bench-models: .venv/.ok  ## textbook networks and their corrupted twins: benchmarks/models.json and a table
	$(BIN)/metabolismgraph benchmark models --quick --units $(ARGS)

bench-noise: .venv/.ok  ## noise and coarse samples, every method: make bench-noise ARGS=--quick
	$(BIN)/metabolismgraph benchmark noise $(ARGS)

bench-strategies: .venv/.ok  ## every strategy of Phase 2 on good and bad checkpoints: make bench-strategies ARGS=--quick
	$(BIN)/metabolismgraph benchmark strategies $(ARGS)

# The stamp is written last: an interrupted build is done again. Build backends, of this package and
# of fides, are installed first, at the versions of constraints.txt, not at those that an isolated build would fetch.
.venv/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt hatchling setuptools
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev,docs]'
	@touch $@
