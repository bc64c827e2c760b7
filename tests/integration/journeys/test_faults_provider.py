"""A provider that fails at one endpoint of a sign-in: the page says to try again, and trying again works."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.login import authorization_request, code_exchange, views
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.sessions.token_revocation import reset_backoff
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
Answer = Callable[[threading.Event], Reply]
CALL_SECONDS = 1.5
"""Instead of PROVIDER_TIMEOUT_SECONDS, so that hanging calls end sooner."""
SLOW_SECONDS = 1.2
PAGE_SECONDS = 20
"""A user waits for less."""
AT_CALLBACK = ("token", "jwks", "userinfo")


def close_connection(over: threading.Event) -> Reply:
    return Reply(raw=())


def hang(over: threading.Event) -> Reply:
    over.wait(30)
    return Reply(raw=())


def fail(over: threading.Event) -> Reply:
    return Reply(status=500)


def show_page(over: threading.Event) -> Reply:
    return Reply(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<h1>Maintenance</h1>")


ANSWERS: dict[str, Answer] = {
    "away": close_connection,
    "hangs": hang,
    "500": fail,
    "a page": show_page,
}
TRANSPORT_CODES = {"away": "transport_unreachable", "hangs": "transport_timeout"}
INVALID_CODES = {
    "discovery": {"500": "provider_unavailable", "a page": "metadata_invalid"},
    "jwks": {"500": "provider_unavailable", "a page": "metadata_invalid"},
    "par": {"500": "par_error", "a page": "par_response_invalid"},
    "token": {"500": "token_error", "a page": "token_response_invalid"},
    "userinfo": {"500": "userinfo_invalid", "a page": "userinfo_invalid"},
}
CASES = [(endpoint, fault) for endpoint in INVALID_CODES for fault in ANSWERS]


@contextmanager
def endpoint_answers(op: DemoProvider, endpoint: str, answer: Answer) -> Iterator[None]:
    """Replace the endpoint in the block."""
    over = threading.Event()
    op.intercept = lambda at, exchange: answer(over) if at == endpoint else None
    try:
        yield
    finally:
        op.intercept = None
        over.set()


def try_sign_in(browser: Browser, op: DemoProvider, endpoint: str, answer: Answer) -> PortalResponse:
    """Sign in while the endpoint fails; it works until the callback if only that needs it."""
    if endpoint not in AT_CALLBACK:
        with endpoint_answers(op, endpoint, answer):
            return browser.start_sign_in()
    callback = browser.get_callback_url(op)
    with endpoint_answers(op, endpoint, answer):
        return browser.get(callback)


@pytest.mark.parametrize(("endpoint", "fault"), CASES)
def test_sign_in_with_a_failing_endpoint_is_refused_and_succeeds_afterwards(
    endpoint: str,
    fault: str,
    op: DemoProvider,
    browser: Browser,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    op.par = "offered"
    started_at = time.monotonic()
    with monkeypatch.context() as patched:
        if fault == "hangs":
            for module in (authorization_request, code_exchange, views):
                patched.setattr(module, "PROVIDER_TIMEOUT_SECONDS", CALL_SECONDS)
        page = try_sign_in(browser, op, endpoint, ANSWERS[fault])
    assert time.monotonic() - started_at < PAGE_SECONDS
    assert page.status == 503
    assert "Signing in is not possible at the moment" in page.body
    code = TRANSPORT_CODES.get(fault) or INVALID_CODES[endpoint][fault]
    (event,) = events(action="login.refused")
    assert (event.reason, event.outcome) == (code, "failure")
    assert f"A sign-in was refused: reason={code} provider=default" in caplog.text
    assert str(event.id) in page.body
    assert not OIDCSession.objects.exists()
    assert browser.user() == ""
    assert op.active_tokens == [], "tokens that were issued are revoked"
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert len(op.active_tokens) == 2


@pytest.mark.parametrize("endpoint", INVALID_CODES)
def test_sign_in_with_a_slow_endpoint_is_accepted(endpoint: str, op: DemoProvider, browser: Browser) -> None:
    op.par = "offered"

    def delay(at: str, exchange: MutableExchange) -> Reply | None:
        if at == endpoint:
            time.sleep(SLOW_SECONDS)
        return None

    op.intercept = delay
    started_at = time.monotonic()
    assert browser.sign_in(op).status == 302
    assert time.monotonic() - started_at >= SLOW_SECONDS
    assert browser.user() != ""
    assert events(action="login.refused") == []


@pytest.mark.parametrize("fault", ANSWERS)
def test_user_stays_signed_in_while_every_endpoint_fails(
    fault: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    browser.sign_in(op)
    # A process that knows no metadata and no keys.
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op)}}
    over = threading.Event()
    op.intercept = lambda at, exchange: ANSWERS[fault](over)
    try:
        assert browser.user() != ""
        assert browser.get("/birthdate/").status == 200
        assert browser.get("/oidc/health/").status == 200
        assert browser.post("/oidc/logout/").status in (200, 302)
        assert browser.user() == ""
    finally:
        op.intercept = None
        over.set()
    assert not OIDCSession.objects.filter(ended_at=None).exists()
    assert len(op.active_tokens) == 2
    assert PendingRevocation.objects.filter(status=RevocationStatus.PENDING).count() == 2
    reset_backoff(now=clock.now())
    sweep_revocations()
    assert op.active_tokens == []
