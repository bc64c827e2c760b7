"""scim2-client provisions, disables and enables persons who sign in at the provider, over sockets."""

import threading
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group as DjangoGroup
from django.db import connection, transaction
from scim2_models import Group, GroupMember, PatchOp, ScimProvider, User

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.claims.retention import lock_subjects_of_users
from django_phi_oidc.contrib.scim.declaration import SUBJECT_SCHEMA
from django_phi_oidc.contrib.scim.models import SCIMUser
from django_phi_oidc.sessions.account_access import disable_account
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, declaration, events
from tests.support.scim_fixtures import connect_client
from tests.support.scim_http_client import HTTPSCIMClient

pytestmark = pytest.mark.django_db(**EVERYTHING)
RULES = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]


@pytest.fixture
def client(op: DemoProvider, portal: str, settings: Any) -> HTTPSCIMClient:
    """Return a client of the provider, which creates no accounts by itself."""
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    providers = {"default": declaration(op, provisioning="existing", scim={"subject": "extension"})}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers, ROLES={"default": RULES}, CLAIMS={})
    token = connect_client().token
    return HTTPSCIMClient(f"{portal}/oidc/scim/v2", token, provider=ScimProvider(models=[User, Group]))


def provision(client: HTTPSCIMClient, op: DemoProvider, name: str = "amina") -> User[Any]:
    """Create the user with the `sub` of the person, and return it."""
    body = {
        "schemas": [str(User.__schema__), SUBJECT_SCHEMA],
        "userName": f"{name}@hospital.example",
        "externalId": f"directory-{name}",
        "name": {"givenName": "Amina"},
        SUBJECT_SCHEMA: {"sub": op.get_subject(name, "portal")},
    }
    response = client.request("POST", "/Users", json=body)
    assert response.status_code == 201, response.content
    found: Any = client.query(User, response.json()["id"])
    assert isinstance(found, User)
    return found


def set_active(client: HTTPSCIMClient, user: User[Any], *, active: bool) -> None:
    operation = {"op": "replace", "path": "active", "value": active}
    client.modify(User, user.id, PatchOp[User](operations=[operation]))


def test_person_signs_in_only_after_the_client_has_created_the_account(
    client: HTTPSCIMClient, op: DemoProvider, browser: Browser
) -> None:
    browser.sign_in(op)
    assert not browser.user()
    user = provision(client, op)
    browser.sign_in(op)
    account = get_user_model().objects.get()
    assert browser.user() == str(account.pk)
    assert user.user_name == "amina@hospital.example"
    stored = " ".join(map(str, get_user_model().objects.values_list().get()))
    assert "amina" not in stored.lower(), "The account has an opaque name, and nothing about the person."


def test_leaver_is_out_at_the_next_request_and_both_tokens_are_revoked(
    client: HTTPSCIMClient, op: DemoProvider, browser: Browser
) -> None:
    user = provision(client, op)
    browser.sign_in(op)
    tokens = [token.value for token in op.active_tokens]
    assert browser.user()
    assert len(tokens) >= 2
    set_active(client, user, active=False)
    assert not browser.user()
    assert not any(op.is_token_active(token) for token in tokens)
    browser.sign_in(op)
    assert not browser.user(), "A new sign-in is refused, too."
    (event,) = events(action=Action.SCIM_USER_DISABLED)
    assert (event.actor, event.provider) == ("scim:hr", "default")
    assert {event.actor for event in events(action=Action.SESSION_ENDED, reason="user_inactive")} == {"scim:hr"}


def test_person_comes_back(client: HTTPSCIMClient, op: DemoProvider, browser: Browser) -> None:
    user = provision(client, op)
    browser.sign_in(op)
    before = browser.user()
    set_active(client, user, active=False)
    set_active(client, user, active=True)
    assert not browser.user(), "The old session stays ended."
    browser.sign_in(op)
    assert browser.user() == before
    assert [event.actor for event in events(action=Action.SCIM_USER_ENABLED)] == ["scim:hr"]


def test_deleted_person_is_out_and_comes_back_to_the_same_account(
    client: HTTPSCIMClient, op: DemoProvider, browser: Browser
) -> None:
    user = provision(client, op)
    browser.sign_in(op)
    before = browser.user()
    client.delete(User, user.id)
    assert not browser.user()
    assert client.request("GET", f"/Users/{user.id}").status_code == 404
    assert get_user_model().objects.count() == 1, "The account stays, with its audit trail."
    provision(client, op)
    browser.sign_in(op)
    assert browser.user() == before


def test_group_gives_a_role_that_a_sign_in_does_not_remove(
    client: HTTPSCIMClient, op: DemoProvider, browser: Browser
) -> None:
    DjangoGroup.objects.create(name="clinicians")
    user = provision(client, op)
    account = get_user_model().objects.get()
    group: Any = client.create(Group(display_name="Nurses", members=[GroupMember(value=user.id)]))
    assert list_groups(account) == ["clinicians"]
    browser.sign_in(op)
    assert list_groups(account) == ["clinicians"]
    client.request("PUT", f"/Groups/{group.id}", json={"displayName": "Nurses", "members": []})
    assert list_groups(account) == []
    browser.sign_in(op)
    assert list_groups(account) == []
    changes = [(event.actor, event.detail) for event in events(action=Action.ROLE_CHANGED)]
    assert changes == [("scim:hr", '{"added":["clinicians"]}'), ("scim:hr", '{"removed":["clinicians"]}')]


def list_groups(account: Any) -> list[str]:
    return list(account.groups.values_list("name", flat=True))


def test_tokens_are_revoked_before_the_response(client: HTTPSCIMClient, op: DemoProvider, browser: Browser) -> None:
    """No beat of a worker is waited for, and the latency is that of the provider."""
    user = provision(client, op)
    browser.sign_in(op)
    started = clock.now()
    set_active(client, user, active=False)
    assert (clock.now() - started).total_seconds() < 2
    assert op.active_tokens == []


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time.")
def test_sign_in_that_was_under_way_is_out_too(client: HTTPSCIMClient, op: DemoProvider, browser: Browser) -> None:
    """The sign-in has found the account active, and waits for the lock of the change that disables it."""
    user = provision(client, op)
    account = get_user_model().objects.get()
    with transaction.atomic():
        lock_subjects_of_users([account.pk])
        sign_in = threading.Thread(target=browser.sign_in, args=(op,))
        sign_in.start()
        sign_in.join(2)
        assert sign_in.is_alive()
        disable_account(account.pk, origin=Origin(actor="scim:hr"), now=clock.now())
    sign_in.join()
    SCIMUser.objects.update(active=False, has_disabled_account=True)
    set_active(client, user, active=True)
    assert not browser.user(), "Also if the account is active again before the next request."
    assert set(OIDCSession.objects.values_list("end_reason", flat=True)) == {"user_inactive"}
    assert op.active_tokens == []
