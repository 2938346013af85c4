# `make` lists what there is. Everything runs from .venv, which the first target that needs it creates.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# With this set, every start would compile torch and friends again: seconds each time.
unexport PYTHONDONTWRITEBYTECODE
export TORCH_INDEX PYTHON

BIN     := .venv/bin
WORKERS ?= auto
MINUTES ?= 60
JOB     ?= examples/tumour/job.yaml
PICTURE ?= build/evidence-growth.png
PYTEST  := $(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not nightly"

.PHONY: help install demo test test-pythons lint format types imports coverage verify bench bench-evidence nightly sbom audit lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

install: .venv/.installed ## create .venv from the hashed locks
.venv/.installed: pyproject.toml requirements/torch-cpu.txt requirements/base.txt requirements/cuda.txt tools/install
	@tools/install

demo: install ## run the main job and verify its receipt (DATA=dir: heart-disease files)
	@tools/demo $(JOB) $(if $(DATA),--data "$(DATA)")

test: install ## all tests but the nightly ones
	@tools/test-hsm
	@$(PYTEST)

test-pythons: ## core and evidence on Python 3.12 and 3.13, where installed
	@tools/test-pythons 3.12 3.13

lint: install ## style and format
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format --check -q .

format: install ## rewrite the sources in the house's format
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

types: install ## mypy, strict
	@$(BIN)/mypy --no-error-summary

imports: install ## rooms import downwards only
	@$(BIN)/lint-imports --no-logo | tail -n 4

coverage: install ## all tests, with the coverage gate
	@tools/test-hsm
	@mkdir -p build
	@$(PYTEST) --cov --cov-report=term --junitxml=build/tests.xml

verify: lint types imports coverage test-pythons ## what has to pass before a commit

bench: install ## the main job against the same job in NVFlare's simulator
	@$(BIN)/python benchmarks/main_job.py

bench-evidence: install .venv-peers/.installed ## evidence beside its peers (PICTURE=file: how the log grows)
	@mkdir -p build
	@$(BIN)/python benchmarks/evidence.py --picture $(PICTURE)
.venv-peers/.installed: requirements/peers.txt
	@$(BIN)/python -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check -qq install --require-hashes --no-deps -r $<
	@touch $@

nightly: install ## the slow tests, spread over MINUTES=60 (SEED=n repeats a run)
	@tools/test-hsm
	@$(BIN)/python tools/nightly.py --minutes $(MINUTES) --workers $(WORKERS) $(if $(SEED),--seed $(SEED))

sbom: install ## CycloneDX bill of materials of .venv, in build/
	@mkdir -p build
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-format JSON --output-file build/sbom.cdx.json $(BIN)/python
	@echo "build/sbom.cdx.json"

audit: install ## known vulnerabilities in the locked packages
	@$(BIN)/python tools/audit.py requirements/cuda.txt requirements/light.txt

lock: ## recompile the hashed locks (needs uv)
	@requirements/lock

clean: ## remove what was built; runs/ stays, as it holds budget ledgers and receipts
	@rm -rf .venv .venv-* build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* coverage.xml htmlcov
	@find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +
