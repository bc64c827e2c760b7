"""Persons with stored claims, and their declaration."""

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from django_phi_oidc.audit.events import Action, Origin, parse_event
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.audit.outbox import enqueue
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.storage import store_claims
from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.linking import mark_seen
from django_phi_oidc.subjects.models import PairwiseSubject

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DECLARED = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check", "retention": "session"},
    "allergies": {"purpose": "TREAT", "basis": "treatment", "retention": "session"},
    "address": {"purpose": "HOPERAT", "basis": "letters", "retention": DAY},
    "groups": {"purpose": "HOPERAT", "basis": "role mapping", "retention": None},
}


class Person:
    """A user with a subject and an OIDC session, who stores and reveals claims."""

    def __init__(self, *, issuer: str = "https://op.example.test", user: Any = None) -> None:
        self.user = user or get_user_model()._default_manager.create_user(username=uuid.uuid4().hex)
        self.subject = PairwiseSubject.objects.create(
            uuid=uuid.uuid4(), user=self.user, issuer=issuer, first_seen_at=NOW, last_seen_at=NOW
        )
        self.session_id = uuid.uuid4()
        OIDCSession.objects.create(
            id=self.session_id,
            user=self.user,
            subject=self.subject,
            provider="default",
            issuer=issuer,
            started_at=NOW,
            last_seen_at=NOW,
        )

    def store(
        self,
        claims: Mapping[str, Any],
        *,
        now: datetime = NOW,
        session_id: uuid.UUID | None = None,
        declared: Mapping[str, Any] = DECLARED,
    ) -> tuple[str, ...]:
        """Store claims like a sign-in at that time, with its event."""
        subject = self.subject
        with transaction.atomic():
            mark_seen(subject, now=now)
            names = store_claims(
                claims,
                declared_claims={name: parse_claim(name, raw) for name, raw in declared.items()},
                subject=subject,
                session_id=session_id or self.session_id,
                now=now,
            )
            if names:
                fields: Any = {"origin": self.origin(), "now": now, "subject": str(subject.uuid), "provider": "default"}
                enqueue(Action.LOGIN_SUCCEEDED, detail={"claims": names}, **fields)
        return names

    def origin(self) -> Origin:
        return Origin(actor=str(self.user.pk), session=str(self.session_id), client_ip="192.0.2.1", request_id="r-1")

    def actor(self, *, session: str | None = None) -> Actor:
        """Return an actor for the person, in their session or in the passed one ("": no session)."""
        origin = self.origin() if session is None else Origin(actor=str(self.user.pk), session=session)
        return Actor(user=get_user_model()._default_manager.get(pk=self.user.pk), origin=origin)


@pytest.fixture(autouse=True)
def _declared(settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": DECLARED}


@pytest.fixture
def make_person() -> Callable[..., Person]:
    """Return a factory of persons; the test needs the marker django_db."""
    return Person


@pytest.fixture
def person(make_person: Callable[..., Person], db: None) -> Person:
    """Return a person."""
    return make_person()


@pytest.fixture
def outbox_events() -> Callable[[str], list[Any]]:
    """Return a reader of an action's events in the outbox, each with its parsed detail."""

    def read(action: str) -> list[Any]:
        events = [parse_event(row.event).event for row in AuditOutbox.objects.order_by("id")]
        return [(event, json.loads(event.detail)) for event in events if event.action == action]

    return read
