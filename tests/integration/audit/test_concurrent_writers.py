"""Concurrent writer and sealer processes: each event is sealed exactly once, without gaps."""

import threading
import uuid
from collections.abc import Iterator
from itertools import accumulate

import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.inserts import insert
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.storage import authenticate_event, build_rows
from tests.integration.audit.killable_processes import Processes, ProcessResult
from tests.integration.audit.log_assertions import assert_log_is_coherent, assert_log_is_whole
from tests.support.audit_log import NOW, events, seal_now

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

TRANSACTIONS = 50
"""Per writer: four of five are committed, with three events on average."""
MANY = 20
"""Minimum number of events sealed after others with a greater id, because they committed late."""
STARTS = 20
BACKLOG = 30


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes({})
    yield processes
    processes.close()


def race(
    processes: Processes, *, writers: int, sealers: int, max_wait: float
) -> tuple[list[ProcessResult], list[ProcessResult]]:
    """Run writers and sealers concurrently, and return the results of both."""
    writing = [
        {"activity": "write", "seed": number, "transactions": TRANSACTIONS, "max_wait": max_wait}
        for number in range(writers)
    ]
    sealing = [{"activity": "keep_sealing", "limit": 40, "endless": True} for _ in range(sealers)]
    results = processes.run(*writing, *sealing)
    assert [result.status for result in results] == [0] * len(results)
    return results[:writers], results[writers:]


def assert_sealed_once(wrote: list[ProcessResult], sealed: list[ProcessResult]) -> list[uuid.UUID]:
    """The log has exactly the committed events, and no size was signed twice. Return the events in order."""
    assert_log_is_coherent()
    reported = [uuid.UUID(id_) for result in wrote for id_ in result.reported]
    # The last events may have been committed too late for both sealers. Their writers use the real time.
    seal_now(at=clock.now())
    order = assert_log_is_whole()
    assert sorted(order) == sorted(reported) == sorted(AuditEvent.objects.values_list("id", flat=True))
    signed = sorted(uuid.UUID(size).int for result in sealed for size in result.reported)
    sizes = list(AuditCheckpoint.objects.values_list("tree_size", flat=True))
    assert signed == sizes[: len(signed)], "a checkpoint that no sealer or that two sealers reported"
    assert len(sizes) - len(signed) <= 1
    return order


@pytest.mark.postgresql
def test_eight_writers_and_two_sealers_with_commits_out_of_order_seal_every_event_once(processes: Processes) -> None:
    wrote, sealed = race(processes, writers=8, sealers=2, max_wait=0.04)
    order = assert_sealed_once(wrote, sealed)
    assert all(result.reported for result in sealed), "one of the sealers never appended"
    # The race took place: events were sealed after others that had begun later.
    overtaken = sum(id_ < newest for id_, newest in zip(order[1:], accumulate(order, max), strict=False))
    assert overtaken > MANY, f"{overtaken} of {len(order)}"


@pytest.mark.sqlite
def test_two_writers_and_two_sealers_on_sqlite_seal_every_event_once(processes: Processes) -> None:
    # On SQLite a writing transaction blocks all others, so none stays open for long.
    assert_sealed_once(*race(processes, writers=2, sealers=2, max_wait=0.002))


def test_two_concurrent_sealers_duplicate_nothing_and_never_fail(processes: Processes) -> None:
    for start in range(STARTS):
        ids = events(BACKLOG)
        results = processes.run({"activity": "seal"}, {"activity": "seal"})
        assert [result.status for result in results] == [0, 0]
        assert_log_is_coherent()
        assert AuditCheckpoint.objects.count() == start + 1
        assert not AuditUnsealed.objects.filter(event_id__in=ids).exists()
    assert len(assert_log_is_whole()) == STARTS * BACKLOG


@pytest.fixture
def impatient() -> Iterator[None]:
    """Make a statement that waits for another transaction fail, instead of blocking the whole run."""
    connection = connections[AUDIT_ALIAS]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '10s'")
    yield
    connection.close()


def test_long_transaction_on_another_database_does_not_delay_sealing(impatient: None) -> None:
    with transaction.atomic():
        Group.objects.create(name="a change that takes long")
        for total in (5, 10):
            events(5)
            assert seal_now().event_count == 5
            assert AuditCheckpoint.objects.last().tree_size == total
    assert_log_is_whole()


@pytest.mark.postgresql
def test_long_transaction_on_the_audit_database_delays_no_other_events(impatient: None) -> None:
    has_written, may_commit = threading.Event(), threading.Event()
    late: list[uuid.UUID] = []

    def write_slowly() -> None:
        try:
            with transaction.atomic(using=AUDIT_ALIAS):
                authenticated = [
                    authenticate_event(NewEvent(action=Action.ACCESS_DENIED, origin=Origin(), now=NOW))
                    for _ in range(3)
                ]
                insert(build_rows(authenticated), using=AUDIT_ALIAS)
                late.extend(sorted(item.event.id for item in authenticated))
                has_written.set()
                may_commit.wait(timeout=60)
        finally:
            has_written.set()
            connections.close_all()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    try:
        assert has_written.wait(timeout=60)
        early = events(5, at=NOW)
        assert seal_now().event_count == 5
        assert seal_now().event_count == 0
    finally:
        may_commit.set()
        writer.join(timeout=60)
    assert seal_now().event_count == 3
    assert assert_log_is_whole() == [*sorted(early), *late]
