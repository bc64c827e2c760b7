"""Select the tests of a run by database and by duration, and report what was not run.

A test that needs an external program has a marker: `allauth`, `browser`, `compose`, `gettext`, `glewlwyd`, `go`,
`kustomize`, `lemonldap`, `litewitness`, `nginx`, `node`, `openssl`, `pgbouncer`, `redis`, `rabbitmq`, `softhsm` or
`systemd`.
Without the program the test is skipped, and the run ends with a list of the skipped tests and reasons; with CI=true the
test fails. The markers `postgresql` and `sqlite` limit a test to that database. A test that requests no database runs
once, on SQLite, unless the marker `each_database` says that it creates databases itself. Browser tests only run on
PostgreSQL, because the database makes no difference in the browser. The marker `without_pooler` says why a test is
skipped in a run through PgBouncer.
"""

import os
import platform
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import django
import pytest
from django.apps import apps
from django.db import connections
from django.test import SimpleTestCase, TransactionTestCase

from tests.support import celery_app, database_flush, databases
from tests.support.external_tools import PARTS
from tests.support.postgresql import is_pooled

pytest_plugins = ["django_phi_oidc.testing.runner"]

DATABASE = databases.kind(os.environ)
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
ON_ONE_DATABASE = {
    "security/fuzz": "postgresql",
    "integration/interop": "postgresql",
    "docs/manual": "sqlite",
    "docs/translation": "sqlite",
    "unit/checks": "sqlite",
    "unit/contrib/doctor": "sqlite",
}
"""Folders of tests that only run on one database, because the database makes no difference there."""
DATABASE_FIXTURES = {"db", "transactional_db", "live_server"}
"""Fixtures by which a test requests the databases without a marker."""
SLOW = (
    *("tests/benchmarks/", "tests/browser/", "tests/integration/", "tests/security/attack/"),
    *("tests/docs/manual/test_build.py", "tests/docs/manual/test_install.py", "tests/docs/manual/test_tutorial.py"),
)
"""Scenarios with real processes: `make test` leaves them out, `make test-all` runs them. They start first, so that
none of them is still running after all other processes have finished."""
LONG = (
    *("tests/benchmarks/", "tests/browser/test_admin_groups.py", "tests/browser/test_every_page.py"),
    "tests/docs/manual/test_build.py::test_manual_is_built",
    *("tests/docs/manual/test_build.py::test_search", "tests/docs/manual/test_install.py"),
    "tests/integration/adoption/test_scripted_adoption.py",
    "tests/integration/audit/test_killed_processes.py",
    "tests/integration/deployment/test_schemas.py",
    "tests/integration/example_project/demo/test_demo.py::test_demo_with",
    "tests/integration/example_project/demo/test_demo.py::test_interrupted",
    *("tests/integration/test_admin_themes.py", "tests/integration/test_evidence.py"),
    "tests/integration/test_installed_apps.py::test_journeys",
    *("tests/integration/test_evidence_formats.py", "tests/integration/test_hostproject.py"),
    "tests/integration/test_misconfigurations.py",
    "tests/security/attack/test_attack_command.py::test_loosened",
    "tests/security/attack/test_attack_command.py::test_portal_with_certificates",
    "tests/security/attack/test_attack_command.py::test_project_whose_provider_encrypts",
    *("tests/security/attack/test_planted_faults.py", "tests/security/attack/test_pytest_plugin.py::test_each"),
)
"""Slow tests of which `.ci/run` has a shorter form, or that would take it another quarter of an hour."""
SCOPES = {
    "all": "all tests",
    "quick": "without the slow tests",
    "slow": "the slow tests",
    "slow-once": "the slow tests that the run on the other database leaves out",
}
DESELECTED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    texts = ", ".join(f"{scope}: {text}" for scope, text in SCOPES.items())
    parser.addoption("--scope", choices=list(SCOPES), default="all", help=texts)
    parser.addoption("--without-long", action="store_true", help="leave out the tests that only `make test-all` runs")
    parser.addoption(
        "--slow-part",
        type=_parse_part,
        default=(0, 1),
        metavar="I/N",
        help="of the slow tests only part I of N, from 0",
    )


def _parse_part(text: str) -> tuple[int, int]:
    part, count = map(int, text.split("/"))
    if not 0 <= part < count:
        raise ValueError(text)
    return part, count


