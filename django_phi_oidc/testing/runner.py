"""The test runner for host projects. It needs one line of configuration.

With pytest, in the root `conftest.py`:  pytest_plugins = ["django_phi_oidc.testing.runner"]
With `manage.py test`, in the settings:  TEST_RUNNER =
"django_phi_oidc.testing.runner.PHIAuditTestRunner"
                                         (or PHIAuditTestRunnerMixin before an existing runner)

Each test that may use `default` may then use the audit database, too, isolated and flushed as
usual. Flushing needs DELETE and TRUNCATE, so the triggers that forbid them are dropped, but only in
databases that Django's test runner created; UPDATE stays forbidden. A disallowed detail of an event
raises an error instead of being logged.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from unittest import TestSuite

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.creation import TEST_DATABASE_PREFIX
from django.db.models.signals import post_migrate
from django.test.runner import DiscoverRunner, ParallelTestSuite, RemoteTestRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]  # the stubs lack it

from .._internal.app_labels import is_own_label
from ..audit import triggers
from ..audit.events import raise_on_refused_detail
from ..audit.router import AUDIT_ALIAS

with suppress(ModuleNotFoundError):  # a project may use only the test runner
    import pytest

if TYPE_CHECKING:
    _RunnerBase = DiscoverRunner
else:
    _RunnerBase = object
_DISPATCH_UID = "django_phi_oidc.testing.runner"
_DATABASE_FIXTURES = {"db", "transactional_db", "django_db_reset_sequences", "live_server"}
_AUDIT_TABLES = {
    "audit": "phi_oidc_audit_auditevent",
    "auditleaf": "phi_oidc_audit_auditleaf",
    "auditnode": "phi_oidc_audit_auditnode",
    "auditcheckpoint": "phi_oidc_audit_auditcheckpoint",
}
"""Tables by the part of their trigger names."""


def _build_postgresql_statements() -> tuple[str, ...]:
    statements = []
    for prefix, table in _AUDIT_TABLES.items():
        for operation in ("delete", "truncate"):
            name = f"phi_oidc_{prefix}_refuse_{operation}"
            statements.append(f"DROP TRIGGER IF EXISTS {name} ON {table}")
    return tuple(statements)


def _build_sqlite_statements() -> tuple[str, ...]:
    statements = []
    for prefix in _AUDIT_TABLES:
        statements.append(f"DROP TRIGGER IF EXISTS phi_oidc_{prefix}_refuse_delete")
    return tuple(statements)


DROP_TRIGGER_STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "postgresql": _build_postgresql_statements(),
    "sqlite": _build_sqlite_statements(),
}
_HOLD_TRIGGERS = {
    "phi_oidc_claim_held": "django_phi_oidc_storedclaim",
    "phi_oidc_hold_active": "phi_oidc_legal_holds_legalhold",
}
"""They refuse DELETE of what a legal hold keeps, by the name of their table."""
_cleanup_stack = ExitStack()
_original_database_names: dict[str, str] = {}
_pytest_sessions_to_finalize: "list[pytest.Session]" = []


def set_up_process() -> None:
    """Prepare this process for tests. Requires: no test database was created yet."""
    if _original_database_names:
        return
    for alias in connections:
        _original_database_names[alias] = str(connections.settings[alias]["NAME"])
    _cleanup_stack.callback(_original_database_names.clear)
    _cleanup_stack.enter_context(raise_on_refused_detail())
    _cleanup_stack.enter_context(triggers.allow_deletion())
    post_migrate.connect(_drop_append_only_triggers, dispatch_uid=_DISPATCH_UID)
    _cleanup_stack.callback(post_migrate.disconnect, dispatch_uid=_DISPATCH_UID)


def restore_process() -> None:
    """Undo `set_up_process`."""
    _cleanup_stack.close()


def allow_audit_database(test_class: type[Any]) -> None:
    """Allow test_class to use the audit database if it may use the default database."""
    databases = getattr(test_class, "databases", ())
    if databases != "__all__" and DEFAULT_DB_ALIAS in databases and AUDIT_ALIAS in connections:
        test_class.databases = {*databases, AUDIT_ALIAS}


class PHIAuditTestRunnerMixin(_RunnerBase):
    """Adds the audit database to another test runner."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        set_up_process()

    def teardown_test_environment(self, **kwargs: Any) -> None:
        restore_process()
        super().teardown_test_environment(**kwargs)

    def run_suite(self, *args: Any, **kwargs: Any) -> Any:
        # The processes of a parallel run must not share the connections of a pool.
        _close_connections()
        return super().run_suite(*args, **kwargs)

    def teardown_databases(self, *args: Any, **kwargs: Any) -> None:
        _close_connections()
        super().teardown_databases(*args, **kwargs)

    def build_suite(self, *args: Any, **kwargs: Any) -> TestSuite:
        suite: TestSuite = super().build_suite(*args, **kwargs)
        for test in iter_test_cases(suite):
            allow_audit_database(type(test))
        if isinstance(suite, ParallelTestSuite) and suite.runner_class is RemoteTestRunner:
            suite.runner_class = WorkerTestRunner
        return suite


