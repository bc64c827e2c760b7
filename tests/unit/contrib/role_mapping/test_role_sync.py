"""Roles follow the claims: added, removed and unmanaged roles, and the number of queries."""

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.role_mapping.declaration import RoleRule
from django_phi_oidc.contrib.role_mapping.role_sync import sync_roles

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

CLINICIANS = RoleRule(claim="roles", values=("nurse",), groups=("clinicians",))
STAFF = RoleRule(claim="roles", values=("desk",), is_staff=True)
ADMIN = RoleRule(claim="roles", values=("admin",), groups=("admins",), is_staff=True, is_superuser=True)
RULES = (CLINICIANS, STAFF, ADMIN)
CANARY = "role-canary-Bern-7c1f"


@pytest.fixture(autouse=True)
def _groups() -> None:
    for name in ("clinicians", "admins", "choir"):
        Group.objects.create(name=name)


def create_user(name: str = "amina", *groups: str, **flags: bool) -> Any:
    user = get_user_model().objects.create_user(name, **flags)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


def sign_in(user: Any, *roles: Any, rules: tuple[RoleRule, ...] = RULES) -> None:
    with transaction.atomic():
        sync_roles(
            get_user_model().objects.get(pk=user.pk),
            rules=rules,
            claims={"roles": list(roles)} if roles else {},
            provider="default",
            subject="subject",
            origin=Origin(actor=str(user.pk)),
            now=clock.now(),
        )


def get_roles(user: Any) -> set[str]:
    """Return all roles of the user from the database."""
    user = get_user_model().objects.get(pk=user.pk)
    flags = {flag for flag in ("is_staff", "is_superuser") if getattr(user, flag)}
    return flags | set(user.groups.values_list("name", flat=True))


def list_details(action: str = "role.changed") -> list[dict[str, Any]]:
    """Return the details of the events of sign-ins. The fixtures change roles, too."""
    events = AuditEvent.objects.filter(action=action, provider="default").order_by("id")
    return [json.loads(event.detail) for event in events]


def test_sync_changes_only_managed_groups() -> None:
    user = create_user("amina", "choir")
    sign_in(user, "nurse", CANARY)
    assert get_roles(user) == {"choir", "clinicians"}
    sign_in(user, CANARY)
    assert get_roles(user) == {"choir"}
    assert list_details() == [{"added": ["clinicians"]}, {"removed": ["clinicians"]}]
    for event in AuditEvent.objects.filter(provider="default"):
        assert (event.actor, event.subject, event.resource) == (str(user.pk), "subject", f"user/{user.pk}")
        assert CANARY not in event.detail


def test_missing_claim_removes_all_managed_roles() -> None:
    user = create_user("amina", "clinicians", "choir", is_staff=True)
    create_user("another", is_staff=True)
    sign_in(user)
    assert get_roles(user) == {"choir"}
    assert list_details() == [{"removed": ["clinicians"], "withdrawn": ["is_staff"]}]


def test_flags_are_changed_only_by_rules_that_manage_them() -> None:
    user = create_user("amina", is_staff=True)
    sign_in(user, "admin", "nurse", rules=(CLINICIANS,))
    assert get_roles(user) == {"clinicians", "is_staff"}
    sign_in(user, "admin")
    assert get_roles(user) == {"admins", "is_staff", "is_superuser"}
    assert list_details()[1] == {"added": ["admins"], "granted": ["is_superuser"], "removed": ["clinicians"]}


def test_missing_group_is_logged_and_not_created(caplog: pytest.LogCaptureFixture) -> None:
    user = create_user()
    Group.objects.get(name="clinicians").delete()
    with caplog.at_level(logging.ERROR, logger="django_phi_oidc.roles"):
        sign_in(user, "nurse", "admin")
    assert get_roles(user) == {"admins", "is_staff", "is_superuser"}
    assert ["'clinicians'" in record.getMessage() for record in caplog.records] == [True]
    assert not Group.objects.filter(name="clinicians").exists()


