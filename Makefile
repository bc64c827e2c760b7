# Needs make, and Python 3.11 or newer with venv. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
# A constraint such as DJANGO='django~=6.1.0'. Give each one a VENV of its own.
DJANGO ?=
# A file of further constraints: `.ci/lowest` prints those of the lowest versions that we allow.
CONSTRAINTS ?=
PYTEST_ARGS ?=
# `.ci/run` selects the tests that failed with it.
RERUN ?=
# Test processes: one more than the processors, because many tests wait for a socket or another process.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
# `slow-once` leaves out the tests that also run on PostgreSQL.
SLOW_SCOPE ?= slow
BENCH_ARGS ?=
AUDIT_ARGS ?=
LOCK := requirements-dev.lock
MUTANTS ?=
EVIDENCE_ARGS ?=
# Mutations that `make test-all` takes of those of `make evidence`: other ones each day.
EVIDENCE_SAMPLE := 12

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PARALLEL = -n $(WORKERS) --dist worksteal
# Of tests/support/older_sqlite.py; empty: the SQLite of the system.
TEST_SQLITE_VERSION ?=
OLDER_SQLITE = $(if $(TEST_SQLITE_VERSION),$(BIN)/python -m tests.support.older_sqlite $(TEST_SQLITE_VERSION))
SQLITE = PHI_TEST_DB=sqlite $(OLDER_SQLITE) $(BIN)/python -m pytest
POSTGRESQL = PHI_TEST_DB=postgresql $(BIN)/python -m tests.support.postgresql $(BIN)/python -m pytest
AT_EACH_DATE = $(BIN)/python -m tests.support.shifted_clock all
# The databases are left to the temporary server, because PgBouncer still has connections to them. Benchmarks measure the
# server itself.
PGBOUNCER = PHI_TEST_DB=postgresql $(BIN)/python -m tests.support.postgresql --pgbouncer \
	$(BIN)/python -m pytest --reuse-db --ignore=tests/benchmarks
# Tests that start many processes and assert response times: they need the machine alone.
EXCLUSIVE := $(addprefix tests/integration/journeys/test_session_end_,faults.py outages.py)
WANTED = $(if $(DJANGO),'$(DJANGO)') $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# Otherwise each of hundreds of processes compiles the app and the tests again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo docs reference messages links test test-slow test-postgresql test-postgresql-parallel \
	test-postgresql-exclusive test-dates test-pgbouncer test-all bench adoption mutate evidence screenshots lint lock audit sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## show a sign-in and what follows in the example portal, then serve it (ONCE=1: only show)
	@$(BIN)/python example_project/manage.py demo

test: $(VENV)/.dev ## run the tests that a change needs: on SQLite, in parallel, without the slow ones
	$(SQLITE) $(PARALLEL) --scope quick $(PYTEST_ARGS) $(RERUN)

test-slow: $(VENV)/.dev ## run the slow tests that `make test` leaves out, on SQLite
	$(SQLITE) $(PARALLEL) --scope $(SLOW_SCOPE) $(PYTEST_ARGS) $(RERUN)

test-postgresql: test-postgresql-parallel test-postgresql-exclusive ## run all tests on PostgreSQL: DATABASE_URL, or a temporary server

test-postgresql-parallel: $(VENV)/.dev
	$(POSTGRESQL) $(PARALLEL) $(EXCLUSIVE:%=--ignore=%) $(PYTEST_ARGS) $(RERUN)

test-postgresql-exclusive: $(VENV)/.dev
	$(POSTGRESQL) $(EXCLUSIVE) $(RERUN)

test-dates: $(VENV)/.dev ## run `make test` and the tests of partitions at ten dates, such as 29 February: once a release
	$(AT_EACH_DATE) env $(SQLITE) $(PARALLEL) --scope quick $(PYTEST_ARGS)
	$(AT_EACH_DATE) env $(POSTGRESQL) $(PARALLEL) --scope quick -m postgresql $(PYTEST_ARGS)

