"""The OP out of order, the trail away, a worker killed: the session ends at once, and each token dies, once."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import LEASE_DURATION
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply, stream_slowly
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.logout import (
    Answer,
    alerts,
    asked,
    hang,
    leave,
    revocation_answers,
    revoked,
    sign_in,
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
    """A portal and a worker, for all tests here; and the portal's address."""
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
    """A browser on the portal that is a process of its own."""
    _, base = running
    op.register_client(client(base))
    return installation.browser(base)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the OP does, and what is known and due once a logout has met it."""

    answer: Answer | None = None
    """None: nobody listens on its port."""
    known: str
    wait: timedelta = timedelta(seconds=5)
    """Before the next call, at the least: our own first pause is of 5 s to 10 s."""
    alert: str = ""


def say(status: int, error: str = "", **headers: str) -> Answer:
    """Return an answer of that status, with OAuth's error if one is named; nothing was done."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda over: Reply(status=status, headers=dict(named), json={"error": error} if error else None)


def show_page(status: int) -> Answer:
    return lambda over: Reply(status=status, headers=dict(HTML), body=PAGE)


def drip(over: threading.Event) -> Reply:
    return Reply(raw=(piece for piece in stream_slowly(Reply(), pause_seconds=0) if not over.wait(1)))


def sweep_once(installation: Installation) -> None:
    """Try what the request had no time for. The clock stands still, or what failed would be due again."""
    installation.set_clock(clock.now())
    assert installation.run()


