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

# A worker per core; tests of one class or file share their fixtures, so they stay together.
test: setup ## Run the whole test suite
	$(BIN)/pytest --numprocesses logical --dist loadscope $(ARGS)

lint: setup sources ## Style, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/src && $(abspath $(BIN))/lint-imports ../../pyproject.toml

types: setup sources ## Types, strictly
	$(BIN)/mypy

# mypy and import-linter read files, follow no links and do not run an editable install's import hook.
.PHONY: sources
sources:
	@rm -rf build/src && mkdir -p build/src && cp -a dsconvert build/src/
	@cp -a converter models deploy build/src/dsconvert/

demo: setup ## Train a small CNN on real digits and take it through every command (about 2 minutes)
	$(BIN)/python benchmarks/demo.py

# make bench [QUICK=1] [BENCH='--models FOLDER --data cifar10.npz --mnist mnist.npz --fresh']
bench: setup ## Run the benchmarks that have not finished yet, then draw charts; QUICK=1 on digits alone
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick) $(BENCH)

# MODEL may be a Keras or an .onnx file.
# make export-tflite MODEL=model.h5 [OUT=model.tflite] [QUANTIZE=int8] [DATA=calib.npz] [ARGS='--scale 1/255']
QUANTIZE ?= none
DATA_OPTION = $(if $(DATA),--calibration $(DATA))

export-tflite: setup need-model ## MODEL=model.h5|.onnx [OUT=…] [QUANTIZE=none|float16|dynamic|int8|int8-float-io|int16x8] [DATA=calib.npz] [ARGS=…]
	$(BIN)/dsconvert export $(MODEL) --format tflite $(if $(OUT),-o $(OUT)) --quantize $(QUANTIZE) $(DATA_OPTION) $(ARGS)

export-onnx: setup need-model ## MODEL=model.h5|.onnx [OUT=…] [QUANTIZE=none|float16|dynamic|int8] [LIKE=original.onnx] [DATA=calib.npz] [ARGS=…]
	$(BIN)/dsconvert export $(MODEL) --format onnx $(if $(OUT),-o $(OUT)) --quantize $(QUANTIZE) $(if $(LIKE),--like $(LIKE)) $(DATA_OPTION) $(ARGS)

profile: setup ## FILES='a.tflite b.tflite' [THREADS=1] [ARGS=…]
	@test -n "$(FILES)" || { echo "Say which: make profile FILES='model.tflite other.tflite'" >&2; exit 2; }
	$(BIN)/dsconvert profile $(FILES) --threads $(or $(THREADS),1) $(ARGS)

.PHONY: need-model
need-model:
	@test -n "$(MODEL)" || { echo "Say which: make $(MAKECMDGOALS) MODEL=model.h5" >&2; exit 2; }

clean: ## Remove what was made here: environment, caches, demo
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
