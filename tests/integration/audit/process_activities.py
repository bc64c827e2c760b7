"""The activities of killable processes. An activity reports the ids of events after they are committed."""

import random
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.inserts import insert
from django_phi_oidc.audit import outbox, recorder
from django_phi_oidc.audit.events import Action, AuthenticatedEvent, NewEvent, Origin
from django_phi_oidc.audit.log import sequencer
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.storage import authenticate_event, build_rows
from django_phi_oidc.contrib.siem import delivery
from django_phi_oidc.contrib.siem.declaration import parse_sink
from django_phi_oidc.contrib.siem.sinks import create_sink
from tests.support.audit_log import KEY, NOW

Report = Callable[[Iterable[uuid.UUID]], None]
CHANGES = 2
"""Events of one change."""


def record(report: Report, *, marker: str, counts: list[int]) -> None:
    """Record events in batches of the given counts, each by one INSERT (SQLite: several, in a transaction)."""
    for call, count in enumerate(counts):
        origin = Origin(session=f"{marker}/{call}")
        events = [
            NewEvent(action=Action.CLAIM_REVEALED, origin=origin, now=NOW, detail={"claim": "birthdate"})
            for _ in range(count)
        ]
        report(recorder.record_many(events))


def commit_change(marker: str) -> list[uuid.UUID]:
    """Commit a change with its events, and return their ids."""
    with transaction.atomic():
        Group.objects.create(name=marker)
        return [
            outbox.enqueue(Action.SESSION_ENDED, origin=Origin(session=marker), now=NOW, detail={"tokens": number})
            for number in range(CHANGES)
        ]


def change(report: Report, *, marker: str) -> None:
    """Commit a change, whose events are moved after it, and then flush the outbox."""
    report(commit_change(marker))
    outbox.flush()


def permit(report: Report, *, marker: str) -> None:
    """Commit a change with its permit, and move the permit with the events of the change."""
    event = NewEvent(action=Action.LOGIN_SUCCEEDED, origin=Origin(session=marker), now=NOW)
    with outbox.defer_delivery() as changes, transaction.atomic():
        ids = commit_change(marker)
        permit = outbox.enqueue_permit([event])
    report([*ids, *(item.event.id for item in permit)])
    outbox.deliver_permit([*changes, *permit])
    report([uuid.UUID(int=0)])


def seal(report: Report) -> None:
    """Append all events to the log."""
    sequencer.append_to_log(key=KEY, now=NOW)


def deliver(report: Report, *, path: str, now: str, batch: int) -> None:
    """Deliver one batch to a file."""
    sink = create_sink(parse_sink("file", {"type": "file", "path": path}), hostname="portal")
    at = datetime.fromisoformat(now)
    delivery.deliver("file", sink, clock=lambda: at, seconds=0.0, batch_size=batch)


def write(report: Report, *, seed: int, transactions: int, max_wait: float) -> None:
    """Write events in transactions that stay open for some time, every tenth for longer; roll some back.

    max_wait: in seconds. Ids are generated before the wait, so transactions that commit early overtake others.
    """
    chance = random.Random(seed)
    for number in range(transactions):
        authenticated = [_authenticated(Action.ACCESS_DENIED) for _ in range(chance.randint(1, 5))]
        is_committed = chance.random() < 0.8
        with transaction.atomic(using=AUDIT_ALIAS):
            insert(build_rows(authenticated), using=AUDIT_ALIAS)
            time.sleep(chance.uniform(0, max_wait) * (10 if number % 10 == 0 else 1))
            if not is_committed:
                transaction.set_rollback(True, using=AUDIT_ALIAS)
        if is_committed:
            report(item.event.id for item in authenticated)


def keep_sealing(report: Report, *, limit: int, goes_on: Callable[[], bool]) -> None:
    """Append in small batches until stopped, and report each checkpoint by its size."""
    while goes_on():
        sealed = sequencer.append_to_log(key=KEY, now=clock.now(), limit=limit)
        if sealed.note:
            report([uuid.UUID(int=int(sealed.note.split("\n")[1]))])
        else:
            time.sleep(0.001)


def _authenticated(action: str) -> AuthenticatedEvent:
    return authenticate_event(NewEvent(action=action, origin=Origin(), now=clock.now()))


ACTIVITIES: dict[str, Callable[..., Any]] = {
    activity.__name__: activity for activity in (record, change, permit, seal, deliver, write, keep_sealing)
}
