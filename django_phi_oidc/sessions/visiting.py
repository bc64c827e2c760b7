"""What a request bears of a session: the way from its Django session to a verdict, and back."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase

from .. import conf
from ..audit.request import SESSION_KEY, session_id_of
from .timeouts import Times, is_noted, over

TIMES_KEY = "phi_oidc_times"
"""The entry of the Django session that holds its Times."""
UNTIL_KEY = "phi_oidc_until"
"""The entry that, where there is one, ends a session at that POSIX second."""


def new_times(now: datetime) -> list[float]:
    """Return the entry of a session that starts now."""
    return [now.timestamp()] * 3


@dataclass(slots=True)
class Visit:
    """A request of somebody who is signed in, with an OIDC session or by password."""

    session_id: uuid.UUID | None
    named: Any
    """As the Django session names it."""
    session_key: str | None
    times: Times
    now: float
    until: float | None
    idle: float
    absolute: float
    is_known: bool
    """The Django session holds these times."""
    is_over: bool = False
    """It was ended."""

    @classmethod
    def of(cls, session: SessionBase, *, now: datetime) -> "Visit | None":
        """Return the visit of whom this loaded session signs in; None where it signs in nobody."""
        named, session_id = session.get(SESSION_KEY), session_id_of(session)
        if session_id is None and auth.SESSION_KEY not in session:
            return None
        stamp = now.timestamp()
        entry = session.get(TIMES_KEY)
        return cls(
            session_id=session_id,
            named=named,
            session_key=session.session_key,
            # Of an OIDC session the row knows; that of a password, which Django began, starts when it is first seen.
            times=Times(*entry) if entry else Times(stamp, stamp, 0.0),
            now=stamp,
            until=session.get(UNTIL_KEY),
            idle=conf.idle_timeout().total_seconds(),
            absolute=conf.absolute_timeout().total_seconds(),
            is_known=bool(entry),
        )

    @property
    def reason(self) -> str:
        """Why the session is over, or nothing."""
        if self.until is not None and self.now >= self.until:
            return "absolute_timeout"
        return over(self.times, now=self.now, idle=self.idle, absolute=self.absolute)

    @property
    def must_look(self) -> bool:
        """Whether the row is to be read."""
        if self.session_id is None:
            return False
        return not self.is_known or self.now - self.times.checked >= conf.session_recheck().total_seconds()

    @property
    def is_noted(self) -> bool:
        """Whether an activity now is to be written."""
        return not self.is_known or is_noted(self.times, now=self.now, idle=self.idle)

    @property
    def idle_seconds(self) -> float:
        """What is left until the idle timeout if this request is an activity and nothing follows."""
        seen = self.now if self.is_noted else self.times.seen
        return seen + self.idle - self.now

    @property
    def absolute_seconds(self) -> float:
        """What is left in any case."""
        ends_at = self.times.started + self.absolute
        return (ends_at if self.until is None else min(ends_at, self.until)) - self.now

    def looked_at(self, row: Any) -> None:
        """Take over what the row says."""
        self.times = Times(
            started=row.started_at.timestamp(),
            seen=max(row.last_seen_at.timestamp(), self.times.seen if self.is_known else 0.0),
            checked=self.now,
        )