class PHIAuditTestRunner(PHIAuditTestRunnerMixin, DiscoverRunner):
    """Django's test runner for a project with an audit log."""


class WorkerTestRunner(RemoteTestRunner):
    """Prepares the processes of a parallel run, because spawned processes inherit no state."""

    def run(self, test: Any) -> Any:
        set_up_process()
        for case in iter_test_cases(test):
            allow_audit_database(type(case))
        return super().run(test)


def pytest_collection_modifyitems(items: "list[pytest.Item]") -> None:
    if not settings.configured:
        return
    set_up_process()
    _pytest_sessions_to_finalize.clear()
    if items:
        _pytest_sessions_to_finalize.append(items[0].session)
    for item in items:
        test_class = getattr(item, "cls", None)
        if test_class is not None and hasattr(test_class, "databases"):
            allow_audit_database(test_class)
        else:
            _allow_audit_database_for_item(item)


def pytest_runtest_call(item: "pytest.Item") -> None:
    if _pytest_sessions_to_finalize and _uses_database(item):
        # As in teardown_databases. A finalizer runs before those that the fixtures of the session
        # added earlier.
        _pytest_sessions_to_finalize.pop().addfinalizer(_close_connections)


def pytest_unconfigure() -> None:
    restore_process()


def _close_connections() -> None:
    """Close the connections of all aliases, and their pools.

    Django does this for one alias before it drops a database, but PostgreSQL does not drop a
    database with open connections of the other alias.
    """
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def _uses_database(item: "pytest.Item") -> bool:
    uses_fixture = not _DATABASE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
    is_test_case = bool(getattr(getattr(item, "cls", None), "databases", ()))
    return uses_fixture or is_test_case or item.get_closest_marker("django_db") is not None


def _allow_audit_database_for_item(item: "pytest.Item") -> None:
    """Add the audit alias to the django_db mark of a pytest function that uses the default
    database.
    """
    if not _uses_database(item):
        return
    marker = item.get_closest_marker("django_db")
    if marker:
        args = marker.args
        kwargs = dict(marker.kwargs)
    else:
        args = ()
        kwargs = {}

    # `databases` is the third parameter of the mark, if it is positional.
    if len(args) > 2:
        databases = args[2]
    else:
        databases = kwargs.pop("databases", None)

    if databases is None:
        databases = (DEFAULT_DB_ALIAS,)

    if (
        databases == "__all__"
        or DEFAULT_DB_ALIAS not in databases
        or AUDIT_ALIAS not in connections
    ):
        return
    kwargs |= dict(zip(("transaction", "reset_sequences"), args, strict=False))
    kwargs |= dict(zip(("serialized_rollback", "available_apps"), args[3:], strict=False))
    # The other arguments are those of the test's mark. pytest-django refuses unknown names.
    item.add_marker(
        pytest.mark.django_db(databases=[*databases, AUDIT_ALIAS], **kwargs), append=False
    )


def _drop_append_only_triggers(*, sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Allow DELETE and TRUNCATE of the audit tables in the test database that was just migrated."""
    # a flush also sends this signal, without a plan
    if not is_own_label(sender.label) or "plan" not in kwargs:
        return
    connection = connections[using]
    _validate_is_test_database(connection)
    if connection.vendor not in DROP_TRIGGER_STATEMENTS:
        return
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        # The audit log may be in another database than what legal holds keep.
        if "phi_oidc_audit_auditevent" in tables:
            for statement in DROP_TRIGGER_STATEMENTS[connection.vendor]:
                cursor.execute(statement)
        for name, table in _HOLD_TRIGGERS.items():
            if table not in tables:
                continue
            if connection.vendor == "postgresql":
                on_table = f" ON {table}"
            else:
                on_table = ""
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}")


def _validate_is_test_database(connection: BaseDatabaseWrapper) -> None:
    """Raises: ImproperlyConfigured unless the connection is certainly to a test database."""
    original_name = _original_database_names.get(connection.alias)
    name = str(connection.settings_dict["NAME"])
    declared_name = str(connection.settings_dict["TEST"]["NAME"])
    test_names = (
        declared_name,
        f"{TEST_DATABASE_PREFIX}{original_name}",
        f"file:memorydb_{connection.alias}",
    )
    if original_name is None or name == original_name or name.partition("?")[0] not in test_names:
        raise ImproperlyConfigured(
            f"{connection.alias} is not a test database: its triggers are kept."
        )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            row = cursor.fetchone()
        if row is None or row[0] != name:
            raise ImproperlyConfigured(
                f"{connection.alias} is connected to another database than its test database."
            )
