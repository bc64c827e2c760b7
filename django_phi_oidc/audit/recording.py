"""Permits and refusals: committed at once, on the trail's own connection, before the answer. No event, no permit.

Whether a refusal that cost its sender nothing is worth an event, `throttling` says, and not this.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..errors import AuditUnavailable, KeyMissing
from .events import Act, Origin, Outcome
from .writing import EventFault, commit, finish


def record(
    action: str,
    *,
    origin: Origin,
    now: datetime,
    outcome: Outcome = "success",
    subject: str = "",
    provider: str = "",
    purpose: str = "",
    resource: str = "",
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> uuid.UUID:
    """Return the id of the event, which is committed, whatever becomes of the caller's transaction.

    The arguments are the fields of Act.
    Requires: no open transaction on the trail's alias (RuntimeError).
    Raises: AuditUnavailable, and then nothing may be permitted; ValueError for an action out of the vocabulary.
    """
    act = Act(
        action=action,
        origin=origin,
        now=now,
        outcome=outcome,
        subject=subject,
        provider=provider,
        purpose=purpose,
        resource=resource,
        reason=reason,
        detail=detail,
    )
    return record_many([act])[0]


def record_many(acts: Sequence[Act]) -> tuple[uuid.UUID, ...]:
    """Return the ids of the events, in the order of acts; all are committed by one INSERT, or none.

    Requires and raises what `record` does.
    """
    if not acts:
        return ()
    try:
        finished = [finish(act) for act in acts]
        commit(finished)
    except (*EventFault, KeyMissing) as error:
        raise AuditUnavailable from error
    return tuple(each.event.id for each in finished)
