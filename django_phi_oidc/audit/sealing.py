"""Events become leaves of the log, and a checkpoint is signed over them: one transaction, one sealer at a time.

What is new lies in a queue that the events' own transactions fill, so the work is proportional to it. A crash leaves
the queue as it was. Nothing is sealed on top of a log that is not the continuation of what was signed before.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connections, transaction

from ..entropy import first_uuid7
from ..merkle.rfc6962 import leaf_hash
from ..statements import insert
from .appending import Leaf, alone, append, current, tell_witness
from .events import Act, Action, Finished, Origin
from .models import AuditUnsealed
from .reading import RawEvent, mac_checker, read_queue
from .routing import AUDIT_ALIAS
from .writing import finish, reaching_the_trail, rows_of, tell

UUID_BYTES = 16
BATCH = 50_000
"""Events in one transaction and under one checkpoint, at most."""
LAG = timedelta(minutes=5)
"""An event that waits for longer has an alert."""
_FIRST = uuid.UUID(int=0)
_PART = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one transaction of the sealer came to."""

    events: int = 0
    refused: int = 0
    """Events whose MAC does not fit, or whose MAC key is not configured."""
    note: str = ""
    """The new checkpoint; empty where nothing was new."""
    last: uuid.UUID | None = None
    """The largest id that was looked at."""


@dataclass(slots=True)
class _Batch:
    leaves: list[Leaf] = field(default_factory=list)
    forged: list[bytes] = field(default_factory=list)
    unverifiable: list[bytes] = field(default_factory=list)
    last: bytes = b""


def seal(
    *,
    key: Ed25519PrivateKey,
    now: datetime,
    limit: int = BATCH,
    refused: bool = False,
    after: uuid.UUID = _FIRST,
) -> Sealed:
    """Seal up to limit events that are committed and not sealed, and return what became of it.

    refused, after: look again at events that were refused before, those with an id beyond after, as when a missing MAC
    key was put back.
    Raises: SealingRefused when the log as it stands is not what was signed last, here or outside; KeyMissing.
    """
    with alone():
        log = current(key)
        batch = _sort(read_queue(after=after, limit=limit, refused=refused))
        note = append(log, batch.leaves, key=key, now=now) if batch.leaves else ""
        alerts = _set_aside(batch, now=now)
    tell(alerts)
    if note:
        tell_witness(note)
    return Sealed(
        events=len(batch.leaves),
        refused=len(batch.forged) + len(batch.unverifiable),
        note=note,
        last=_uuid(batch.last) if batch.last else None,
    )


def seal_all(*, key: Ed25519PrivateKey, clock: Callable[[], datetime], again: bool = False) -> Iterator[Sealed]:
    """Seal until nothing is new, and yield what became of each transaction.

    again: first put every event without a leaf into the queue that is not there, and look at refused ones once more.
    Raises: what `seal` does.
    """
    last: uuid.UUID | None = _FIRST if again else None
    if again:
        _requeue()
    while last is not None:
        done = seal(key=key, now=clock(), refused=True, after=last)
        last = done.last
        yield done
    while True:
        done = seal(key=key, now=clock())
        yield done
        if done.events + done.refused < BATCH:
            return


def late(*, now: datetime) -> int:
    """Return how many events have waited longer than LAG to be sealed. Raises: AuditUnavailable."""
    with reaching_the_trail():
        return AuditUnsealed.objects.filter(refused=False, event_id__lt=first_uuid7(now - LAG)).count()


def _sort(events: Iterable[RawEvent]) -> _Batch:
    """Tell the events whose MAC fits from the others."""
    batch, compute_mac = _Batch(), mac_checker()
    for _, event_id, _, mac_key, mac, canonical in events:
        if len(event_id) != UUID_BYTES:
            # No UUID, which SQLite alone can hold: `audit verify` names it.
            continue
        batch.last = event_id
        computed = compute_mac(mac_key, canonical or b"")
        if canonical and computed == mac:
            batch.leaves.append((event_id, leaf_hash(canonical)))
        elif computed is None:
            batch.unverifiable.append(event_id)
        else:
            batch.forged.append(event_id)
    return batch


def _set_aside(batch: _Batch, *, now: datetime) -> list[Finished]:
    """Mark what is not sealed, so that each run does not look at it again, and raise an alert for each kind."""
    alerts = []
    for rule, ids in (("event_forged", batch.forged), ("event_key_unknown", batch.unverifiable)):
        marked = sum(
            AuditUnsealed.objects.filter(event_id__in=part, refused=False).update(refused=True) for part in _parts(ids)
        )
        if marked:
            act = Act(
                action=Action.ALERT_RAISED,
                origin=Origin(),
                now=now,
                resource=f"AuditEvent/{_uuid(ids[0])}",
                detail={"rule": rule, "count": len(ids)},
            )
            alerts.append(finish(act))
    if alerts:
        insert(rows_of(alerts), using=AUDIT_ALIAS)
    return alerts


def _requeue() -> None:
    """Let the queue hold what has no leaf, all of it and nothing else."""
    with transaction.atomic(using=AUDIT_ALIAS), connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_phi_oidc_auditunsealed (event_id) SELECT e.id FROM django_phi_oidc_auditevent e "
            "LEFT JOIN django_phi_oidc_auditleaf l ON l.event_id = e.id WHERE l.event_id IS NULL "
            "ON CONFLICT DO NOTHING"
        )
        cursor.execute(
            "DELETE FROM django_phi_oidc_auditunsealed "
            "WHERE event_id IN (SELECT event_id FROM django_phi_oidc_auditleaf)"
        )


def _parts(ids: Sequence[bytes]) -> Iterator[list[uuid.UUID]]:
    """Yield ids in parts that any database takes in one statement."""
    for start in range(0, len(ids), _PART):
        yield [_uuid(id_) for id_ in ids[start : start + _PART]]


def _uuid(raw: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=raw)
