"""Transactions of events: no permit without its event, no event without its change, and logout never waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection, connections, transaction
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims import disclosure
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import AuditUnavailable
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)


@contextmanager
def audit_database_away() -> Iterator[None]:
    """Rename the event table, so that every statement on it fails in every thread."""
    table = AuditEvent._meta.db_table

    def rename(old: str, new: str) -> None:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute(f'ALTER TABLE "{old}" RENAME TO "{new}"')

    rename(table, "away")
    try:
        yield
    finally:
        rename("away", table)


def actor_of(session: OIDCSession) -> Actor:
    origin = Origin(actor=str(session.user_id), session=str(session.pk))
    return Actor(user=session.user, origin=origin)


def test_permit_event_survives_the_rollback_of_its_request() -> None:
    with transaction.atomic():
        get_user_model().objects.create_user("rolled-back")
        record(Action.ACCESS_DENIED, origin=Origin(actor="7"), now=clock.now(), outcome="failure")
        transaction.set_rollback(True)
    assert get_user_model().objects.count() == 0
    assert [event.actor for event in events(action="access.denied")] == ["7"]


def test_event_of_a_change_is_committed_only_with_the_change() -> None:
    with transaction.atomic():
        outbox.enqueue(Action.CLAIM_STORED, origin=Origin(), now=clock.now())
        transaction.set_rollback(True)
    assert (AuditOutbox.objects.count(), len(events())) == (0, 0)
    with transaction.atomic():
        outbox.enqueue(Action.CLAIM_STORED, origin=Origin(), now=clock.now())
    assert (AuditOutbox.objects.count(), len(events())) == (0, 1)


def test_sign_in_is_refused_without_the_audit_database(op: DemoProvider, browser: Browser) -> None:
    callback = browser.get_callback_url(op)
    with audit_database_away():
        page = browser.get(callback)
    assert page.status == 503
    assert browser.user() == ""
    assert Session.objects.count() == 0
    assert OIDCSession.objects.get().end_reason == "audit_unavailable"
    assert StoredClaim.objects.filter(session=OIDCSession.objects.get().pk).count() == 0
    assert op.tokens != []
    assert op.active_tokens == []
    requests = [request.path for request in op.requests].count("/revoke")
    assert requests == len(op.tokens) == 2, "each token is revoked once"
    assert events() == []
    outbox.flush()
    of_session = [(event.action, event.reason) for event in events(session=str(OIDCSession.objects.get().pk))]
    begin, end = ("login.succeeded", ""), ("session.ended", "audit_unavailable")
    assert of_session.index(begin) < of_session.index(end)
    assert browser.sign_in(op).status == 302
    assert len(events(action="login.succeeded")) == 2


def test_first_event_about_undeclared_claims_is_not_lost_without_the_audit_database(
    op: DemoProvider, browser: Browser
) -> None:
    with audit_database_away():
        assert browser.sign_in(op).status == 503
    outbox.flush()
    assert [event.outcome for event in events(action="claim.overfetched")] == ["success"]
    assert browser.sign_in(op).status == 302
    assert len(events(action="claim.overfetched")) == 1


def test_reveal_is_refused_without_the_audit_database(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    session = OIDCSession.objects.get()
    with audit_database_away(), pytest.raises(AuditUnavailable):
        disclosure.reveal(actor_of(session), session.user, "birthdate", purpose="TREAT")
    assert disclosure.reveal(actor_of(session), session.user, "birthdate", purpose="TREAT") == "1984-03-09"


def test_logout_without_the_audit_database_ends_the_session_and_its_events_follow(
    op: DemoProvider, browser: Browser
) -> None:
    browser.sign_in(op)
    session = OIDCSession.objects.get()
    with audit_database_away():
        assert browser.post("/oidc/logout/").status == 302
        assert browser.user() == ""
        assert Session.objects.count() == 0
        assert op.active_tokens == []
        assert not StoredClaim.objects.filter(session=session.pk).exists()
    assert events(action="session.ended") == []
    assert outbox.flush() > 0
    assert AuditOutbox.objects.count() == 0
    (ended,) = events(action="session.ended")
    assert (ended.session, ended.reason) == (str(session.pk), "logout")
    assert len(events(action="token.revoked")) == 2


def test_refusal_without_the_audit_database_keeps_its_status(op: DemoProvider, browser: Browser) -> None:
    with audit_database_away():
        page = browser.get("/oidc/callback/?state=x&code=y")
    assert page.status == 403


TRANSACTION_STATEMENTS = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE SAVEPOINT")


class Statements:
    """Records the statements of this thread, except those that start and end transactions."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if not sql.startswith(TRANSACTION_STATEMENTS):
            self.seen.append(f"{context['connection'].alias}: {sql[:80]}")
        return execute(sql, params, many, context)


def test_first_sign_in_of_a_person_executes_few_statements_and_moves_its_events_together(
    op: DemoProvider, settings: Any, portal: str
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    statements = Statements()
    for person in ("amina", "jonas"):
        client = Client(headers={"host": urlsplit(portal).netloc})
        callback = op.authorize(client.get("/oidc/authenticate/")["Location"], person)
        statements.seen.clear()
        with connection.execute_wrapper(statements), connections["phi_audit"].execute_wrapper(statements):
            assert client.get(callback).status_code == 302
    assert len(statements.seen) <= 19, statements.seen
    assert [line[:50] for line in statements.seen if line.startswith("phi_audit")] == [
        'phi_audit: INSERT INTO "phi_oidc_audit_auditevent"'
    ]
    moved = [event.action for event in events(session="") if event.action == "subject.linked"]
    assert (moved, AuditOutbox.objects.count()) == (["subject.linked"] * 2, 0)


@pytest.mark.parametrize(
    ("visited", "most"), [(False, 11), (True, 14)], ids=["no session before", "an anonymous session before"]
)
def test_second_sign_in_of_a_process_executes_few_statements(
    visited: bool, most: int, op: DemoProvider, settings: Any, portal: str
) -> None:
    settings.SESSION_COOKIE_SECURE = False
    statements = Statements()
    for warm in (False, True):
        client = Client(headers={"host": urlsplit(portal).netloc})
        if visited:
            session = client.session
            session["language"] = "sv"
            session.save()
        redirect = client.get("/oidc/authenticate/")
        callback = op.authorize(redirect["Location"], "amina")
        if warm:
            with connection.execute_wrapper(statements), connections["phi_audit"].execute_wrapper(statements):
                response = client.get(callback)
        else:
            response = client.get(callback)
        assert response.status_code == 302, response.content
        assert client.session.get("language") == ("sv" if visited else None)
    assert len(statements.seen) <= most, statements.seen
    assert {"default", "phi_audit"} == {line.partition(":")[0] for line in statements.seen}
