# Everything a newcomer needs: `make run` and `make test`. Each sets up .venv from the lock by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Three for two cores: tests often wait for a process of theirs to come up or to end. Each file stays on one worker, so
# that what it sets up is made once (with pytest 9.2, marks of xdist_group in 3.8 have no effect); tests/conftest.py sets
# the order.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup data run test soak check ui lock clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## Make .venv with the locked dependencies

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) from requirements.lock; this takes a few minutes ..."
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $(READY)

data: $(READY)  ## Get the demonstration data and base model that data.dvc pins
	@$(BIN)/stillhouse data pull

run: data  ## Run the whole pipeline and compare the models
	@$(BIN)/stillhouse run

test: $(READY)  ## Run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

soak: $(READY)  ## Inject hundreds of faults into runs; another course: make soak OPTIONS="--seed 14 --kills 400"
	$(BIN)/python -m tests.soak.main $(OPTIONS)

check: $(READY)  ## Lint, types, import boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(READY)  ## Open the Prefect and MLflow UIs on loopback; other ports: make ui OPTIONS="--mlflow-port 5050"
	@$(BIN)/stillhouse ui $(OPTIONS)

lock: $(READY)  ## Write requirements.lock from what .venv holds
	@{ head -1 requirements.lock; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:  ## Remove the environment, results and caches (data/ and DVC's cache stay)
	rm -rf $(VENV) artifacts reports .stillhouse .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
