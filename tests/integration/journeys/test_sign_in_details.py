"""Details of a sign-in: redirects, cookies, events, stored claims and alerts."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.claims import disclosure
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.attack_cases import OMITTED, tamper_member
from tests.integration.journeys.rule_codes import shows
from tests.integration.journeys.test_transactions import actor_of, audit_database_away
from tests.support.http_browser import Browser, InProcessBrowser, state_cookies
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = pytest.mark.django_db(**EVERYTHING)

BORN = "1984-03-09"


def set_member(op: DemoProvider, endpoint: str, name: str, value: Any) -> None:
    """Set a member of the provider's response at that endpoint, or remove it (OMITTED)."""

    def change(at: str, exchange: MutableExchange) -> None:
        if at == endpoint:
            tamper_member(name)(exchange, value)

    op.mutate = change


def was_requested(op: DemoProvider, path: str) -> bool:
    return path in [request.path for request in op.requests]


@pytest.mark.parametrize(("scheme", "is_used"), [("http", False), ("https", True)])
def test_next_url_on_an_https_site_must_be_https(scheme: str, is_used: bool, op: DemoProvider, portal: str) -> None:
    base = portal.replace("http:", "https:")
    op.register_client(client(base))
    url = f"{scheme}://{base.partition('://')[2]}/portal/letters/"
    assert InProcessBrowser(base).sign_in(op, next_url=url).location == (url if is_used else "/")


@pytest.mark.parametrize(("more", "status"), [("", 302), ("&error=access_denied", 403)])
def test_state_cookie_is_deleted_after_its_callback(more: str, status: int, op: DemoProvider, browser: Browser) -> None:
    callback = browser.get_callback_url(op) + more
    assert len(state_cookies(browser)) == 1
    assert browser.get(callback).status == status
    assert state_cookies(browser) == []


@pytest.mark.parametrize(
    ("url", "stage"), [("/oidc/undeclared/authenticate/", "request"), ("/oidc/callback/?state=x&code=y", "callback")]
)
def test_refusal_event_has_the_stage(url: str, stage: str, op: DemoProvider, browser: Browser) -> None:
    assert browser.get(url).status == 403
    (event,) = events(action="login.refused")
    assert json.loads(event.detail) == {"stage": stage}


@pytest.mark.sqlite
@pytest.mark.parametrize(("host", "status"), [("evil.example", 400), ("127.0.0.1", 302)])
@pytest.mark.parametrize("has_middleware", [True, False], ids=["CommonMiddleware", "without"])
def test_request_to_a_disallowed_host_writes_no_event(
    has_middleware: bool, host: str, status: int, op: DemoProvider, settings: Any
) -> None:
    """Django's 400 response, whether the middleware or the view detects it."""
    common = "django.middleware.common.CommonMiddleware"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if has_middleware or name != common]
    assert InProcessBrowser(f"http://{host}").start_sign_in().status == status
    assert events(action="login.refused") == []


@pytest.mark.sqlite
@pytest.mark.parametrize(("count", "status"), [(1000, 302), (1001, 400)])
def test_request_with_too_many_parameters_writes_no_event(
    count: int, status: int, op: DemoProvider, browser: Browser
) -> None:
    query = "&".join(f"a{n}=" for n in range(count))
    assert browser.get(f"/oidc/authenticate/?{query}").status == status
    assert events(action="login.refused") == []


@pytest.mark.parametrize(
    ("in_id_token", "expected"),
    [("2000-01-01", "2000-01-01"), (OMITTED, BORN), pytest.param("", BORN, marks=pytest.mark.sqlite)],
)
def test_claim_in_the_id_token_overrides_userinfo(
    in_id_token: Any, expected: str, op: DemoProvider, browser: Browser
) -> None:
    set_member(op, "id_token", "birthdate", in_id_token)
    assert browser.sign_in(op).status == 302
    assert was_requested(op, "/userinfo"), "for the address"
    session = OIDCSession.objects.get()
    assert disclosure.reveal(actor_of(session), session.user, "birthdate", purpose="TREAT") == expected


@pytest.mark.parametrize("has_userinfo", [True, False])
def test_provider_without_userinfo_signs_in_without_its_claims(
    has_userinfo: bool, op: DemoProvider, browser: Browser
) -> None:
    if not has_userinfo:
        set_member(op, "discovery", "userinfo_endpoint", OMITTED)
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert was_requested(op, "/userinfo") == has_userinfo
    expected = {"birthdate", "address"} if has_userinfo else set()
    assert {claim.name for claim in StoredClaim.objects.all()} == expected


