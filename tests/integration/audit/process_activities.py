"""What the processes of `killing` do: an activity tells of the ids of what is done, once it is done."""

import random
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.sql import insert
from django_phi_oidc.audit import outbox, recorder
from django_phi_oidc.audit.events import Action, AuthenticatedEvent, NewEvent, Origin
from django_phi_oidc.audit.log import sequencer
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.storage import authenticate_event, build_rows
from django_phi_oidc.config.sinks import parse_sink
from django_phi_oidc.siem import delivery
from django_phi_oidc.siem.sinks import create_sink
from tests.support.audit_log import KEY, NOW

Tell = Callable[[Iterable[uuid.UUID]], None]
CHANGES = 2
"""Events of one change."""


def record(tell: Tell, *, marker: str, counts: list[int]) -> None:
    """Record so many events by one INSERT (SQLite: by some, in a transaction), then so many, and so on."""
    for call, count in enumerate(counts):
        origin = Origin(session=f"{marker}/{call}")
        acts = [
            NewEvent(action=Action.CLAIM_REVEALED, origin=origin, now=NOW, detail={"claim": "birthdate"})
            for _ in range(count)
        ]
        tell(recorder.record_many(acts))


def commit_change(marker: str) -> list[uuid.UUID]:
    """Commit a change with its events, and return their ids."""
    with transaction.atomic():
        Group.objects.create(name=marker)
        return [
            outbox.enqueue(Action.SESSION_ENDED, origin=Origin(session=marker), now=NOW, detail={"tokens": number})
            for number in range(CHANGES)
        ]


def change(tell: Tell, *, marker: str) -> None:
    """Commit a change, whose events move to the trail behind it, and then whatever else waits in the outbox."""
    tell(commit_change(marker))
    outbox.flush()


def permit(tell: Tell, *, marker: str) -> None:
    """Commit a change, and a permit that takes the change's events along."""
    with outbox.defer_delivery() as changes:
        ids = commit_change(marker)
    tell(ids)
    act = NewEvent(action=Action.LOGIN_SUCCEEDED, origin=Origin(session=marker), now=NOW)
    outbox.record_with_deferred(changes, [act])
    tell([uuid.UUID(int=0)])


def seal(tell: Tell) -> None:
    """Seal what there is."""
    sequencer.append_to_log(key=KEY, now=NOW)


def deliver(tell: Tell, *, path: str, now: str, batch: int) -> None:
    """Deliver one batch to a file."""
    sink = create_sink(parse_sink("file", {"type": "file", "path": path}), hostname="portal")
    at = datetime.fromisoformat(now)
    delivery.deliver("file", sink, clock=lambda: at, seconds=0.0, batch_size=batch)


def write(tell: Tell, *, seed: int, transactions: int, held: float) -> None:
    """Write events in transactions that stay open up to held seconds, each tenth up to ten times that; roll some back.

    The ids are drawn before the wait, so those who commit early overtake the others.
    """
    chance = random.Random(seed)
    for number in range(transactions):
        finished = [_finished(Action.ACCESS_DENIED) for _ in range(chance.randint(1, 5))]
        is_kept = chance.random() < 0.8
        with transaction.atomic(using=AUDIT_ALIAS):
            insert(build_rows(finished), using=AUDIT_ALIAS)
            time.sleep(chance.uniform(0, held) * (10 if number % 10 == 0 else 1))
            if not is_kept:
                transaction.set_rollback(True, using=AUDIT_ALIAS)
        if is_kept:
            tell(each.event.id for each in finished)


def keep_sealing(tell: Tell, *, limit: int, goes_on: Callable[[], bool]) -> None:
    """Seal again and again, small batches, and tell of each checkpoint by its size."""
    while goes_on():
        sealed = sequencer.append_to_log(key=KEY, now=clock.now(), limit=limit)
        if sealed.note:
            tell([uuid.UUID(int=int(sealed.note.split("\n")[1]))])
        else:
            time.sleep(0.001)


def _finished(action: str) -> AuthenticatedEvent:
    return authenticate_event(NewEvent(action=action, origin=Origin(), now=clock.now()))


ACTIVITIES: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (record, change, permit, seal, deliver, write, keep_sealing)
}
