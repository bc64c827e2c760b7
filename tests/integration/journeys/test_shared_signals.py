"""Security events after real sign-ins, over real sockets: leavers are out, doubtful sign-ins are repeated."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys import guarded_urls
from tests.integration.journeys.guarded_urls import RAN
from tests.integration.journeys.test_faults_databases import Scene, away, scene  # noqa: F401 -- fixture
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.http_browser import HOME, Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process
from tests.support.security_events import AUTHORIZATION, CAEP, RISC, SESSION_REVOKED, create_event, push, push_event

pytestmark = pytest.mark.django_db(**EVERYTHING)
SIGNALS = {"delivery": "push", "push_authorization": AUTHORIZATION}


@pytest.fixture
def portal(live_server: Any, settings: Any) -> str:
    """Return the address of the portal."""
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    settings.LOGIN_URL = "oidc_authentication_init"
    RAN.clear()
    guarded_urls.BODIES.clear()
    return str(live_server.url)


@pytest.fixture(autouse=True)
def _signals(request: pytest.FixtureRequest, settings: Any) -> None:
    op = request.getfixturevalue("op")
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, signals=SIGNALS)}}


def sub_of(op: DemoProvider, username: str = "amina") -> str:
    return op.get_subject(username, "portal")


def test_after_session_revoked_the_next_request_is_refused_and_both_tokens_are_dead_at_the_provider(
    op: DemoProvider, portal: str, browser: Browser
) -> None:
    other = Browser(portal)
    assert [browser.sign_in(op).status, other.sign_in(op, "jonas").status] == [302, 302]
    tokens = [token for token in op.tokens if token.grant.sub == sub_of(op)]
    assert [op.is_token_active(token.value) for token in tokens] == [True, True]
    op.requests.clear()
    # The response comes after all of it: no worker and no clock are needed.
    assert push_event(op, portal, sub=sub_of(op)).status == 202
    assert [op.is_token_active(token.value) for token in tokens] == [False, False]
    assert [request.path for request in op.requests].count("/revoke") == 2
    assert browser.get(HOME).status == 302
    assert (browser.user(), bool(other.user())) == ("", True)
    (received,), (ended,) = events(action=Action.SIGNAL_RECEIVED), events(action=Action.SESSION_ENDED)
    assert (received.subject, received.request_id) == (ended.subject, ended.request_id)
    assert PendingRevocation.objects.filter(status=RevocationStatus.DONE).count() == 2


def test_disabled_account_comes_back_only_by_a_new_authentication(
    op: DemoProvider, portal: str, browser: Browser
) -> None:
    browser.sign_in(op)
    assert push_event(op, portal, f"{RISC}account-disabled", sub_of(op)).status == 202
    assert browser.user() == ""
    leaving = browser.start_sign_in()
    assert "prompt=login" in leaving.location, "single sign-on at the provider is not enough"
    assert push_event(op, portal, f"{RISC}account-enabled", sub_of(op)).status == 202
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""


@pytest.mark.parametrize(
    ("event_type", "options"),
    [
        (SESSION_REVOKED, {}),
        (f"{CAEP}token-claims-change", {}),
        (f"{CAEP}credential-change", {"reauthentication": "request"}),
    ],
)
def test_sign_in_that_was_in_progress_at_the_event_is_refused(
    event_type: str, options: dict[str, Any], op: DemoProvider, portal: str, browser: Browser, settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, signals=SIGNALS, **options)}}
    callback = browser.get_callback_url(op)
    assert push_event(op, portal, event_type, sub_of(op)).status == 202
    assert browser.get(callback).status == 403
    assert [event.reason for event in events(action=Action.LOGIN_REFUSED)] == ["logged_out"]
    assert OIDCSession.objects.live().count() == 0
    assert OIDCSession.objects.get().end_reason == "security_event"
    assert op.active_tokens == []


@pytest.mark.parametrize("username", ["amina", "jonas"])
def test_event_before_the_first_sign_in_demands_a_new_one(
    username: str, op: DemoProvider, portal: str, browser: Browser
) -> None:
    """The person has no account here at the time of the event, and the authentication at the provider is older."""
    earlier = clock.now() - timedelta(minutes=1)
    with clock.override_clock(lambda: earlier):
        browser.get_callback_url(op, "amina")
    event = {"event_timestamp": int(clock.now().timestamp()) - 5}
    assert push_event(op, portal, f"{CAEP}credential-change", sub_of(op, username), event=event).status == 202
    # Single sign-on, with that authentication.
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    assert browser.get("/fresh/").status == (302 if username == "amina" else 200)
    reasons = [event.reason for event in events(action=Action.ACCESS_DENIED)]
    assert reasons == (["sign_in_demanded"] if username == "amina" else [])


@pytest.mark.parametrize("event_type", [f"{CAEP}credential-change", f"{CAEP}assurance-level-change"])
def test_guarded_page_demands_a_new_sign_in_after_the_event_and_other_pages_do_not(
    event_type: str, op: DemoProvider, portal: str, browser: Browser
) -> None:
    # The authentication is a minute old, so that the new one differs in whole seconds.
    earlier = clock.now() - timedelta(minutes=1)
    with clock.override_clock(lambda: earlier):
        browser.sign_in(op)
    browser.headers["Accept"] = "text/html"
    page = browser.get("/fresh/")
    assert page.body == "fresh ran", page
    # In an earlier second than the new sign-in: times of providers have whole seconds.
    event = {"event_timestamp": int(clock.now().timestamp()) - 5}
    assert push_event(op, portal, event_type, sub_of(op), event=event).status == 202
    assert browser.user() != "", "a page without a guard"
    refused = browser.get("/fresh/")
    assert (refused.status, urlsplit(refused.location).path) == (302, "/oidc/step-up/")
    assert [event.reason for event in events(action=Action.ACCESS_DENIED)] == ["sign_in_demanded"]
    leaving = browser.get(refused.location)
    assert "prompt=login" in leaving.location
    assert "max_age=60" in leaving.location
    callback = browser.get(op.authorize(leaving.location, "amina", cookies=browser.provider_cookies))
    assert (callback.status, callback.location) == (302, "/fresh/")
    assert browser.get("/fresh/").body == "fresh ran"
    assert OIDCSession.objects.live().count() == 1


@pytest.mark.parametrize("is_demanded", [True, False])
def test_single_sign_on_with_the_doubtful_authentication_does_not_meet_the_demand(
    is_demanded: bool, op: DemoProvider, portal: str, browser: Browser
) -> None:
    earlier = clock.now() - timedelta(minutes=1)
    with clock.override_clock(lambda: earlier):
        browser.sign_in(op)
    event_type = f"{CAEP}credential-change" if is_demanded else f"{CAEP}session-established"
    event = {"event_timestamp": int(clock.now().timestamp()) - 5}
    assert push_event(op, portal, event_type, sub_of(op), event=event).status == 202
    # As a browser that this portal does not know, which is still signed in at the provider.
    browser.cookies.clear()
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    page = browser.get("/fresh/")
    assert (page.status == 302, page.body == "fresh ran") == (is_demanded, not is_demanded)
    if is_demanded:
        assert [event.reason for event in events(action=Action.ACCESS_DENIED)] == ["sign_in_demanded"]
        leaving = browser.get(page.location)
        browser.get(op.authorize(leaving.location, "amina", cookies=browser.provider_cookies))
        assert browser.get("/fresh/").body == "fresh ran"


def test_without_the_audit_log_nothing_changes_and_nothing_is_acknowledged(
    op: DemoProvider, portal: str, browser: Browser
) -> None:
    browser.sign_in(op)
    token = create_event(op, SESSION_REVOKED, sub_of(op))
    with audit_database_away():
        response = push(op, portal, token)
        assert (response.status, response.headers["retry-after"]) == (503, "30")
        assert OIDCSession.objects.live().count() == 1
    assert browser.user() != ""
    assert len(op.active_tokens) == 2
    assert push(op, portal, token).status == 202, "the same event, sent again"
    assert browser.user() == ""
    assert len(events(action=Action.SIGNAL_RECEIVED)) == 1
    assert op.active_tokens == []


@pytest.mark.postgresql
def test_without_the_main_database_nothing_is_acknowledged_and_the_event_works_afterwards(
    scene: Scene,
) -> None:
    op = scene.op
    ports = {"TEST_MAIN_PORT": str(scene.main.port), "TEST_AUDIT_PORT": str(scene.audit.port)}
    phi_oidc = {"PROVIDERS": {"default": declaration(op, signals=SIGNALS)}}
    base = scene.stack.enter_context(portal_process(phi_oidc, **ports))
    op.register_client(client(base))
    browser = Browser(base)
    browser.sign_in(op)
    token = create_event(op, SESSION_REVOKED, sub_of(op))
    for relay in (scene.main, scene.audit):
        with away(relay):
            assert push(op, base, token).status == 503
        assert browser.user() != ""
        assert len(op.active_tokens) == 2
    assert push(op, base, token).status == 202
    assert browser.user() == ""
    assert op.active_tokens == []
    assert [json.loads(event.detail)["event"] for event in events(action=Action.SIGNAL_RECEIVED)][-1:] == [
        "caep/session-revoked"
    ]
    assert push(op, base, token).status == 202
    assert len(events(action=Action.SESSION_ENDED)) == 1
