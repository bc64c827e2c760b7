"""After a test nothing is left of what it wrote, and what `migrate` makes is there."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.test import TransactionTestCase

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.recording import record
from tests import emptying

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
flushed: list[TransactionTestCase] = []


@pytest.fixture
def case() -> Iterator[TransactionTestCase]:
    """A case whose end is at hand; that of the running test itself comes after it."""

    class Case(TransactionTestCase):
        databases = {"default", "phi_audit"}

    flushed.clear()
    yield Case()
    flushed.clear()


def end(case: TransactionTestCase) -> None:
    fresh = {alias: emptying.staying(alias) for alias in ("default", "phi_audit")}
    emptying.instead_of_flushing(fresh, flushed.append)(case)


def rows() -> dict[str, int]:
    """Return how many rows each table that has some holds."""
    found = {}
    for alias in ("default", "phi_audit"):
        for name in emptying._tables(alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {name}")
                if count := cursor.fetchone()[0]:
                    found[f"{alias} {name}"] = count
    return found


def test_end_leaves_what_migrate_made_alone(case: TransactionTestCase) -> None:
    before = rows()
    user = get_user_model().objects.create(username="somebody")
    group = Group.objects.create(name="Clinicians")
    group.permissions.set(Permission.objects.all()[:3])
    user.groups.add(group)
    record(Action.LOGIN_REFUSED, origin=Origin(), now=datetime.now(UTC))
    assert len(rows()) > len(before) + 4
    end(case)
    assert rows() == before
    assert {name.split()[1] for name in before} == {*emptying.STAYING}
    assert flushed == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_end_after_a_change_of_permissions_flushes(case: TransactionTestCase, is_gone: bool) -> None:
    fresh = {alias: emptying.staying(alias) for alias in ("default", "phi_audit")}
    if is_gone:
        Permission.objects.all()[:1].get().delete()
    else:
        Permission.objects.create(codename="x", name="x", content_type=ContentType.objects.all()[:1].get())
    emptying.instead_of_flushing(fresh, flushed.append)(case)
    assert flushed == [case]
