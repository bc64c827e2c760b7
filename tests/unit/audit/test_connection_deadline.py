"""The deadline of statements on a PostgreSQL connection that hangs: a relay that stops forwarding."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connections, transaction

from django_phi_oidc.audit.connection_deadline import connection_deadline
from tests.integration.journeys.tcp_relay import Relay, relay_to
from tests.support.postgresql import given_url

ALIAS = "phi_audit"
MARGIN_SECONDS = 2.0
"""For a loaded machine."""
pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True, databases=["default", ALIAS])]


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Connect the alias through a relay, in this thread, for the duration of the test."""
    with relay_to(given_url(os.environ)) as relay:
        original = connections[ALIAS]
        connections[ALIAS] = through = original.copy()
        through.settings_dict |= {"HOST": "127.0.0.1", "PORT": str(relay.port)}
        through.settings_dict["OPTIONS"] = {}
        try:
            yield relay
        finally:
            connections[ALIAS].close()
            connections[ALIAS] = original


def query(seconds: float) -> Any:
    with connection_deadline(seconds, using=ALIAS), connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT 7")
        return cursor.fetchone()[0]


def assert_fails_in_time(seconds: float) -> None:
    started_at = time.monotonic()
    with pytest.raises((OperationalError, InterfaceError)):
        query(seconds)
    assert seconds - 0.1 < time.monotonic() - started_at < seconds + MARGIN_SECONDS


def test_d6_statement_on_an_open_connection_that_hangs_fails_at_the_deadline(relay: Relay) -> None:
    assert query(20) == 7
    with relay.hangs():
        assert_fails_in_time(0.5)
    connections[ALIAS].close()
    assert query(20) == 7


def test_d6_new_connection_that_hangs_fails_at_the_deadline(relay: Relay) -> None:
    with relay.hangs():
        assert_fails_in_time(0.5)
    assert query(20) == 7


def test_d6_health_check_of_a_connection_that_hangs_fails_at_the_deadline(relay: Relay) -> None:
    connection: Any = connections[ALIAS]
    connection.settings_dict["CONN_HEALTH_CHECKS"] = True
    assert query(20) == 7
    connection.close_if_unusable_or_obsolete()  # as at the end of a request; CONN_MAX_AGE is 0, so it is open no more
    connection.settings_dict["CONN_MAX_AGE"] = None
    assert query(20) == 7
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is not None
    with relay.hangs():
        assert_fails_in_time(0.5)
    connection.close()
    assert query(20) == 7


def test_d6_transaction_on_a_connection_that_hangs_fails_at_the_deadline(relay: Relay) -> None:
    def run() -> None:
        with connection_deadline(0.5, using=ALIAS), transaction.atomic(using=ALIAS):
            connections[ALIAS].cursor().execute("SELECT 7")
            with relay.hangs():
                connections[ALIAS].cursor().execute("SELECT 7")

    started_at = time.monotonic()
    with pytest.raises(OperationalError):
        run()
    assert time.monotonic() - started_at < 0.5 + MARGIN_SECONDS
    assert query(20) == 7


def test_d6_connection_is_usable_after_a_block_that_ended_in_time(relay: Relay) -> None:
    assert query(0.5) == 7
    driver_connection = connections[ALIAS].connection
    time.sleep(0.7)
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT 8")
        assert cursor.fetchone() == (8,)
    assert connections[ALIAS].connection is driver_connection


@pytest.mark.parametrize(("outer", "inner"), [(0.5, 20.0), (20.0, 0.5)])
def test_d6_the_earlier_of_two_nested_deadlines_counts(relay: Relay, outer: float, inner: float) -> None:
    with connection_deadline(outer, using=ALIAS):
        assert query(20) == 7
        with relay.hangs():
            started_at = time.monotonic()
            with pytest.raises((OperationalError, InterfaceError)):
                query(inner)
            assert time.monotonic() - started_at < 0.5 + MARGIN_SECONDS


def test_d6_outer_deadline_counts_again_after_an_inner_block(relay: Relay) -> None:
    with connection_deadline(1.0, using=ALIAS), connections[ALIAS].cursor() as cursor:
        assert query(0.5) == 7
        with relay.hangs():
            started_at = time.monotonic()
            with pytest.raises((OperationalError, InterfaceError)):
                cursor.execute("SELECT 8")
            assert 0.7 < time.monotonic() - started_at < 1.0 + MARGIN_SECONDS


def test_d6_server_that_refuses_connections_fails_at_once(relay: Relay) -> None:
    relay.go_down()
    started_at = time.monotonic()
    with pytest.raises(OperationalError):
        query(20)
    assert time.monotonic() - started_at < 5
    relay.come_back()
    assert query(20) == 7


@pytest.mark.without_pooler("it counts the connections of the server")
def test_d6_late_connection_is_closed(relay: Relay) -> None:
    with relay.hangs():
        assert_fails_in_time(0.2)
    # The relay forwards again, so the abandoned attempt succeeds.
    ends_at = time.monotonic() + 10
    while time.monotonic() < ends_at and any(t.name == "phi_oidc connection" for t in threading.enumerate()):
        time.sleep(0.05)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        (count,) = cursor.fetchone()
    assert count == 1
    assert connections[ALIAS].connection is None


def test_d6_no_descriptor_is_left_open(relay: Relay) -> None:
    assert query(20) == 7
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert query(20) == 7
    assert len(os.listdir("/proc/self/fd")) == before
