"""Roles at the sign-in itself: from the provider's claim to the account's groups, and what of it a refusal leaves."""

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
Says = Callable[..., None]
CANARY = "role-canary-Bern-7c1f"
RULES = [
    {"claim": "realm", "path": ["roles"], "values": ["nurse"], "groups": ["clinicians"]},
    {"claim": "realm", "path": ["roles"], "values": ["admin"], "is_staff": True},
]


@pytest.fixture(autouse=True)
def _clinicians() -> None:
    Group.objects.create(name="clinicians")


@pytest.fixture
def says(op: DemoProvider, settings: Any) -> Says:
    """Return what has the provider tell these roles of everybody, in UserInfo, from then on; None: none at all."""
    claim = {"purpose": "HOPERAT", "basis": "who works here", "retention": None}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"realm": claim}, "ROLES": {"default": RULES}}

    def say(*roles: str, status: int = 200) -> None:
        def bend(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "userinfo":
                exchange.reply.status = status
                exchange.reply.json = {"sub": exchange.reply.json["sub"]}
                exchange.reply.json |= {"realm": {"roles": list(roles)}} if roles else {}

        op.mutate = bend

    return say


def groups() -> list[str]:
    return list(get_user_model().objects.get().groups.values_list("name", flat=True))  # type: ignore[attr-defined]


def changes() -> list[Any]:
    return [json.loads(event.detail) for event in events(action="role.changed")]


def test_roles_follow_each_sign_in_and_no_value_is_in_the_trail(says: Says, op: DemoProvider, browser: Browser) -> None:
    says("nurse", CANARY)
    assert browser.sign_in(op).status == 302
    assert groups() == ["clinicians"]
    says(CANARY)
    assert browser.sign_in(op).status == 302
    assert groups() == []
    assert changes() == [{"added": ["clinicians"]}, {"removed": ["clinicians"]}]
    user = get_user_model().objects.get()
    succeeded = events(action="login.succeeded")
    for changed, permit in zip(events(action="role.changed"), succeeded, strict=True):
        assert (changed.actor, changed.session) == (str(user.pk), permit.session)
        assert changed.subject == permit.subject != ""
    assert not any(CANARY in event.detail for event in events())


def test_claim_that_does_not_come_takes_and_userinfo_that_is_away_refuses_and_takes_nothing(
    says: Says, op: DemoProvider, browser: Browser
) -> None:
    says("nurse")
    browser.sign_in(op)
    says(status=503)
    assert browser.sign_in(op).status == 503
    assert groups() == ["clinicians"]
    says()
    assert browser.sign_in(op).status == 302
    assert groups() == []


def test_existing_account_and_new_one_are_treated_alike(
    says: Says, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    says("nurse")
    browser.sign_in(op)
    declared = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "existing"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declared}}
    says("admin")
    assert browser.sign_in(op).status == 302
    assert (groups(), get_user_model().objects.get().is_staff) == ([], True)  # type: ignore[attr-defined]
    assert Browser(browser.base_url).sign_in(op, "jonas").status == 403
    assert len(changes()) == 2, "whom nobody linked gets nothing"


@pytest.mark.parametrize(("ends", "left"), [(["roles"], 1), ([], 2)], ids=["roles", "nothing"])
def test_change_of_roles_ends_the_persons_other_sessions_and_not_the_one_that_begins(
    says: Says, op: DemoProvider, browser: Browser, settings: Any, ends: list[str], left: int
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ends, "recheck": timedelta(0)})
    says("clerk")
    browser.sign_in(op)
    assert browser.user() != ""
    says("nurse")
    other = Browser(browser.base_url)
    assert other.sign_in(op).status == 302
    assert other.user() != ""
    assert (browser.user() != "") is (left == 2)
    assert OIDCSession.objects.filter(ended_at__isnull=True).count() == left
    assert {each.end_reason for each in OIDCSession.objects.filter(ended_at__isnull=False)} == (
        {"roles_changed"} if ends else set()
    )
    assert len(op.active_tokens) == 2 * left


def test_same_browser_signs_in_again_with_other_roles_where_that_ends_sessions(
    says: Says, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"end_on": ["roles"]})
    for roles in (["clerk"], ["nurse"], ["clerk"]):
        says(*roles)
        assert browser.sign_in(op).status == 302
        assert browser.user() != ""
    assert sorted(OIDCSession.objects.values_list("end_reason", flat=True)) == ["", "roles_changed", "roles_changed"]
    assert len(op.active_tokens) == 2


def test_roles_stay_as_the_provider_said_while_the_trail_is_away_and_nobody_is_let_in(
    says: Says, op: DemoProvider, browser: Browser
) -> None:
    says("nurse")
    with audit_database_away():
        assert browser.sign_in(op).status == 503
    assert browser.user() == ""
    assert groups() == ["clinicians"]
    assert not OIDCSession.objects.filter(ended_at__isnull=True).exists()


def fail(**kwargs: Any) -> None:
    raise RuntimeError("the host's own fault")


def test_sign_in_that_fails_after_the_change_leaves_roles_as_they_were(
    says: Says, op: DemoProvider, browser: Browser
) -> None:
    says("clerk")
    browser.sign_in(op)
    says("nurse")
    user_logged_in.connect(fail)
    try:
        assert browser.sign_in(op).status == 500
    finally:
        user_logged_in.disconnect(fail)
    assert (groups(), changes()) == ([], [])
    assert browser.sign_in(op).status == 302
    assert (groups(), changes()) == (["clinicians"], [{"added": ["clinicians"]}])


def test_roles_that_do_not_change_cost_a_sign_in_one_statement(
    says: Says, op: DemoProvider, settings: Any, portal: str
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    counted = {}
    says("nurse")
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
