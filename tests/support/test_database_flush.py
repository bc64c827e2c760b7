"""After a test nothing is left of what it wrote, and what `migrate` makes is there."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.test import TransactionTestCase

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from tests.support import database_flush as emptying
from tests.support import databases

pytestmark = pytest.mark.django_db(transaction=True, databases=databases.ALIASES)


class Case(TransactionTestCase):
    """One whose end is at hand; that of the running test itself comes after it."""

    databases = frozenset(databases.ALIASES)


def rows() -> dict[tuple[str, str], int]:
    """Return how many rows each table that has some holds, by alias and name."""
    found = {}
    for alias in databases.ALIASES:
        for name in emptying._tables(alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {name}")
                found[alias, name] = cursor.fetchone()[0]
    return {where: count for where, count in found.items() if count}


def flushed(during: Callable[[], object]) -> bool:
    """Say whether the end of a test that does this needs Django's own flush."""
    calls: list[TransactionTestCase] = []
    fresh = {alias: emptying.staying(alias) for alias in databases.ALIASES}
    during()
    emptying.instead_of_flushing(fresh, calls.append)(Case())
    return bool(calls)


def test_end_leaves_what_migrate_made_alone() -> None:
    before = rows()

    def write() -> None:
        user = get_user_model().objects.create(username="somebody")
        group = Group.objects.create(name="Clinicians")
        group.permissions.set(Permission.objects.all()[:3])
        user.groups.add(group)
        record(Action.LOGIN_REFUSED, origin=Origin(), now=datetime.now(UTC))
        assert len(rows()) > len(before) + 4

    assert not flushed(write)
    assert rows() == before
    assert {name for _, name in before} == {*emptying.STAYING}


@pytest.mark.parametrize(
    "change",
    [
        lambda: Permission.objects.all()[:1].get().delete(),
        lambda: Permission.objects.filter(codename="view_auditevent").update(codename="x"),
        lambda: Permission.objects.create(codename="x", name="x", content_type=ContentType.objects.all()[:1].get()),
    ],
    ids=["one is gone", "another name", "one more"],
)
def test_end_after_a_change_of_permissions_flushes(change: Callable[[], object]) -> None:
    assert flushed(change)
