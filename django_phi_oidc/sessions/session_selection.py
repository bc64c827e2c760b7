"""Which sessions an operator ends, or lists."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext

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
    except_session: str = ""
    """The primary key of a session that is left out: the operator's own. Not a criterion."""

    @property
    def scope(self) -> str:
        """The names of the criteria, for the event."""
        criteria = asdict(self)
        del criteria["except_session"]
        return " ".join(name for name, value in criteria.items() if value not in ("", None))

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
        if self.except_session:
            sessions = sessions.exclude(pk=self.except_session)
        return sessions


def refuse_several_people(rows: Sequence[OIDCSession]) -> str:
    """Return why a list does not end these sessions together; empty if they are of one person.

    A slip would sign out the wrong people, and an account that may only end the sessions of one
    person would sign out all of them.
    """
    if len({row.user_id for row in rows}) > 1:
        return gettext(
            "Nothing was done: these are sessions of several people. Select those of one person."
        )
    return ""


def count_people(sessions: QuerySet[OIDCSession]) -> int:
    """Return how many accounts have these sessions."""
    return sessions.order_by().values("user").distinct().count()
