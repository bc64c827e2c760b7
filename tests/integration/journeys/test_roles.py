"""Role sync at the sign-in: from the provider's claim to the account's groups, also when the sign-in fails."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_in
from django.db import connection, connections
from django.test import Client

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.test_transactions import Statements, audit_database_away
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
ProvideRoles = Callable[..., None]
CANARY = "role-canary-Bern-7c1f"
RULES = [
    {"claim": "realm", "path": ["roles"], "values": ["nurse"], "groups": ["clinicians"]},
    {"claim": "realm", "path": ["roles"], "values": ["admin"], "is_staff": True},
]


@pytest.fixture(autouse=True)
def _clinicians() -> None:
    Group.objects.create(name="clinicians")


@pytest.fixture
def provide_roles(op: DemoProvider, settings: Any) -> ProvideRoles:
    """Return a function that sets the roles in UserInfo. Without roles, the claim is absent."""
    claim = {"purpose": "HOPERAT", "basis": "staff roles", "retention": None}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"realm": claim}, "ROLES": {"default": RULES}}

    def set_roles(*roles: str, status: int = 200) -> None:
        def change(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "userinfo":
                exchange.reply.status = status
                exchange.reply.json = {"sub": exchange.reply.json["sub"]}
                exchange.reply.json |= {"realm": {"roles": list(roles)}} if roles else {}

        op.mutate = change

    return set_roles


def groups() -> list[str]:
    return list(get_user_model().objects.get().groups.values_list("name", flat=True))  # type: ignore[attr-defined]


def changes() -> list[Any]:
    return [json.loads(event.detail) for event in events(action="role.changed")]


def test_roles_are_synced_at_each_sign_in_and_values_are_not_logged(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser
) -> None:
    provide_roles("nurse", CANARY)
    assert browser.sign_in(op).status == 302
    assert groups() == ["clinicians"]
    provide_roles(CANARY)
    assert browser.sign_in(op).status == 302
    assert groups() == []
    assert changes() == [{"added": ["clinicians"]}, {"removed": ["clinicians"]}]
    user = get_user_model().objects.get()
    succeeded = events(action="login.succeeded")
    for changed, permit in zip(events(action="role.changed"), succeeded, strict=True):
        assert (changed.actor, changed.session) == (str(user.pk), permit.session)
        assert changed.subject == permit.subject != ""
    assert not any(CANARY in event.detail for event in events())


def test_missing_claim_removes_roles_and_failing_userinfo_removes_none(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser
) -> None:
    provide_roles("nurse")
    browser.sign_in(op)
    provide_roles(status=503)
    assert browser.sign_in(op).status == 503
    assert groups() == ["clinicians"]
    provide_roles()
    assert browser.sign_in(op).status == 302
    assert groups() == []


def test_roles_are_synced_for_existing_accounts_too(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    provide_roles("nurse")
    browser.sign_in(op)
    declared = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "existing"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared}}
    provide_roles("admin")
    assert browser.sign_in(op).status == 302
    assert (groups(), get_user_model().objects.get().is_staff) == ([], True)  # type: ignore[attr-defined]
    assert Browser(browser.base_url).sign_in(op, "jonas").status == 403
    assert len(changes()) == 2, "an unlinked person gets no roles"


@pytest.mark.parametrize(("ends", "left"), [(["roles"], 1), ([], 2)], ids=["roles", "nothing"])
def test_change_of_roles_ends_only_the_other_sessions(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser, settings: Any, ends: list[str], left: int
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ends, "recheck": timedelta(0)})
    provide_roles("clerk")
    browser.sign_in(op)
    assert browser.user() != ""
    provide_roles("nurse")
    other = Browser(browser.base_url)
    assert other.sign_in(op).status == 302
    assert other.user() != ""
    assert (browser.user() != "") is (left == 2)
    assert OIDCSession.objects.filter(ended_at__isnull=True).count() == left
    assert {session.end_reason for session in OIDCSession.objects.filter(ended_at__isnull=False)} == (
        {"roles_changed"} if ends else set()
    )
    assert len(op.active_tokens) == 2 * left


def test_sign_in_with_other_roles_in_the_same_browser_succeeds(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["roles"]})
    for roles in (["clerk"], ["nurse"], ["clerk"]):
        provide_roles(*roles)
        assert browser.sign_in(op).status == 302
        assert browser.user() != ""
    assert sorted(OIDCSession.objects.values_list("end_reason", flat=True)) == ["", "roles_changed", "roles_changed"]
    assert len(op.active_tokens) == 2


def test_roles_are_synced_but_sign_in_is_refused_without_the_audit_database(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser
) -> None:
    provide_roles("nurse")
    with audit_database_away():
        assert browser.sign_in(op).status == 503
    assert browser.user() == ""
    assert groups() == ["clinicians"]
    assert not OIDCSession.objects.filter(ended_at__isnull=True).exists()


def raise_error(**kwargs: Any) -> None:
    raise RuntimeError("error of the host project")


def test_sign_in_that_fails_later_leaves_roles_unchanged(
    provide_roles: ProvideRoles, op: DemoProvider, browser: Browser
) -> None:
    provide_roles("clerk")
    browser.sign_in(op)
    provide_roles("nurse")
    user_logged_in.connect(raise_error)
    try:
        assert browser.sign_in(op).status == 500
    finally:
        user_logged_in.disconnect(raise_error)
    assert (groups(), changes()) == ([], [])
    assert browser.sign_in(op).status == 302
    assert (groups(), changes()) == (["clinicians"], [{"added": ["clinicians"]}])


def test_unchanged_roles_cost_one_statement(
    provide_roles: ProvideRoles, op: DemoProvider, settings: Any, portal: str
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    counted = {}
    provide_roles("nurse")
    for rules in ({"default": RULES}, {}, {"other": RULES}, {"default": RULES}):
        settings.PHI_OIDC = {**settings.PHI_OIDC, "ROLES": rules}
        client = Client(headers={"host": urlsplit(portal).netloc})
        callback = op.authorize(client.get("/oidc/authenticate/")["Location"], "amina")
        statements = Statements()
        with connection.execute_wrapper(statements), connections["phi_audit"].execute_wrapper(statements):
            assert client.get(callback).status_code == 302
        counted[tuple(rules)] = statements.seen
    extra = list((Counter(counted["default",]) - Counter(counted[()])).elements())
    assert [line.split()[1] for line in extra] == ["SELECT"]
    assert len(counted["default",]) == len(counted[()]) + 1
    assert len(counted["other",]) == len(counted[()])
