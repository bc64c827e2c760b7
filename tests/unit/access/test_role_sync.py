"""Roles follow the claims: what is given, what is taken, what is left alone, and what it costs."""

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
from django_phi_oidc.access.role_sync import sync_roles
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.config.roles import RoleRule

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


def somebody(name: str = "amina", *groups: str, **flags: bool) -> Any:
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


def has(user: Any) -> set[str]:
    """Return all roles of the user, as the database has them."""
    user = get_user_model().objects.get(pk=user.pk)
    flags = {flag for flag in ("is_staff", "is_superuser") if getattr(user, flag)}
    return flags | set(user.groups.values_list("name", flat=True))


def told(action: str = "role.changed") -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in AuditEvent.objects.filter(action=action).order_by("id")]


def test_grant_gives_and_takes_managed_groups_and_leaves_others_alone() -> None:
    user = somebody("amina", "choir")
    sign_in(user, "nurse", CANARY)
    assert has(user) == {"choir", "clinicians"}
    sign_in(user, CANARY)
    assert has(user) == {"choir"}
    assert told() == [{"added": ["clinicians"]}, {"removed": ["clinicians"]}]
    for event in AuditEvent.objects.all():
        assert (event.actor, event.subject, event.provider) == (str(user.pk), "subject", "default")
        assert CANARY not in event.detail


def test_grant_takes_all_when_the_claim_did_not_come() -> None:
    user = somebody("amina", "clinicians", "choir", is_staff=True)
    somebody("another", is_staff=True)
    sign_in(user)
    assert has(user) == {"choir"}
    assert told() == [{"removed": ["clinicians"], "withdrawn": ["is_staff"]}]


def test_flags_come_from_a_rule_and_from_nothing_else() -> None:
    user = somebody("amina", is_staff=True)
    sign_in(user, "admin", "nurse", rules=(CLINICIANS,))
    assert has(user) == {"clinicians", "is_staff"}
    sign_in(user, "admin")
    assert has(user) == {"admins", "is_staff", "is_superuser"}
    assert told()[1] == {"added": ["admins"], "granted": ["is_superuser"], "removed": ["clinicians"]}


def test_group_that_is_not_there_is_told_to_the_log_and_not_made(caplog: pytest.LogCaptureFixture) -> None:
    user = somebody()
    Group.objects.get(name="clinicians").delete()
    with caplog.at_level(logging.ERROR, logger="django_phi_oidc.roles"):
        sign_in(user, "nurse", "admin")
    assert has(user) == {"admins", "is_staff", "is_superuser"}
    assert ["'clinicians'" in record.getMessage() for record in caplog.records] == [True]
    assert not Group.objects.filter(name="clinicians").exists()


@pytest.mark.parametrize(("rules", "most"), [(RULES, 1), ((STAFF,), 0)], ids=["groups", "flags alone"])
def test_nothing_is_written_where_nothing_changes(rules: tuple[RoleRule, ...], most: int) -> None:
    user = somebody("amina", "clinicians", is_staff=True)
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
    assert told() == []
    sign_in(user, "nurse", rules=rules)
    assert told("alert.raised") == [{"roles": ["is_staff"], "rule": "last_administrator"}], "but this would change"


def test_change_is_rolled_back_with_its_event() -> None:
    user = somebody()
    with transaction.atomic():
        sign_in(user, "nurse")
        transaction.set_rollback(True)
    assert (has(user), told()) == (set(), [])
    sign_in(user, "nurse")
    assert (has(user), told()) == ({"clinicians"}, [{"added": ["clinicians"]}])


def test_names_of_many_groups_are_all_told() -> None:
    names = [f"ward {n:03}" for n in range(70)]
    Group.objects.bulk_create(Group(name=name) for name in names)
    user = somebody()
    sign_in(user, "nurse", rules=(RoleRule(claim="roles", values=("nurse",), groups=tuple(names)),))
    assert has(user) == set(names)
    assert sorted(name for detail in told() for name in detail["added"]) == names
    assert sorted(len(detail["added"]) for detail in told()) == [6, 64]


OTHERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nobody": ({}, {"admins", "is_staff", "is_superuser"}),
    "another administrator": ({"groups": ["admins"], "is_staff": True, "is_superuser": True}, set()),
    "one who is not active": (
        {"groups": ["admins"], "is_staff": True, "is_superuser": True, "is_active": False},
        {"admins", "is_staff", "is_superuser"},
    ),
    "one who can't enter the admin": ({"groups": ["admins"], "is_superuser": True}, {"is_staff", "is_superuser"}),
    "one who has the flags and not the group": ({"is_staff": True, "is_superuser": True}, {"admins"}),
}


@pytest.mark.parametrize(("other", "stays"), OTHERS.values(), ids=OTHERS)
def test_last_administrator_stays_and_somebody_is_alerted(other: dict[str, Any], stays: set[str]) -> None:
    user = somebody("amina", "admins", "clinicians", is_staff=True, is_superuser=True)
    if other:
        somebody("another", *other.pop("groups", ()), **other)
    sign_in(user)
    assert has(user) == stays
    alerts = told("alert.raised")
    assert [set(alert["roles"]) for alert in alerts] == ([stays] if stays else [])
    assert all(alert["rule"] == "last_administrator" for alert in alerts)
    (changed,) = told()
    assert "clinicians" in changed["removed"], "this group is not theirs alone to keep"


def at_once(acts: list[Callable[[], None]]) -> None:
    barrier, faults = threading.Barrier(len(acts)), []

    def run(act: Callable[[], None]) -> None:
        try:
            barrier.wait(timeout=10)
            act()
        except BaseException as fault:  # noqa: BLE001 -- for the test's own thread to see
            faults.append(fault)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert faults == []


@pytest.mark.parametrize("attempt", range(3))
def test_of_all_administrators_who_lose_it_at_one_moment_one_stays(attempt: int) -> None:
    users = [somebody(f"admin {n}", "admins", is_staff=True, is_superuser=True) for n in range(4)]
    at_once([lambda user=user: sign_in(user) for user in users])  # type: ignore[misc]
    left = [user for user in users if "is_superuser" in has(user)]
    assert len(left) == 1
    assert sum("admins" in has(user) for user in users) == 1
    assert len(told("alert.raised")) >= 1
    at_once([lambda user=user: sign_in(user, "admin") for user in users])  # type: ignore[misc]
    assert all(has(user) == {"admins", "is_staff", "is_superuser"} for user in users)


def test_sign_ins_of_one_person_at_one_moment_tell_of_a_change_once() -> None:
    user = somebody()
    at_once([lambda: sign_in(user, "nurse")] * 4)
    assert has(user) == {"clinicians"}
    assert told() == [{"added": ["clinicians"]}]