@pytest.mark.parametrize(("rules", "most"), [(RULES, 1), ((STAFF,), 0)], ids=["groups", "flags alone"])
def test_unchanged_roles_write_nothing(rules: tuple[RoleRule, ...], most: int) -> None:
    user = create_user("amina", "clinicians", is_staff=True)
    loaded = get_user_model().objects.get(pk=user.pk)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        sync_roles(
            loaded,
            rules=rules,
            claims={"roles": ["nurse", "desk"]},
            provider="default",
            subject="s",
            origin=Origin(),
            now=clock.now(),
        )
    assert [query["sql"][:6] for query in queries] == ["SELECT"] * most
    assert list_details() == []
    sign_in(user, "nurse", rules=rules)
    assert list_details("alert.raised") == [{"roles": ["is_staff"], "rule": "last_administrator"}], (
        "a missing role would change something"
    )


def test_change_and_event_share_a_transaction() -> None:
    user = create_user()
    with transaction.atomic():
        sign_in(user, "nurse")
        transaction.set_rollback(True)
    assert (get_roles(user), list_details()) == (set(), [])
    sign_in(user, "nurse")
    assert (get_roles(user), list_details()) == ({"clinicians"}, [{"added": ["clinicians"]}])


def test_all_names_of_many_groups_are_recorded() -> None:
    names = [f"ward {n:03}" for n in range(70)]
    Group.objects.bulk_create(Group(name=name) for name in names)
    user = create_user()
    sign_in(user, "nurse", rules=(RoleRule(claim="roles", values=("nurse",), groups=tuple(names)),))
    assert get_roles(user) == set(names)
    assert sorted(name for detail in list_details() for name in detail["added"]) == names
    assert sorted(len(detail["added"]) for detail in list_details()) == [6, 64]


OTHERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no other account": ({}, {"admins", "is_staff", "is_superuser"}),
    "another administrator": ({"groups": ["admins"], "is_staff": True, "is_superuser": True}, set()),
    "an inactive account": (
        {"groups": ["admins"], "is_staff": True, "is_superuser": True, "is_active": False},
        {"admins", "is_staff", "is_superuser"},
    ),
    "an account without is_staff": ({"groups": ["admins"], "is_superuser": True}, {"is_staff", "is_superuser"}),
    "an account with the flags but without the group": ({"is_staff": True, "is_superuser": True}, {"admins"}),
}


@pytest.mark.parametrize(("other", "expected"), OTHERS.values(), ids=OTHERS)
def test_last_administrator_keeps_the_roles_and_raises_an_alert(other: dict[str, Any], expected: set[str]) -> None:
    user = create_user("amina", "admins", "clinicians", is_staff=True, is_superuser=True)
    if other:
        create_user("another", *other.pop("groups", ()), **other)
    sign_in(user)
    assert get_roles(user) == expected
    alerts = list_details("alert.raised")
    assert [set(alert["roles"]) for alert in alerts] == ([expected] if expected else [])
    assert all(alert["rule"] == "last_administrator" for alert in alerts)
    (changed,) = list_details()
    assert "clinicians" in changed["removed"], "another account does not need this group"


def run_concurrently(functions: list[Callable[[], None]]) -> None:
    barrier, errors = threading.Barrier(len(functions)), []

    def run(function: Callable[[], None]) -> None:
        try:
            barrier.wait(timeout=10)
            function()
        except BaseException as error:  # noqa: BLE001 -- reported in the main thread
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert errors == []


@pytest.mark.parametrize("attempt", range(3))
def test_one_of_several_concurrently_removed_administrators_stays(attempt: int) -> None:
    users = [create_user(f"admin {n}", "admins", is_staff=True, is_superuser=True) for n in range(4)]
    run_concurrently([lambda user=user: sign_in(user) for user in users])  # type: ignore[misc]
    left = [user for user in users if "is_superuser" in get_roles(user)]
    assert len(left) == 1
    assert sum("admins" in get_roles(user) for user in users) == 1
    assert len(list_details("alert.raised")) >= 1
    run_concurrently([lambda user=user: sign_in(user, "admin") for user in users])  # type: ignore[misc]
    assert all(get_roles(user) == {"admins", "is_staff", "is_superuser"} for user in users)


def test_concurrent_sign_ins_record_a_change_once() -> None:
    user = create_user()
    run_concurrently([lambda: sign_in(user, "nurse")] * 4)
    assert get_roles(user) == {"clinicians"}
    assert list_details() == [{"added": ["clinicians"]}]
