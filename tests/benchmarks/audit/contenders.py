"""The contenders that write audit events: the table of each, and a function that writes and commits one event.

All write the same event: a user revealed a claim of a person. The id, subject and session (of a thousand) vary. The
bare contenders get these values precomputed.
"""

import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from django_phi_oidc.audit.events import Action, Origin

MODELS = "tests.benchmarks.audit.rows.models"
"""It cannot be imported before django.setup()."""
PEOPLE = 1000
CLAIM, PURPOSE, PROVIDER = "birthdate", "TREAT", "default"
DETAIL = f'{{"claim":"{CLAIM}"}}'
EVENT_TABLE = "phi_oidc_audit_auditevent"
COLUMNS = (
    *("id", "v", "mac_key", "occurred_at", "action", "outcome", "actor", "on_behalf_of", "subject"),
    *("provider", "session", "client_ip", "purpose", "resource", "reason", "request_id", "detail", "mac"),
)
_PLACES = ", ".join(["%s"] * len(COLUMNS))
_LOCK = 0x62656E6368
Write = Callable[[], object]


def person(number: int) -> dict[str, str]:
    """Return the values of the event with that number."""
    index = number % PEOPLE
    return {
        "actor": str(index),
        "subject": hashlib.sha256(b"%d" % index).hexdigest(),
        "session": hashlib.sha256(b"session %d" % index).hexdigest()[:32],
        "client_ip": f"198.51.100.{index % 256}",
        "request_id": f"{index:032x}",
    }


def prepare() -> None:
    """Create the tables of the configured contender."""
    if settings.CONTENDER in settings.PEERS:
        call_command("migrate", run_syncdb=True, verbosity=0)
        return
    call_command("migrate", verbosity=0)
    with connections["phi_audit"].cursor() as cursor:
        for statement in TABLES.get(settings.CONTENDER, ()):
            cursor.execute(statement)


_BARE_TABLE = (
    # That of a former run with the same database.
    "DROP TABLE IF EXISTS bench_bare",
    f"CREATE TABLE bench_bare (LIKE {EVENT_TABLE} INCLUDING ALL)",
)
TABLES: Mapping[str, tuple[str, ...]] = {
    # Columns, defaults, constraints and indexes; no triggers.
    "bare": _BARE_TABLE,
    "one cursor": _BARE_TABLE,
    "bare, no wait": _BARE_TABLE,
    "orm": (f"CREATE TABLE bench_orm (LIKE {EVENT_TABLE} INCLUDING ALL)",),
    "chain": (
        f"CREATE TABLE bench_chain (LIKE {EVENT_TABLE} INCLUDING ALL,"
        " place bigint GENERATED ALWAYS AS IDENTITY UNIQUE)",
    ),
}
COUNTED: Mapping[str, str] = {
    "bare": "bench_bare",
    "one cursor": "bench_bare",
    "phi_oidc": EVENT_TABLE,
    "eight at once": EVENT_TABLE,
    "bare, no wait": "bench_bare",
    "phi_oidc, no wait": EVENT_TABLE,
    "orm": "bench_orm",
    "chain": "bench_chain",
    "auditlog": "auditlog_logentry",
    "easyaudit": "easyaudit_crudevent",
    "pghistory": "rows_revealevent",
}
"""The table of each contender's events, the baseline first."""
OWN = ("bare", "one cursor", "phi_oidc", "eight at once", "bare, no wait", "phi_oidc, no wait")
"""Those that show what limits record(). With `no wait` a commit does not wait for the disk."""
EVENTS_PER_WRITE: Mapping[str, int] = {"eight at once": 8}
_iterators = itertools.count()


def count() -> int:
    """Return the number of events of the contender."""
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {COUNTED[settings.CONTENDER]}")
        return int(cursor.fetchone()[0])


def writer() -> Write:
    """Return the function that writes an event of the configured contender, on an open connection."""
    return WRITERS[settings.CONTENDER]()


def _bare() -> Write:
    return _inserting(_psycopg().execute)


def _one_cursor() -> Write:
    """Like bare with one cursor, as in `record()`; psycopg creates a cursor for each `execute`."""
    return _inserting(_psycopg().cursor().execute)


def _inserting(execute: Callable[..., object]) -> Write:
    statement = f"INSERT INTO bench_bare ({', '.join(COLUMNS)}) VALUES ({_PLACES})"
    ready = _prepared_values()
    return lambda: execute(statement, next(ready))


