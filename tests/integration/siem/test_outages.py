"""Outages of collectors on real sockets: each event arrives at least once, in order, none missing."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from django_phi_oidc.audit.models import AuditWitness, SetAsideEvent
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.contrib.siem.delivery import DeliveryResult, deliver
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.refused_items import LogSink
from django_phi_oidc.contrib.siem.sinks import create_sink
from tests.support.sealed_events import Clock, first_receipts, seal, sealed_order
from tests.support.siem_collectors import Collector, SyslogServer, collector, syslog_server
from tests.support.tls import CertificateAuthority

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@dataclass
class Outside:
    """A collector, its sink, and what it has received, named as in `sealed_order`."""

    server: SyslogServer | Collector
    sink: LogSink
    received: Callable[[], list[str]]


def name_of(members: dict[str, Any]) -> str:
    """Return the name of a line of native JSON."""
    if "id" in members:
        return str(members["id"])
    return f"checkpoint-{members['epoch']}-{members['tree_size']}"


@contextmanager
def syslog(authority: CertificateAuthority, **options: Any) -> Iterator[Outside]:
    with syslog_server(authority.create_server_context("127.0.0.1")) as server:

        def received() -> list[str]:
            texts = (message.decode() for message in server.messages)
            return [name_of(json.loads(re.sub(r"^[^\[]*\[.*?\] \ufeff?", "", text))) for text in texts]

        raw = {
            "type": "syslog",
            "host": "127.0.0.1",
            "port": server.port,
            "ca_bundle": authority.certificate_path,
            **options,
        }
        yield Outside(server, create_sink(parse_sink("siem", raw), hostname="portal-1"), received)


@contextmanager
def https(authority: CertificateAuthority, **options: Any) -> Iterator[Outside]:
    with collector(authority.create_server_context("127.0.0.1")) as server:

        def received() -> list[str]:
            return [name_of(json.loads(line)) for body in server.bodies for line in body.splitlines()]

        url = f"https://127.0.0.1:{server.port}/ingest"
        raw = {"type": "https", "url": url, "ca_bundle": authority.certificate_path, **options}
        yield Outside(server, create_sink(parse_sink("siem", raw), hostname="portal-1"), received)


@contextmanager
def fhir(authority: CertificateAuthority, **options: Any) -> Iterator[Outside]:
    with https(authority, format="fhir", **options) as outside:
        server = outside.server
        assert isinstance(server, Collector)

        def received() -> list[str]:
            return [entry["resource"]["id"] for body in server.bodies for entry in json.loads(body)["entry"]]

        outside.received = received
        yield outside


TRANSPORTS = {"syslog": syslog, "https": https, "fhir": fhir}
FAULTS: dict[str, list[Any]] = {
    "syslog": ["down", "cut", "reset", "hang", "silent"],
    "https": ["down", 500, 503, 429, "cut", "lost", "hang", 400],
    "fhir": ["down", 500, 503, 429, "cut", "lost", "hang", "garbage"],
}


def run(outside: Outside, clock: Clock) -> DeliveryResult:
    """Deliver with a short timeout for a collector that hangs."""
    timeout = 0.3 if outside.server.fault in ("hang", "silent") else 10
    return deliver("siem", outside.sink, clock=clock, seconds=20, batch_size=20, send_timeout_seconds=timeout)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_collector_gets_everything_in_order_after_each_outage(
    authority: CertificateAuthority, clock: Clock, transport: str
) -> None:
    with TRANSPORTS[transport](authority) as outside:
        seal(7)
        assert run(outside, clock).is_caught_up
        for fault in FAULTS[transport]:
            seal(9)
            seal(1)
            if fault == "down":
                outside.server.go_down()
            else:
                outside.server.fault = fault
            assert run(outside, clock).fault, fault
            assert not run(outside, clock).is_caught_up  # in its back-off
            if fault == "down":
                outside.server.come_back()
            outside.server.fault = ""
            clock.go_on(hours=2)
            assert run(outside, clock).is_caught_up, fault
            assert first_receipts(outside.received()) == sealed_order()
    cursor = SinkCursor.objects.get()
    assert (cursor.tree_size, cursor.checkpoint_size) == (7 + 10 * len(FAULTS[transport]),) * 2
    assert (cursor.attempts, cursor.last_fault, cursor.lease_until) == (0, "", None)
    assert AuditWitness.objects.get().note.split("\n")[1] == str(cursor.checkpoint_size)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_collector_without_failures_gets_everything_once(
    authority: CertificateAuthority, clock: Clock, transport: str
) -> None:
    with TRANSPORTS[transport](authority) as outside:
        seal(50)
        seal(3)
        assert run(outside, clock) == DeliveryResult(accepted=55, is_caught_up=True)
        assert outside.received() == sealed_order()
        assert run(outside, clock) == DeliveryResult(is_caught_up=True)


def test_syslog_collector_without_close_notify_has_accepted_the_batch(
    authority: CertificateAuthority, clock: Clock
) -> None:
    with syslog(authority) as outside:
        outside.server.fault = "end"
        seal(5)
        assert run(outside, clock).is_caught_up
        assert outside.received() == sealed_order()


def test_fhir_server_gets_entries_that_it_refused_for_their_place_again(
    authority: CertificateAuthority, clock: Clock
) -> None:
    """It refuses each fourth entry, and no event for its contents: so none is set aside."""
    with fhir(authority) as outside:
        outside.server.fault = "half"
        seal(9)
        assert run(outside, clock) == DeliveryResult(accepted=9, fault="http_422")
        assert SinkCursor.objects.get().tree_size == 9
        outside.server.fault = ""
        clock.go_on(hours=2)
        assert run(outside, clock) == DeliveryResult(accepted=1, is_caught_up=True)
        order, received = sealed_order(), outside.received()
        assert first_receipts(received) == [*order[:3], *order[4:], order[3]]
        assert not SetAsideEvent.objects.exists()
