"""A trail that is away, and a trail with its triggers in place."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from django_phi_oidc.audit.routing import AUDIT_ALIAS

TRIGGERS = importlib.import_module("django_phi_oidc.migrations.0002_audit_triggers")


@pytest.fixture
def audit_database_away(transactional_db: None) -> Callable[[], Any]:
    """Return a context manager inside which the audit database can't be reached."""

    @contextmanager
    def away() -> Iterator[None]:
        connection = connections[AUDIT_ALIAS]
        here = dict(connection.settings_dict)
        connection.close()
        if connection.vendor == "postgresql":
            connection.settings_dict["PORT"], connection.settings_dict["HOST"] = "1", "127.0.0.1"
        else:
            connection.settings_dict["NAME"] = "/nonexistent/directory/audit.sqlite3"
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict.update(here)

    return away


@pytest.fixture
def triggers_in_place(db: None) -> None:
    """Create in this test's transaction what `django_phi_oidc.testing` has dropped."""
    with connections[AUDIT_ALIAS].cursor() as cursor:
        lifted = [
            statement
            for statement in TRIGGERS.DROP[connections[AUDIT_ALIAS].vendor]
            # Those of the log stand on the function.
            if "FUNCTION" not in statement
        ]
        made = [s for s in TRIGGERS.CREATE[connections[AUDIT_ALIAS].vendor] if "CREATE FUNCTION" not in s]
        for statement in (*lifted, *made):
            cursor.execute(statement)
