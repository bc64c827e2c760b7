"""Give events their id and MAC, commit them to the audit log, and write them to the application
log.
"""

import hmac
import logging
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    connections,
    transaction,
)
from django.utils.crypto import salted_hmac

from .._internal import metrics, randomness
from .._internal.inserts import insert
from .._internal.sql import durable
from ..crypto import keyring
from ..crypto.keyring import SymmetricKey
from ..errors import AuditUnavailable, KeyMissing
from . import conf
from .actions import DECLARATION_ACTIONS, DETAIL_KEYS
from .autocommit_insert import insert_autocommit
from .connection_deadline import CLIENT_MARGIN_SECONDS, connection_deadline
from .events import (
    EVENT_FIELDS,
    AuthenticatedEvent,
    Event,
    NewEvent,
    build_event,
    canonical_bytes,
    compute_mac,
    compute_resource_pseudonym,
    is_withdrawal,
    serialize_event,
)
from .models import AuditEvent, AuditUnsealed
from .request_context import attribute_to_command
from .router import AUDIT_ALIAS
from .statement_timeout import statement_timeout

logger = logging.getLogger("phi_oidc.audit")
WRITE_SECONDS = 4.0
"""Limit for a read or write of events on PostgreSQL, because a request waits for its permit.
Includes connecting.
"""
_PROOF_SALT = "django_phi_oidc.audit.waiting_event"
EVENT_ERRORS = (IntegrityError, DataError)
"""Database errors about the event itself, and not about the state of the database."""

UNLOADABLE_ROW_ERRORS = (AttributeError, TypeError, ValueError, DataError)
"""Raised by Django and psycopg for values that the column type, or SQLite, accepts but a model
cannot load.
"""


def authenticate_event(
    new_event: NewEvent,
    *,
    keys: Sequence[SymmetricKey] | None = None,
    allow_declaration: bool = False,
) -> AuthenticatedEvent:
    """Return the event with an id and the MAC of the newest key, and with the actor of the running
    command, if any.

    Refused detail is dropped and logged as an error; tests raise instead. The id in the resource
    becomes a pseudonym if AUDIT['resource_ids'] is `keyed`. keys: the MAC keys, read once for many
    events; None: read them now.
    allow_declaration: for the process that has the signing key of the log, and puts the event into
    the tree itself.
    Raises: KeyMissing; ImproperlyConfigured; ValueError for an unknown action or outcome, and for
    one of DECLARATION_ACTIONS.
    """
    if new_event.action in DECLARATION_ACTIONS and not allow_declaration:
        raise ValueError(f"{new_event.action} is recorded only with the signing key of the log.")
    keys = keys or keyring.get_keys("audit_mac")
    new_event = attribute_to_command(new_event)
    if new_event.resource:
        new_event = new_event._replace(resource=_get_stored_resource(new_event.resource, keys))
    event = build_event(new_event, id=randomness.uuid7(new_event.now), mac_key=keys[0].id)
    return AuthenticatedEvent(event, compute_mac(event, keys[0].material))


def authenticate_changes(new_events: Sequence[NewEvent]) -> list[AuthenticatedEvent]:
    """Return the events of a change as `authenticate_event` does; if the keys are missing, with
    proofs instead of MACs (`has_valid_proof`).

    Only events of withdrawals may lack a MAC: a change that ends or withdraws something must not
    depend on a key.
    Raises: as `authenticate_event`.
    """
    try:
        keys = keyring.get_keys("audit_mac")
    except KeyMissing as error:
        if not all(is_withdrawal(new_event.action, new_event.detail) for new_event in new_events):
            raise
        logger.error(  # noqa: TRY400 -- the traceback may contain credentials of a key service
            "%d events are stored without a MAC until its key is back: %s", len(new_events), error
        )
        attributed = map(attribute_to_command, new_events)
        events = []
        for new_event in attributed:
            event = build_event(new_event, id=randomness.uuid7(new_event.now), mac_key="")
            events.append(AuthenticatedEvent(event, _compute_proof(event, settings.SECRET_KEY)))
        return events
    return [authenticate_event(new_event, keys=keys) for new_event in new_events]


