"""The audit events of a normal week in a hospital, and single events."""

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django_phi_oidc.audit.events import Event, NewEvent, Origin, build_event

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
STAFF, PATIENTS, PORTAL = 220, 4_000, 900
"""Numbers of staff, of patients, and of patients who view their own record per day."""
SHIFTS = (6, 14, 22)
FAULTS = ("provider_error", "state_expired", "state_missing", "code_missing", "transport_timeout", "state_unknown")


def act(
    action: str, *, at: datetime, actor: str = "", client_ip: str = "", session: str = "", **fields: Any
) -> NewEvent:
    """Return a new event of that actor."""
    return NewEvent(action=action, origin=Origin(actor, session, client_ip, "a-request"), now=at, **fields)


def event(action: str, *, at: datetime = MONDAY, **fields: Any) -> Event:
    """Return an event as the rules see it."""
    return of(act(action, at=at, **fields))


def of(done: NewEvent) -> Event:
    """Return the built event."""
    return build_event(done, id=uuid.uuid4(), mac_key="a key")


def week(*, events: int = 100_000, seed: int = 8) -> list[NewEvent]:
    """Return that many events of one week in order of time, deterministic per seed."""
    chance = random.Random(seed)
    acts = [
        done
        for day in range(7)
        for done in (*_work(chance, MONDAY + timedelta(days=day)), *_own(chance, MONDAY + timedelta(days=day)))
    ]
    assert len(acts) >= events, len(acts)
    return sorted(chance.sample(acts, events), key=lambda done: done.now)


def _work(chance: random.Random, day: datetime) -> Iterator[NewEvent]:
    for number in range(STAFF):
        # Two of seven days off; the front desk views more records than a ward.
        if chance.random() < 2 / 7:
            continue
        shift = day + timedelta(hours=SHIFTS[number % 3], minutes=chance.randrange(40))
        seen = chance.randint(50, 80) if number < 10 else chance.randint(10, 35)
        ward = range(number % 40 * 100, number % 40 * 100 + 100)
        who = {"actor": str(number), "client_ip": f"10.0.{number % 8}.{number}", "session": f"{day:%d} {number}"}
        yield from _signed_in(chance, shift, who)
        for _ in range(seen):
            patient = chance.choice(ward) if chance.random() < 0.9 else chance.randrange(PATIENTS)
            for _ in range(chance.randint(2, 4)):
                at = shift + timedelta(seconds=chance.randrange(8 * 3600))
                fields = {"subject": f"patient {patient}", "purpose": "TREAT"}
                if chance.random() < 0.5:
                    yield act("claim.revealed", at=at, detail={"claim": "birthdate"}, **fields, **who)
                else:
                    yield act("access.granted", at=at, resource=f"Patient/{patient}", **fields, **who)
        yield from _gone(chance, shift + timedelta(hours=8), who)
    yield act("audit.verified", at=day + timedelta(hours=3), detail={"findings": 0, "events": 5, "tree_size": 5})


def _own(chance: random.Random, day: datetime) -> Iterator[NewEvent]:
    for number in chance.sample(range(PATIENTS), PORTAL):
        at = day + timedelta(seconds=chance.randrange(86_400))
        address = f"198.51.{number // 256}.{number % 256}"
        who = {"actor": f"p{number}", "client_ip": address, "session": f"{day:%d} p{number}"}
        yield from _signed_in(chance, at, who)
        for minute in range(chance.randint(0, 3)):
            at += timedelta(minutes=minute)
            fields = {"subject": f"patient {number}", "purpose": "PATRQT", "detail": {"claim": "address"}}
            yield act("claim.revealed", at=at, **fields, **who)
        yield from _gone(chance, at + timedelta(minutes=15), who)


def _signed_in(chance: random.Random, at: datetime, who: dict[str, str]) -> Iterator[NewEvent]:
    if chance.random() < 0.03:
        refused = {"reason": chance.choice(FAULTS), "outcome": "failure", "provider": "default"}
        origin = {"client_ip": who["client_ip"]}
        yield act("login.refused", at=at - timedelta(seconds=30), detail={"stage": "callback"}, **refused, **origin)
    yield act("login.succeeded", at=at, provider="default", detail={"claims": ["birthdate"]}, **who)


def _gone(chance: random.Random, at: datetime, who: dict[str, str]) -> Iterator[NewEvent]:
    yield act("session.ended", at=at, reason="idle_timeout", detail={"tokens": 1}, provider="default", **who)
    if chance.random() < 0.01:
        fields = {"hint": "access_token", "attempts": 1, "status": "pending"}
        failed = {"reason": "transport_timeout", "outcome": "error", "provider": "default"}
        yield act("token.revocation_failed", at=at, detail=fields, **failed, **who)
    fields = {"hint": "access_token", "attempts": 1, "status": "done"}
    yield act("token.revoked", at=at + timedelta(minutes=1), detail=fields, provider="default", **who)
