"""Which sessions an operator ends, or lists."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from .models import OIDCSession


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSelection:
    """Sessions that meet all of these criteria."""

    provider: str = ""
    group: int | None = None
    """The primary key of a group whose members have the sessions."""
    user: str = ""
    """The primary key of a user."""
    before: str = ""
    """An aware time in ISO 8601: only sessions that started earlier. A text, because a job stores
    it as JSON.
    """
    session_ids: Sequence[str] | None = None

    @property
    def scope(self) -> str:
        """The names of the criteria, for the event."""
        return " ".join(name for name, value in asdict(self).items() if value not in ("", None))

    def filter(self, sessions: QuerySet[OIDCSession]) -> QuerySet[OIDCSession]:
        """Return those of the sessions that meet the criteria."""
        if self.provider:
            sessions = sessions.filter(provider=self.provider)
        if self.group is not None:
            user_model: Any = OIDCSession._meta.get_field("user").related_model
            members = user_model._base_manager.filter(groups=self.group)
            sessions = sessions.filter(user__in=members.values("pk"))
        if self.user:
            sessions = sessions.filter(user__pk=self.user)
        if self.before:
            sessions = sessions.filter(started_at__lt=datetime.fromisoformat(self.before))
        if self.session_ids is not None:
            sessions = sessions.filter(pk__in=self.session_ids)
        return sessions
