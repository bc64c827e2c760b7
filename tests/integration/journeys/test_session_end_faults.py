"""Logout with a failing OP, audit database or worker: the session ends at once, each token is revoked exactly once."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import LEASE_DURATION
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply, stream_slowly
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import (
    Answer,
    alerts,
    hang,
    revocation_answers,
    revocation_requests,
    revoked_events,
    sign_in,
    sign_out,
    statuses,
    stopped,
)
from tests.integration.journeys.tcp_relay import relay_to
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.audit_outage import audit_database_hangs
from tests.support.celery_worker import PATIENCE_SECONDS, eventually
from tests.support.external_tools import redis
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.redis]

HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!doctype html><title>Welcome</title>"


@pytest.fixture(scope="module")
def running(
    _http_op: DemoProvider, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, str]]:
    """A portal and a worker for all tests of this module, and the portal's address."""
    with relay_to(redis().where) as broker:
        phi_oidc = {"PROVIDERS": {"default": declaration(_http_op)}}
        installation = Installation(tmp_path_factory.mktemp("installation"), phi_oidc, broker)
        with installation.portal() as base, installation.worker():
            yield installation, base


@pytest.fixture
def installation(running: tuple[Installation, str], op: DemoProvider) -> Iterator[Installation]:
    installation, _ = running
    yield installation
    installation.set_clock(None)
    assert installation.leaks(op) == []


@pytest.fixture
def browser(installation: Installation, running: tuple[Installation, str], op: DemoProvider) -> Browser:
    """A browser for the portal in a separate process."""
    _, base = running
    op.register_client(client(base))
    return installation.browser(base)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure of the OP, and the error code and delay of the pending revocation after it."""

    answer: Answer | None = None
    """None: the OP is stopped."""
    error_code: str
    wait: timedelta = timedelta(seconds=5)
    """Minimum delay before the next attempt. The first default delay is 5 s to 10 s."""
    alert: str = ""


def respond(status: int, error: str = "", **headers: str) -> Answer:
    """Respond with that status and OAuth error, without revoking."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda over: Reply(status=status, headers=dict(fields), json={"error": error} if error else None)


def show_page(status: int) -> Answer:
    return lambda over: Reply(status=status, headers=dict(HTML), body=PAGE)


def drip(over: threading.Event) -> Reply:
    return Reply(raw=(piece for piece in stream_slowly(Reply(), pause_seconds=0) if not over.wait(1)))


def sweep_once(installation: Installation) -> None:
    """Attempt what the request did not finish. The clock is stopped, so that failures do not become due again."""
    installation.set_clock(clock.now())
    assert installation.run()


