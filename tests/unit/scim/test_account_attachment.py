"""An officer attaches a SCIM user to the account that its person had before."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.scim.models import SCIMUser
from django_phi_oidc.subjects.linking import link_existing_user
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.scim_fixtures import SCIM, connect_client, declare_scim
from tests.support.session_fixtures import events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.scim_urls"),
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


def attach(resource_id: str, account: Any) -> None:
    call_command("phi_oidc", "scim", "attach", resource_id, f"pk:{account.pk}", "--json")


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


def test_local_account_is_refused(scim: SCIM, settings: Any) -> None:
    user, account = scim.create("ann"), create_account()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=[account.get_username()])
    with pytest.raises(CommandError, match="managed by the portal"):
        attach(user["id"], account)
    assert SCIMUser.objects.get().user_id != account.pk
    assert get_user_model().objects.filter(is_active=True).count() == 2
