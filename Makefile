# make demo: a private image generator on digits, from nothing.   make test: the whole gate.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Passed on to training, such as ARGS=--config.privacy.epsilon=inf
ARGS ?=

.PHONY: demo test test-accelerator test-all lint format setup

demo: setup
	$(BIN)/python -m efsgd_jax.train --config=configs/digits.py $(ARGS) --workdir=$(DEMO)
	@rm -rf $(DEMO)/samples
	$(BIN)/python -m efsgd_jax sample --workdir=$(DEMO) --out=$(DEMO)/samples --n=1000
	$(BIN)/python -m efsgd_jax evaluate --workdir=$(DEMO) --classifier_seeds=1
	$(BIN)/python -m efsgd_jax report $(DEMO)

setup: $(VENV)/.installed

# Made once; again only when the dependencies change.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "efsgd_jax needs Python 3.11 or newer; make PYTHON=python3.12 uses another one." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=20

# What the guarantee rests on, on the device that JAX finds, with the compiler as users have it: about 3 minutes.
test-accelerator: setup
	XLA_FLAGS= EFSGD_JAX_COMPILER_EFFORT= $(BIN)/python -m pytest -m accelerator

# With the tests that take longest: about half an hour more on 2 cores.
test-all: lint
	$(BIN)/python -m pytest --all -n 2 --dist worksteal --durations=20
