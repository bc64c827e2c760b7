"""The session of a request: its times in the Django session, and its row in `OIDCSession`."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.db import connections, models, router, transaction

from .. import conf
from .._internal.sql import fetch, update
from ..audit.request_context import SESSION_KEY, find_oidc_session_id
from .digests import sha256_hex
from .models import OIDCSession
from .timeouts import SessionTimes, find_timeout_reason, is_activity_update_due

TIMES_KEY = "phi_oidc_times"
"""The key of the SessionTimes in the Django session."""
ENDS_AT_KEY = "phi_oidc_until"
"""Optional key in the Django session: the POSIX time at which the session ends in any case."""
_MAX_READ_TIMES = 4096
_read_times: dict[uuid.UUID, SessionTimes] = {}
"""The times of the rows that this process has read or updated, so that pages in quick succession
need no statement.
"""
_checked_users: ContextVar[list[Any]] = ContextVar("phi_oidc_checked_users")


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
    stored_times: SessionTimes | None
    """As stored in the Django session: for an OIDC session, those of the sign-in or of a later
    `store`.
    """
    is_ended: bool = False
    checked_user: Any = None
    """As read with the row in this request."""

    @classmethod
    def from_session(cls, session: SessionBase, *, now: datetime) -> "SessionActivity | None":
        """Return the activity of a loaded session; None when no user is signed in."""
        session_id = find_oidc_session_id(session)
        if session_id is None and auth.SESSION_KEY not in session:
            return None
        timestamp = now.timestamp()
        entry = session.get(TIMES_KEY)
        stored_times = None
        if entry:
            stored_times = SessionTimes(*entry)

        return cls(
            session_id=session_id,
            stored_session_id=session.get(SESSION_KEY),
            session_key=session.session_key,
            # OIDC sessions have a row with their start; a password session counts from its first
            # request.
            times=_find_read_times(session_id, stored_times)
            or SessionTimes(timestamp, timestamp, 0.0),
            stored_times=stored_times,
            now_timestamp=timestamp,
            ends_at_timestamp=session.get(ENDS_AT_KEY),
            idle_timeout_seconds=conf.idle_timeout().total_seconds(),
            absolute_timeout_seconds=conf.absolute_timeout().total_seconds(),
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
        """Whether the session has timed out or its row must be read.

        It must be read before an activity is stored, because another process may have stored a
        later one.
        """
        if self.session_id is None:
            return bool(self.timeout_reason)
        unchecked_seconds = self.now_timestamp - self.times.last_checked_timestamp
        # A negative difference is that of a clock that was ahead.
        is_recently_checked = 0 <= unchecked_seconds < conf.session_recheck().total_seconds()
        return not is_recently_checked or self.needs_activity_update or bool(self.timeout_reason)

    @property
    def needs_activity_update(self) -> bool:
        """Whether an activity at this time must be stored."""
        return self.stored_times is None or is_activity_update_due(
            self.times,
            now_timestamp=self.now_timestamp,
            idle_timeout_seconds=self.idle_timeout_seconds,
        )

    @property
    def idle_seconds_left(self) -> float:
        """Seconds until the idle timeout if this request counts as activity and none follows."""
        if self.needs_activity_update:
            last_seen = self.now_timestamp
        else:
            last_seen = self.times.last_seen_timestamp
        return last_seen + self.idle_timeout_seconds - self.now_timestamp

    @property
    def absolute_seconds_left(self) -> float:
        """Seconds until the session ends in any case."""
        ends_at = self.times.started_timestamp + self.absolute_timeout_seconds
        if self.ends_at_timestamp is not None:
            ends_at = min(ends_at, self.ends_at_timestamp)
        return ends_at - self.now_timestamp

    def update_from_row(self, row: OIDCSession) -> None:
        self.times = SessionTimes(
            row.started_at.timestamp(), row.last_seen_at.timestamp(), self.now_timestamp
        )
        self.checked_user = row.user
        self._keep_times()

    def store(self, session: SessionBase) -> bool:
        """Store an activity now: in the row, or, without one, in the Django session. False: the
        session has ended.

        The Django session of an OIDC session is only saved if Django would let it expire before the
        idle timeout.
        """
        self.times = self.times._replace(last_seen_timestamp=self.now_timestamp)
        if self.session_id is not None:
            if not _update_last_seen(
                self.session_id, now=datetime.fromtimestamp(self.now_timestamp, UTC)
            ):
                return False
            self._keep_times()
            if self.stored_times is not None:
                unsaved_seconds = self.now_timestamp - self.stored_times.last_checked_timestamp
                if session.get_expiry_age() - unsaved_seconds >= self.idle_timeout_seconds:
                    return True
        session[TIMES_KEY] = list(self.times)
        return True

    def _keep_times(self) -> None:
        if len(_read_times) >= _MAX_READ_TIMES:
            _read_times.clear()
        if self.session_id is not None:
            _read_times[self.session_id] = self.times


def _find_read_times(
    session_id: uuid.UUID | None, stored: SessionTimes | None
) -> SessionTimes | None:
    """Return the newer of the times that this process has read from the row, and those of the
    Django session.
    """
    read = None
    if session_id is not None:
        read = _read_times.get(session_id)
    return max(
        (times for times in (read, stored) if times),
        key=lambda times: times.last_checked_timestamp,
        default=None,
    )


def find_live_session(session_id: uuid.UUID) -> OIDCSession | None:
    """Return a live session with its user, without tokens; None when it has ended."""
    using = router.db_for_read(OIDCSession)
    key = OIDCSession._meta.pk.get_db_prep_value(session_id, connections[using])
    return next(iter(fetch(_build_live_session_query, [key], using=using)), None)


def _build_live_session_query(session_id: Any) -> models.QuerySet[OIDCSession]:
    rows = OIDCSession.objects.live().filter(pk=session_id).select_related("user")
    return rows.only("started_at", "last_seen_at", "user")


@contextmanager
def use_checked_user(user: Any) -> Iterator[None]:
    """Give `pop_checked_user` in this block the user that was read with the row of the session.
    user: may be None.
    """
    if user is not None:
        users = [user]
    else:
        users = []

    token = _checked_users.set(users)
    try:
        yield
    finally:
        # A task that the view has started has a copy of the context.
        users.clear()
        _checked_users.reset(token)


def pop_checked_user(user_id: Any) -> Any:
    """Return the user of this request if the check of the session has just read it, once; otherwise
    None.

    Only if the manager of the user model selects all users: another one may leave some out, or add
    to them.
    """
    users = _checked_users.get([])
    manager: Any = auth.get_user_model()._default_manager
    is_plain = type(manager).get_queryset is models.Manager.get_queryset
    if users and users[0].pk == user_id and is_plain:
        return users.pop()
    return None


def _update_last_seen(session_id: uuid.UUID, *, now: datetime) -> bool:
    """Store an activity; return False when the session has ended.

    It need not be on disk: an activity that is lost in a crash of the database only lets the idle
    timeout come earlier.
    """
    using = router.db_for_write(OIDCSession)
    return bool(
        update(
            OIDCSession,
            session_id,
            using=using,
            null="ended_at",
            is_durable=False,
            last_seen_at=now,
        )
    )


def update_session_key(session_id: uuid.UUID, *, django_session_key: str) -> bool:
    """Store the new key of the Django session; return False when the session has ended."""
    with transaction.atomic():
        live = OIDCSession.objects.live().filter(pk=session_id)
        # A write first: on SQLite a read would not lock.
        if not live.update(session_key_digest=sha256_hex(django_session_key)):
            return False
        OIDCSession(pk=session_id, session_key=django_session_key).save(
            update_fields=["session_key"]
        )
    return True