def has_valid_proof(item: AuthenticatedEvent) -> bool:
    """Whether a process of this portal wrote an event that waits for its MAC.

    The proof is HMAC-SHA256 over the canonical bytes, under a key that is derived from SECRET_KEY:
    each process has it, and the databases do not.
    """
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(hmac.compare_digest(_compute_proof(item.event, key), item.mac) for key in secrets)


def _compute_proof(event: Event, secret: str | bytes) -> bytes:
    return salted_hmac(
        _PROOF_SALT, canonical_bytes(event), secret=secret, algorithm="sha256"
    ).digest()


def authenticate_late(event: Event, *, keys: Sequence[SymmetricKey]) -> AuthenticatedEvent:
    """Return an event of `authenticate_changes` that has no MAC with its MAC. keys: the MAC keys,
    at least one.
    """
    event = event._replace(mac_key=keys[0].id, resource=_get_stored_resource(event.resource, keys))
    return AuthenticatedEvent(event, compute_mac(event, keys[0].material))


def _get_stored_resource(resource: str, keys: Sequence[SymmetricKey]) -> str:
    """Return the resource as the audit log stores it. keys: the MAC keys."""
    is_plain = not resource or conf.resource_ids() == "plain"
    if is_plain:
        return resource
    return compute_resource_pseudonym(resource, key=keys[-1].material)


def get_resource_pseudonym(resource: str) -> str:
    """Return the pseudonym that the audit log stores for a resource (`Type/id`) if
    AUDIT['resource_ids'] is `keyed`.

    Use it to search for the events of a resource. The key is the oldest of KEYS['audit_mac'], so a
    pseudonym is stable for as long as that key stays in the list. Raises: KeyMissing.
    """
    return compute_resource_pseudonym(resource, key=keyring.get_keys("audit_mac")[-1].material)


def insert_events(
    events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None
) -> None:
    """Commit the events to the audit log by one INSERT, all or none, then log them.

    timeout_seconds: statement timeout on PostgreSQL; None: only the deadline of WRITE_SECONDS in
    this process, at which the database may still commit the events. Requires: no open transaction
    on the audit alias.
    Raises: AuditUnavailable; one of EVENT_ERRORS if an id exists or the database cannot store a
    value.
    """
    with audit_deadline(WRITE_SECONDS if timeout_seconds is None else timeout_seconds):
        first = events[0]
        if timeout_seconds is not None:
            with statement_timeout(timeout_seconds, using=AUDIT_ALIAS):
                insert(build_rows(events), using=AUDIT_ALIAS)
        elif len(events) > 1 or not insert_autocommit(
            AuditEvent, (*first.event, first.mac), using=AUDIT_ALIAS
        ):
            with durable(AUDIT_ALIAS):
                insert(build_rows(events), using=AUDIT_ALIAS)
    log_events(events)


def is_writable(*, now: datetime, timeout_seconds: float) -> bool:
    """Insert an event in a transaction that is rolled back, and return whether it was stored and
    queued for sealing.

    Nothing stays but dead rows. On PostgreSQL, timeout_seconds limits each statement. Requires: no
    open transaction.
    """
    id_ = randomness.uuid7(now)
    mac = bytes(32)
    try:
        with statement_timeout(timeout_seconds, using=AUDIT_ALIAS):
            insert(
                [
                    AuditEvent(
                        id=id_,
                        v=1,
                        occurred_at=now,
                        action="probe",
                        outcome="success",
                        detail="{}",
                        mac=mac,
                    )
                ],
                using=AUDIT_ALIAS,
            )
            is_queued: bool = AuditUnsealed.objects.using(AUDIT_ALIAS).filter(pk=id_).exists()
            transaction.set_rollback(True, using=AUDIT_ALIAS)
    except (DatabaseError, InterfaceError):
        return False
    return is_queued


def build_rows(events: Sequence[AuthenticatedEvent]) -> list[AuditEvent]:
    # The fields of an event are in the order of the columns: values by position take half the time
    # of those by name.
    create_row: Any = AuditEvent
    rows = []
    for item in events:
        rows.append(create_row(*item.event, item.mac))
    return rows


def log_events(events: Sequence[AuthenticatedEvent]) -> None:
    """Write committed events to the application log, one line of canonical JSON each, and count
    them.
    """
    if metrics.has_sinks():
        for item in events:
            _count_metric(item.event)
    if logger.isEnabledFor(logging.INFO):
        for item in events:
            logger.info("%s", serialize_event(item))


