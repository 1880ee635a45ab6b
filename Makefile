# A machine with Python 3.11 to 3.13, git and make is enough; the first target run sets up .venv.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(SETUP) ## install everything into .venv (about 6 GB)

.PHONY: demo
demo: $(SETUP) ## write a small video data set, train the tiny MViTv2 on it, evaluate it (a few minutes on 2 cores)
	@$(BIN)/video-mvit demo

.PHONY: demo-detection
demo-detection: $(SETUP) ## write pictures of shapes, train a small Mask R-CNN, evaluate it (a few minutes on 2 cores)
	@$(BIN)/video-mvit demo detection

.PHONY: doctor
doctor: ## check Python, packages, GPU, decoders and this machine (works without .venv)
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/doctor.py

.PHONY: test
test: $(SETUP) ## run all tests but those marked long, two files at a time
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: test-fast
test-fast: $(SETUP) ## run the tests that take about a minute in all
	$(BIN)/python -m pytest -m "not (slow or long or gpu)" --numprocesses 2 --dist loadfile

.PHONY: test-long
test-long: $(SETUP) ## run what takes too long for every change
	$(BIN)/python -m pytest -m long

.PHONY: check
check: $(SETUP) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(SETUP) ## build the documentation into docs/_build/html, with warnings as errors
	$(BIN)/sphinx-build -W --keep-going -n -b html docs docs/_build/html

.PHONY: format
format: $(SETUP) ## let ruff format the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: pin
pin: $(SETUP) ## renew the pins in requirements.txt from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --extra dev --output-file requirements.txt --upgrade pyproject.toml

$(SETUP): requirements.txt pyproject.toml
	@echo "setting up .venv (once, about 6 GB) ..."
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "error: Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
