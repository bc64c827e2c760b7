"""Rows of each kind that the dashboard counts, and similar rows that it must not count."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.monitoring.models import SecurityAlert
from django_phi_oidc.contrib.officer_admin.hourly_counts import update_counts
from django_phi_oidc.contrib.officer_admin.models import HourlyCount
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.audit_log import events, sealed
from tests.support.officers import sign_in_officer

NOW = datetime(2026, 11, 24, 16, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
STANDS = {
    "Live sessions": 2,
    "Revocations pending": 3,
    "Claims held": 5,
    "Claims overdue": 2,
    "Open alerts": 1,
    "Emergencies open": 1,
    "Emergencies to review": 2,
}
"""The counts after `fill`."""


def fill(now: datetime = NOW) -> None:
    """Create rows with the counts of STANDS, and a sealed audit log."""
    for ended in (now, None, None):
        live = OIDCSession.objects.create(id=uuid.uuid4(), started_at=now, last_seen_at=now, ended_at=ended)
    for status in ("pending", "pending", "pending", "done", "refused"):
        PendingRevocation.objects.create(id=uuid.uuid4(), due_at=now, created_at=now, status=status)
    user = get_user_model().objects.create_user(f"{uuid.uuid4()}")
    subject = PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=user, issuer="i", first_seen_at=now, last_seen_at=now
    )
    for number, (expires_at, held_until) in enumerate(
        [(now + HOUR, None), (now - HOUR, None), (now - HOUR, now), (now - HOUR, now + HOUR), (None, None)]
    ):
        StoredClaim.objects.create(
            subject=subject,
            session=live.pk,
            name=f"claim {number}",
            value='""',
            purpose="TREAT",
            obtained_at=now,
            expires_at=expires_at,
            held_until=held_until,
        )
    for acknowledged_at in (None, now):
        SecurityAlert.objects.create(
            kind="refusal_burst",
            key=f"{uuid.uuid4()}",
            severity="high",
            first_seen=now,
            last_seen=now,
            acknowledged_at=acknowledged_at,
        )
    ended = {"opened_at": now - 2 * HOUR, "expires_at": now - HOUR}
    for fields in (
        {"opened_at": now, "expires_at": now + HOUR},
        ended,
        {"opened_at": now, "expires_at": now + HOUR, "closed_at": now, "close_reason": "closed"},
        {**ended, "reviewed_at": now, "reviewed_by": "8", "verdict": "justified"},
    ):
        EmergencyAccess.objects.create(
            id=uuid.uuid4(), actor="7", resource="*", permissions=[], purpose="ETREAT", reason="why", **fields
        )
    sealed(3, action=Action.LOGIN_SUCCEEDED, detail={}, at=now - 2 * HOUR)
    events(2, action=Action.LOGIN_REFUSED, outcome="failure", reason="state_unknown", detail={}, at=now - HOUR)
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 3, "findings": 0}, at=now)
    update_counts(now=now)


def fill_month(now: datetime = NOW) -> None:
    """Create hourly counts of 35 days up to now, the newest of which are not usual."""
    current = now.replace(minute=0, second=0, microsecond=0)
    rows = []
    for number in range(35 * 24):
        hour = current - number * HOUR
        by_day = 6 <= hour.hour < 18
        is_attack = 20 <= number < 26
        claims = {"day": 40, "week": 260, "month": 700, "quarter": 420, "older": 90}
        numbers = {
            ("sign_ins", ""): (22 + number % 7) if by_day else 3,
            ("refusals", ""): 0,
            ("refusals", "state_unknown"): 2 if by_day else 0,
            ("refusals", "permission_missing"): number % 3,
            ("refusals", "id_token_expired"): 90 if is_attack else 1,
            ("refusals", "invalid_grant"): number % 2,
            ("refusals", "acr_insufficient"): int(number % 9 == 0),
            ("refusals", "nonce_mismatch"): int(number % 11 == 0),
            ("live_sessions", ""): 80 + number % 40 if by_day else 20,
            ("revocations", ""): 14 if is_attack else number % 3,
            ("overdue", ""): 0,
            ("alerts", ""): 2 if number < 26 else 0,
            ("unsealed", ""): number % 5,
            **{("claims", group): count + number % 30 for group, count in claims.items()},
        }
        rows += [
            HourlyCount(day=hour.date(), hour=hour.hour, series=series, label=label, count=count)
            for (series, label), count in numbers.items()
        ]
    HourlyCount.objects.all().delete()
    HourlyCount.objects.bulk_create(rows)


@pytest.fixture
def at_half_past() -> Iterator[None]:
    with clock.override_clock(lambda: NOW):
        yield


def officer(*models: str, **options: bool) -> Client:
    """Return a client signed in as a staff member who may view these models."""
    return sign_in_officer(*(f"view_{model}" for model in models), **options)
