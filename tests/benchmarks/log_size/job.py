"""A process in the database of a log: `python -m tests.benchmarks.log_size.job`, commands and JSON results.

The log has genuine events, 2.6 million a day from January 2026 on, which the sequencer seals. It has partitions: the
events of January and February are in the first one, which can be detached.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

from django.db import connections, transaction

from tests.benchmarks.audit.contenders import EVENT_TABLE, PEOPLE
from tests.benchmarks.audit.job import build_sealed, migrate, seal, verify
from tests.benchmarks.worker_protocol import Command, run_commands

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
STEP_MICROS = 33_230
"""Between two events, so that a day has 2.6 million."""
LEAF_TABLE = "phi_oidc_audit_auditleaf"
RUNS = 20
_BUILT_AT_ONCE = 1_000_000
_module = import_module
"""Modules with models cannot be imported before django.setup()."""


def partition() -> dict[str, Any]:
    """Give the events partitions; the first one has those of January and February."""
    return {"partitions": _module("django_phi_oidc.audit.partitions").partition_log(now=BEGUN)}


def extend(count: int) -> dict[str, Any]:
    """Write and seal genuine events until the log has that many leaves, and return the seconds of both."""
    written = sealed = 0.0
    while (missing := count - _size()) > 0:
        written += _seconds(partial(_write_events, min(missing, _BUILT_AT_ONCE)))
        sealed += seal()["wall"]
    for statement in ("VACUUM ANALYZE", "CHECKPOINT") if written else ():
        _execute(statement)
    return {"written": written, "sealed": sealed}


def seal_new(count: int) -> dict[str, Any]:
    """Seal that many new events. The floor is one INSERT of as many rows into a table like that of the leaves.

    It computes a hash over each event, and is rolled back.
    """
    seal()
    first = _size()
    _write_events(count)
    floor_statement = (
        f"INSERT INTO bench_leaf SELECT {first} + row_number() OVER (ORDER BY id), id, "
        "sha256(convert_to(event::text, 'UTF8')) "
        f"FROM (SELECT * FROM {EVENT_TABLE} ORDER BY id LIMIT {count:d}) AS event"
    )
    with transaction.atomic(using="phi_audit"):
        _execute(f"CREATE TABLE bench_leaf (LIKE {LEAF_TABLE} INCLUDING ALL)")
        floor = _seconds(partial(_execute, floor_statement))
        transaction.set_rollback(True, using="phi_audit")
    took = seal()
    assert (took["events"], took["refused"]) == (count, 0), took
    return {"seconds": took["wall"], "floor": floor}


def verify_new(count: int) -> dict[str, Any]:
    """Verify about that many events since the last verification, as at a site with as many a day.

    So the ids of as many events before them are read again. The floor reads the events by one COPY, unparsed.
    """
    seal()
    records, keys = (_module(f"django_phi_oidc.audit.log.{name}") for name in ("verification_records", "signing_keys"))
    size = max(_size() - count, 0)
    verified_at = _time_of(_find_event_id(max(size - count, 0))) + timedelta(days=1)
    _module("django_phi_oidc.audit.models").VerificationRecord.objects.all().delete()
    root = _module("django_phi_oidc.audit.log.tree_storage").read_compact_range(size).compute_root()
    records.record_verified_log(size, root, key=keys.find_signing_key(), now=verified_at)
    last = records.find_last_verification(keys.get_public_keys())
    start = last.get_new_range() if last else None
    floor = _seconds(partial(_copy, f"l.leaf_index >= {start.tree.size if start else 0}"))
    summary = _module("django_phi_oidc.audit.log.findings").VerificationSummary()
    verify_log = _module("django_phi_oidc.audit.log.verifier").verify_log
    found = []
    seconds = _seconds(
        lambda: found.extend(
            verify_log(keys=keys.get_public_keys(), now=datetime.now(UTC), summary=summary, start=start)
        )
    )
    assert not found, found
    return {"seconds": seconds, "floor": floor, "events": summary.events}


def verify_all() -> dict[str, Any]:
    """Verify the whole log. The floor reads all events with their leaves by one COPY, unparsed."""
    seal()
    floor = _seconds(partial(_copy, "true"))
    took = verify()
    assert not took["found"], took["found"]
    return {"seconds": took["wall"], "floor": floor, "events": took["events"], "peak": took["peak"]}


def read(rounds: int) -> dict[str, Any]:
    """Show pages of the admin's list and prove random events, in turns with their floors."""
    search = _module("django_phi_oidc.audit.search")
    prove = _module("django_phi_oidc.audit.log.proofs").create_inclusion_proof
    subject = hashlib.sha256(b"%d" % (PEOPLE // 2)).hexdigest()
    pages = {
        "list": (search.EventFilters(), ""),
        "list of a person": (search.EventFilters(subject=subject), f"WHERE subject = '{subject}'"),
    }
    results: dict[str, Any] = {}
    for name, (filters, where) in pages.items():
        floor_statement = f"SELECT * FROM {EVENT_TABLE} {where} ORDER BY id DESC LIMIT 100"
        results[name] = _measure(
            [partial(search.scan_events, filters, viewer="1")] * RUNS, [partial(_execute, floor_statement)] * RUNS
        )
    size = _size()
    ids = [_find_event_id(random.randrange(size)) for _ in range(rounds)]
    floor_statement = f"SELECT * FROM {EVENT_TABLE} WHERE id = %s"
    results["proof"] = _measure(
        [partial(prove, id_) for id_ in ids], [partial(_execute, floor_statement, id_) for id_ in ids]
    )
    return results


def detach() -> dict[str, Any]:
    """Detach the first partition. The time does not include the search for events that are not archived."""
    partitions = _module("django_phi_oidc.audit.partitions")
    detached = partial(partitions.detach_partition, _first_partition(), newest_leaf=_size() - 1)
    return {"seconds": _seconds(detached)}


def attach() -> dict[str, Any]:
    """Attach it again, and detach and attach an empty partition, which is the peer."""
    partitions = _module("django_phi_oidc.audit.partitions")
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT relname FROM pg_class WHERE relname ~ '^{EVENT_TABLE}_until_[0-9]+$' AND relkind = 'r'")
        (name,) = cursor.fetchone()
    partitions.attach_partition(name)
    empty = max((each for each in partitions.list_partitions() if each.first_id), key=lambda each: each.first_id)
    peer = _seconds(partial(partitions.detach_partition, empty, newest_leaf=_size() - 1))
    partitions.attach_partition(empty.name)
    return {"peer": peer}


def weigh() -> dict[str, Any]:
    """Return the bytes of an event and its leaf, with all indexes: of the first partition, and of the current month.

    The events of the former were written by one process, those of the latter by eight at the same time. The floor is
    the content of their columns.
    """
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT pg_total_relation_size('{LEAF_TABLE}')::float8 / count(*) FROM {LEAF_TABLE}")
        (leaf,) = cursor.fetchone()
        cursor.execute(
            f"SELECT avg(pg_column_size(e.*)) FROM (SELECT * FROM {EVENT_TABLE} ORDER BY id LIMIT 10000) AS e"
        )
        content = float(cursor.fetchone()[0]) + 8 + 16 + 32
        names = _first_partition().name, f"{EVENT_TABLE}_{datetime.now(UTC):%Y%m}"
        each = []
        for name in names:
            cursor.execute(f"SELECT pg_total_relation_size('{name}')::float8 / nullif(count(*), 0) FROM {name}")
            each.append((cursor.fetchone()[0] or 0.0) + leaf)
    return {"one writer": each[0], "eight writers": each[1], "leaf": leaf, "floor": content}


def prepare_conversion(count: int) -> dict[str, Any]:
    """Write a sealed log in one table, and return the time of the floor: one reading of all ids."""
    migrate()
    build_sealed(count)
    _write_events(1_000)
    seal()
    return {"floor": _seconds(partial(_execute, f"SELECT count(id::text) FROM {EVENT_TABLE}"))}


def convert() -> dict[str, Any]:
    """Convert the log while others write, and check that proofs from before hold and continue to be made."""
    proofs, bundle = (_module(f"django_phi_oidc.audit.log.{name}") for name in ("proofs", "bundle"))
    models, keys = _module("django_phi_oidc.audit.models"), _module("django_phi_oidc.audit.log.signing_keys")
    size = _size()
    ids = [_find_event_id(index) for index in range(size - 10, size)]
    old_note, before = models.AuditCheckpoint.objects.last().note, list(map(proofs.create_inclusion_proof, ids))
    steps: list[float] = []
    seconds = _seconds(
        lambda: _module("django_phi_oidc.audit.partitions").partition_log(
            now=datetime.now(UTC), progress=lambda step: steps.append(time.perf_counter())
        )
    )
    replaced = time.perf_counter() - steps[-1]
    assert list(map(proofs.create_inclusion_proof, ids)) == before
    seal()
    new_note = models.AuditCheckpoint.objects.last().note
    assert new_note != old_note
    for text in (*before, *map(proofs.create_inclusion_proof, ids)):
        bundle.verify_inclusion_bundle(text, keys.get_public_keys())
    bundle.verify_consistency_bundle(proofs.create_consistency_proof(old_note, new_note), keys.get_public_keys())
    return {"seconds": seconds, "replaced": replaced}


def _write_events(count: int) -> None:
    """Write genuine events after those of the first partition."""
    end = _module("django_phi_oidc._internal.randomness").lowest_uuid7(BEGUN + timedelta(days=59))
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT id FROM {EVENT_TABLE} WHERE id < '{end}' ORDER BY id DESC LIMIT 1")
        newest = cursor.fetchone()
    begun = _time_of(newest[0]) + timedelta(microseconds=STEP_MICROS) if newest else BEGUN
    _module("tests.benchmarks.audit.trail_builder").build_genuine(count, begun=begun, step_micros=STEP_MICROS)


def _first_partition() -> Any:
    partitions = _module("django_phi_oidc.audit.partitions").list_partitions()
    return next(each for each in partitions if each.end_id and not each.first_id)


def _size() -> int:
    return int(_module("django_phi_oidc.audit.log.cursor").get_newest_tree_size())


def _find_event_id(leaf_index: int) -> Any:
    return _module("django_phi_oidc.audit.log.reader").read_event_id(leaf_index)


def _time_of(event_id: Any) -> datetime:
    return datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)


def _measure(works: list[Callable[[], Any]], floors: list[Callable[[], Any]]) -> dict[str, Any]:
    """Return the median and the 99th percentile of both, in seconds, measured in turns."""
    pairs = [(_seconds(work), _seconds(floor)) for work, floor in zip(works, floors, strict=True)]
    took, floor = (sorted(column) for column in zip(*pairs, strict=True))
    place = len(took) * 99 // 100
    return {"seconds": median(took), "floor": median(floor), "p99": took[place], "floor_p99": floor[place]}


def _copy(condition: str) -> None:
    """Read events with their leaves by one COPY."""
    statement = (
        f"COPY (SELECT e.*, l.leaf_hash FROM {LEAF_TABLE} l JOIN {EVENT_TABLE} e ON e.id = l.event_id "
        f"WHERE {condition} ORDER BY l.leaf_index) TO STDOUT (FORMAT BINARY)"
    )
    with connections["phi_audit"].cursor() as cursor, cursor.copy(statement) as copied:
        for _ in copied:
            pass


def _execute(statement: str, *values: Any) -> None:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement, values or None)
        if cursor.description:
            cursor.fetchall()


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


COMMANDS: Mapping[str, Command] = {
    command.__name__: command
    for command in (
        *(migrate, partition, extend, seal, seal_new, verify_new, verify_all, read, detach, attach, weigh),
        *(prepare_conversion, convert),
    )
}

if __name__ == "__main__":
    run_commands(COMMANDS)
