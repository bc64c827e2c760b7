"""P1: events that a reader could not process. The reader goes on without them, and an operator
retries or drops them.

A reader processes each event on its own. Those that fail are written to one table with one alert,
in the transaction that moves the reader on, so that none is passed over without a row.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import DEFAULT_DB_ALIAS, transaction

from ..extensions import EventReader, event_readers
from .events import MAX_ITEMS, Action, NewEvent, Origin
from .models import SetAsideEvent
from .recorder import record_many

logger = logging.getLogger("phi_oidc.audit")
READER_RESOURCE = "EventReader/"
"""The resource of events about a reader begins with it."""


def set_aside_events(
    reader: str,
    errors: Mapping[uuid.UUID, str],
    *,
    now: datetime,
    alert_rule: str = "event_set_aside",
    count: int = 0,
    using: str = DEFAULT_DB_ALIAS,
) -> list[NewEvent]:
    """Write the events that a reader could not process to the table, and return the alert about
    those that are new there, if any. The caller enqueues it in the same transaction.

    reader: its name, such as `rule:replay`. errors: the name of the error by the id of the event.
    count: of all failures, if it is more than the events that are given.
    Requires: an open transaction on `using`.
    """
    rows = SetAsideEvent.objects.using(using).filter(reader=reader, event_id__in=list(errors))
    rows.update(tried_at=now)
    known_ids = set(rows.values_list("event_id", flat=True))
    new_rows = []
    for event_id, error in errors.items():
        if event_id not in known_ids:
            new_rows.append(
                SetAsideEvent(
                    event_id=event_id, reader=reader, error=error, set_aside_at=now, tried_at=now
                )
            )
    if not new_rows:
        return []
    # Another process may have set the same event aside since.
    SetAsideEvent.objects.using(using).bulk_create(new_rows, ignore_conflicts=True)
    for row in new_rows:
        logger.error("%s set event %s aside: %s.", reader, row.event_id, row.error)
    detail = {
        "rule": alert_rule,
        "count": max(count, len(new_rows)),
        "event_ids": _list_ids(new_rows),
    }
    return [
        NewEvent(
            Action.ALERT_RAISED, Origin(), now, resource=_build_resource(reader), detail=detail
        )
    ]


def list_set_aside_events(event_ids: Sequence[uuid.UUID] = ()) -> list[SetAsideEvent]:
    """Return the events that were set aside, oldest first. event_ids: only these; empty: all."""
    rows = SetAsideEvent.objects.order_by("set_aside_at", "pk")
    if event_ids:
        rows = rows.filter(event_id__in=event_ids)
    return list(rows)


def retry_events(
    rows: Sequence[SetAsideEvent], *, origin: Origin, now: datetime
) -> dict[SetAsideEvent, str]:
    """Give each event to its reader again, and return the errors of those that stay set aside.

    The event `audit.set_aside` is recorded before. Raises: AuditUnavailable.
    """
    _record_operation("retry", rows, origin=origin, now=now)
    errors = {}
    for row in rows:
        try:
            _get_reader(row.reader).retry(row.reader, row.event_id)
        except Exception as error:  # noqa: BLE001 -- any error of a reader, as when it was set aside
            errors[row] = type(error).__name__
            SetAsideEvent.objects.filter(pk=row.pk).update(error=errors[row], tried_at=now)
        else:
            SetAsideEvent.objects.filter(pk=row.pk).delete()
    return errors


def drop_events(
    rows: Sequence[SetAsideEvent], *, reason: str, origin: Origin, now: datetime
) -> dict[SetAsideEvent, str]:
    """Give up these events, and return the texts of those that only their readers had.

    The event `audit.set_aside` is recorded before. Sealed events stay in the log. Raises:
    AuditUnavailable.
    """
    _record_operation("drop", rows, reason=reason, origin=origin, now=now)
    texts = {}
    for row in rows:
        with transaction.atomic():
            text = _get_reader(row.reader).drop(row.event_id)
            SetAsideEvent.objects.filter(pk=row.pk).delete()
        if text:
            texts[row] = text
    return texts


def _record_operation(
    operation: str,
    rows: Sequence[SetAsideEvent],
    *,
    origin: Origin,
    now: datetime,
    reason: str = "",
) -> None:
    """Record one event for each reader."""
    rows_by_reader: dict[str, list[SetAsideEvent]] = {}
    for row in rows:
        rows_by_reader.setdefault(row.reader, []).append(row)
    events = []
    for reader, of_reader in rows_by_reader.items():
        detail = {
            "operation": operation,
            "count": len(of_reader),
            "event_ids": _list_ids(of_reader),
        }
        events.append(
            NewEvent(
                Action.AUDIT_SET_ASIDE,
                origin,
                now,
                resource=_build_resource(reader),
                reason=reason,
                detail=detail,
            )
        )
    record_many(events)


def _get_reader(name: str) -> EventReader:
    """Return the reader with that name. Raises: LookupError if no installed app has it."""
    kind = name.partition(":")[0]
    for reader in event_readers:
        if reader.kind == kind:
            return reader
    raise LookupError(f"No installed app has the reader {name}.")


def _build_resource(reader: str) -> str:
    return f"{READER_RESOURCE}{reader}"


def _list_ids(rows: Sequence[SetAsideEvent]) -> list[str]:
    return [str(row.event_id) for row in rows[:MAX_ITEMS]]