CLIENT_ERROR_WAIT = timedelta(minutes=15)
FAULTS = {
    "refuses connections": Fault(error_code="transport_unreachable"),
    "hangs": Fault(answer=hang, error_code="transport_timeout"),
    "drips a byte a second": Fault(answer=drip, error_code="transport_timeout"),
    "500": Fault(answer=respond(500), error_code="http_500"),
    "502 with a page": Fault(answer=show_page(502), error_code="http_502"),
    "503, Retry-After: 2": Fault(answer=respond(503, Retry_After="2"), error_code="http_503"),
    "503, Retry-After: 120": Fault(
        answer=respond(503, Retry_After="120"), error_code="http_503", wait=timedelta(seconds=120)
    ),
    "redirect": Fault(answer=respond(302, Location="/elsewhere"), error_code="transport_redirect"),
    "401 invalid_client": Fault(
        answer=respond(401, "invalid_client"),
        error_code="invalid_client",
        wait=CLIENT_ERROR_WAIT,
        alert="revocation_blocked",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_logout_with_a_failing_op_ends_at_once_and_tokens_are_revoked_after_its_recovery(
    fault: Fault, installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    left_at = clock.now()
    with revocation_answers(op, fault.answer) if fault.answer else stopped(op):
        page = sign_out(browser)
        assert not any(token in page.location for token in tokens)
        # Otherwise the browser would be sent to an OP that does not answer.
        is_down = fault.error_code.startswith(("transport_", "http_5"))
        assert (page.status == 200 and "does not respond at the moment" in page.body) is is_down
        sweep_once(installation)
        assert not fault.answer or eventually(lambda: set(revocation_requests(op)) == set(tokens))
    assert PendingRevocation.objects.filter(attempts=1, lease_until=None).count() == 2
    rows = list(PendingRevocation.objects.order_by("due_at"))
    assert {row.status for row in rows} == {RevocationStatus.PENDING}
    assert {row.token_type_hint: row.last_fault for row in rows}["refresh_token"] == fault.error_code
    assert rows[0].due_at - left_at >= fault.wait
    assert all(op.is_token_active(token) for token in tokens)
    assert alerts() == [fault.alert] * (2 if fault.alert else 0)

    before = revocation_requests(op)
    installation.set_clock(rows[0].due_at - timedelta(milliseconds=1))
    assert installation.run()
    assert revocation_requests(op) == before, "nothing is attempted before it is due"
    installation.set_clock(rows[1].due_at)
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert revocation_requests(op) == before + Counter(tokens)
    assert before == (Counter(tokens) if fault.answer else Counter())
    assert revoked_events() == {"refresh_token": 1, "access_token": 1}
    assert "/elsewhere" not in [request.path for request in op.requests]


def test_logout_at_a_new_portal_process_ends_at_once_while_the_op_hangs(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    with installation.portal("portal 2") as base, revocation_answers(op, hang, also={"discovery"}):
        fresh = installation.browser(base, browser.cookies)
        assert fresh.user() != ""
        page = sign_out(fresh)
        assert page.location == "/oidc/logged-out/", "the end_session_endpoint is unknown"
        assert revocation_requests(op)[tokens[0]] == 0, "the revocation_endpoint is unknown"
        sweep_once(installation)
    assert PendingRevocation.objects.filter(attempts=1, lease_until=None).count() == 2
    installation.set_clock(clock.now() + timedelta(minutes=1))
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert revoked_events() == {"refresh_token": 1, "access_token": 1}


@dataclass(frozen=True, kw_only=True)
class FinalResponse:
    """A final response of the OP, and the resulting status and error code."""

    answer: Answer
    status: RevocationStatus
    error_code: str = ""
    provider_error: str = ""
    alert: str = ""


FINAL_RESPONSES = {
    "200": FinalResponse(answer=lambda over: None, status=RevocationStatus.DONE),
    "unsupported_token_type": FinalResponse(
        answer=respond(400, "unsupported_token_type"),
        status=RevocationStatus.UNSUPPORTED,
        error_code="unsupported_token_type",
        provider_error="unsupported_token_type",
    ),
    "invalid_request": FinalResponse(
        answer=respond(400, "invalid_request"),
        status=RevocationStatus.REFUSED,
        error_code="http_400",
        provider_error="invalid_request",
        alert="revocation_refused",
    ),
}


@pytest.mark.parametrize("response", FINAL_RESPONSES.values(), ids=FINAL_RESPONSES)
def test_final_revocation_response_is_not_retried(
    response: FinalResponse, installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    is_done = response.status is RevocationStatus.DONE
    with revocation_answers(op, response.answer):
        sign_out(browser)
    assert statuses() == {response.status}
    assert set(PendingRevocation.objects.values_list("token", "session_token")) == {(None, None)}
    fault = " ".join(dict.fromkeys(filter(None, (response.error_code, response.provider_error))))
    assert set(PendingRevocation.objects.values_list("last_fault", flat=True)) == {fault}
    assert PendingRevocation.objects.get(token_type_hint="access_token").token_expires_at is not None
    assert [op.is_token_active(token) for token in tokens] == [not is_done] * 2, "only the OP can revoke a token"
    installation.set_clock(clock.now() + timedelta(days=2))
    assert installation.run()
    assert revocation_requests(op) == Counter(tokens)
    assert alerts() == [response.alert] * (2 if response.alert else 0)
    assert revoked_events() == ({"refresh_token": 1, "access_token": 1} if is_done else {})
    failed = [
        (event.reason, json.loads(event.detail)["provider_error"]) for event in events(action="token.revocation_failed")
    ]
    assert failed == [(response.error_code, response.provider_error)] * (0 if is_done else 2)


def test_revocation_answered_with_a_page_and_200_is_done(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    """Only the status counts, even if the OP did not revoke the token. Spec: RFC 7009 2.2."""
    tokens = sign_in(browser, op, installation)
    op.mutate = lambda endpoint, exchange: Reply(headers=dict(HTML), body=PAGE) if endpoint == "revocation" else None
    sign_out(browser)
    assert statuses() == {RevocationStatus.DONE}
    assert not any(op.is_token_active(token) for token in tokens)
    assert revocation_requests(op) == Counter(tokens)


def test_logout_without_the_audit_database_is_logged_after_its_recovery(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    session = OIDCSession.objects.get()
    events_before = set(AuditEvent.objects.values_list("id", flat=True))
    with audit_database_away():
        sign_out(browser)
        assert not installation.run("phi_oidc.drain_outbox")
    assert not any(op.is_token_active(token) for token in tokens)
    waiting = set(AuditOutbox.objects.values_list("id", flat=True))
    assert set(AuditEvent.objects.values_list("id", flat=True)) == events_before
    assert installation.run("phi_oidc.drain_outbox")
    assert installation.run("phi_oidc.drain_outbox")
    assert not AuditOutbox.objects.exists()
    new_events = AuditEvent.objects.exclude(id__in=events_before)
    assert {event.id for event in new_events} == waiting
    assert Counter(event.action for event in new_events.filter(session=str(session.pk))) == {
        "session.ended": 1,
        "logout.completed": 1,
        "claim.scrubbed": 1,
        "token.revoked": 2,
    }


@pytest.mark.postgresql
def test_logout_ends_at_once_while_audit_database_and_op_hang(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    with audit_database_hangs(), revocation_answers(op, hang):
        sign_out(browser)
        assert AuditOutbox.objects.count() > 0
    installation.set_clock(clock.now() + timedelta(minutes=1))
    assert installation.run("phi_oidc.drain_outbox")
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert revoked_events() == {"refresh_token": 1, "access_token": 1}
    assert len(events(action="session.ended")) == 1


@dataclass(frozen=True, kw_only=True)
class Killed:
    """Where a worker is killed during the first of two revocations, and the state after that."""

    at: str = ""
    """A point of `tests.support.kill_points`, of the lease or result of the first one. Empty: during the request."""
    calls: int
    is_leased: bool = False
    is_done: bool = False


KILLED = {
    "before the lease": Killed(at="COMMIT on default {lease}", calls=0),
    "before the request": Killed(at="after COMMIT on default {lease}", calls=0, is_leased=True),
    "during the request": Killed(calls=1, is_leased=True),
    "between the request and the commit": Killed(at="COMMIT on default {result}", calls=1, is_leased=True),
    "after the commit": Killed(at="after COMMIT on default {result}", calls=1, is_done=True),
}


@pytest.mark.parametrize("killed", KILLED.values(), ids=KILLED)
def test_revocation_of_a_killed_worker_is_retried_only_if_it_was_not_committed(
    killed: Killed, installation: Installation, op: DemoProvider, browser: Browser, tmp_path: Path
) -> None:
    tokens = sign_in(browser, op, installation)
    with stopped(op):
        sign_out(browser)
    first, second = PendingRevocation.objects.order_by("due_at")
    by_hint = dict(zip(("refresh_token", "access_token"), tokens, strict=True))
    current, other = by_hint[first.token_type_hint], by_hint[second.token_type_hint]
    killed_installation = Installation(tmp_path, installation.phi_oidc, installation.broker)
    killed_installation.set_clock(second.due_at)
    # On PostgreSQL, each statement of a task is a transaction that limits lock waits. So the one that selects the
    # providers is committed before the lease. SQLite needs no transaction for it.
    lease = 2 if connection.vendor == "postgresql" else 1
    kill_at = killed.at.format(lease=lease, result=lease + 1)
    with killed_installation.worker(TEST_KILL_AT=kill_at) as process:

        def kill_worker(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "revocation":
                op.intercept = None
                process.kill()

        op.intercept = None if killed.at else kill_worker
        killed_installation.send()
        assert process.wait(timeout=PATIENCE_SECONDS) == -signal.SIGKILL
    assert killed_installation.leaks(op) == []
    assert eventually(lambda: revocation_requests(op) == Counter({current: killed.calls} if killed.calls else {}))
    first.refresh_from_db()
    assert first.lease_until == (second.due_at + LEASE_DURATION if killed.is_leased else None)
    assert first.status == (RevocationStatus.DONE if killed.is_done else RevocationStatus.PENDING)

    installation.set_clock(second.due_at + LEASE_DURATION - timedelta(milliseconds=1))
    assert installation.run()
    if killed.is_leased:
        assert revocation_requests(op) == Counter({current: killed.calls, other: 1})
    installation.set_clock(second.due_at + LEASE_DURATION)
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert revocation_requests(op) == {current: killed.calls + (not killed.is_done), other: 1}
    assert revoked_events() == {"refresh_token": 1, "access_token": 1}
