"""Fixtures: an unreachable audit database, and an audit database with its triggers."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from django_phi_oidc.audit.router import AUDIT_ALIAS

TRIGGERS = importlib.import_module("django_phi_oidc.audit.migrations.0001_initial")


@pytest.fixture
def audit_database_away(transactional_db: None) -> Callable[[], Any]:
    """Return a context manager inside which the audit database cannot be reached."""

    @contextmanager
    def away() -> Iterator[None]:
        connection = connections[AUDIT_ALIAS]
        original = dict(connection.settings_dict)
        connection.close()
        if connection.vendor == "postgresql":
            connection.settings_dict["PORT"], connection.settings_dict["HOST"] = "1", "127.0.0.1"
        else:
            connection.settings_dict["NAME"] = "/nonexistent/directory/audit.sqlite3"
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict.update(original)

    return away


@pytest.fixture
def triggers_in_place(db: None) -> None:
    """Create, in the transaction of the test, the triggers that `django_phi_oidc.testing.runner` has dropped."""
    vendor = connections[AUDIT_ALIAS].vendor
    create = TRIGGERS.create_refusals_postgresql if vendor == "postgresql" else TRIGGERS.create_refusals_sqlite
    with connections[AUDIT_ALIAS].cursor() as cursor:
        for operation in ("update", "delete", "truncate" if vendor == "postgresql" else "replace"):
            on_table = " ON phi_oidc_audit_auditevent" if vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_{operation}{on_table}")
        for statement in create("auditevent"):
            cursor.execute(statement)