test-pgbouncer: $(VENV)/.dev ## run all tests of PostgreSQL through PgBouncer in transaction mode: needs pgbouncer
	$(PGBOUNCER) $(PARALLEL) $(EXCLUSIVE:%=--ignore=%) $(PYTEST_ARGS)
	$(if $(EXCLUSIVE),$(PGBOUNCER) $(EXCLUSIVE))

test-all: test test-slow test-postgresql test-pgbouncer ## run all tests, on SQLite, PostgreSQL and PgBouncer, and a sample of `make evidence`
	$(MAKE) evidence EVIDENCE_ARGS='--sample $(EVIDENCE_SAMPLE)'

bench: $(VENV)/.bench ## measure ratios to a floor or to other libraries, and fail where one misses its aim
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

adoption: $(VENV)/.dev ## adopt the app in new projects beside two other libraries, and print what that takes
	@$(BIN)/python -m tests.integration.adoption

mutate: $(VENV)/.mutate ## make small changes to the protocol code, and fail where no test notices (20 minutes)
	@nice -n 10 $(BIN)/python -m tests.mutation $(MUTANTS)

evidence: $(VENV)/.dev ## break each claim of the manual in a copy of the code, and fail where its test does not notice
	@$(BIN)/python -m tests.support.postgresql $(BIN)/python -m tests.mutation.evidence $(EVIDENCE_ARGS)

docs: $(VENV)/.dev ## build the manual to build/docs/index.html; a warning is an error
	$(BIN)/sphinx-build --builder html --nitpicky --fail-on-warning --keep-going --quiet docs build/docs

reference: $(VENV)/.dev ## write docs/reference/settings.md, python.md and choose-apps.md from the code, and controls.json from the manual
	@$(BIN)/python -m tests.docs.manual.settings_reference
	@DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m tests.docs.manual.python_reference
	@DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m tests.docs.manual.apps_table
	@$(BIN)/python -m tests.docs.manual.requirement_tables
	@$(BIN)/python -m tests.docs.manual.interop_table

messages: $(VENV)/.dev ## add new texts to the translations of each app, and compile them: needs GNU gettext
	@$(BIN)/python -m tests.docs.translation.catalogues

links: $(VENV)/.dev ## check the external links of the manual: needs the network
	$(BIN)/sphinx-build --builder linkcheck --quiet docs build/links

screenshots: $(VENV)/.dev ## make the screenshots of the manual from the running example
	@$(BIN)/python -m tests.docs.screenshots

lint: $(VENV)/.dev ## check style, spelling, types, import contracts and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell django_phi_oidc docs example_project tests *.md
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m django makemigrations --check --dry-run

lock: $(VENV)/.supply ## write the lock file: the newest versions that pyproject.toml allows, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra dev --custom-compile-command 'make lock' pyproject.toml --output-file $(LOCK)

audit: $(VENV)/.supply ## fail when a vulnerability of a locked version is known, or the database cannot be reached
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $(LOCK) $(AUDIT_ARGS)
	npm audit --prefix tests/integration/interop --audit-level moderate

sbom: $(VENV)/.supply ## write the components of an installed app to dist/sbom.cdx.json (CycloneDX)
	rm -rf build/sbom && mkdir -p dist && $(PYTHON) -m venv build/sbom
	sed 's/ *\\$$//; /--hash/d' $(LOCK) > build/sbom/locked.txt
	build/sbom/bin/python -m pip --disable-pip-version-check --quiet install . --constraint build/sbom/locked.txt
	build/sbom/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes pip setuptools
	$(BIN)/cyclonedx-py environment build/sbom/bin/python --pyproject pyproject.toml --mc-type library \
		--output-reproducible --output-format JSON --output-file dist/sbom.cdx.json

clean: ## remove what the other targets created
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

# The locked versions, unless DJANGO or CONSTRAINTS ask for others.
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
	@echo "Installing the app and what it is compared with into $(VENV) ..."
	@$(PIP) install --editable '.[bench]' $(WANTED)
	@touch $(VENV)/.demo $@

$(VENV)/.mutate: pyproject.toml | $(BIN)/python
	@echo "Installing the app and mutmut into $(VENV) ..."
	@$(PIP) install --editable '.[mutate]' $(WANTED)
	@touch $(VENV)/.demo $@
