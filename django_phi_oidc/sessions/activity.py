"""The session of a request: its times in the Django session, and its row in `OIDCSession`."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction

from .. import conf
from ..audit.request_context import SESSION_KEY, find_oidc_session_id
from .models import OIDCSession, sha256_hex
from .timeouts import SessionTimes, find_timeout_reason, is_activity_update_due

TIMES_KEY = "phi_oidc_times"
"""The key of the SessionTimes in the Django session."""
ENDS_AT_KEY = "phi_oidc_until"
"""Optional key in the Django session: the POSIX time at which the session ends in any case."""


def create_times_entry(now: datetime) -> list[float]:
    """Return the TIMES_KEY value of a session that starts now."""
    return [now.timestamp()] * 3


@dataclass(slots=True)
class SessionActivity:
    """A request of a signed-in user, with an OIDC session or a password session."""

    session_id: uuid.UUID | None
    stored_session_id: Any
    """As stored in the Django session."""
    session_key: str | None
    times: SessionTimes
    now_timestamp: float
    ends_at_timestamp: float | None
    idle_timeout_seconds: float
    absolute_timeout_seconds: float
    has_stored_times: bool
    """The times are from the Django session."""
    is_ended: bool = False

    @classmethod
    def from_session(cls, session: SessionBase, *, now: datetime) -> "SessionActivity | None":
        """Return the activity of a loaded session; None when no user is signed in."""
        session_id = find_oidc_session_id(session)
        if session_id is None and auth.SESSION_KEY not in session:
            return None
        timestamp = now.timestamp()
        entry = session.get(TIMES_KEY)
        return cls(
            session_id=session_id,
            stored_session_id=session.get(SESSION_KEY),
            session_key=session.session_key,
            # OIDC sessions have a row with their start; a password session counts from its first request.
            times=SessionTimes(*entry) if entry else SessionTimes(timestamp, timestamp, 0.0),
            now_timestamp=timestamp,
            ends_at_timestamp=session.get(ENDS_AT_KEY),
            idle_timeout_seconds=conf.idle_timeout().total_seconds(),
            absolute_timeout_seconds=conf.absolute_timeout().total_seconds(),
            has_stored_times=bool(entry),
        )

    @property
    def timeout_reason(self) -> str:
        """Why the session has timed out, or empty."""
        if self.ends_at_timestamp is not None and self.now_timestamp >= self.ends_at_timestamp:
            return "absolute_timeout"
        return find_timeout_reason(
            self.times,
            now_timestamp=self.now_timestamp,
            idle_timeout_seconds=self.idle_timeout_seconds,
            absolute_timeout_seconds=self.absolute_timeout_seconds,
        )

    @property
    def needs_check(self) -> bool:
        """Whether the session has timed out or its row must be read."""
        unchecked_seconds = self.now_timestamp - self.times.last_checked_timestamp
        is_recheck_due = not self.has_stored_times or unchecked_seconds >= conf.session_recheck().total_seconds()
        return bool(self.timeout_reason) or (self.session_id is not None and is_recheck_due)

    @property
    def needs_activity_update(self) -> bool:
        """Whether an activity at this time must be stored."""
        return not self.has_stored_times or is_activity_update_due(
            self.times, now_timestamp=self.now_timestamp, idle_timeout_seconds=self.idle_timeout_seconds
        )

    @property
    def idle_seconds_left(self) -> float:
        """Seconds until the idle timeout if this request counts as activity and none follows."""
        last_seen = self.now_timestamp if self.needs_activity_update else self.times.last_seen_timestamp
        return last_seen + self.idle_timeout_seconds - self.now_timestamp

    @property
    def absolute_seconds_left(self) -> float:
        """Seconds until the session ends in any case."""
        ends_at = self.times.started_timestamp + self.absolute_timeout_seconds
        if self.ends_at_timestamp is not None:
            ends_at = min(ends_at, self.ends_at_timestamp)
        return ends_at - self.now_timestamp

    def update_from_row(self, row: OIDCSession) -> None:
        last_seen = row.last_seen_at.timestamp()
        if self.has_stored_times:
            last_seen = max(last_seen, self.times.last_seen_timestamp)
        self.times = SessionTimes(row.started_at.timestamp(), last_seen, self.now_timestamp)


def find_live_session(session_id: uuid.UUID) -> OIDCSession | None:
    """Return a live session with its user, without tokens; None when it has ended."""
    rows = OIDCSession.objects.live().filter(pk=session_id).select_related("user")
    return rows.only("started_at", "last_seen_at", "user").first()


def update_last_seen(session_id: uuid.UUID, *, now: datetime) -> bool:
    """Store an activity; return False when the session has ended."""
    return bool(OIDCSession.objects.live().filter(pk=session_id).update(last_seen_at=now))


def update_session_key(session_id: uuid.UUID, *, django_session_key: str) -> bool:
    """Store the new key of the Django session; return False when the session has ended."""
    with transaction.atomic():
        live = OIDCSession.objects.live().filter(pk=session_id)
        # A write first: on SQLite a read would not lock.
        if not live.update(session_key_digest=sha256_hex(django_session_key)):
            return False
        OIDCSession(pk=session_id, session_key=django_session_key).save(update_fields=["session_key"])
    return True
