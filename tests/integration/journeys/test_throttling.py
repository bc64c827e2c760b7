"""A flood of refusals: the first ones of each minute are events, the others are only counted."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import RefusalCount
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.audit.throttling import FLUSH_DELAY
from django_phi_oidc.signals import sign_in_refused
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.test_rule_refusals import change_query
from tests.support.http_browser import Browser, PortalResponse
from tests.support.log_capture import capture_all_logs
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)

UNKNOWN_STATE = "/oidc/callback/?state=x&code=y"
UNKNOWN_PROVIDER = "/oidc/undeclared/authenticate/"


@pytest.fixture(autouse=True)
def _behind_a_proxy(settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "TRUSTED_PROXIES": ["127.0.0.0/8"]}


@pytest.fixture(autouse=True)
def minute() -> Iterator[Callable[[float], Any]]:
    """Stop the clock and return a function that advances it by seconds."""
    at = [datetime.now(UTC)]

    def advance(seconds: float) -> None:
        at[0] += timedelta(seconds=seconds)

    with clock.override_clock(lambda: at[0]):
        yield advance


def browser_from(portal: str, address: str) -> Browser:
    return Browser(portal, headers={"X-Forwarded-For": address})


def refuse(browser: Browser, times: int, url: str = UNKNOWN_STATE) -> list[PortalResponse]:
    pages = [browser.get(url) for _ in range(times)]
    assert {page.status for page in pages} == {403}
    return pages


def reasons() -> list[tuple[str, str]]:
    return [(event.reason, event.client_ip) for event in events(action="login.refused")]


def reference(page: PortalResponse) -> str:
    match = re.search(r"<code>(.*?)</code>", page.body)
    assert match
    return match[1]


@contextmanager
def signals() -> Iterator[list[Any]]:
    received: list[Any] = []

    def receive(**arguments: Any) -> None:
        received.append(arguments["reference"])

    sign_in_refused.connect(receive)
    yield received
    sign_in_refused.disconnect(receive)


def test_flood_from_one_address_is_twenty_events_then_a_summary_and_an_alert(
    op: DemoProvider, portal: str, minute: Callable[[float], Any]
) -> None:
    started = clock.now()
    with capture_all_logs() as log, signals() as received:
        pages = refuse(browser_from(portal, "198.51.100.1"), 25)
    assert reasons() == [("state_unknown", "198.51.100.1")] * 20
    assert {re.sub(r"<code>.*?</code>", "", page.body) for page in pages} == {
        re.sub(r"<code>.*?</code>", "", pages[0].body)
    }
    # Page, signal and log have the same reference: the id of the event, or a random one of the same form.
    references = [reference(page) for page in pages]
    assert received == references
    logged = [
        line.rpartition("reference=")[2].partition(".")[0] for line in log.lines if "django_phi_oidc.login:" in line
    ]
    assert logged == references
    assert set(references[:20]) == {str(event.id) for event in events()}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", item) for item in references)
    assert len(set(references)) == 25

    minute(60 + FLUSH_DELAY.total_seconds())
    drain_outbox()
    (summary,) = events(action="login.refused", detail__contains="count")
    (alert,) = events(action="alert.raised")
    assert (summary.reason, summary.client_ip, json.loads(summary.detail)) == (
        *("state_unknown", "198.51.100.1"),
        {"count": 5},
    )
    assert (alert.reason, json.loads(alert.detail)) == ("state_unknown", {"rule": "refusal_burst", "count": 5})
    assert summary.occurred_at == alert.occurred_at == started.replace(second=0, microsecond=0) + timedelta(minutes=1)
    refuse(browser_from(portal, "198.51.100.1"), 1)
    assert len(reasons()) == 22


@pytest.mark.parametrize(
    ("first", "second", "written"),
    [
        ("198.51.100.1", "198.51.100.2", 40),
        ("2001:db8::1", "2001:db8:0:1::1", 40),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 20),
    ],
    ids=["another address", "another /64", "the same /64"],
)
def test_flood_from_one_network_does_not_throttle_another(
    first: str, second: str, written: int, op: DemoProvider, portal: str
) -> None:
    refuse(browser_from(portal, first), 22)
    refuse(browser_from(portal, second), 22)
    assert len(reasons()) == written


def test_flood_of_one_reason_does_not_throttle_another(op: DemoProvider, portal: str) -> None:
    browser = browser_from(portal, "198.51.100.1")
    for url in (UNKNOWN_STATE, UNKNOWN_PROVIDER, "/oidc/callback/"):
        refuse(browser, 21, url)
    assert sorted(reasons()) == sorted(
        (reason, "198.51.100.1") for reason in ("state_unknown", "provider_unknown", "state_missing") for _ in range(20)
    )


def test_refusals_that_use_up_a_state_are_not_throttled(op: DemoProvider, portal: str) -> None:
    browser = browser_from(portal, "198.51.100.1")
    refuse(browser, 21)
    for _ in range(30):
        assert browser.get(change_query(browser.get_callback_url(op), error="access_denied")).status == 403
    by_reason = [reason for reason, _ in reasons()]
    assert {reason: by_reason.count(reason) for reason in by_reason} == {"state_unknown": 20, "provider_error": 30}


def test_d8_replays_of_a_used_state_are_throttled(op: DemoProvider, portal: str) -> None:
    browser = browser_from(portal, "198.51.100.1")
    used = browser.get_callback_url(op)
    assert browser.get(used).status == 302
    refuse(browser_from(portal, "198.51.100.2"), 25, used)  # without the cookie of the sign-in
    refuse(browser_from(portal, "198.51.100.3"), 1, used)
    by_address = [address for reason, address in reasons() if reason == "state_replayed"]
    assert [by_address.count(f"198.51.100.{number}") for number in (2, 3)] == [20, 1]


def test_d8_refusals_with_an_expired_state_are_throttled(
    op: DemoProvider, portal: str, minute: Callable[[float], Any]
) -> None:
    browser = browser_from(portal, "198.51.100.1")
    callback, cookies = browser.get_callback_url(op), dict(browser.cookies)
    minute(601)
    for _ in range(25):
        browser.cookies = dict(cookies)
        assert browser.get(callback).status == 403
    assert [reason for reason, _ in reasons()] == ["state_expired"] * 20


def test_refusals_while_the_provider_is_unreachable_are_throttled(op: DemoProvider, settings: Any, portal: str) -> None:
    unreachable = {**settings.PHI_OIDC["PROVIDERS"]["default"], "issuer": "http://127.0.0.1:1"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": unreachable}}
    browser = browser_from(portal, "198.51.100.1")
    assert {browser.start_sign_in().status for _ in range(22)} == {503}
    assert reasons() == [("transport_unreachable", "198.51.100.1")] * 20


def test_internal_errors_before_a_state_is_known_are_throttled(op: DemoProvider, settings: Any, portal: str) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.test_sign_in_failures"
    browser = browser_from(portal, "198.51.100.1")
    assert {browser.start_sign_in().status for _ in range(22)} == {500}
    assert reasons() == [("internal_error", "198.51.100.1")] * 20


def test_refusals_while_keys_are_missing_are_throttled(op: DemoProvider, settings: Any, portal: str) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    browser = browser_from(portal, "198.51.100.1")
    assert {browser.start_sign_in().status for _ in range(22)} == {503}
    assert reasons() == [("key_missing", "198.51.100.1")] * 20


def test_flood_from_all_networks_is_limited_to_six_hundred_events(op: DemoProvider, portal: str) -> None:
    minute = clock.now().replace(second=0, microsecond=0)
    RefusalCount.objects.create(minute=minute, reason="", network="", count=598)
    for number in range(6):
        refuse(browser_from(portal, f"198.51.100.{number}"), 1)
    assert len(reasons()) == 2


def test_refusals_are_events_while_the_counter_is_unavailable(op: DemoProvider, portal: str) -> None:
    def rename(old: str, new: str) -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(RefusalCount._meta.db_table, "away")
    try:
        refuse(browser_from(portal, "198.51.100.1"), 22)
    finally:
        rename("away", RefusalCount._meta.db_table)
    assert len(reasons()) == 22
