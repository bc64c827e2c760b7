"""The next sign-in of a browser after a timeout, over real sockets: single sign-on alone does not suffice."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.contrib.sessions.models import Session

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.login.reauthentication import COOKIE_NAME, MAX_AGE_SECONDS
from django_phi_oidc.sessions.lifecycle import end_sessions
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from django_phi_oidc.sessions.tasks import end_expired_sessions, end_orphaned_sessions
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.two_providers import Declare, sign_in_at, start_sign_in_at
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
ASKED = {"prompt": "login", "max_age": str(MAX_AGE_SECONDS)}
NOT_ASKED = {"prompt": None, "max_age": None}


def after(pause: timedelta) -> Any:
    """Return the context in which so much time has passed."""
    later = clock.now() + pause
    return clock.override_clock(lambda: later)


def past_idle_timeout() -> Any:
    return after(conf.idle_timeout() + timedelta(minutes=1))


def asked(location: str) -> dict[str, str | None]:
    query = dict(parse_qsl(urlsplit(location).query))
    return {name: query.get(name) for name in ASKED}


def without_request(location: str) -> str:
    """Return the URL of the authorization request as a user may edit it."""
    parts = urlsplit(location)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ASKED]
    return parts._replace(query=urlencode(query)).geturl()


def notice(browser: Browser) -> None:
    """Notice the timeout in the browser."""
    assert browser.user() == ""


def remove_session_cookie(browser: Browser) -> None:
    browser.cookies.pop("sessionid")


def end_by_worker(browser: Browser) -> None:
    end_expired_sessions()
    assert not Session.objects.exists()


def lose_django_session(browser: Browser) -> None:
    Session.objects.all().delete()
    end_orphaned_sessions()


def delete_row(browser: Browser) -> None:
    OIDCSession.objects.all().delete()


def damage_cookie(browser: Browser) -> None:
    browser.cookies[COOKIE_NAME] = browser.cookies[COOKIE_NAME][:-4] + "AAAA"


WAYS: dict[str, Callable[[Browser], None]] = {
    "a request noticed it": notice,
    "a worker ended it": end_by_worker,
    "nothing has noticed it": lambda browser: None,
    "the session cookie was deleted": remove_session_cookie,
    "ended by a worker, without the session cookie": lambda browser: (end_by_worker(browser), notice(browser))[0],
    "the Django session expired first": lose_django_session,
    "the row is gone": delete_row,
    "the cookie is damaged": damage_cookie,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_b6_sign_in_after_a_timeout_needs_a_new_authentication(
    op: DemoProvider, browser: Browser, way: Callable[[Browser], None]
) -> None:
    first = browser.start_sign_in().location
    assert asked(first) == NOT_ASKED
    assert browser.get(op.authorize(first, "amina", cookies=browser.provider_cookies)).status == 302
    with past_idle_timeout():
        way(browser)
        location = browser.start_sign_in().location
        assert asked(location) == ASKED
        callback = op.authorize(location, "amina", cookies=browser.provider_cookies)
        assert op.last_grant.auth_time == clock.now()
        assert browser.get(callback).status == 302
        assert browser.user() != ""
        remove_session_cookie(browser)
        assert asked(browser.start_sign_in().location) == NOT_ASKED


def test_b6_request_from_before_the_timeout_is_refused_after_it(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SESSIONS": {"idle_timeout": timedelta(minutes=4)}}
    in_other_tabs = [browser.start_sign_in().location for _ in range(2)]
    assert browser.sign_in(op).status == 302
    for minutes, status in ((3, 302), (8, 403)):
        with after(timedelta(minutes=minutes)):
            callback = op.authorize(in_other_tabs.pop(), "amina", cookies=browser.provider_cookies)
            assert browser.get(callback).status == status
    assert [event.reason for event in events(action="login.refused")] == ["state_expired"]


def test_b6_absolute_timeout_is_a_timeout_too(op: DemoProvider, browser: Browser, settings: Any) -> None:
    assert browser.sign_in(op).status == 302
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "SESSIONS": {"idle_timeout": timedelta(hours=2), "absolute_timeout": timedelta(hours=1)},
    }
    with after(timedelta(minutes=59)):
        remove_session_cookie(browser)
        assert asked(browser.start_sign_in().location) == NOT_ASKED
    with after(timedelta(minutes=61)):
        assert asked(browser.start_sign_in().location) == ASKED


@pytest.mark.parametrize("removed", [True, False], ids=["request edited", "provider ignores the request"])
def test_b6_answer_by_single_sign_on_is_refused_after_a_timeout(
    op: DemoProvider, browser: Browser, removed: bool
) -> None:
    assert browser.sign_in(op).status == 302
    active = len(op.active_tokens)
    with past_idle_timeout():
        notice(browser)
        location = browser.start_sign_in().location
        auth_time = int((clock.now() - timedelta(minutes=1)).timestamp())
        if removed:
            callback = op.authorize(without_request(location), "amina", cookies=browser.provider_cookies)
        else:
            callback = op.authorize(location, "amina", cookies=browser.provider_cookies)
            op.mutate = lambda stage, exchange: exchange.claims.update(auth_time=auth_time)
        page = browser.get(callback)
        op.mutate = None
        assert page.status == 403
        assert [event.reason for event in events(action="login.refused")] == ["auth_time_stale"]
        assert browser.user() == ""
        assert len(op.active_tokens) < active
        assert asked(browser.start_sign_in().location) == ASKED, "the next attempt requests it again"
        assert browser.sign_in(op).status == 302


@pytest.mark.parametrize(
    ("auth_time", "options", "code"),
    [
        (None, {}, "auth_time_missing"),
        (None, {"reauthentication": "request"}, ""),
        (0, {}, "auth_time_stale"),
        (0, {"allow_auth_time_zero": True}, ""),
        (None, {"allow_auth_time_zero": True}, "auth_time_missing"),
    ],
)
def test_b6_unknown_auth_time_is_refused_unless_an_option_accepts_it(
    op: DemoProvider, browser: Browser, settings: Any, auth_time: int | None, options: dict[str, Any], code: str
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], **options}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}

    def change(stage: str, exchange: MutableExchange) -> None:
        if stage == "id_token":
            exchange.claims.pop("auth_time", None)
            if auth_time is not None:
                exchange.claims["auth_time"] = auth_time

    op.mutate = change
    assert browser.sign_in(op).status == 302, "without a timeout nothing is verified"
    with past_idle_timeout():
        notice(browser)
        page = browser.sign_in(op)
    assert [event.reason for event in events(action="login.refused")] == ([code] if code else [])
    assert page.status == (403 if code else 302)


@pytest.mark.parametrize(
    ("mode", "parameters"),
    [("verify", ASKED), ("request", {"prompt": "login", "max_age": None}), ("never", NOT_ASKED)],
)
def test_b6_option_says_what_is_requested(
    op: DemoProvider, browser: Browser, settings: Any, mode: str, parameters: dict[str, str | None]
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "reauthentication": mode}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    assert browser.sign_in(op).status == 302
    with past_idle_timeout():
        assert asked(browser.start_sign_in().location) == parameters
    prompt = browser.get("/oidc/authenticate/?prompt=login").location
    assert asked(prompt) == parameters, "as a page of a refused sign-in links to it"


@pytest.mark.parametrize("max_age", [10, 3600])
def test_b6_lower_max_age_of_the_declaration_is_kept(
    op: DemoProvider, browser: Browser, settings: Any, max_age: int
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "max_age": max_age}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    assert browser.sign_in(op).status == 302
    with past_idle_timeout():
        assert asked(browser.start_sign_in().location)["max_age"] == str(min(max_age, MAX_AGE_SECONDS))


def test_b6_request_is_pushed_too(op: DemoProvider, browser: Browser) -> None:
    op.par = "required"
    assert browser.sign_in(op).status == 302
    with past_idle_timeout():
        browser.start_sign_in()
        pushed = [request.parameters for request in op.requests if request.path == "/par"]
        assert [{name: dict(each).get(name) for name in ASKED} for each in pushed] == [NOT_ASKED, ASKED]


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(minutes=16)])
def test_b6_sign_in_after_a_sign_out_is_an_ordinary_one(op: DemoProvider, browser: Browser, pause: timedelta) -> None:
    assert browser.sign_in(op).status == 302
    browser.user()
    assert browser.post("/oidc/logout/").status == 302
    with after(pause):
        assert asked(browser.start_sign_in().location) == NOT_ASKED


def test_sign_in_after_an_administrator_ended_the_session_needs_a_new_authentication(
    op: DemoProvider, browser: Browser
) -> None:
    assert browser.sign_in(op).status == 302
    sessions = list(OIDCSession.objects.values_list("pk", flat=True))
    end_sessions(sessions, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
    location = browser.start_sign_in().location
    assert asked(location) == ASKED
    assert browser.get(op.authorize(location, "amina", cookies=browser.provider_cookies)).status == 302
    assert browser.user() != ""


def test_b6_browser_without_a_session_is_not_asked(op: DemoProvider, browser: Browser, portal: str) -> None:
    assert browser.sign_in(op).status == 302
    with past_idle_timeout():
        assert asked(Browser(portal).start_sign_in().location) == NOT_ASKED


def test_b6_timeout_at_one_provider_holds_at_each_provider(
    declare: Declare, clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    assert sign_in_at(browser, "clinic", clinic).status == 302
    with past_idle_timeout():
        for name in ("clinic", "region"):
            assert asked(start_sign_in_at(browser, name).location) == ASKED
        assert sign_in_at(browser, "region", region).status == 302
        remove_session_cookie(browser)
        assert asked(start_sign_in_at(browser, "clinic").location) == NOT_ASKED


def test_b6_cookie_is_encrypted_and_short(op: DemoProvider, browser: Browser) -> None:
    page = browser.sign_in(op)
    header = next(value for name, value in page.headers if name == "Set-Cookie" and value.startswith(f"{COOKIE_NAME}="))
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in header.split(";")}
    assert str(OIDCSession.objects.get().pk) not in header
    assert len(header) < 512


def test_b6_time_of_the_request_decides(op: DemoProvider, browser: Browser) -> None:
    """An authentication at the provider between the timeout and the request is earlier than the request."""
    assert browser.sign_in(op).status == 302
    with past_idle_timeout():
        location = browser.start_sign_in().location
        started: datetime = clock.now()
        for seconds, status in ((-32, 403), (-29, 302)):
            auth_time = int((started + timedelta(seconds=seconds)).timestamp())
            op.mutate = lambda stage, exchange, auth_time=auth_time: exchange.claims.update(auth_time=auth_time)
            callback = op.authorize(location, "amina")
            with after(timedelta(seconds=45)):
                assert browser.get(callback).status == status
            location = browser.start_sign_in().location


@pytest.mark.parametrize("is_edited", [True, False])
def test_f4_authentication_that_a_link_asks_for_is_verified(
    op: DemoProvider, browser: Browser, is_edited: bool
) -> None:
    """The links on the pages of a person without an account: single sign-on would lead back to that person."""
    assert browser.sign_in(op).status == 302
    remove_session_cookie(browser)
    with after(timedelta(minutes=2)):
        location = browser.get("/oidc/authenticate/?prompt=login").location
        assert asked(location) == ASKED
        request = without_request(location) if is_edited else location
        page = browser.get(op.authorize(request, "amina", cookies=browser.provider_cookies))
    assert [event.reason for event in events(action="login.refused")] == ["auth_time_stale"] * is_edited
    assert page.status == (403 if is_edited else 302)
