"""Step-up under attack: concurrent changes of the session, and hostile requests and provider responses."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import end_session_and_revoke, sweep_revocations
from django_phi_oidc.sessions.token_revocation import reset_backoff
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.guarded_urls import STRONG
from tests.integration.journeys.test_sign_in_faults import DAMAGED_COOKIE, damage_pending_sign_in
from tests.integration.journeys.test_step_up import WEAK, _pages, amina, query_of, rows, set_claim, step_up, to_provider  # noqa: F401 -- fixtures
from tests.integration.journeys.two_providers import Declare, _region_op, clinic, declare, region, sign_in_at  # noqa: F401 -- fixtures
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events
from tests.unit.sessions.test_access_tokens import BlockedRefresh, Caller, at_refresh

pytestmark = pytest.mark.django_db(**EVERYTHING)


def callback_of(browser: Browser, op: DemoProvider, page: str) -> str:
    return op.authorize(to_provider(browser, page).location, "amina", cookies=browser.provider_cookies)


def during_token_request(op: DemoProvider, action: Callable[[], Any]) -> None:
    """Run the action once, while the portal waits for the token response."""

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "token":
            op.intercept = None
            action()

    op.intercept = hook


def reasons() -> list[str]:
    return [event.reason for event in events(action="login.refused")]


def test_session_that_ends_during_the_token_request_stays_ended(
    op: DemoProvider,
    amina: Browser,
) -> None:
    callback = callback_of(amina, op, "/strong/")
    other_tab = Browser(amina.base_url, cookies=dict(amina.cookies))
    during_token_request(op, lambda: other_tab.post("/oidc/logout/"))
    assert (amina.get(callback).status, reasons(), amina.user()) == (403, ["subject_changed"], "")
    assert (len(op.tokens), op.active_tokens, events(action="session.renewed")) == (4, [], [])
    assert Session.objects.count() == 0


def test_concurrent_step_ups_leave_no_active_token_after_logout(
    op: DemoProvider,
    amina: Browser,
) -> None:
    first, second = callback_of(amina, op, "/strong/"), callback_of(amina, op, "/class/")
    other_tab = Browser(amina.base_url, cookies=dict(amina.cookies))
    answers = []
    during_token_request(op, lambda: answers.append(other_tab.get(second).location))
    answers.append(amina.get(first).location)
    assert answers == ["/class/", "/strong/"]
    assert len(events(action="session.renewed")) == 2
    amina.post("/oidc/logout/")
    assert (len(op.tokens), op.active_tokens) == (6, [])
    later = clock.now() + timedelta(seconds=31)
    with clock.override_clock(lambda: later):
        assert other_tab.user() == ""


def test_operator_retry_does_not_revoke_previous_tokens(op: DemoProvider, amina: Browser) -> None:
    step_up(amina, op, "/strong/")
    assert (reset_backoff(now=clock.now()), len(op.active_tokens)) == ([], 4)
    amina.post("/oidc/logout/")
    assert op.active_tokens == []


def test_revocation_of_previous_tokens_is_retried_as_long_as_others(
    op: DemoProvider,
    amina: Browser,
    settings: Any,
) -> None:
    """The time before the session ended does not count as time of retries."""
    settings.PHI_OIDC = override_phi_oidc(
        settings.PHI_OIDC, REVOCATION_GIVE_UP_AFTER=timedelta(hours=1), SESSIONS={"idle_timeout": timedelta(hours=4)}
    )
    step_up(amina, op, "/strong/")
    started = clock.now()
    op.stop()
    try:
        with clock.override_clock(lambda: started + timedelta(hours=2)):
            amina.post("/oidc/logout/")
            assert PendingRevocation.objects.count() == 4
            assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"pending"}
    finally:
        op.start()
    with clock.override_clock(lambda: started + timedelta(hours=2, minutes=30)):
        sweep_revocations()
    assert op.active_tokens == []


def test_auth_time_in_the_future_is_ignored(op: DemoProvider, amina: Browser) -> None:
    """For example, a provider that sends local time. A sign-in that does not need auth_time still succeeds."""

    def set_future_time(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            set_claim("auth_time", lambda it: it["iat"] + 7200)(exchange)

    op.mutate = set_future_time
    assert amina.sign_in(op).status == 302
    op.mutate = None
    assert query_of(to_provider(amina, "/fresh/"))["max_age"] == "300"
    assert [event.reason for event in events(action="access.denied")] == ["auth_time_stale"]
    assert step_up(amina, op, "/fresh/").location == "/fresh/"
    assert amina.get("/fresh/").body == "fresh ran"


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-16"])
def test_charset_of_a_step_up_request_is_ignored(charset: str, op: DemoProvider, amina: Browser) -> None:
    demand_url = amina.get("/strong/").location
    amina.headers["Content-Type"] = f"text/plain; charset={charset}"
    assert amina.get("/oidc/step-up/?demand=x").status == 403
    assert amina.get("/oidc/step-up/?demand=%5Cud800").status == 403
    assert amina.get(demand_url).location.startswith(op.issuer)


def test_unexpected_exception_of_a_step_up_request_is_reported(op: DemoProvider, amina: Browser, settings: Any) -> None:
    demand_url = amina.get("/strong/").location
    configured = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(configured, KEYS={"encryption": []})
    assert (amina.get(demand_url).status, reasons()) == (503, ["key_missing"])
    settings.PHI_OIDC = configured
    damage_pending_sign_in(amina)
    assert (amina.get(demand_url).status, reasons()[1:]) == (500, ["internal_error"])
    amina.cookies.pop(DAMAGED_COOKIE)
    assert amina.get(demand_url).status == 302


REFUSED = Reply(status=400, json={"error": "invalid_grant"})


@pytest.mark.parametrize("answer", [None, REFUSED], ids=["new tokens", "invalid_grant"])
def test_refresh_overtaken_by_a_step_up_changes_nothing(
    answer: Reply | None,
    op: DemoProvider,
    amina: Browser,
) -> None:
    """A provider with one grant per person may refuse the old refresh token after the step-up."""
    session = OIDCSession.objects.get()
    OIDCSession.objects.update(access_token_expires_at=clock.now())
    blocked = BlockedRefresh(answer)
    op.intercept = at_refresh("token", blocked)
    caller = Caller(session.pk)
    assert blocked.reached.wait(10)
    step_up(amina, op, "/strong/")
    blocked.released.set()
    caller.join(20)
    assert amina.get("/strong/").body == "strong ran"
    new = [token.value for token in op.tokens[2:4]]
    session.refresh_from_db()
    assert (session.ended_at, {open_token(session, "access_token"), open_token(session, "refresh_token")}) == (
        None,
        set(new),
    )
    assert caller.got in new
    assert {token.value for token in op.active_tokens} >= set(new)
    amina.post("/oidc/logout/")
    assert op.active_tokens == []


def open_token(session: OIDCSession, column: str) -> str:
    return str(OIDCSession._meta.get_field(column).decrypt(session))


def test_session_that_ends_before_its_new_key_is_stored_stays_ended(
    op: DemoProvider,
    browser: Browser,
    settings: Any,
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "tokens": "discard"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    browser.sign_in(op)
    browser.headers["Accept"] = "text/html"
    callback = callback_of(browser, op, "/strong/")

    session = OIDCSession.objects.get().pk

    def end(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "revocation":
            op.intercept = None
            end_session_and_revoke(session, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
            # The connections of the provider's thread.
            connections.close_all()

    op.intercept = end
    assert browser.get(callback).status == 302
    assert (browser.user(), Session.objects.count(), op.active_tokens) == ("", 0, [])


def test_answer_of_another_provider_does_not_renew_the_session(
    declare: Declare,
    region: DemoProvider,
    clinic: DemoProvider,
    browser: Browser,
) -> None:
    sign_in_at(browser, "region", region)
    browser.headers["Accept"] = "text/html"
    leaving = to_provider(browser, "/strong/").location
    callback = region.authorize(leaving, "amina", cookies=browser.provider_cookies)
    before = rows()
    page = browser.get(callback.replace("/oidc/region/", "/oidc/clinic/"))
    assert (page.status, reasons(), rows()) == (403, ["state_unknown"], before)
    assert step_up(browser, region, "/strong/").location == "/strong/"


def test_step_up_never_accepts_an_acr_below_the_sign_in_minimum(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "acr_values": [STRONG]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        op.mutate = lambda endpoint, exchange: set_claim("acr", WEAK)(exchange) if endpoint == "id_token" else None
        assert step_up(browser, op, "/either/").location.startswith(op.issuer), "the sign-in is requested again"
        assert (reasons(), OIDCSession.objects.get().acr) == (["acr_insufficient"], STRONG)
        op.mutate = None
        leaving = to_provider(browser, "/either/")
        assert query_of(leaving)["acr_values"] == STRONG
        callback = op.authorize(leaving.location, "amina", cookies=browser.provider_cookies)
        assert browser.get(callback).location == "/either/"
