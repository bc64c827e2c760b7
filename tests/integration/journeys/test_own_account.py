"""A user signs out another device, and the limit of parallel sessions, over real sockets."""

import json
import time
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_concurrency import run_together
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1"


def sign_in(op: DemoProvider, portal: str, user_agent: str = "", username: str = "amina") -> Browser:
    browser = Browser(portal)
    browser.headers |= {"Accept": "text/html", "User-Agent": user_agent}
    assert browser.sign_in(op, username).status == 302
    assert browser.user() != ""
    return browser


def limit(settings: Any, most: int | None) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"max_parallel": most})


def test_asvs_7_5_2_lost_phone_is_signed_out_after_a_step_up(op: DemoProvider, portal: str) -> None:
    phone, laptop = sign_in(op, portal, IPHONE), sign_in(op, portal)
    page = laptop.get("/oidc/account/")
    assert "Safari on iPhone" in page.body
    assert "127.0.0.0/24" in page.body
    path = page.body.partition("/oidc/account/sessions/")[2].partition('"')[0]
    question = f"/oidc/account/sessions/{path}"
    later = clock.now() + timedelta(minutes=14)
    phone.user()
    with clock.override_clock(lambda: later):
        assert "" not in (laptop.user(), phone.user())
    later += timedelta(minutes=2)
    with clock.override_clock(lambda: later):
        leaving = laptop.get(laptop.get(question).location)
        assert leaving.location.startswith(op.issuer)
        callback = laptop.get(op.authorize(leaving.location, "amina", cookies=laptop.provider_cookies))
        assert (callback.status, callback.location) == (302, question)
        assert "Safari on iPhone is signed out at once" in laptop.get(question).body
        started = time.monotonic()
        assert laptop.post(question).location == "/oidc/account/"
        assert phone.user() == ""
        assert time.monotonic() - started < 1
        assert laptop.user() != ""
    assert (
        OIDCSession.objects.get(end_reason="account_owner").started_at
        < OIDCSession.objects.get(ended_at=None).started_at
    )
    phone_tokens = op.tokens[:2]
    assert [token for token in op.active_tokens if token in phone_tokens] == []
    (event,) = events(action="session.ended", reason="account_owner")
    assert json.loads(event.detail) == {"tokens": 2}
    sent = parse_qs(urlsplit(phone.start_sign_in().location).query)
    assert sent["prompt"] == ["login"], "single sign-on alone does not sign the phone in again"


def test_asvs_7_1_2_sign_in_beyond_the_limit_ends_the_oldest_session(
    op: DemoProvider, portal: str, settings: Any
) -> None:
    limit(settings, 2)
    oldest, second, jonas = sign_in(op, portal), sign_in(op, portal), sign_in(op, portal, username="jonas")
    assert "" not in (oldest.user(), second.user())
    newest = sign_in(op, portal)
    assert (oldest.user(), second.user() != "", newest.user() != "", jonas.user() != "") == ("", True, True, True)
    assert [token for token in op.active_tokens if token in op.tokens[:2]] == []
    (event,) = events(action="session.ended")
    assert (event.reason, json.loads(event.detail)) == ("parallel_limit", {"tokens": 2})
    assert second.sign_in(op).status == 302
    assert newest.user() != "", "a sign-in in the same browser replaces its session"


@pytest.mark.parametrize("most", [1, 2])
def test_sign_in_keeps_its_own_session_after_one_at_a_server_with_a_fast_clock(
    op: DemoProvider, portal: str, settings: Any, most: int
) -> None:
    limit(settings, most)
    fast = clock.now() + timedelta(seconds=20)
    with clock.override_clock(lambda: fast):
        others = [sign_in(op, portal) for _ in range(most)]
    newest = sign_in(op, portal)
    assert newest.user() != ""
    assert OIDCSession.objects.live().count() == most
    assert [browser.user() for browser in others].count("") == 1


def test_session_that_the_limit_ended_does_not_weaken_the_automatic_logoff(
    op: DemoProvider, portal: str, settings: Any
) -> None:
    limit(settings, 1)
    workstation = sign_in(op, portal)
    later = clock.now() + conf.idle_timeout() + timedelta(minutes=1)
    with clock.override_clock(lambda: later):
        sign_in(op, portal)
        assert OIDCSession.objects.get(end_reason="parallel_limit").last_seen_at < later - conf.idle_timeout()
        assert parse_qs(urlsplit(workstation.start_sign_in().location).query)["prompt"] == ["login"]


def test_session_that_the_limit_ended_may_return_by_single_sign_on_before_its_timeout(
    op: DemoProvider, portal: str, settings: Any
) -> None:
    limit(settings, 1)
    workstation = sign_in(op, portal)
    sign_in(op, portal)
    assert "prompt" not in parse_qs(urlsplit(workstation.start_sign_in().location).query)


def test_asvs_7_1_2_number_is_not_limited_by_default(op: DemoProvider, portal: str) -> None:
    browsers = [sign_in(op, portal) for _ in range(4)]
    assert "" not in [browser.user() for browser in browsers]


@pytest.mark.postgresql
def test_asvs_7_1_2_concurrent_sign_ins_keep_the_limit(op: DemoProvider, portal: str, settings: Any) -> None:
    limit(settings, 1)
    sign_in(op, portal)
    for _ in range(5):
        browsers = [Browser(portal) for _ in range(4)]
        callbacks = [browser.get_callback_url(op) for browser in browsers]
        run_together(
            [
                lambda browser=browser, url=url: browser.get(url)
                for browser, url in zip(browsers, callbacks, strict=True)
            ]
        )
        assert OIDCSession.objects.live().count() == 1
        assert len([browser for browser in browsers if browser.user()]) == 1
    assert {event.reason for event in events(action="session.ended")} == {"parallel_limit"}
