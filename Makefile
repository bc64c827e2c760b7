# Needs make, and Python 3.11 or newer with venv. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
# The environment of the tests on SQLite: one that is there, where the two halves of `make test` are to show two Pythons.
SQLITE_VENV ?= $(VENV)
# A constraint such as DJANGO='django~=6.1.0'. Give each one a VENV of its own.
DJANGO ?=
# A file of further constraints: `.ci/lowest` prints those of the lowest versions that we allow.
CONSTRAINTS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
AUDIT_ARGS ?=
LOCK := requirements-dev.lock
MUTANTS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WANTED = $(if $(DJANGO),'$(DJANGO)') $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help demo docs reference links test test-sqlite test-postgresql bench mutate screenshots lint lock audit sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run the steps of a patient in the example portal, then serve it (ONCE=1: only the steps)
	@$(BIN)/python example_project/manage.py demo

test: test-sqlite test-postgresql ## run the tests on SQLite, then on PostgreSQL

test-sqlite: $(SQLITE_VENV)/.dev ## run the tests on SQLite
	PHI_TEST_DB=sqlite $(SQLITE_VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-postgresql: $(VENV)/.dev ## run the tests on PostgreSQL: DATABASE_URL, or a throw-away server
	PHI_TEST_DB=postgresql $(BIN)/python -m tests.support.postgresql $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.bench ## measure sign-ins, sessions, claims, seals, the leak guard, anomaly rules, the desk and the trail beside floors and peers, and fail where one is too slow
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

mutate: $(VENV)/.mutate ## break the protocol, the log and the rules in small ways, and fail where no test notices (twenty minutes)
	@nice -n 10 $(BIN)/python -m tests.mutation $(MUTANTS)

docs: $(VENV)/.dev ## build the manual to build/docs/index.html; a warning is an error
	$(BIN)/sphinx-build --builder html --nitpicky --fail-on-warning --keep-going --quiet docs build/docs

reference: $(VENV)/.dev ## write the tables of docs/reference/settings.md anew, out of the code
	@$(BIN)/python -m tests.docs.manual.settings_reference

links: $(VENV)/.dev ## ask each address that the manual names elsewhere whether it is there: needs the network
	$(BIN)/sphinx-build --builder linkcheck --quiet docs build/links

screenshots: $(VENV)/.dev ## make the pictures of the README anew, of the example as it runs
	@$(BIN)/python -m tests.docs.screenshots

lint: $(VENV)/.dev ## check style, types, import contracts and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m django makemigrations --check --dry-run

lock: $(VENV)/.supply ## write the lock file anew: the newest of what pyproject.toml allows, each with its hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra dev --custom-compile-command 'make lock' pyproject.toml --output-file $(LOCK)

audit: $(VENV)/.supply ## ask whether a flaw is known of anything that is locked, and fail where one is, or nobody could say
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $(LOCK) $(AUDIT_ARGS)
	npm audit --prefix tests/integration/interop --audit-level moderate

sbom: $(VENV)/.supply ## write what an installed app consists of to dist/sbom.cdx.json (CycloneDX)
	rm -rf build/sbom && mkdir -p dist && $(PYTHON) -m venv build/sbom
	sed 's/ *\\$$//; /--hash/d' $(LOCK) > build/sbom/locked.txt
	build/sbom/bin/python -m pip --disable-pip-version-check --quiet install . --constraint build/sbom/locked.txt
	build/sbom/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes pip setuptools
	$(BIN)/cyclonedx-py environment build/sbom/bin/python --pyproject pyproject.toml --mc-type library \
		--output-reproducible --output-format JSON --output-file dist/sbom.cdx.json

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist mutants *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .tox
	rm -rf example_project/var tests/integration/interop/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name yours: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing the app and its demo into $(VENV) ..."
	@$(PIP) install --editable '.[demo]' $(WANTED)
	@touch $@

# As locked, unless somebody wants other versions.
$(VENV)/.dev: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "Installing the app and its tools into $(VENV) ..."
ifeq ($(strip $(WANTED)),)
	@$(PIP) install --require-hashes --requirement $(LOCK)
	@$(PIP) install --no-deps --no-build-isolation --editable .
else
	@$(PIP) install --editable '.[dev]' $(WANTED)
endif
	@touch $(VENV)/.demo $@

$(VENV)/.supply: pyproject.toml | $(BIN)/python
	@$(PIP) install --editable '.[supply]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing the app and what it is measured beside into $(VENV) ..."
	@$(PIP) install --editable '.[bench]' $(WANTED)
	@touch $(VENV)/.demo $@

$(VENV)/.mutate: pyproject.toml | $(BIN)/python
	@echo "Installing the app and what breaks it into $(VENV) ..."
	@$(PIP) install --editable '.[mutate]' $(WANTED)
	@touch $(VENV)/.demo $@
