"""A provider that hangs: other pages do not wait for it, and the user gets a page that says to try again."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from django_phi_oidc.login import code_exchange
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import INLINE_SECONDS
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.logout import sign_out
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = pytest.mark.django_db(**EVERYTHING)
THREADS = 4
OTHER_PAGES = ("/portal/home/", "/oidc/health/", "/oidc/logged-out/")


@contextmanager
def hangs(op: DemoProvider, *endpoints: str) -> Iterator[None]:
    """Let these endpoints of the provider answer nothing in the block."""
    over = threading.Event()

    def hang(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint not in endpoints:
            return None
        over.wait(60)
        return Reply(raw=())

    op.intercept = hang
    try:
        yield
    finally:
        over.set()
        op.intercept = None


@pytest.mark.postgresql
@pytest.mark.parametrize("endpoint", ["par", "discovery"])
def test_d2_other_pages_do_not_wait_for_a_provider_that_hangs(endpoint: str, op: DemoProvider) -> None:
    op.par = "offered"
    with portal_process({"PROVIDERS": {"default": declaration(op)}}, TEST_THREADS=str(THREADS)) as base:
        op.register_client(client(base))
        if endpoint == "par":
            assert Browser(base).start_sign_in().status == 302
        pages: list[PortalResponse] = []
        with hangs(op, endpoint):
            threads = [
                threading.Thread(target=lambda: pages.append(Browser(base).start_sign_in())) for _ in range(THREADS * 3)
            ]
            for thread in threads:
                thread.start()
            time.sleep(2.5)  # until the calls count as hanging
            assert len(pages) == THREADS * 3 - (2 if endpoint == "par" else 1), "the others were refused at once"
            for path in OTHER_PAGES:
                started_at = time.monotonic()
                assert Browser(base).get(path).status in (200, 302)
                assert time.monotonic() - started_at < 1, path
            for thread in threads:
                thread.join(30)
        assert {page.status for page in pages} == {503}
        assert all("try again" in page.body for page in pages)
        reasons = [event.reason for event in events(action="login.refused")]
        assert set(reasons) == {"transport_timeout", "provider_suspended"}


@pytest.mark.postgresql
@pytest.mark.parametrize("seconds", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("fails", [False, True])
def test_s1_other_pages_do_not_wait_for_a_provider_that_is_slow(seconds: float, fails: bool, op: DemoProvider) -> None:
    """Eight sign-ins a second, without a session: the others are refused at once, and told when to try again."""
    op.par = "offered"

    def delay(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint != "par":
            return None
        time.sleep(seconds)
        return Reply(status=503) if fails else None

    with portal_process({"PROVIDERS": {"default": declaration(op)}}, TEST_THREADS=str(THREADS)) as base:
        op.register_client(client(base))
        assert Browser(base).start_sign_in().status == 302
        op.intercept = delay
        sign_ins: list[PortalResponse] = []
        threads = [threading.Thread(target=lambda: sign_ins.append(Browser(base).start_sign_in())) for _ in range(24)]
        times: list[float] = []
        for number, thread in enumerate(threads):
            thread.start()
            started_at = time.monotonic()
            assert Browser(base).get(OTHER_PAGES[number % len(OTHER_PAGES)]).status in (200, 302)
            times.append(time.monotonic() - started_at)
            time.sleep(max(0.0, 0.125 - times[-1]))
        for thread in threads:
            thread.join(30)
        op.intercept = None
    assert max(times) < 0.5
    assert {page.status for page in sign_ins} <= {302, 503}
    suspended = [event for event in events(action="login.refused") if event.reason == "provider_suspended"]
    assert len([page for page in sign_ins if page.join_header_values("Retry-After") == "2"]) == len(suspended)
    if seconds > 0.3:
        assert suspended


def test_d2_callback_ends_in_time_when_each_call_is_slow(
    op: DemoProvider, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.login.views.CALLBACK_SECONDS", 3.0)
    callback = browser.get_callback_url(op)

    def delay(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint in ("token", "jwks", "userinfo"):
            time.sleep(2)
        return None

    op.intercept = delay
    started_at = time.monotonic()
    page = browser.get(callback)
    assert time.monotonic() - started_at < 3 + INLINE_SECONDS + 2
    assert page.status == 503
    assert [event.reason for event in events(action="login.refused")] == ["transport_timeout"]
    assert op.tokens != []
    assert op.active_tokens == [], "the tokens are revoked all the same"


@pytest.mark.parametrize(("seconds", "waiting"), [(1.9, 0), (3.0, 1)])
def test_s5_logout_at_a_slow_provider_has_no_further_page(
    seconds: float, waiting: int, op: DemoProvider, browser: Browser
) -> None:
    browser.sign_in(op)
    with slow_revocations(op, seconds):
        page = sign_out(browser)
    assert page.status == 302
    assert PendingRevocation.objects.filter(status="pending").count() == waiting


def test_s5_second_logout_at_the_same_time_waits_for_half_as_long(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    second = Browser(portal)
    browser.sign_in(op)
    second.sign_in(op)
    pages = []
    with slow_revocations(op, 3.0):
        thread = threading.Thread(target=lambda: pages.append(browser.post("/oidc/logout/")))
        thread.start()
        time.sleep(0.5)
        started_at = time.monotonic()
        assert second.post("/oidc/logout/").status == 200, "a page with a link: the provider has answered nothing"
        assert INLINE_SECONDS <= time.monotonic() - started_at < INLINE_SECONDS + 0.5
        assert pages == []
        thread.join(10)
    assert [page.status for page in pages] == [302]
    assert not OIDCSession.objects.filter(ended_at=None).exists()


@contextmanager
def slow_revocations(op: DemoProvider, seconds: float) -> Iterator[None]:
    def delay(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint == "revocation":
            time.sleep(seconds)
        return None

    op.intercept = delay
    try:
        yield
    finally:
        op.intercept = None


def test_d2_callback_takes_less_than_twenty_seconds() -> None:
    assert code_exchange.CALLBACK_SECONDS + INLINE_SECONDS < 20


def test_d2_callback_with_slow_calls_within_its_time_is_accepted(op: DemoProvider, browser: Browser) -> None:
    def delay(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint in ("token", "jwks"):
            time.sleep(1.2)
        return None

    callback = browser.get_callback_url(op)
    op.intercept = delay
    assert browser.get(callback).status == 302
    assert browser.user() != ""