def _phi_oidc() -> Write:
    record = import_module("django_phi_oidc.audit.recorder").record
    connections["phi_audit"].ensure_connection()
    people = [person(number) for number in range(PEOPLE)]
    # A request creates its Origin once.
    origins = itertools.cycle([(values.pop("subject"), Origin(**values)) for values in people])

    def write() -> object:
        subject, origin = next(origins)
        return record(
            Action.CLAIM_REVEALED,
            origin=origin,
            now=datetime.now(UTC),
            subject=subject,
            provider=PROVIDER,
            purpose=PURPOSE,
            detail={"claim": CLAIM},
        )

    return write


def _eight_at_once() -> Write:
    """As a process could do with eight events that wait at the same moment."""
    recorder, events = (import_module(f"django_phi_oidc.audit.{name}") for name in ("recorder", "events"))
    connections["phi_audit"].ensure_connection()
    people = [person(number) for number in range(PEOPLE)]
    origins = itertools.cycle([(values.pop("subject"), Origin(**values)) for values in people])
    fields = {"provider": PROVIDER, "purpose": PURPOSE, "detail": {"claim": CLAIM}}

    def write() -> object:
        chosen = itertools.islice(origins, EVENTS_PER_WRITE["eight at once"])
        return recorder.record_many(
            [
                events.NewEvent(Action.CLAIM_REVEALED, origin=origin, now=datetime.now(UTC), subject=subject, **fields)
                for subject, origin in chosen
            ]
        )

    return write


def _orm() -> Write:
    event = import_module(MODELS).Event
    connections["default"].ensure_connection()
    ready = _prepared_values()
    return lambda: event.objects.create(**dict(zip(COLUMNS, next(ready), strict=True)))


def _chain() -> Write:
    """Like most "blockchain" logs: each event contains the hash of the previous one, so writes are serialized."""
    connection = _psycopg()
    statement = f"INSERT INTO bench_chain ({', '.join(COLUMNS)}) VALUES ({_PLACES})"
    ready = _prepared_values()

    def write() -> None:
        *values, _ = next(ready)
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            last = connection.execute("SELECT mac FROM bench_chain ORDER BY place DESC LIMIT 1").fetchone()
            before = last[0] if last else bytes(32)
            connection.execute(statement, [*values, hashlib.sha256(before + repr(values).encode()).digest()])

    return write


def _audited() -> Write:
    reveal = import_module(MODELS).Reveal
    connections["default"].ensure_connection()
    subjects = itertools.cycle([person(number)["subject"] for number in range(PEOPLE)])
    return lambda: reveal.objects.create(
        subject=next(subjects), purpose=PURPOSE, claim=CLAIM, revealed_at=datetime.now(UTC)
    )


WRITERS: Mapping[str, Callable[[], Write]] = {
    "bare": _bare,
    "one cursor": _one_cursor,
    "phi_oidc": _phi_oidc,
    "eight at once": _eight_at_once,
    "bare, no wait": _one_cursor,
    "phi_oidc, no wait": _phi_oidc,
    "orm": _orm,
    "chain": _chain,
    "auditlog": _audited,
    "easyaudit": _audited,
    "pghistory": _audited,
}


def _psycopg() -> Any:
    """Return an autocommit connection with the defaults of psycopg, which prepares frequent statements."""
    url = settings.DATABASES["default"]
    credentials = {"host": url["HOST"], "port": url["PORT"], "user": url["USER"], "password": url["PASSWORD"]}
    options = {name: value for name, value in credentials.items() if value}
    return psycopg.connect(dbname=url["NAME"], autocommit=True, **options, **url.get("OPTIONS", {}))


def _prepared_values() -> Iterator[tuple[Any, ...]]:
    """Yield the values of COLUMNS: ascending ids unique to this iterator, and precomputed other values."""
    now = datetime.now(UTC)
    prepared = []
    for number in range(PEOPLE):
        values = person(number)
        prepared.append(
            (
                *(1, "0123abcd", now, "claim.revealed", "success", values["actor"], "", values["subject"]),
                *(
                    PROVIDER,
                    values["session"],
                    values["client_ip"],
                    PURPOSE,
                    "",
                    "",
                    values["request_id"],
                    DETAIL,
                    bytes(32),
                ),
            )
        )
    first = int(time.time() * 1000) << 80 | 0x7 << 76 | os.getpid() % 4096 << 64 | 0b10 << 62 | next(_iterators) << 48
    for number, rest in zip(itertools.count(first), itertools.cycle(prepared), strict=False):
        yield (uuid.UUID(int=number), *rest)
