"""A provider that is overloaded or being maintained, over real sockets: the page says when to try again."""

from typing import Any

import pytest

from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.rule_codes import shows
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]
ENDPOINTS = {"discovery": "provider_unavailable", "jwks": "provider_unavailable"} | {"par": "par_error"}
ENDPOINTS["token"] = "token_error"


def fail_at(op: DemoProvider, at: str, *, status: int, headers: dict[str, str]) -> None:
    op.par = "offered" if at == "par" else "off"
    reply = Reply(status=status, headers=headers)

    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        return reply if endpoint == at else None

    op.intercept = hook


def sign_in(op: DemoProvider, browser: Browser, at: str) -> PortalResponse:
    return browser.start_sign_in() if at in ("discovery", "par") else browser.sign_in(op)


@shows("provider_unavailable")
@pytest.mark.parametrize("at", ENDPOINTS)
@pytest.mark.parametrize("status", [429, 503])
def test_page_says_when_to_try_again_and_trying_again_works(
    op: DemoProvider, browser: Browser, at: str, status: int
) -> None:
    fail_at(op, at, status=status, headers={"Retry-After": "90"})
    page = sign_in(op, browser, at)
    (event,) = events(action="login.refused")
    assert (page.status, event.reason) == (503, ENDPOINTS[at])
    assert "Please try again in 2 minutes." in page.body
    assert page.join_header_values("Retry-After") == "90"
    assert op.active_tokens == []
    op.intercept = None
    assert browser.sign_in(op).status == 302


@pytest.mark.parametrize(
    ("header", "text", "seconds"),
    [
        ("1", "in 1 minute.", "1"),
        ("3600", "in 60 minutes.", "3600"),
        ("999999999", "in 1440 minutes.", "86400"),
        ("0", "in a few minutes.", ""),
        ("-5", "in a few minutes.", ""),
        ("<script>alert(1)</script>", "in a few minutes.", ""),
        ("", "in a few minutes.", ""),
    ],
)
def test_time_to_wait_is_shown_only_if_it_is_one(
    op: DemoProvider, browser: Browser, header: str, text: str, seconds: str
) -> None:
    fail_at(op, "discovery", status=503, headers={"Retry-After": header} if header else {})
    page = browser.start_sign_in()
    assert f"Please try again {text}" in page.body
    assert "<script>" not in page.body
    assert page.join_header_values("Retry-After") == seconds


@pytest.mark.parametrize("at", ["par", "token"])
def test_refusal_of_the_client_is_no_outage(op: DemoProvider, browser: Browser, at: str) -> None:
    fail_at(op, at, status=400, headers={"Retry-After": "90"})
    page: Any = sign_in(op, browser, at)
    assert (page.status, page.join_header_values("Retry-After")) == (403, "")
    assert "Please try again in" not in page.body