@pytest.mark.parametrize(("seconds", "alert"), [(3600, False), (3601, True), (OMITTED, True)])
def test_access_token_lifetime_over_an_hour_raises_an_alert(
    seconds: Any, alert: bool, op: DemoProvider, browser: Browser
) -> None:
    set_member(op, "token", "expires_in", seconds)
    assert browser.sign_in(op).status == 302
    raised = [json.loads(event.detail) for event in events(action="alert.raised")]
    assert raised == ([{"rule": "access_token_lifetime"}] if alert else [])


@pytest.mark.parametrize(
    ("acr", "stored"),
    [("a" * 255, "a" * 255), ("a" * 256, ""), ("a" * 300, ""), (2, ""), (OMITTED, "")],
    ids=["255", "256", "300", "a number", "none"],
)
def test_unrequested_acr_is_stored_if_it_fits(acr: Any, stored: str, op: DemoProvider, browser: Browser) -> None:
    set_member(op, "id_token", "acr", acr)
    assert browser.sign_in(op).status == 302
    assert OIDCSession.objects.get().acr == stored
    (event,) = events(action="login.succeeded")
    assert json.loads(event.detail)["acr"] == stored


@pytest.mark.parametrize(
    ("amr", "recorded"),
    [
        (["pwd", "otp"], ["pwd", "otp"]),
        (["a" * 64] * 16, ["a" * 64] * 16),
        (["pwd"] * 17, None),
        (["a" * 65], None),
        (["by password"], None),
        (["pwd", 2], None),
        ("pwd", None),
        ([], None),
        (OMITTED, None),
    ],
)
def test_g14_methods_of_the_authentication_are_recorded(
    amr: Any, recorded: list[str] | None, op: DemoProvider, browser: Browser
) -> None:
    set_member(op, "id_token", "amr", amr)
    assert browser.sign_in(op).status == 302
    (event,) = events(action="login.succeeded")
    assert json.loads(event.detail).get("amr") == recorded


def test_backend_hooks_receive_only_declared_claims(
    op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Naming"]
    browser.sign_in(op)
    user: Any = get_user_model().objects.get()
    assert user.get_username() == f"born-{BORN}"
    assert (user.first_name, user.last_name) == ("address,birthdate", "")
    assert Browser(portal).sign_in(op).status == 302
    user.refresh_from_db()
    assert user.last_name == "address,birthdate"
    assert len(events(action="claim.overfetched")) == 1, "the same claims were dropped at both sign-ins"


@pytest.mark.parametrize("atomic", ["1", "0"])
def test_reveal_event_survives_the_rollback_of_its_request(atomic: str, op: DemoProvider) -> None:
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with portal_process(phi_oidc, TEST_ATOMIC_REQUESTS=atomic) as base:
        op.register_client(client(base))
        browser = Browser(base)
        assert browser.sign_in(op).status == 302
        page = browser.get("/birthdate/?fail=1")
    assert page.status == 500
    assert BORN not in page.body
    assert [(event.outcome, event.purpose) for event in events(action="claim.revealed")] == [("success", "TREAT")]
    remaining = get_user_model().objects.filter(username="failed-request").count()
    assert remaining == (0 if atomic == "1" else 1), "ATOMIC_REQUESTS rolls back the writes of the request"


@pytest.mark.parametrize("atomic", ["1", "0"])
def test_reveal_by_http_is_refused_without_the_audit_database(atomic: str, op: DemoProvider) -> None:
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
    with portal_process(phi_oidc, TEST_ATOMIC_REQUESTS=atomic) as base:
        op.register_client(client(base))
        browser = Browser(base)
        browser.sign_in(op)
        with audit_database_away():
            page = browser.get("/birthdate/")
        assert page.status in (500, 503)
        assert BORN not in page.body
        assert events(action="claim.revealed") == []
        page = browser.get("/birthdate/")
    assert (page.status, page.body) == (200, BORN)
    assert len(events(action="claim.revealed")) == 1


@shows("transport_unreachable")
def test_unreachable_provider_is_refused_until_it_is_back(op: DemoProvider, settings: Any, browser: Browser) -> None:
    op.stop()
    try:
        page = browser.start_sign_in()
    finally:
        op.start()
    assert page.status == 503
    (event,) = events(action="login.refused")
    assert (event.reason, json.loads(event.detail)) == ("transport_unreachable", {"stage": "request"})
    # A changed setting clears the cached provider metadata.
    settings.PHI_OIDC = {**settings.PHI_OIDC}
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