def pytest_configure(config: pytest.Config) -> None:
    for marker, find in PARTS.items():
        config.addinivalue_line("markers", f"{marker}: needs {(find.__doc__ or '').removeprefix('Return the ')}")
    for marker in databases.KINDS:
        config.addinivalue_line("markers", f"{marker}: only runs on {marker}.")
    config.addinivalue_line("markers", "without_pooler(reason): only runs on a direct connection to the server.")
    config.addinivalue_line("markers", "each_database: creates databases itself, of the kind of the run.")
    celery_app.app.set_default()
    # This process runs tasks by their names, as a worker does.
    import_module("django_phi_oidc.tasks")


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = {marker: find() for marker, find in PARTS.items()}
    parts = [f"{marker}: {part.where.split('@')[-1] or 'missing'}" for marker, part in found.items()]
    return [
        f"python: {platform.python_version()}, django: {django.get_version()}, database: {DATABASE}, CI: {IN_CI}",
        f"parts: {', '.join(parts)}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in databases.KINDS) and (only := _only_database(item)):
            item.add_marker(only)
    scope = config.getoption("scope")
    selected, deselected = [], []
    for item in items:
        is_in_scope = scope == "all" or (scope != "quick") == _is_slow(item)
        if scope == "slow-once" and not item.get_closest_marker(DATABASE):
            is_in_scope = False
        if config.getoption("without_long") and item.nodeid.startswith(LONG):
            is_in_scope = False
        if _is_slow(item) and not _is_in_part(item, *config.getoption("slow_part")):
            is_in_scope = False
        (selected if is_in_scope and not _is_for_another_database(item) else deselected).append(item)
    config.stash[DESELECTED] = len(deselected)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
    items[:] = sorted(selected, key=lambda item: not item.nodeid.startswith(SLOW))


def _is_slow(item: pytest.Item) -> bool:
    """Also tests that need an external program, so that `make test` needs Python and make only."""
    return item.nodeid.startswith(SLOW) or any(item.get_closest_marker(marker) for marker in PARTS)


def _is_in_part(item: pytest.Item, part: int, count: int) -> bool:
    """All values of a parametrized test are in the same part, and a new test does not move the others."""
    name = item.nodeid.partition("[")[0]
    return zlib.crc32(name.encode()) % count == part


def _is_for_another_database(item: pytest.Item) -> bool:
    kinds = [kind for kind in databases.KINDS if item.get_closest_marker(kind)]
    return bool(kinds) and DATABASE not in kinds


def _only_database(item: pytest.Item) -> str:
    """Return the only kind of database that this test runs on, or "" if it runs on each."""
    for folder, kind in ON_ONE_DATABASE.items():
        if item.nodeid.startswith(f"tests/{folder}/"):
            return kind
    is_marked = any(item.get_closest_marker(marker) for marker in ("django_db", "each_database"))
    requests_database = is_marked or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ()))
    if not (requests_database or issubclass(getattr(item, "cls", None) or object, SimpleTestCase)):
        return "sqlite"
    return "postgresql" if item.get_closest_marker("browser") else ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_pooled(os.environ) and (direct := item.get_closest_marker("without_pooler")):
        pytest.skip(f"not through PgBouncer: {direct.args[0]}")
    for marker, find in PARTS.items():
        if item.get_closest_marker(marker) is None:
            continue
        missing = find().missing
        if missing and IN_CI:
            pytest.fail(f"{marker} is missing, and CI runs everything: {missing}", pytrace=False)
        elif missing:
            pytest.skip(f"{marker}: {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    deselected = config.stash.get(DESELECTED, 0)
    if not reasons and not deselected:
        return
    terminalreporter.section("not run")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4} {reason}")
    if deselected:
        terminalreporter.line(
            f"{deselected:4} slow, or about another database than {DATABASE}: `make test-all` runs all"
        )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.fixture(autouse=True)
def _reset_audit_cooldown() -> None:
    """Forget that the audit database could not be reached in an earlier test."""
    # This file is imported before Django is set up, so it cannot import models.
    import_module("django_phi_oidc.audit.outbox").reset_cooldown()


@pytest.fixture(autouse=True)
def _forget_recipients() -> None:
    """Forget the names of recipients that an earlier test has stored and rolled back."""
    if apps.is_installed("django_phi_oidc.contrib.individual_rights"):
        import_module("django_phi_oidc.contrib.individual_rights.recipients").forget_remembered()


@pytest.fixture(autouse=True)
def _forget_overfetched_claims() -> None:
    """Forget the undeclared claims whose event an earlier test has committed and flushed."""
    import_module("django_phi_oidc.claims.overfetched").forget_remembered()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Use a faster flush. Before a drop, close all connections, because Django only closes those of one alias."""
    with django_db_blocker.unblock():
        fresh = {alias: database_flush.staying(alias) for alias in databases.ALIASES}
    with pytest.MonkeyPatch.context() as patch:
        teardown = database_flush.instead_of_flushing(fresh, TransactionTestCase._fixture_teardown)
        patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
        yield
    connections.close_all()


@pytest.fixture
def chromium_path() -> str:
    """Return the path of a Chromium; the test needs the marker `browser`."""
    return PARTS["browser"]().where


@pytest.fixture
def nginx_path() -> str:
    """Return the path of nginx; the test needs the marker `nginx`."""
    return PARTS["nginx"]().where


@pytest.fixture
def pgbouncer_path() -> str:
    """Return the path of PgBouncer; the test needs the marker `pgbouncer`."""
    return PARTS["pgbouncer"]().where


@pytest.fixture
def node_path() -> str:
    """Return the path of Node; the test needs the marker `node`."""
    return PARTS["node"]().where


@pytest.fixture
def redis_url() -> str:
    """Return the URL of a Redis server; the test needs the marker `redis`."""
    return PARTS["redis"]().where


@pytest.fixture
def rabbitmq_url() -> str:
    """Return the URL of a RabbitMQ server; the test needs the marker `rabbitmq`."""
    return PARTS["rabbitmq"]().where
