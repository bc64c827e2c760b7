"""Alerts of the trail about itself: one of a kind in an hour, and nobody silences them by an event of his own."""

import json
from datetime import datetime, timedelta

from ..entropy import first_uuid7
from .events import Act, Action, Origin
from .models import AuditEvent
from .writing import commit, finish, is_genuine, reaching_the_trail

QUIET = timedelta(hours=1)


def alert(rule: str, *, now: datetime, count: int = 0) -> None:
    """Raise the alert, unless it was raised within QUIET. Raises: AuditUnavailable."""
    if _was_raised(rule, now=now):
        return
    detail = {"rule": rule, "count": count} if count else {"rule": rule}
    commit([finish(Act(action=Action.ALERT_RAISED, origin=Origin(), now=now, detail=detail))])


def _was_raised(rule: str, *, now: datetime) -> bool:
    with reaching_the_trail():
        span = first_uuid7(now - QUIET), first_uuid7(now + timedelta(milliseconds=1))
        raised = AuditEvent.objects.filter(action=Action.ALERT_RAISED, id__range=span)
        return any(
            is_genuine(event) and json.loads(event.detail).get("rule") == rule
            for event in raised.filter(detail__contains=f'"{rule}"').iterator(chunk_size=100)
        )
