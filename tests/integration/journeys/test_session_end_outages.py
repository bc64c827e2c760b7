"""Logout without the broker, with PostgreSQL restarts, and 200 logouts at once: each token is revoked exactly once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import LEASE_DURATION
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import (
    hang,
    last_due,
    revocation_answers,
    revocation_requests,
    revoked_events,
    sign_in,
    sign_out,
    statuses,
    stopped,
)
from tests.integration.journeys.signed_in_users import Person, create_signed_in_users
from tests.integration.journeys.tcp_relay import Relay, relay_to
from tests.support import databases
from tests.support.celery_worker import eventually
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.postgresql import OPTIONS, given_url, restartable_server

pytestmark = pytest.mark.django_db(**EVERYTHING)


def install(op: DemoProvider, folder: Path, broker: Relay) -> Installation:
    return Installation(folder, {"PROVIDERS": {"default": declaration(op)}}, broker)


def browser_at(base: str, op: DemoProvider, installation: Installation) -> Browser:
    op.register_client(client(base))
    return installation.browser(base)


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_url", marks=pytest.mark.redis),
        pytest.param("rabbitmq_url", marks=pytest.mark.rabbitmq),
    ],
)
def test_logout_without_the_broker_ends_at_once_and_tokens_are_revoked_after_its_recovery(
    broker: str, request: pytest.FixtureRequest, op: DemoProvider, tmp_path: Path
) -> None:
    with relay_to(request.getfixturevalue(broker)) as relay:
        installation = install(op, tmp_path, relay)
        with installation.portal() as base, installation.worker(beat=True):
            browser = browser_at(base, op, installation)
            tokens = sign_in(browser, op, installation)
            assert installation.run(), "the broker works"
            relay.go_down()
            with revocation_answers(op, hang):
                sign_out(browser)
            assert revocation_requests(op) == {tokens[0]: 1}
            assert all(op.is_token_active(token) for token in tokens)
            relay.come_back()
            installation.set_clock(last_due())
            assert eventually(lambda: statuses() == {RevocationStatus.DONE})
        assert not any(op.is_token_active(token) for token in tokens)
        assert revocation_requests(op) == {tokens[0]: 2, tokens[1]: 1}
        assert revoked_events() == {"refresh_token": 1, "access_token": 1}
        assert b"phi_oidc.sweep_revocations" in relay.passed
        assert installation.leaks(op) == []


@contextmanager
def connected_to(url: str) -> Iterator[dict[str, str]]:
    """Use the databases of another server in this process, and yield the environment for other processes."""
    environ = {
        **os.environ,
        "TEST_DATABASE_URL": url,
        **{f"TEST_DATABASE_NAME_{a.upper()}": "" for a in databases.ALIASES},
    }
    previous = {}
    for alias in databases.ALIASES:
        connections[alias].close()
        previous[alias] = dict(connections[alias].settings_dict)
        connections[alias].settings_dict.update(databases.declare(environ)[alias])
    try:
        yield {**environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    finally:
        for alias, settings in previous.items():
            connections[alias].close()
            connections[alias].settings_dict.update(settings)


@pytest.mark.postgresql
@pytest.mark.redis
def test_postgresql_restart_during_a_revocation_loses_nothing(op: DemoProvider, tmp_path: Path, redis_url: str) -> None:
    durable = {**OPTIONS, "synchronous_commit": "on"}
    with (
        restartable_server(durable) as server,
        connected_to(server.url) as environment,
        relay_to(redis_url) as relay,
    ):
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=environment, check=True, timeout=60)
        installation = install(op, tmp_path, relay)
        installation.environment = {"TEST_DATABASE_URL": server.url}

        def restart() -> None:
            server.stop(signal.SIGQUIT)
            server.start()
            connections.close_all()

        def restart_during_request(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "revocation":
                op.intercept = None
                restart()

        with installation.portal() as base, installation.worker():
            browser = browser_at(base, op, installation)
            tokens = sign_in(browser, op, installation)
            op.intercept = restart_during_request
            sign_out(browser)
            assert revocation_requests(op) == Counter(tokens)
            assert statuses() == {RevocationStatus.PENDING}, "the responses could not be stored"
            installation.set_clock(clock.now() + LEASE_DURATION)
            assert installation.run()
            assert revocation_requests(op) == Counter(2 * tokens)
            assert statuses() == {RevocationStatus.DONE}

            more = sign_in(browser, op, installation)
            with stopped(op):
                sign_out(browser)
            restart()
            first = PendingRevocation.objects.filter(status=RevocationStatus.PENDING).order_by("due_at")[0]
            installation.set_clock(last_due())
            op.intercept = restart_during_request
            assert not installation.run(), "the restart interrupts the worker too"
            connections.close_all()
            installation.set_clock(last_due() + LEASE_DURATION)
            assert installation.run()
        assert not any(op.is_token_active(token) for token in tokens + more)
        repeated = more[0 if first.token_type_hint == "refresh_token" else 1]
        assert revocation_requests(op) == Counter(2 * tokens + more + [repeated])
        assert statuses() == {RevocationStatus.DONE}
        assert revoked_events() == {"refresh_token": 2, "access_token": 2}
        assert len(events(action="session.ended")) == 2
        assert not AuditOutbox.objects.exists()
        assert installation.leaks(op) == []


@pytest.mark.postgresql
@pytest.mark.redis
@pytest.mark.parametrize(
    "environment", [{}, {"TEST_THREADS": "1"}], ids=["a new connection is refused", "the open connection is closed"]
)
def test_logout_with_an_unreachable_audit_database_ends_at_once_and_is_logged_after_its_recovery(
    environment: dict[str, str], op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    with relay_to(redis_url) as broker, relay_to(given_url(os.environ)) as audit_relay:
        installation = install(op, tmp_path, broker)
        installation.environment = {"TEST_AUDIT_PORT": str(audit_relay.port)}
        with installation.portal(**environment) as base, installation.worker():
            browser = browser_at(base, op, installation)
            tokens = sign_in(browser, op, installation)
            assert b"login.succeeded" in audit_relay.passed, "the audit database is reached by the relay"
            events_before = set(AuditEvent.objects.values_list("id", flat=True))
            audit_relay.go_down()
            sign_out(browser)
            assert not any(op.is_token_active(token) for token in tokens)
            assert browser.sign_in(op).status == 503, "sign-ins are refused"
            assert not op.active_tokens
            assert not installation.run("phi_oidc.drain_outbox")
            assert set(AuditEvent.objects.values_list("id", flat=True)) == events_before
            waiting = set(AuditOutbox.objects.values_list("id", flat=True))
            audit_relay.come_back()
            assert installation.run("phi_oidc.drain_outbox")
            assert not AuditOutbox.objects.exists()
            assert set(AuditEvent.objects.values_list("id", flat=True)) == events_before | waiting
            sign_in(browser, op, installation)
        assert [event.reason for event in events(action="session.ended")] == ["logout", "audit_unavailable"]
        assert revoked_events() == {"refresh_token": 2, "access_token": 2}
        assert installation.leaks(op) == []


PEOPLE = 200
THREADS = "4"
"""Threads of each portal."""


@pytest.mark.postgresql
@pytest.mark.redis
def test_two_hundred_logouts_at_two_portals_and_two_workers_revoke_each_token_once(
    op: DemoProvider, tmp_path: Path, redis_url: str, record_property: Any
) -> None:
    with relay_to(redis_url) as relay, ExitStack() as stack:
        installation = install(op, tmp_path, relay)
        bases = [
            stack.enter_context(installation.portal(name, TEST_THREADS=THREADS)) for name in ("portal 1", "portal 2")
        ]
        for name in ("worker-1", "worker-2"):
            # A longer interval than usual, so that the periodic tasks do not slow down the logouts.
            stack.enter_context(installation.worker(name, beat=True, TEST_BEAT_SECONDS="5"))
        op.register_client(client(bases[0]))
        people = create_signed_in_users(op, bases, PEOPLE)
        installation.browsers = [person.browser for person in people]
        tokens = [token for person in people for token in person.tokens]
        refused = set(tokens[::7])
        remaining = set(refused)

        def refuse_once(endpoint: str, exchange: MutableExchange) -> Reply | None:
            if endpoint == "revocation" and exchange.parameters["token"] in remaining:
                remaining.discard(exchange.parameters["token"])
                return Reply(status=503)
            return None

        op.intercept = refuse_once
        assert installation.run(), "the workers run"
        barrier = threading.Barrier(PEOPLE)
        with ThreadPoolExecutor(PEOPLE) as pool:
            took = sorted(pool.map(sign_out_together, people, repeat(barrier)))
        assert {person.browser.user() for person in people} == {""}
        assert not OIDCSession.objects.filter(ended_at=None).exists()
        assert not Session.objects.exists()
        assert not StoredClaim.objects.exists()
        installation.set_clock(clock.now() + timedelta(minutes=1))
        assert eventually(lambda: statuses() == {RevocationStatus.DONE})
    record_property("logouts", f"median {took[PEOPLE // 2]:.2f} s, longest {took[-1]:.2f} s")
    assert not op.active_tokens
    assert revocation_requests(op) == Counter(tokens) + Counter(refused)
    outbox.flush()
    assert Counter(AuditEvent.objects.values_list("action", flat=True)) == {
        "session.ended": PEOPLE,
        "logout.completed": PEOPLE,
        "claim.scrubbed": PEOPLE,
        "token.revoked": len(tokens),
        "token.revocation_failed": len(refused),
    }
    assert installation.leaks(op) == []


def sign_out_together(person: Person, barrier: threading.Barrier) -> float:
    """Wait for the barrier, sign out, and return the duration in seconds."""
    barrier.wait()
    started = time.monotonic()
    page = person.browser.post("/oidc/logout/")
    took = time.monotonic() - started
    # 200: the provider refused the revocation, so the page of the portal does not lead there at once.
    assert page.status in {200, 302}
    return took
