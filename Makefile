# Needs make, and Python 3.11 or newer with venv. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
# A constraint such as DJANGO='django~=6.1.0'. Give each one a VENV of its own.
DJANGO ?=
# A file of further constraints: `.ci/lowest` prints those of the lowest versions that we allow.
CONSTRAINTS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WANTED = $(if $(DJANGO),'$(DJANGO)') $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help demo test test-sqlite test-postgresql bench lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## show one person's life in the portal, then serve it (ONCE=1: only show)
	@$(BIN)/python example_project/manage.py demo

test: test-sqlite test-postgresql ## run the tests on SQLite, then on PostgreSQL

test-sqlite: $(VENV)/.dev ## run the tests on SQLite
	PHI_TEST_DB=sqlite $(BIN)/python -m pytest $(PYTEST_ARGS)

test-postgresql: $(VENV)/.dev ## run the tests on PostgreSQL: DATABASE_URL, or a throw-away server
	PHI_TEST_DB=postgresql $(BIN)/python -m tests.postgresql $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.bench ## measure sign-ins, sessions, claims, seals and the trail beside floors and peers, and fail where one is too slow
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

lint: $(VENV)/.dev ## check style, types, import contracts and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m django makemigrations --check --dry-run

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .tox
	rm -rf example_project/var tests/interop/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name yours: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing the app and its demo into $(VENV) ..."
	@$(PIP) install --editable '.[demo]' $(WANTED)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing the app and its tools into $(VENV) ..."
	@$(PIP) install --editable '.[dev]' $(WANTED)
	@touch $(VENV)/.demo $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing the app and what it is measured beside into $(VENV) ..."
	@$(PIP) install --editable '.[bench]' $(WANTED)
	@touch $(VENV)/.demo $@
