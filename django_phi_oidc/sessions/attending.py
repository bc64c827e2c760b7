"""A session's row, looked at and touched by the requests that bear it."""

import uuid
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from .models import OIDCSession, digest


def look(session_id: uuid.UUID) -> OIDCSession | None:
    """Return the row of a session that lives, with its user; None when it has ended. No token is read."""
    rows = OIDCSession.objects.filter(pk=session_id, ended_at=None).select_related("user")
    return rows.only("started_at", "last_seen_at", "user").first()


def mark_active(session_id: uuid.UUID, *, now: datetime) -> bool:
    """Note an activity; return False when the session has ended."""
    return bool(OIDCSession.objects.filter(pk=session_id, ended_at=None).update(last_seen_at=now))


def rekey(session_id: uuid.UUID, *, django_session_key: str) -> bool:
    """Note the new key of the Django session; return False when the session has ended."""
    with transaction.atomic():
        live = Q(pk=session_id, ended_at=None)
        # A write first: on SQLite a look alone would hold nobody off.
        if not OIDCSession.objects.filter(live).update(session_key_digest=digest(django_session_key)):
            return False
        row = OIDCSession(pk=session_id, session_key=django_session_key)
        row.save(update_fields=["session_key"])
    return True
