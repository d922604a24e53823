# Every target does its own set-up; all that has to be there is make and a Python >= 3.11 with venv.
# Another Python: make run PYTHON=/path/to/python3.12

SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
VENV1 := .venv-arviz1
BIN1 := $(VENV1)/bin
SETUP := pyproject.toml constraints.txt
# several test workers share the cores: one thread each
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
TESTS ?=

.PHONY: help run test lint format docs bench answers test-arviz1 clean

help:
	@echo "make run           three posteriors on a small network, and the report: runs/digits/report.html"
	@echo "make test          all tests (TESTS=tests/nn for some of them)"
	@echo "make lint          ruff and mypy"
	@echo "make docs          the documentation: docs/_build/html/index.html"
	@echo "make bench         timings as ratios, beside the peers"
	@echo "make answers       the tables behind the tutorials, from scratch: five seeds of two networks on MNIST, hours"
	@echo "make test-arviz1   export and diagnostics under ArviZ 1.x, where a Python >= 3.12 is found"
	@echo "make clean         remove what these targets made, the environments included"

run: $(VENV)/.done-run
	$(BIN)/wiu run --out runs/digits --overwrite

test: $(VENV)/.done-test
	$(PYTEST) -n auto $(TESTS)

lint: $(VENV)/.done-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.done-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.done-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(VENV)/.done-test
	OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(BIN)/python -m tests.benchmarks

# a stopped sweep goes on where it was; MNIST is downloaded where it is missing, notMNIST has to lie in WIU_DATA
answers: $(VENV)/.done-run
	$(BIN)/wiu sweep docs/measured/answers/mnist_mlp.toml --out runs/answers/mnist_mlp
	$(BIN)/wiu answers runs/answers/mnist_mlp --out docs/measured/answers --interventions --ood notmnist --refit-epochs 5
	$(BIN)/wiu sweep docs/measured/answers/mnist_lenet.toml --out runs/answers/mnist_lenet
	$(BIN)/wiu answers runs/answers/mnist_lenet --out docs/measured/answers --interventions --ood notmnist --prune-images 2000

test-arviz1:
	@python=$$(PYTHON= .ci/find-python 3.12) || { \
		echo "No Python >= 3.12 found (looked at python3, python3.12 to python3.14 and pyenv): ArviZ 1.x is not tested here."; \
		exit 0; }; \
	$(MAKE) --no-print-directory $(VENV1)/.done ARVIZ1_PYTHON="$$python" && \
	OMP_NUM_THREADS=1 $(BIN1)/python -m pytest -n auto tests/export tests/diagnostics

clean:
	rm -rf $(VENV) $(VENV1) build dist docs/_build docs/api/generated docs/tutorials docs/sg_execution_times.rst
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find wiu_pyro models analyses tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# set-up: one stamp for the environment, one for each set of packages in it

$(VENV)/.done-venv:
	@python=$$(PYTHON="$(PYTHON)" .ci/find-python 3.11) || { \
		echo "Python >= 3.11 with its venv module is needed, and none was found as python3, python3.11 to python3.14 or in pyenv."; \
		echo "Install one (Debian, Ubuntu: apt install python3-venv), or name it: make run PYTHON=/path/to/python3.11"; \
		exit 1; }; \
	echo "Environment $(VENV) from $$python"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.done-run: $(VENV)/.done-venv $(SETUP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.done-%: $(VENV)/.done-venv $(SETUP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(VENV1)/.done: $(SETUP)
	@echo "Environment $(VENV1) from $(ARVIZ1_PYTHON)"
	"$(ARVIZ1_PYTHON)" -m venv $(VENV1)
	$(BIN1)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@
