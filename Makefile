# One place for every command. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint types bench export-tflite export-onnx profile clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with dsconvert, editable, and everything it needs

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "dsconvert needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

test: setup ## Run the whole test suite
	$(BIN)/pytest $(ARGS)

lint: setup links ## Style, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup links ## Types, strictly
	$(BIN)/mypy

# Type checkers read files and do not run an editable install's import hook.
.PHONY: links
links:
	@mkdir -p build/src/dsconvert
	@for room in converter models deploy; do ln -sfn ../../../$$room build/src/dsconvert/$$room; done
