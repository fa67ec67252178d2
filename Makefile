# One place for every command. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.NOTPARALLEL:
STAMP := $(VENV)/.installed
LOCK := requirements/dev.lock
CHECK_PYTHON = import sys; have = sys.version_info[:2]; sys.exit( \
	"dsconvert needs Python 3.11 or newer: make setup PYTHON=python3.11" if have < (3, 11) else \
	"TensorFlow has no release for this Python yet: make setup PYTHON=python3.13" if have > (3, 13) else 0)

.PHONY: help setup lock audit hooks demo test test-range coverage fuzz faults check lint imports types bench docs \
	release-check clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# The lock names one release of each package for every platform, with its hash: what the tests were
# run with. Packages that it does not name are removed.
setup: $(STAMP) ## Make .venv with dsconvert, editable, and the packages of the lock; NEWEST=1: the newest

$(STAMP): pyproject.toml $(LOCK) $(if $(NEWEST),always)
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv $(VENV)
ifdef NEWEST
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
else
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endif
	@touch $@

.PHONY: always
always:

lock: setup ## Lock the newest releases that pyproject.toml admits; KEEP=1 changes only what it asks for
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
		$(if $(KEEP),,--upgrade) --custom-compile-command 'make lock' --output-file $(LOCK) pyproject.toml

# Not part of CI: what is known of a package changes from one day to the next.
audit: setup ## Look each package of the lock up among the known vulnerabilities
	@$(BIN)/python .ci/audit $(BIN)/uv tool run --quiet --from pip-audit pip-audit \
		--requirement $(LOCK) --require-hashes --disable-pip

hooks: setup ## Let git run the linters and the type checker before each commit
	$(BIN)/pre-commit install

# A worker per core; tests of one class or file share their fixtures, so they stay together.
# The order is random; its seed is printed. ARGS='--randomly-seed=N' repeats it, ARGS='-p no:randomly'
# takes that of the files.
PYTEST := $(BIN)/pytest --numprocesses logical --dist loadscope

test: setup ## Run the whole test suite, in random order; ARGS=… for pytest
	$(PYTEST) $(ARGS)

# Counting lines takes the quick ones half as long again; the slow ones add little to the count.
coverage: setup ## Run all but the slow tests, and fail where they cover fewer lines than pyproject.toml asks for
	$(PYTEST) -m 'not slow' --cov --cov-report= $(ARGS)

# Damaged files of every format, fifty in one process; what is found is kept in build/fuzz/found.
FUZZ_OPTIONS = --seconds $(SECONDS) $(if $(FORMATS),--formats $(FORMATS)) $(if $(SEED),--seed $(SEED)) \
	$(if $(INPUTS),--inputs $(INPUTS))
fuzz: SECONDS ?= 60
fuzz: setup ## Give damaged files to the commands; SECONDS=60 FORMATS=h5,onnx SEED=1 INPUTS=1
	$(BIN)/python tests/fuzz $(FUZZ_OPTIONS)

faults: setup ## Kill commands at random moments, and fill their disk; KILLS=200 FULL=40
	$(BIN)/python tests/faults --kills $(or $(KILLS),200) --full $(or $(FULL),40)

check: lint types ## Run what takes a few minutes: linters, types, the tests that are not slow
	$(PYTEST) -m 'not slow' $(ARGS)

test-range: setup ## Run it with the oldest, then the newest packages that pyproject.toml admits; ARGS=…
	.ci/range oldest $(ARGS)
	.ci/range newest $(ARGS)

lint: setup imports ## Style, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: setup sources
	cd build/src && $(abspath $(BIN))/lint-imports ../../pyproject.toml

types: setup sources ## Types, strictly
	$(BIN)/mypy

# mypy and import-linter read files, follow no links and do not run an editable install's import hook.
.PHONY: sources
sources:
	@rm -rf build/src && mkdir -p build/src && cp -a dsconvert build/src/
	@cp -a converter models deploy build/src/dsconvert/

demo: setup ## Train a small CNN on real digits and take it through the commands (a few minutes)
	$(BIN)/python benchmarks/demo.py

# make bench [QUICK=1] [BENCH='[NAME…] --models FOLDER --data cifar10.npz --mnist mnist.npz --fresh']
# BENCH=peers installs other people's tools below build/peers and compares.
bench: setup ## Run the benchmarks that have not finished yet, then draw charts; QUICK=1 on digits alone
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick) $(BENCH)

# Every warning, such as a link that leads nowhere, is an error. Nothing is fetched.
docs: setup ## Build the site of docs/ in build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/site

# Needs a network: build tools, twine and cyclonedx-bom are run in environments of their own.
release-check: setup ## Build wheel and sdist, check them, try them in empty environments, list what they bring
	.ci/release-check

# What is asked for is looked at first; then an active environment that has dsconvert is used as it
# is, and only without one .venv is made.
# make export-tflite MODEL=model.h5 [OUT=model.tflite] [QUANTIZE=int8] [DATA=calib.npz] [ARGS='--scale 1/255']
QUANTIZE ?= none
DATA_OPTION = $(if $(DATA),--calibration $(DATA))
ACTIVE := $(firstword $(wildcard $(VIRTUAL_ENV:%=%/bin/dsconvert)) $(shell command -v dsconvert))
DSCONVERT := $(or $(ACTIVE),$(BIN)/dsconvert)
READY := $(if $(ACTIVE),,setup)

.PHONY: export-tflite export-onnx profile need-model need-files
export-tflite: need-model $(READY) ## MODEL=model.h5|.onnx [OUT=…] [QUANTIZE=none|float16|dynamic|int8|int8-float-io|int16x8] [DATA=calib.npz] [ARGS=…]
	$(DSCONVERT) export $(MODEL) --format tflite $(if $(OUT),-o $(OUT)) --quantize $(QUANTIZE) $(DATA_OPTION) $(ARGS)

export-onnx: need-model $(READY) ## MODEL=model.h5|.onnx [OUT=…] [QUANTIZE=none|float16|dynamic|int8] [LIKE=original.onnx] [DATA=calib.npz] [ARGS=…]
	$(DSCONVERT) export $(MODEL) --format onnx $(if $(OUT),-o $(OUT)) --quantize $(QUANTIZE) $(if $(LIKE),--like $(LIKE)) $(DATA_OPTION) $(ARGS)

profile: need-files $(READY) ## FILES='a.tflite b.tflite' [THREADS=1] [ARGS=…]
	$(DSCONVERT) profile $(FILES) --threads $(or $(THREADS),1) $(ARGS)

need-model:
	@test -n "$(MODEL)" || { echo "Say which: make $(MAKECMDGOALS) MODEL=model.h5" >&2; exit 2; }

need-files:
	@test -n "$(FILES)" || { echo "Say which: make profile FILES='model.tflite other.tflite'" >&2; exit 2; }

clean: ## Remove what was made here: environment, caches, demo
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
