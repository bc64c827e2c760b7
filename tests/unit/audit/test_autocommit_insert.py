"""An INSERT in a transaction of its own: when it is possible, and what it leaves."""

from datetime import UTC, datetime

import pytest
from django.db import DataError, IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.autocommit_insert import insert_autocommit
from django_phi_oidc.replay.models import UsedIdentifier

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_insert_autocommit_needs_autocommit_and_unwatched_cursors() -> None:
    values = ["a", "state", NOW]
    assert insert_autocommit(UsedIdentifier, values, using="default")
    assert UsedIdentifier.objects.get() == UsedIdentifier(digest="a")
    with pytest.raises(IntegrityError):
        insert_autocommit(UsedIdentifier, values, using="default")
    with transaction.atomic():
        assert not insert_autocommit(UsedIdentifier, ["b", "state", NOW], using="default")
    with CaptureQueriesContext(connections["default"]):
        assert not insert_autocommit(UsedIdentifier, ["b", "state", NOW], using="default")
    with connections["default"].execute_wrapper(lambda execute, *given: execute(*given)):
        assert not insert_autocommit(UsedIdentifier, ["b", "state", NOW], using="default")
    assert UsedIdentifier.objects.count() == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_insert_autocommit_continues_after_an_error_and_a_reconnect() -> None:
    assert insert_autocommit(UsedIdentifier, ["a", "state", NOW], using="default")
    with pytest.raises(DataError):
        insert_autocommit(UsedIdentifier, ["b" * 65, "state", NOW], using="default")
    assert insert_autocommit(UsedIdentifier, ["b", "state", NOW], using="default")
    connections["default"].close()
    assert insert_autocommit(UsedIdentifier, ["c", "state", NOW], using="default")
    assert UsedIdentifier.objects.count() == 3


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_insert_autocommit_on_sqlite_does_nothing() -> None:
    assert not insert_autocommit(UsedIdentifier, ["a", "state", NOW], using="default")
    assert not UsedIdentifier.objects.exists()
