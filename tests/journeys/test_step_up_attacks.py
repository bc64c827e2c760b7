"""Step-up under attack: what else happens to the session meanwhile, and what a request or a provider may bring."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session

from django_phi_oidc import clock
from django_phi_oidc.attack.op import DemoProvider, Exchange
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.sessions.revoking import make_due
from django_phi_oidc.sessions.tasks import sweep_revocations

from .browser import Browser
from .conftest import EVERYTHING, events
from .test_step_up import _pages, amina, asked, set_claim, step_up, to_provider  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(**EVERYTHING)


def callback_of(browser: Browser, op: DemoProvider, page: str) -> str:
    return op.authorize(to_provider(browser, page).location, "amina", cookies=browser.op_cookies)


def meanwhile(op: DemoProvider, act: Callable[[], Any]) -> None:
    """Let that happen once, while the portal waits for the tokens."""

    def hook(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "token":
            op.intercept = None
            act()

    op.intercept = hook


def reasons() -> list[str]:
    return [event.reason for event in events(action="login.refused")]


def test_session_that_ends_while_the_provider_is_asked_stays_ended(
    op: DemoProvider,
    amina: Browser,  # noqa: F811 -- the fixture
) -> None:
    callback = callback_of(amina, op, "/strong/")
    other_tab = Browser(amina.base, cookies=dict(amina.cookies))
    meanwhile(op, lambda: other_tab.post("/oidc/logout/"))
    assert (amina.get(callback).status, reasons(), amina.user()) == (403, ["subject_changed"], "")
    assert (len(op.tokens), op.live_tokens, events(action="session.renewed")) == (4, [], [])
    assert Session.objects.count() == 0


def test_two_step_ups_at_once_leave_no_token_alive_behind_them(
    op: DemoProvider,
    amina: Browser,  # noqa: F811
) -> None:
    first, second = callback_of(amina, op, "/strong/"), callback_of(amina, op, "/class/")
    other_tab = Browser(amina.base, cookies=dict(amina.cookies))
    answers = []
    meanwhile(op, lambda: answers.append(other_tab.get(second).location))
    answers.append(amina.get(first).location)
    assert answers == ["/class/", "/strong/"]
    assert len(events(action="session.renewed")) == 2
    amina.post("/oidc/logout/")
    assert (len(op.tokens), op.live_tokens) == (6, [])
    later = clock.now() + timedelta(seconds=31)
    with clock.running(lambda: later):
        assert other_tab.user() == ""


def test_tokens_of_before_outlive_a_retry_of_an_operator(op: DemoProvider, amina: Browser) -> None:  # noqa: F811
    step_up(amina, op, "/strong/")
    assert (make_due(now=clock.now()), len(op.live_tokens)) == ([], 4)
    amina.post("/oidc/logout/")
    assert op.live_tokens == []


def test_tokens_of_before_are_tried_as_long_as_others(
    op: DemoProvider,
    amina: Browser,  # noqa: F811
    settings: Any,
) -> None:
    """The hours for which they were kept are none in which the provider was asked."""
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "REVOCATION_GIVE_UP_AFTER": timedelta(hours=1),
        "IDLE_TIMEOUT": timedelta(hours=4),
    }
    step_up(amina, op, "/strong/")
    started = clock.now()
    op.stop()
    try:
        with clock.running(lambda: started + timedelta(hours=2)):
            amina.post("/oidc/logout/")
            assert PendingRevocation.objects.count() == 4
            assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"pending"}
    finally:
        op.start()
    with clock.running(lambda: started + timedelta(hours=2, minutes=30)):
        sweep_revocations()
    assert op.live_tokens == []


def test_auth_time_that_lies_ahead_says_nothing(op: DemoProvider, amina: Browser) -> None:  # noqa: F811
    """As of a provider that tells its local time. A sign-in that nobody asks for one is none the worse for it."""

    def ahead(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "id_token":
            set_claim("auth_time", lambda it: it["iat"] + 7200)(exchange)

    op.mutate = ahead
    assert amina.sign_in(op).status == 302
    op.mutate = None
    assert asked(to_provider(amina, "/fresh/"))["max_age"] == "300"
    assert [event.reason for event in events(action="access.denied")] == ["auth_time_stale"]
    assert step_up(amina, op, "/fresh/").location == "/fresh/"
    assert amina.get("/fresh/").body == "fresh ran"


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-16"])
def test_charset_of_a_request_is_not_asked_at_the_door(charset: str, op: DemoProvider, amina: Browser) -> None:  # noqa: F811
    door = amina.get("/strong/").location
    amina.headers["Content-Type"] = f"text/plain; charset={charset}"
    assert amina.get("/oidc/step-up/?demand=x").status == 403
    assert amina.get("/oidc/step-up/?demand=%5Cud800").status == 403
    assert amina.get(door).location.startswith(op.issuer)


def test_unforeseen_fault_at_the_door_is_told(op: DemoProvider, amina: Browser, settings: Any) -> None:  # noqa: F811
    door = amina.get("/strong/").location
    configured = settings.PHI_OIDC
    settings.PHI_OIDC = {**configured, "ENCRYPTION_KEYS": []}
    assert (amina.get(door).status, reasons()) == (500, ["internal_error"])
    settings.PHI_OIDC = configured
    assert amina.get(door).status == 302
