# Two commands matter to a newcomer: `make dataset` and `make test`. `make help` lists the rest.
SHELL := /bin/sh
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := build/demo

.DEFAULT_GOAL := help
.PHONY: help install dataset test lint format bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with the pinned dependencies and paxray itself

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "paxray needs Python >= 3.11, found %d.%d: call make PYTHON=/path/to/python3.11" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV): on Debian and Ubuntu install the package python3-venv"; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --config-settings editable_mode=compat -e '.[test]'
	@touch $@

dataset: install  ## Build a small data set from phantoms under build/demo and say where to look
	@$(BIN)/paxray phantom --cases 4 --seed 1 --out $(DEMO)/cases
	@$(BIN)/paxray build pipelines/demo.yaml --cases $(DEMO)/cases/cases.csv --out $(DEMO)/dataset
	@$(BIN)/paxray export coco $(DEMO)/dataset
	@$(BIN)/paxray report $(DEMO)/dataset

test: install  ## Run every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## Measure the projector beside the other tools that are installed
	$(BIN)/python -m benchmarks.projector --out benchmarks/results

clean:  ## Remove what was built (not .venv)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
