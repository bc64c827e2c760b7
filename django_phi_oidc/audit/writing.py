"""The last steps that every event takes: it gets its id and MAC, is committed to the trail, and is told to the log."""

import hmac
import logging
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connections

from .. import conf, entropy, keyring, metering
from ..errors import AuditUnavailable
from ..statements import durably, insert, insert_alone, within
from .events import FIELDS, Act, Event, Finished, build_event, compute_mac, event_text, keyed_id
from .models import AuditEvent
from .routing import AUDIT_ALIAS
from .vocabulary import DETAIL_KEYS

logger = logging.getLogger("phi_oidc.audit")
EventFault = (IntegrityError, DataError)
"""What the database says of the event itself, and not of its own state."""

UNLOADABLE = (AttributeError, TypeError, ValueError, DataError)
"""What Django and psycopg raise of a value that the column's type, or SQLite, lets in and no model can hold."""


def finish(act: Act) -> Finished:
    """Return the event of act with its id and the MAC of the newest key.

    What is not allowed in its detail is dropped and told to the log as an error; in tests it is refused. Where
    RESOURCE_IDS says so, the id in its resource becomes a pseudonym.
    Raises: KeyMissing; ImproperlyConfigured; ValueError for an action or outcome out of the vocabulary.
    """
    if act.resource and conf.resource_ids() == "keyed":
        act = act._replace(resource=keyed_resource(act.resource))
    key = keyring.keys("AUDIT_MAC_KEYS")[0]
    event = build_event(act, id=entropy.uuid7(act.now), mac_key=key.id)
    return Finished(event, compute_mac(event, key.material))


def keyed_resource(resource: str) -> str:
    """Return what the trail holds for resource (`Type/id`) where RESOURCE_IDS is `keyed`: to look for its events.

    The key is the oldest of AUDIT_MAC_KEYS: a resource keeps its pseudonym for as long as that one stays in the list.
    Raises: KeyMissing.
    """
    return keyed_id(resource, key=keyring.keys("AUDIT_MAC_KEYS")[-1].material)


def commit(finished: Sequence[Finished], *, seconds: float | None = None) -> None:
    """Commit the events to the trail by one INSERT, all or none, then tell the log.

    seconds: that a trail which hangs, on PostgreSQL, is waited for; else as long as it takes.
    Requires: no open transaction on the trail's alias.
    Raises: AuditUnavailable; one of EventFault when an id exists or the database can't hold a value.
    """
    with reaching_the_trail():
        first = finished[0]
        if seconds is not None:
            with within(seconds, using=AUDIT_ALIAS):
                insert(rows_of(finished), using=AUDIT_ALIAS)
        elif len(finished) > 1 or not insert_alone(AuditEvent, (*first.event, first.mac), using=AUDIT_ALIAS):
            with durably(AUDIT_ALIAS):
                insert(rows_of(finished), using=AUDIT_ALIAS)
    tell(finished)


def rows_of(finished: Sequence[Finished]) -> list[AuditEvent]:
    """Return the rows that hold the events."""
    return [AuditEvent(**each.event._asdict(), mac=each.mac) for each in finished]


def tell(finished: Sequence[Finished]) -> None:
    """Tell the log of events that are committed, each as one line of canonical JSON, and count them."""
    if metering.is_on():
        for each in finished:
            _count(each.event)
    if logger.isEnabledFor(logging.INFO):
        for each in finished:
            logger.info("%s", event_text(each))


def _count(event: Event) -> None:
    # What a host project's own action has for a provider or a reason is its own word, and may be of a person.
    is_ours = event.action in DETAIL_KEYS
    provider, reason = (event.provider, event.reason) if is_ours else ("", "")
    metering.count(metering.EVENTS, provider=provider, action=event.action, outcome=event.outcome, reason=reason)


def macs_of(ids: Collection[uuid.UUID]) -> dict[uuid.UUID, bytes]:
    """Return the MACs of those events that are in the trail. Raises: AuditUnavailable."""
    with reaching_the_trail():
        found = AuditEvent.objects.using(AUDIT_ALIAS).filter(id__in=ids).values_list("id", "mac")
        return {id_: bytes(mac) for id_, mac in found}


def finished_from(row: AuditEvent) -> Finished:
    """Return the event as the trail holds it; the MAC is NOT checked."""
    return Finished(Event(**{name: getattr(row, name) for name in FIELDS}), bytes(row.mac))


def store(batch: Sequence[Finished], *, seconds: float | None = None) -> Sequence[Finished]:
    """Return those of batch that are in the trail now, whoever put them there; what it refuses is told to the log.

    seconds: as `commit` takes them. Raises: AuditUnavailable.
    """
    if len(batch) > 1:
        try:
            commit(batch, seconds=seconds)
        except EventFault:
            pass
        else:
            return batch
    return [each for each in batch if _store(each, seconds=seconds)]


def store_new(batch: Sequence[Finished], *, seconds: float | None = None) -> Sequence[Finished]:
    """Do what `store` does, with a look first at which of batch are there already: none is written twice."""
    macs = macs_of([each.event.id for each in batch])
    stored = [each for each in batch if each.event.id in macs and _is_same(each, macs[each.event.id])]
    return [*stored, *store([each for each in batch if each.event.id not in macs], seconds=seconds)]


def _store(finished: Finished, *, seconds: float | None) -> bool:
    try:
        commit([finished], seconds=seconds)
    except EventFault:
        return _is_same(finished, macs_of([finished.event.id]).get(finished.event.id))
    return True


def _is_same(finished: Finished, mac: bytes | None) -> bool:
    if mac == finished.mac:
        return True
    fault = "refuses it" if mac is None else "has another event of that id"
    logger.error("Event %s stays where it waits: the trail %s.", finished.event.id, fault)
    return False


def is_genuine(row: AuditEvent) -> bool:
    """Say whether the row's MAC is that of its event, under a key that is configured. Raises: KeyMissing."""
    return has_our_mac(finished_from(row))


def has_our_mac(finished: Finished) -> bool:
    """Say whether the MAC is that of the event, under a key that is configured. Raises: KeyMissing."""
    keys = [key for key in keyring.keys("AUDIT_MAC_KEYS") if key.id == finished.event.mac_key]
    return any(hmac.compare_digest(compute_mac(finished.event, key.material), finished.mac) for key in keys)


class reaching_the_trail(AbstractContextManager[None]):  # noqa: N801 -- reads as what it does
    """Turn every fault of the audit database into AuditUnavailable, and start afresh after it."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, EventFault):
            connection = connections[AUDIT_ALIAS]
            if not connection.in_atomic_block:
                connection.close()
            raise AuditUnavailable from error