SLOWLY = timedelta(minutes=15)
FAULTS = {
    "refuses connections": Fault(known="transport_unreachable"),
    "hangs": Fault(answer=hang, known="transport_timeout"),
    "drips a byte a second": Fault(answer=drip, known="transport_timeout"),
    "500": Fault(answer=say(500), known="http_500"),
    "502 with a page": Fault(answer=show_page(502), known="http_502"),
    "503, Retry-After: 2": Fault(answer=say(503, Retry_After="2"), known="http_503"),
    "503, Retry-After: 120": Fault(answer=say(503, Retry_After="120"), known="http_503", wait=timedelta(seconds=120)),
    "redirect": Fault(answer=say(302, Location="/elsewhere"), known="transport_redirect"),
    "401 invalid_client": Fault(
        answer=say(401, "invalid_client"), known="invalid_client", wait=SLOWLY, alert="revocation_blocked"
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_logout_at_an_op_out_of_order_ends_at_once_and_its_tokens_die_when_it_is_back(
    fault: Fault, installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    left_at = clock.now()
    with revocation_answers(op, fault.answer) if fault.answer else stopped(op):
        page = leave(browser)
        assert not any(token in page.location for token in tokens)
        sweep_once(installation)
        assert not fault.answer or eventually(lambda: set(asked(op)) == set(tokens))
    assert PendingRevocation.objects.filter(attempts=1, lease_until=None).count() == 2
    rows = list(PendingRevocation.objects.order_by("due_at"))
    assert {row.status for row in rows} == {RevocationStatus.PENDING}
    assert {row.token_type_hint: row.last_fault for row in rows}["refresh_token"] == fault.known
    assert rows[0].due_at - left_at >= fault.wait
    assert all(op.is_token_active(token) for token in tokens)
    assert alerts() == [fault.alert] * (2 if fault.alert else 0)

    before = asked(op)
    installation.set_clock(rows[0].due_at - timedelta(milliseconds=1))
    assert installation.run()
    assert asked(op) == before, "nothing is tried before its time"
    installation.set_clock(rows[1].due_at)
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert asked(op) == before + Counter(tokens)
    assert before == (Counter(tokens) if fault.answer else Counter())
    assert revoked() == {"refresh_token": 1, "access_token": 1}
    assert "/elsewhere" not in [request.path for request in op.requests]


def test_logout_at_a_portal_that_has_just_started_ends_at_once_though_the_op_hangs_at_all_it_is_asked(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    with installation.portal("portal 2") as base, revocation_answers(op, hang, also={"discovery"}):
        fresh = installation.browser(base, browser.cookies)
        assert fresh.user() != ""
        page = leave(fresh)
        assert page.location == "/oidc/logged-out/", "nobody knows where the OP ends its own session"
        assert asked(op)[tokens[0]] == 0, "nor where it revokes"
        sweep_once(installation)
    assert PendingRevocation.objects.filter(attempts=1, lease_until=None).count() == 2
    installation.set_clock(clock.now() + timedelta(minutes=1))
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert revoked() == {"refresh_token": 1, "access_token": 1}


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the OP says for good, and what is known then."""

    answer: Answer
    status: RevocationStatus
    known: str = ""
    alert: str = ""


ANSWERED = {
    "200": Answered(answer=lambda over: None, status=RevocationStatus.DONE),
    "unsupported_token_type": Answered(
        answer=say(400, "unsupported_token_type"), status=RevocationStatus.UNSUPPORTED, known="unsupported_token_type"
    ),
    "invalid_request": Answered(
        answer=say(400, "invalid_request"),
        status=RevocationStatus.REFUSED,
        known="http_400",
        alert="revocation_refused",
    ),
}


@pytest.mark.parametrize("answered", ANSWERED.values(), ids=ANSWERED)
def test_logout_at_an_op_that_answers_for_good_is_not_tried_again(
    answered: Answered, installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    is_done = answered.status is RevocationStatus.DONE
    with revocation_answers(op, answered.answer):
        leave(browser)
    assert statuses() == {answered.status}
    assert not PendingRevocation.objects.filter(token__isnull=False).exists()
    assert set(PendingRevocation.objects.values_list("last_fault", flat=True)) == {answered.known}
    assert PendingRevocation.objects.get(token_type_hint="access_token").token_expires_at is not None
    assert [op.is_token_active(token) for token in tokens] == [not is_done] * 2, "nobody but the OP can kill a token"
    installation.set_clock(clock.now() + timedelta(days=2))
    assert installation.run()
    assert asked(op) == Counter(tokens)
    assert alerts() == [answered.alert] * (2 if answered.alert else 0)
    assert revoked() == ({"refresh_token": 1, "access_token": 1} if is_done else {})
    failed = [event.reason for event in events(action="token.revocation_failed")]
    assert failed == [answered.known] * (0 if is_done else 2)


def test_revocation_answered_with_a_page_and_200_is_done(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    """Spec: RFC 7009 2.2: the status alone counts. Who answers 200 without having revoked is believed, too."""
    tokens = sign_in(browser, op, installation)
    op.mutate = lambda endpoint, exchange: Reply(headers=dict(HTML), body=PAGE) if endpoint == "revocation" else None
    leave(browser)
    assert statuses() == {RevocationStatus.DONE}
    assert not any(op.is_token_active(token) for token in tokens)
    assert asked(op) == Counter(tokens)


def test_logout_while_the_trail_is_away_is_told_of_once_it_is_back(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    session = OIDCSession.objects.get()
    told_before = set(AuditEvent.objects.values_list("id", flat=True))
    with audit_database_away():
        leave(browser)
        assert not installation.run("phi_oidc.drain_outbox")
    assert not any(op.is_token_active(token) for token in tokens)
    waiting = set(AuditOutbox.objects.values_list("id", flat=True))
    assert set(AuditEvent.objects.values_list("id", flat=True)) == told_before
    assert installation.run("phi_oidc.drain_outbox")
    assert installation.run("phi_oidc.drain_outbox")
    assert not AuditOutbox.objects.exists()
    told = AuditEvent.objects.exclude(id__in=told_before)
    assert {event.id for event in told} == waiting
    assert Counter(event.action for event in told.filter(session=str(session.pk))) == {
        "session.ended": 1,
        "logout.completed": 1,
        "claim.scrubbed": 1,
        "token.revoked": 2,
    }


@pytest.mark.postgresql
def test_logout_while_the_trail_hangs_and_the_op_too_ends_at_once(
    installation: Installation, op: DemoProvider, browser: Browser
) -> None:
    tokens = sign_in(browser, op, installation)
    with audit_database_hangs(), revocation_answers(op, hang):
        leave(browser)
        assert AuditOutbox.objects.count() > 0
    installation.set_clock(clock.now() + timedelta(minutes=1))
    assert installation.run("phi_oidc.drain_outbox")
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert revoked() == {"refresh_token": 1, "access_token": 1}
    assert len(events(action="session.ended")) == 1


@dataclass(frozen=True, kw_only=True)
class Killed:
    """Where a worker dies that has the first of two revocations in hand, and what is seen after that."""

    at: str = ""
    """A point of `tests.support.kill_points`; empty: the OP has the call and has not answered."""
    calls: int
    is_leased: bool = False
    is_done: bool = False


KILLED = {
    "before it has the lease": Killed(at="COMMIT on default 1", calls=0),
    "before the call": Killed(at="after COMMIT on default 1", calls=0, is_leased=True),
    "during the call": Killed(calls=1, is_leased=True),
    "between the call and the commit": Killed(at="COMMIT on default 2", calls=1, is_leased=True),
    "after the commit": Killed(at="after COMMIT on default 2", calls=1, is_done=True),
}


@pytest.mark.parametrize("killed", KILLED.values(), ids=KILLED)
def test_revocation_whose_worker_is_killed_is_neither_lost_nor_repeated_without_need(
    killed: Killed, installation: Installation, op: DemoProvider, browser: Browser, tmp_path: Path
) -> None:
    tokens = sign_in(browser, op, installation)
    with stopped(op):
        leave(browser)
    first, second = PendingRevocation.objects.order_by("due_at")
    by_hint = dict(zip(("refresh_token", "access_token"), tokens, strict=True))
    in_hand, other = by_hint[first.token_type_hint], by_hint[second.token_type_hint]
    dying = Installation(tmp_path, installation.phi_oidc, installation.broker)
    dying.set_clock(second.due_at)
    with dying.worker(TEST_KILL_AT=killed.at) as process:

        def die(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "revocation":
                op.intercept = None
                process.kill()

        op.intercept = None if killed.at else die
        dying.send()
        assert process.wait(timeout=PATIENCE_SECONDS) == -signal.SIGKILL
    assert dying.leaks(op) == []
    assert eventually(lambda: asked(op) == Counter({in_hand: killed.calls} if killed.calls else {}))
    first.refresh_from_db()
    assert first.lease_until == (second.due_at + LEASE_DURATION if killed.is_leased else None)
    assert first.status == (RevocationStatus.DONE if killed.is_done else RevocationStatus.PENDING)

    installation.set_clock(second.due_at + LEASE_DURATION - timedelta(milliseconds=1))
    assert installation.run()
    if killed.is_leased:
        assert asked(op) == Counter({in_hand: killed.calls, other: 1})
    installation.set_clock(second.due_at + LEASE_DURATION)
    assert installation.run()
    assert not any(op.is_token_active(token) for token in tokens)
    assert statuses() == {RevocationStatus.DONE}
    assert asked(op) == {in_hand: killed.calls + (not killed.is_done), other: 1}
    assert revoked() == {"refresh_token": 1, "access_token": 1}
