"""A server whose clock is wrong refuses sign-ins, ends no session late, and works when the clock is right again."""

from contextlib import AbstractContextManager
from datetime import timedelta

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
HOUR, SECONDS = timedelta(hours=1), timedelta(seconds=20)


@pytest.fixture(autouse=True)
def _provider_keeps_its_clock(op: DemoProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op.state, "clock", clock._get_system_time)


def clock_differs(difference: timedelta) -> AbstractContextManager[None]:
    """Change the clock of the portal in the block."""
    return clock.override_clock(lambda: clock._get_system_time() + difference)


@pytest.mark.parametrize(("difference", "reason"), [(HOUR, "exp_invalid"), (-HOUR, "iat_invalid")])
def test_sign_in_at_a_server_with_a_wrong_clock_is_refused_until_it_is_right(
    difference: timedelta, reason: str, op: DemoProvider, browser: Browser
) -> None:
    with clock_differs(difference):
        page = browser.sign_in(op)
    assert page.status == 403
    assert "We could not sign you in safely" in page.body
    assert [event.reason for event in events(action="login.refused")] == [reason]
    assert op.tokens != []
    assert op.active_tokens == []
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""


@pytest.mark.parametrize("difference", [SECONDS, -SECONDS])
def test_sign_in_at_a_server_whose_clock_differs_by_seconds_is_accepted(
    difference: timedelta, op: DemoProvider, browser: Browser
) -> None:
    with clock_differs(difference):
        assert browser.sign_in(op).status == 302
    assert browser.user() != ""


def test_clock_that_jumps_ahead_ends_a_session_early_and_its_tokens_are_revoked(
    op: DemoProvider, browser: Browser
) -> None:
    browser.sign_in(op)
    with clock_differs(HOUR):
        assert browser.user() == ""
    assert OIDCSession.objects.get().end_reason == "idle_timeout"
    assert op.active_tokens == []
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
