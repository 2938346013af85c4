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
PYTEST  := $(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not nightly and not timed"
# Bounds on time hold for a core of one's own: neither beside other tests, nor traced by coverage.
TIMED   := $(BIN)/pytest -q -n 0 -m "timed and not nightly"

.PHONY: help install demo test test-core test-pythons lint format types imports coverage verify bench bench-evidence bench-enclave bench-immune nightly sbom audit lock clean

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
	@$(TIMED)

test-core: install ## the immune room with its compiled core
	@tools/test-core $(BIN)/python

test-pythons: ## core, evidence and the immune room on Python 3.12 and 3.13, where installed
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

coverage: install ## all tests on the pure package, with the coverage gate (.venv/bin/coverage report: line by line)
	@tools/test-hsm
	@mkdir -p build
	@CLOISTER_IMMUNE_PURE=1 $(PYTEST) --cov --cov-report= --junitxml=build/tests.xml
	@$(TIMED)

verify: lint types imports coverage test-core test-pythons ## what has to pass before a commit

bench: install ## the main job against the same job in NVFlare's simulator
	@$(BIN)/python benchmarks/main_job.py

bench-evidence: install .venv-peers/.installed ## evidence beside its peers (PICTURE=file: how the log grows)
	@mkdir -p build
	@$(BIN)/python benchmarks/evidence.py --picture $(PICTURE)
.venv-peers/.installed: requirements/peers.txt
	@$(BIN)/python -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check -qq install --require-hashes --no-deps -r $<
	@touch $@

bench-enclave: install ## attestation, key release, airlock, sealed workers and inference
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/enclave.py

bench-immune: PICTURE = build/immune.png
bench-immune: .venv-immune-peers/.installed ## the immune room beside its peers (SECTION=name, PICTURE=file)
	@mkdir -p build
	@PYTHONPATH=$(CURDIR)/src .venv-immune-peers/bin/python benchmarks/immune.py \
		$(addprefix --section ,$(SECTION)) --picture $(PICTURE)
.venv-immune-peers/.installed: requirements/immune-peers.txt | .venv/.installed
	@$(BIN)/python -m venv --clear .venv-immune-peers
	@.venv-immune-peers/bin/python -m pip --disable-pip-version-check -qq install --require-hashes --no-deps -r $<
	@touch $@

nightly: install ## the slow tests, spread over MINUTES=60 (SEED=n repeats a run)
	@tools/test-hsm
	@$(BIN)/python tools/nightly.py --minutes $(MINUTES) --workers $(WORKERS) $(if $(SEED),--seed $(SEED))

sbom: install ## CycloneDX bill of materials of .venv, in build/
	@mkdir -p build
	@tools/sbom $(BIN)/python build/sbom.cdx.json
	@echo "build/sbom.cdx.json"

audit: install ## Bandit over the sources, and known vulnerabilities in the locked packages
	@$(BIN)/python tools/scan.py src tools
	@$(BIN)/python tools/audit.py requirements/cuda.txt requirements/light.txt

lock: ## recompile the hashed locks (needs uv)
	@requirements/lock

clean: ## remove what was built; runs/ stays, as it holds budget ledgers and receipts
	@rm -rf .venv .venv-* build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* coverage.xml htmlcov
	@find src -name '*.so' -delete
	@find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +
