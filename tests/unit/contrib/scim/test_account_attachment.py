"""An officer attaches a SCIM user to the account that its person had before."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.contrib.scim.models import SCIMUser
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import link_existing_user
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.scim_fixtures import SCIM, connect_client, declare_scim
from tests.support.session_fixtures import events
from tests.unit.contrib.scim.test_scim_groups import needs_row_locks, run_meanwhile

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]


@pytest.fixture
def scim(settings: Any) -> SCIM:
    """Return a client that sends no sub."""
    declare_scim(settings, subject="invitation")
    return connect_client()


def link(account: Any, provider: str = "default") -> None:
    fields: Any = {"provider": conf.providers()[provider], "keys": keyring.get_keys("subject"), "now": clock.now()}
    link_existing_user(account, sub=f"sub-{account.pk}", origin=Origin(), **fields)


def create_account(name: str = "older", *, is_linked: bool = True) -> Any:
    account = get_user_model().objects.create_user(name)
    if is_linked:
        link(account)
    return account


def attach(resource_id: str, account: Any, *options: str) -> None:
    call_command("phi_oidc", "scim", "attach", resource_id, f"pk:{account.pk}", "--json", *options)


def test_client_manages_the_attached_account_and_its_groups_give_it_roles(scim: SCIM, settings: Any) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    clinicians: Any = Group.objects.create(name="clinicians")
    user = scim.create("ann")
    scim.create_group("Nurses", user["id"])
    created, account = get_user_model().objects.get(), create_account()
    attach(user["id"], account)
    assert [member.pk for member in clinicians.user_set.all()] == [account.pk]
    created.refresh_from_db()
    assert not created.is_active
    changed = [(event.resource, json.loads(event.detail)) for event in events(Action.SCIM_USER_CHANGED)]
    assert sorted(changed) == [(f"user/{pk}", {"attributes": ["account"]}) for pk in (created.pk, account.pk)]
    assert {event.actor for event in events(Action.SCIM_USER_CHANGED)} != {"scim:hr"}
    assert scim.send("GET", f"Users/{user['id']}", If_None_Match=user["meta"]["version"]).status_code == 200
    assert scim.set_active(user["id"], active=False).status_code == 200
    account.refresh_from_db()
    assert not account.is_active


def test_account_of_a_user_who_left_is_disabled_when_it_is_attached(scim: SCIM) -> None:
    user = scim.create("ann", active=False)
    account = create_account()
    attach(user["id"], account)
    account.refresh_from_db()
    assert not account.is_active
    scim.set_active(user["id"], active=True)
    account.refresh_from_db()
    assert account.is_active


def test_account_that_an_administrator_deactivated_stays_inactive(scim: SCIM) -> None:
    user, account = scim.create("ann"), create_account()
    account.is_active = False
    account.save()
    attach(user["id"], account)
    scim.set_active(user["id"], active=False)
    scim.set_active(user["id"], active=True)
    account.refresh_from_db()
    assert not account.is_active


def attach_twice(scim: SCIM, user: Any) -> None:
    account = create_account()
    attach(scim.create("bob")["id"], account)
    attach(user["id"], account)


def attach_used(scim: SCIM, user: Any) -> None:
    link(get_user_model().objects.get())
    attach(user["id"], create_account())


def attach_deleted(scim: SCIM, user: Any) -> None:
    scim.send("DELETE", f"Users/{user['id']}")
    attach(user["id"], create_account())


def attach_other_provider(scim: SCIM, user: Any) -> None:
    account = create_account(is_linked=False)
    link(account, "other")
    attach(user["id"], account)


REFUSED: dict[str, tuple[Callable[[SCIM, Any], None], str]] = {
    "an unknown id": (lambda scim, user: attach("x", create_account()), "no SCIM user"),
    "a deleted user": (attach_deleted, "no SCIM user"),
    "an account without a link": (
        lambda scim, user: attach(user["id"], create_account(is_linked=False)),
        "not linked to a subject",
    ),
    "a link to another provider": (attach_other_provider, "not linked to a subject"),
    "an account that has a user": (attach_twice, "has a SCIM user"),
    "a user whose person has signed in": (attach_used, "linked to a person"),
}


@pytest.mark.parametrize(("request_attachment", "message"), REFUSED.values(), ids=REFUSED)
def test_attachment_is_refused(request_attachment: Callable[[SCIM, Any], None], message: str, scim: SCIM) -> None:
    user = scim.create("ann")
    before = SCIMUser.objects.get().user_id
    with pytest.raises(CommandError, match=message):
        request_attachment(scim, user)
    assert SCIMUser.objects.get(pk=user["id"]).user_id == before


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize("is_created", [False, True])
def test_local_account_is_refused(is_created: bool, options: tuple[str, ...], scim: SCIM, settings: Any) -> None:
    """The older one, and the one that was created for the SCIM user, which would be disabled."""
    user, created = scim.create("ann"), get_user_model().objects.get()
    account = create_account()
    local = (created if is_created else account).get_username()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=[local])
    with pytest.raises(CommandError, match="managed by the portal"):
        attach(user["id"], account, *options)
    assert SCIMUser.objects.get().user_id != account.pk
    assert get_user_model().objects.filter(is_active=True).count() == 2


def test_account_whose_user_was_deleted_is_attached_again_and_enabled(scim: SCIM) -> None:
    """Of a person who left and comes back, where the client sends no sub."""
    user, account = scim.create("ann"), get_user_model().objects.get()
    link(account)
    scim.send("DELETE", f"Users/{user['id']}")
    account.refresh_from_db()
    assert not account.is_active
    again = scim.create("ann")
    attach(again["id"], account)
    assert [str(row.pk) for row in SCIMUser.objects.filter(user=account)] == [again["id"]]
    account.refresh_from_db()
    assert account.is_active


def test_last_security_officer_is_attached_and_disabled_with_an_alert(scim: SCIM, settings: Any) -> None:
    """The SCIM user is in no group, so the role that an earlier one had is removed, and counts all the same."""
    rules = [{"claim": "scim_groups", "values": ["Officers"], "groups": ["officers"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    officers: Any = Group.objects.create(name="officers")
    officers.permissions.add(Permission.objects.get(codename="manage_scimclient"))
    user, account = scim.create("ann", active=False), create_account()
    account.groups.add(officers)
    attach(user["id"], account)
    assert not officers.user_set.exists()
    alerts = [json.loads(alert.detail) for alert in events(Action.ALERT_RAISED)]
    assert alerts == [{"rule": "last_administrator_disabled", "roles": ["officers"]}]


@needs_row_locks
def test_member_that_is_removed_during_the_attachment_loses_the_role(scim: SCIM, settings: Any) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    clinicians: Any = Group.objects.create(name="clinicians")
    user, account = scim.create("ann"), create_account()
    path = f"Groups/{scim.create_group('Nurses', user['id'])['id']}"
    with transaction.atomic():
        attach(user["id"], account)
        assert clinicians.user_set.get().pk == account.pk
        thread = run_meanwhile(lambda: scim.patch(path, {"op": "remove", "path": "members"}))
    thread.join()
    assert not clinicians.user_set.exists()