def _count_metric(event: Event) -> None:
    # Provider and reason of a host project's action are not from a closed list, and may be personal
    # data.
    is_builtin = event.action in DETAIL_KEYS
    metrics.increment(
        metrics.COMMITTED_EVENTS,
        action=event.action,
        outcome=event.outcome,
        provider=event.provider if is_builtin else "",
        reason=event.reason if is_builtin else "",
    )


def get_stored_macs(event_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, bytes]:
    """Return the MACs of those of the events that are in the audit log. Raises:
    AuditUnavailable.
    """
    with audit_deadline(WRITE_SECONDS):
        rows = (
            AuditEvent.objects.using(AUDIT_ALIAS).filter(id__in=event_ids).values_list("id", "mac")
        )
        return {event_id: bytes(mac) for event_id, mac in rows}


def parse_event_row(row: AuditEvent) -> AuthenticatedEvent:
    """Return the event of a row. The MAC is NOT checked."""
    return AuthenticatedEvent(
        Event(**{name: getattr(row, name) for name in EVENT_FIELDS}), bytes(row.mac)
    )


def store_events(
    events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None
) -> Sequence[AuthenticatedEvent]:
    """Insert events, and return those that are in the audit log now, also if another process wrote
    them.

    Events that the database refuses are logged. timeout_seconds: as for `insert_events`. Raises:
    AuditUnavailable.
    """
    if len(events) > 1:
        with suppress(*EVENT_ERRORS):
            insert_events(events, timeout_seconds=timeout_seconds)
            return events
    result = []
    for item in events:
        if _store_event(item, timeout_seconds=timeout_seconds):
            result.append(item)
    return result


def store_missing_events(
    events: Sequence[AuthenticatedEvent], *, timeout_seconds: float | None = None
) -> Sequence[AuthenticatedEvent]:
    """Do what `store_events` does, but first look up which events are stored already, and insert
    only the others.
    """
    macs = get_stored_macs([item.event.id for item in events])
    stored = []
    for item in events:
        if item.event.id in macs and _is_stored(item, macs[item.event.id]):
            stored.append(item)
    missing = []
    for item in events:
        if item.event.id not in macs:
            missing.append(item)
    return [*stored, *store_events(missing, timeout_seconds=timeout_seconds)]


def _store_event(item: AuthenticatedEvent, *, timeout_seconds: float | None) -> bool:
    try:
        insert_events([item], timeout_seconds=timeout_seconds)
    except EVENT_ERRORS:
        return _is_stored(item, get_stored_macs([item.event.id]).get(item.event.id))
    return True


def _is_stored(item: AuthenticatedEvent, stored_mac: bytes | None) -> bool:
    if stored_mac == item.mac:
        return True

    if stored_mac is None:
        fault = "refuses it"
    else:
        fault = "has another event with that id"

    logger.error("Event %s is not moved: the audit log %s.", item.event.id, fault)
    return False


def has_valid_row_mac(row: AuditEvent) -> bool:
    """Whether the MAC of the row is valid under a configured key. Raises: KeyMissing."""
    return has_valid_mac(parse_event_row(row))


def has_valid_mac(item: AuthenticatedEvent) -> bool:
    """Whether the MAC of the event is valid under a configured key. Raises: KeyMissing."""
    keys = []
    for key in keyring.get_keys("audit_mac"):
        if key.id == item.event.mac_key:
            keys.append(key)
    return any(hmac.compare_digest(compute_mac(item.event, key.material), item.mac) for key in keys)


class translate_database_errors(AbstractContextManager[None]):  # noqa: N801 -- used like a function
    """Turn errors of the audit database into AuditUnavailable, and close the connection so that the
    next use is new.
    """

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(
            error, EVENT_ERRORS
        ):
            connection = connections[AUDIT_ALIAS]
            if not connection.in_atomic_block:
                connection.close()
            raise AuditUnavailable from error


@contextmanager
def audit_deadline(seconds: float) -> Iterator[None]:
    """Limit all uses of the audit database in the block together, on PostgreSQL, also while it
    hangs.

    Raises: AuditUnavailable, as `translate_database_errors` does, a moment after that time.
    """
    with (
        translate_database_errors(),
        connection_deadline(seconds + CLIENT_MARGIN_SECONDS, using=AUDIT_ALIAS),
    ):
        yield
