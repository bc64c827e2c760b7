"""Throttled refusals: which get an event, and the events of the others when the minute is over."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox, RefusalCount
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.audit.throttling import (
    FLUSH_DELAY,
    MAX_EVENTS_PER_SENDER,
    MAX_EVENTS_TOTAL,
    allow_event,
    flush_refusal_counts,
    get_sender_network,
    list_sender_networks,
)
from django_phi_oidc.errors import AuditUnavailable, KeyMissing
from tests.support.phi_oidc_settings import override_phi_oidc

MINUTE = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)
NOW = MINUTE + timedelta(seconds=9, microseconds=70)
OVER = MINUTE + timedelta(minutes=1) + FLUSH_DELAY
HERE, THERE = "198.51.100.1", "198.51.100.2"
Recorded = list[tuple[str, str, str, dict[str, Any], datetime]]


def refused(count: int, reason: str = "state_unknown", client_ip: str = HERE, now: datetime = NOW) -> int:
    """Return how many of the refusals get an event."""
    return sum(allow_event(reason, client_ip, now=now) for _ in range(count))


def recorded() -> Recorded:
    return [
        (event.action, event.reason, event.client_ip, json.loads(event.detail), event.occurred_at)
        for event in AuditEvent.objects.order_by("action", "reason", "client_ip", "detail")
    ]


def summary(count: int, reason: str = "state_unknown", client_ip: str = HERE) -> Any:
    return ("login.refused", reason, client_ip, {"count": count}, MINUTE + timedelta(minutes=1))


def alert(count: int, reason: str = "state_unknown") -> Any:
    return ("alert.raised", reason, "", {"rule": "refusal_burst", "count": count}, MINUTE + timedelta(minutes=1))


def at_once(function: Callable[[], Any], threads: int = 8) -> list[Any]:
    """Run function in threads that start at the same time, and return the results."""
    barrier = threading.Barrier(threads)

    def run() -> Any:
        try:
            barrier.wait(timeout=20)
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run) for _ in range(threads)]]


@pytest.mark.parametrize(
    ("client_ip", "network"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("2001:0DB8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("", "unknown"),
        ("a-host", "unknown"),
    ],
)
def test_sender_network_of_an_address(client_ip: str, network: str) -> None:
    assert get_sender_network(client_ip) == network


@pytest.mark.parametrize(
    ("client_ip", "networks"),
    [
        ("198.51.100.1", ["198.51.100.1"]),
        ("::ffff:198.51.100.1", ["198.51.100.1"]),
        ("2001:db8:1:23ff::9", ["2001:db8:1:23ff::/64", "2001:db8:1:2300::/56", "2001:db8:1::/48"]),
        ("a-host", ["unknown"]),
    ],
)
def test_sender_networks_of_an_address_from_the_smallest(client_ip: str, networks: list[str]) -> None:
    assert list_sender_networks(client_ip) == networks


# Which refusals get an event


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("other", "allowed"),
    [
        ({}, 0),
        ({"client_ip": THERE}, 20),
        ({"reason": "state_missing"}, 20),
        ({"now": MINUTE + timedelta(minutes=1)}, 20),
        ({"now": MINUTE + timedelta(seconds=59, microseconds=999999)}, 0),
    ],
    ids=["the same", "another address", "another reason", "the next minute", "the same minute's end"],
)
def test_twenty_events_a_minute_per_reason_and_address(other: dict[str, Any], allowed: int) -> None:
    assert refused(25) == 20
    assert refused(25, **other) == allowed


@pytest.mark.django_db
def test_addresses_of_one_ipv6_64_count_as_one_sender() -> None:
    assert sum(refused(1, client_ip=f"2001:db8::{number:x}:1") for number in range(25)) == 20
    assert refused(25, client_ip="2001:db8:0:1::1") == 20


@pytest.mark.django_db
def test_unknown_addresses_count_as_one_sender() -> None:
    assert refused(12, client_ip="") + refused(13, client_ip="a-host") == 20


@pytest.mark.django_db
def test_six_hundred_events_a_minute_in_total_and_no_more_rows() -> None:
    addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(700)]
    assert sum(refused(1, client_ip=address) for address in addresses) == MAX_EVENTS_TOTAL
    assert refused(1, "state_missing", THERE) == 0, "for any reason"
    counts = RefusalCount.objects.all()
    assert counts.exclude(network="").count() == MAX_EVENTS_TOTAL
    assert set(counts.filter(network="").values_list("reason", "count")) == {
        *(("", 600), ("state_unknown", 100), ("state_missing", 1))
    }
    assert refused(1, now=NOW + timedelta(minutes=1)) == 1


@pytest.mark.django_db(transaction=True)
def test_allow_event_makes_three_autocommitted_statements() -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        assert allow_event("state_unknown", HERE, now=NOW) is True
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "INSERT", "INSERT"]


@pytest.mark.django_db(transaction=True)
def test_counts_of_a_rolled_back_transaction_are_undone() -> None:
    with transaction.atomic():
        assert refused(20) == 20
        transaction.set_rollback(True)
    assert refused(25) == 20


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("inside", [False, True], ids=["in autocommit", "in a transaction"])
def test_event_is_allowed_without_the_table_and_the_transaction_stays_usable(
    inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(old: str, new: str) -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(RefusalCount._meta.db_table, "away")
    try:
        if inside:
            with transaction.atomic():
                assert refused(25) == 25
                get_user_model().objects.create_user("somebody")
            assert get_user_model().objects.count() == 1
        else:
            assert refused(25) == 25
    finally:
        rename("away", RefusalCount._meta.db_table)
    assert caplog.text.count("can't be counted") == 25


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_counts_of_one_sender_are_exact() -> None:
    assert sum(at_once(lambda: refused(10))) == MAX_EVENTS_PER_SENDER
    row = RefusalCount.objects.get(network=HERE)
    assert (row.minute, row.reason, row.count) == (MINUTE, "state_unknown", 80)
    assert RefusalCount.objects.get(network="").count == MAX_EVENTS_PER_SENDER


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_refusals_exceed_the_total_by_at_most_seven() -> None:
    RefusalCount.objects.create(minute=MINUTE, reason="", network="", count=MAX_EVENTS_TOTAL - 5)
    numbers = iter(range(80))
    allowed = sum(at_once(lambda: sum(refused(1, client_ip=f"10.0.0.{next(numbers)}") for _ in range(10))))
    assert 5 <= allowed <= 5 + 7
    counted = sum(RefusalCount.objects.exclude(reason="").values_list("count", flat=True))
    assert counted == 80, "each refusal is counted in one row"


# Events that are written when the minute is over


@pytest.mark.django_db(transaction=True)
def test_flush_writes_one_event_per_sender_and_one_alert_per_reason() -> None:
    refused(25)
    refused(23, client_ip="2001:db8::1")
    refused(22, "state_missing", client_ip="")
    refused(20, "state_missing", client_ip=THERE)
    assert recorded() == []
    assert flush_refusal_counts(now=OVER) == 10
    assert recorded() == [
        alert(2, "state_missing"),
        alert(8),
        summary(2, "state_missing", ""),
        summary(5),
        summary(3, client_ip="2001:db8::/64"),
    ]
    assert set(AuditEvent.objects.filter(action="login.refused").values_list("outcome", "provider", "request_id")) == {
        ("failure", "", "")
    }
    assert not RefusalCount.objects.exists()
    assert flush_refusal_counts(now=OVER) == 0
    assert len(recorded()) == 5


@pytest.mark.django_db(transaction=True)
def test_flush_of_refusals_beyond_the_total_has_no_address() -> None:
    RefusalCount.objects.create(minute=MINUTE, reason="", network="", count=MAX_EVENTS_TOTAL)
    refused(3)
    refused(4, client_ip=THERE)
    assert flush_refusal_counts(now=OVER) == 7
    assert recorded() == [alert(7), summary(7, client_ip="")]


@pytest.mark.django_db(transaction=True)
def test_flush_of_a_minute_without_a_burst_writes_nothing_and_deletes_its_counts() -> None:
    refused(20)
    assert flush_refusal_counts(now=OVER) == 0
    assert (recorded(), RefusalCount.objects.count()) == ([], 0)


@pytest.mark.django_db(transaction=True)
def test_flush_skips_a_minute_that_may_still_get_counts() -> None:
    refused(25)
    assert flush_refusal_counts(now=OVER - timedelta(microseconds=1)) == 0
    assert RefusalCount.objects.get(network=HERE).count == 25
    refused(25, now=NOW + timedelta(minutes=1))
    assert flush_refusal_counts(now=OVER) == 5
    assert RefusalCount.objects.get(network=HERE).minute == MINUTE + timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_flush_of_two_minutes_writes_the_time_of_each() -> None:
    refused(25)
    refused(21, now=NOW + timedelta(minutes=1))
    assert flush_refusal_counts(now=OVER + timedelta(hours=1)) == 6
    at = [(event.occurred_at, json.loads(event.detail)["count"]) for event in AuditEvent.objects.order_by("id")]
    first, second = MINUTE + timedelta(minutes=1), MINUTE + timedelta(minutes=2)
    assert at == [(first, 5), (first, 5), (second, 1), (second, 1)]


@pytest.mark.django_db(transaction=True)
def test_flush_that_fails_halfway_keeps_all_counts_and_writes_nothing(settings: Any) -> None:
    refused(25)
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"audit_mac": []})
    with pytest.raises(KeyMissing):
        flush_refusal_counts(now=OVER)
    assert (AuditOutbox.objects.count(), RefusalCount.objects.get(network=HERE).count) == (0, 25)
    settings.PHI_OIDC = declared
    assert flush_refusal_counts(now=OVER) == 5


def test_flush_without_the_audit_database_leaves_events_in_the_outbox(
    audit_database_away: Callable[[], Any],
) -> None:
    refused(25)
    with audit_database_away():
        assert flush_refusal_counts(now=OVER) == 5
    assert (AuditOutbox.objects.count(), RefusalCount.objects.count()) == (2, 0)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_flushes_write_each_count_once() -> None:
    for number in range(10):
        refused(21 + number, client_ip=f"10.0.0.{number}")
    assert sum(at_once(lambda: flush_refusal_counts(now=OVER))) == sum(range(1, 11))
    drain_outbox()
    assert sorted(row[3]["count"] for row in recorded()) == [*range(1, 11), 55]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_flush_concurrent_with_counting_loses_no_count() -> None:
    """A clock that lags: late refusals start the minute again, and each gets an event or is counted in one."""
    done = threading.Event()

    def flush_on() -> int:
        try:
            flushed = 0
            while not done.is_set():
                flushed += flush_refusal_counts(now=OVER)
            return flushed
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        flushers = [pool.submit(flush_on) for _ in range(2)]
        try:
            allowed = sum(at_once(lambda: refused(50), threads=4))
        finally:
            done.set()
        flushed = sum(flusher.result(timeout=60) for flusher in flushers)
    assert allowed + flushed + flush_refusal_counts(now=OVER) == 200


@pytest.mark.django_db(transaction=True)
def test_drain_outbox_task_flushes_counts_first() -> None:
    refused(25)
    with clock.override_clock(lambda: OVER):
        drain_outbox()
    assert recorded() == [alert(5), summary(5)]
    assert AuditOutbox.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_drain_outbox_task_moves_events_if_counts_cannot_be_flushed(
    audit_database_away: Callable[[], Any], settings: Any
) -> None:
    refused(25)
    with audit_database_away():
        flush_refusal_counts(now=OVER)
        with pytest.raises(AuditUnavailable):
            drain_outbox()
    assert AuditOutbox.objects.count() == 2
    refused(25)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    with clock.override_clock(lambda: OVER), pytest.raises(KeyMissing):
        drain_outbox()
    assert (AuditOutbox.objects.count(), len(recorded())) == (0, 2)
