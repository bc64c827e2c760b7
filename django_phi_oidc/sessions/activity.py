"""What a request bears of a session: the way from its Django session to a verdict, and back.

A session's row, looked at and touched by the requests that bear it.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import Q

from .. import conf
from ..audit.request_context import SESSION_KEY, find_oidc_session_id
from .models import OIDCSession, sha256_hex
from .timeouts import SessionTimes, find_timeout_reason, is_activity_update_due

TIMES_KEY = "phi_oidc_times"
"""The entry of the Django session that holds its Times."""
ENDS_AT_KEY = "phi_oidc_until"
"""The entry that, where there is one, ends a session at that POSIX second."""


def create_times_entry(now: datetime) -> list[float]:
    """Return the entry of a session that starts now."""
    return [now.timestamp()] * 3


@dataclass(slots=True)
class SessionActivity:
    """A request of somebody who is signed in, with an OIDC session or by password."""

    session_id: uuid.UUID | None
    stored_session_id: Any
    """As the Django session names it."""
    session_key: str | None
    times: SessionTimes
    now_timestamp: float
    ends_at_timestamp: float | None
    idle_timeout_seconds: float
    absolute_timeout_seconds: float
    has_stored_times: bool
    """The Django session holds these times."""
    is_ended: bool = False
    """It was ended."""

    @classmethod
    def from_session(cls, session: SessionBase, *, now: datetime) -> "SessionActivity | None":
        """Return the visit of whom this loaded session signs in; None where it signs in nobody."""
        named, session_id = session.get(SESSION_KEY), find_oidc_session_id(session)
        if session_id is None and auth.SESSION_KEY not in session:
            return None
        stamp = now.timestamp()
        entry = session.get(TIMES_KEY)
        return cls(
            session_id=session_id,
            stored_session_id=named,
            session_key=session.session_key,
            # Of an OIDC session the row knows; that of a password, which Django began, starts when it is first seen.
            times=SessionTimes(*entry) if entry else SessionTimes(stamp, stamp, 0.0),
            now_timestamp=stamp,
            ends_at_timestamp=session.get(ENDS_AT_KEY),
            idle_timeout_seconds=conf.idle_timeout().total_seconds(),
            absolute_timeout_seconds=conf.absolute_timeout().total_seconds(),
            has_stored_times=bool(entry),
        )

    @property
    def timeout_reason(self) -> str:
        """Why the session is over, or nothing."""
        if self.ends_at_timestamp is not None and self.now_timestamp >= self.ends_at_timestamp:
            return "absolute_timeout"
        return find_timeout_reason(
            self.times,
            now_timestamp=self.now_timestamp,
            idle_timeout_seconds=self.idle_timeout_seconds,
            absolute_timeout_seconds=self.absolute_timeout_seconds,
        )

    @property
    def needs_recheck(self) -> bool:
        """Whether the row is to be read."""
        if self.session_id is None:
            return False
        return (
            not self.has_stored_times
            or self.now_timestamp - self.times.last_checked_timestamp >= conf.session_recheck().total_seconds()
        )

    @property
    def needs_activity_update(self) -> bool:
        """Whether an activity now is to be written."""
        return not self.has_stored_times or is_activity_update_due(
            self.times, now_timestamp=self.now_timestamp, idle_timeout_seconds=self.idle_timeout_seconds
        )

    @property
    def idle_seconds_left(self) -> float:
        """What is left until the idle timeout if this request is an activity and nothing follows."""
        seen = self.now_timestamp if self.needs_activity_update else self.times.last_seen_timestamp
        return seen + self.idle_timeout_seconds - self.now_timestamp

    @property
    def absolute_seconds_left(self) -> float:
        """What is left in any case."""
        ends_at = self.times.started_timestamp + self.absolute_timeout_seconds
        return (
            ends_at if self.ends_at_timestamp is None else min(ends_at, self.ends_at_timestamp)
        ) - self.now_timestamp

    def update_from_row(self, row: Any) -> None:
        """Take over what the row says."""
        self.times = SessionTimes(
            started_timestamp=row.started_at.timestamp(),
            last_seen_timestamp=max(
                row.last_seen_at.timestamp(), self.times.last_seen_timestamp if self.has_stored_times else 0.0
            ),
            last_checked_timestamp=self.now_timestamp,
        )


def find_live_session(session_id: uuid.UUID) -> OIDCSession | None:
    """Return the row of a session that lives, with its user; None when it has ended. No token is read."""
    rows = OIDCSession.objects.filter(pk=session_id, ended_at=None).select_related("user")
    return rows.only("started_at", "last_seen_at", "user").first()


def update_last_seen(session_id: uuid.UUID, *, now: datetime) -> bool:
    """Note an activity; return False when the session has ended."""
    return bool(OIDCSession.objects.filter(pk=session_id, ended_at=None).update(last_seen_at=now))


def update_session_key(session_id: uuid.UUID, *, django_session_key: str) -> bool:
    """Note the new key of the Django session; return False when the session has ended."""
    with transaction.atomic():
        live = Q(pk=session_id, ended_at=None)
        # A write first: on SQLite a look alone would hold nobody off.
        if not OIDCSession.objects.filter(live).update(session_key_digest=sha256_hex(django_session_key)):
            return False
        row = OIDCSession(pk=session_id, session_key=django_session_key)
        row.save(update_fields=["session_key"])
    return True
