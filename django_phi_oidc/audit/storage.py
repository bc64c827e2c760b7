"""The last steps that every event takes: it gets its id and MAC, is committed to the trail, and is told to the log."""

import hmac
import logging
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connections

from .. import conf
from .._internal import metrics, randomness
from .._internal.sql import durable, insert, insert_autocommit, statement_timeout
from ..crypto import keyring
from ..errors import AuditUnavailable
from .actions import DETAIL_KEYS
from .events import (
    EVENT_FIELDS,
    AuthenticatedEvent,
    Event,
    NewEvent,
    build_event,
    compute_mac,
    compute_resource_pseudonym,
    serialize_event,
)
from .models import AuditEvent
from .router import AUDIT_ALIAS

logger = logging.getLogger("phi_oidc.audit")
EVENT_ERRORS = (IntegrityError, DataError)
"""What the database says of the event itself, and not of its own state."""

UNLOADABLE_ROW_ERRORS = (AttributeError, TypeError, ValueError, DataError)
"""What Django and psycopg raise of a value that the column's type, or SQLite, lets in and no model can hold."""


def authenticate_event(new_event: NewEvent) -> AuthenticatedEvent:
    """Return the event of act with its id and the MAC of the newest key.

    What is not allowed in its detail is dropped and told to the log as an error; in tests it is refused. Where
    AUDIT['resource_ids'] says so, the id in its resource becomes a pseudonym.
    Raises: KeyMissing; ImproperlyConfigured; ValueError for an action or outcome out of the vocabulary.
    """
    if new_event.resource and conf.resource_ids() == "keyed":
        new_event = new_event._replace(resource=get_resource_pseudonym(new_event.resource))
    key = keyring.get_keys("audit_mac")[0]
    event = build_event(new_event, id=randomness.uuid7(new_event.now), mac_key=key.id)
    return AuthenticatedEvent(event, compute_mac(event, key.material))


def get_resource_pseudonym(resource: str) -> str:
    """Return what the trail holds for resource (`Type/id`) if AUDIT['resource_ids'] is `keyed`.

    The key is the oldest of KEYS['audit_mac']: a resource keeps its pseudonym as long as that one stays in the list.
    Raises: KeyMissing.
    """
    return compute_resource_pseudonym(resource, key=keyring.get_keys("audit_mac")[-1].material)


def insert_events(events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None) -> None:
    """Commit the events to the trail by one INSERT, all or none, then tell the log.

    seconds: that a trail which hangs, on PostgreSQL, is waited for; else as long as it takes.
    Requires: no open transaction on the trail's alias.
    Raises: AuditUnavailable; one of EventFault when an id exists or the database can't hold a value.
    """
    with translate_database_errors():
        first = events[0]
        if timeout_seconds is not None:
            with statement_timeout(timeout_seconds, using=AUDIT_ALIAS):
                insert(build_rows(events), using=AUDIT_ALIAS)
        elif len(events) > 1 or not insert_autocommit(AuditEvent, (*first.event, first.mac), using=AUDIT_ALIAS):
            with durable(AUDIT_ALIAS):
                insert(build_rows(events), using=AUDIT_ALIAS)
    log_events(events)


def build_rows(events: Sequence[AuthenticatedEvent]) -> list[AuditEvent]:
    """Return the rows that hold the events."""
    return [AuditEvent(**each.event._asdict(), mac=each.mac) for each in events]


def log_events(events: Sequence[AuthenticatedEvent]) -> None:
    """Tell the log of events that are committed, each as one line of canonical JSON, and count them."""
    if metrics.has_sinks():
        for each in events:
            _count_metric(each.event)
    if logger.isEnabledFor(logging.INFO):
        for each in events:
            logger.info("%s", serialize_event(each))


def _count_metric(event: Event) -> None:
    # What a host project's own action has for a provider or a reason is its own word, and may be of a person.
    is_ours = event.action in DETAIL_KEYS
    provider, reason = (event.provider, event.reason) if is_ours else ("", "")
    metrics.increment(
        metrics.COMMITTED_EVENTS, provider=provider, action=event.action, outcome=event.outcome, reason=reason
    )


def get_stored_macs(event_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, bytes]:
    """Return the MACs of those events that are in the trail. Raises: AuditUnavailable."""
    with translate_database_errors():
        found = AuditEvent.objects.using(AUDIT_ALIAS).filter(id__in=event_ids).values_list("id", "mac")
        return {id_: bytes(mac) for id_, mac in found}


def parse_event_row(row: AuditEvent) -> AuthenticatedEvent:
    """Return the event as the trail holds it; the MAC is NOT checked."""
    return AuthenticatedEvent(Event(**{name: getattr(row, name) for name in EVENT_FIELDS}), bytes(row.mac))


def store_events(
    events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None
) -> Sequence[AuthenticatedEvent]:
    """Return those of batch that are in the trail now, whoever put them there; what it refuses is told to the log.

    seconds: as `commit` takes them. Raises: AuditUnavailable.
    """
    if len(events) > 1:
        try:
            insert_events(events, timeout_seconds=timeout_seconds)
        except EVENT_ERRORS:
            pass
        else:
            return events
    return [each for each in events if _store_event(each, timeout_seconds=timeout_seconds)]


def store_missing_events(
    events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None
) -> Sequence[AuthenticatedEvent]:
    """Do what `store` does, with a look first at which of batch are there already: none is written twice."""
    macs = get_stored_macs([each.event.id for each in events])
    stored = [each for each in events if each.event.id in macs and _is_stored(each, macs[each.event.id])]
    return [
        *stored,
        *store_events([each for each in events if each.event.id not in macs], timeout_seconds=timeout_seconds),
    ]


def _store_event(authenticated_event: AuthenticatedEvent, *, timeout_seconds: float | None) -> bool:
    try:
        insert_events([authenticated_event], timeout_seconds=timeout_seconds)
    except EVENT_ERRORS:
        return _is_stored(
            authenticated_event, get_stored_macs([authenticated_event.event.id]).get(authenticated_event.event.id)
        )
    return True


def _is_stored(authenticated_event: AuthenticatedEvent, stored_mac: bytes | None) -> bool:
    if stored_mac == authenticated_event.mac:
        return True
    fault = "refuses it" if stored_mac is None else "has another event of that id"
    logger.error("Event %s stays where it waits: the trail %s.", authenticated_event.event.id, fault)
    return False


def has_valid_row_mac(row: AuditEvent) -> bool:
    """Say whether the row's MAC is that of its event, under a key that is configured. Raises: KeyMissing."""
    return has_valid_mac(parse_event_row(row))


def has_valid_mac(authenticated_event: AuthenticatedEvent) -> bool:
    """Say whether the MAC is that of the event, under a key that is configured. Raises: KeyMissing."""
    keys = [key for key in keyring.get_keys("audit_mac") if key.id == authenticated_event.event.mac_key]
    return any(
        hmac.compare_digest(compute_mac(authenticated_event.event, key.material), authenticated_event.mac)
        for key in keys
    )


class translate_database_errors(AbstractContextManager[None]):  # noqa: N801 -- reads as what it does
    """Turn every fault of the audit database into AuditUnavailable, and start afresh after it."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, EVENT_ERRORS):
            connection = connections[AUDIT_ALIAS]
            if not connection.in_atomic_block:
                connection.close()
            raise AuditUnavailable from error
