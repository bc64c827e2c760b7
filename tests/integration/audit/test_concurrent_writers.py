"""Writers and sealers at the same time, each a process of its own: each event is sealed exactly once, without a gap."""

import threading
import uuid
from collections.abc import Iterator
from itertools import accumulate

import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction

from django_phi_oidc._internal.sql import insert
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.storage import authenticate_event, build_rows
from tests.integration.audit.killable_processes import Ended, Processes
from tests.integration.audit.log_assertions import assert_log_is_coherent, assert_log_is_whole
from tests.support.audit_log import NOW, events, seal_now

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

TRANSACTIONS = 50
"""Of each writer: four in five are committed, with three events on the average."""
MANY = 20
"""Events that must have been sealed behind others with a greater id: the sealers meet them late."""
STARTS = 20
BACKLOG = 30


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes({})
    yield processes
    processes.close()


def race(processes: Processes, *, writers: int, sealers: int, held: float) -> tuple[list[Ended], list[Ended]]:
    """Return what the writers and the sealers tell of."""
    writing = [
        {"activity": "write", "seed": number, "transactions": TRANSACTIONS, "held": held} for number in range(writers)
    ]
    sealing = [{"activity": "keep_sealing", "limit": 40, "endless": True} for _ in range(sealers)]
    ended = processes.run(*writing, *sealing)
    assert [each.status for each in ended] == [0] * len(ended)
    return ended[:writers], ended[writers:]


def assert_sealed_once(wrote: list[Ended], sealed: list[Ended]) -> list[uuid.UUID]:
    """All that was committed, and nothing else, is in the log, which nobody has signed twice; return it in order."""
    assert_log_is_coherent()
    told = [uuid.UUID(id_) for each in wrote for id_ in each.told]
    # What two sealers saw at the writers' end may have come too late for both.
    seal_now()
    order = assert_log_is_whole()
    assert sorted(order) == sorted(told) == sorted(AuditEvent.objects.values_list("id", flat=True))
    signed = sorted(uuid.UUID(size).int for each in sealed for size in each.told)
    sizes = list(AuditCheckpoint.objects.values_list("tree_size", flat=True))
    assert signed == sizes[: len(signed)], "a checkpoint that nobody signed, or that two did"
    assert len(sizes) - len(signed) <= 1
    return order


@pytest.mark.postgresql
def test_eight_writers_and_two_sealers_with_commits_out_of_order_seal_every_event_once(processes: Processes) -> None:
    wrote, sealed = race(processes, writers=8, sealers=2, held=0.04)
    order = assert_sealed_once(wrote, sealed)
    assert all(each.told for each in sealed), "one of the sealers never had its turn"
    # The race took place: events were sealed behind others that had begun later.
    overtaken = sum(id_ < newest for id_, newest in zip(order[1:], accumulate(order, max), strict=False))
    assert overtaken > MANY, f"{overtaken} of {len(order)}"


@pytest.mark.sqlite
def test_two_writers_and_two_sealers_on_sqlite_seal_every_event_once(processes: Processes) -> None:
    # A transaction that writes holds up all others there, so none is held open for long.
    assert_sealed_once(*race(processes, writers=2, sealers=2, held=0.002))


def test_two_concurrent_sealers_duplicate_nothing_and_never_fail(processes: Processes) -> None:
    for start in range(STARTS):
        ids = events(BACKLOG)
        ended = processes.run({"activity": "seal"}, {"activity": "seal"})
        assert [each.status for each in ended] == [0, 0]
        assert_log_is_coherent()
        assert AuditCheckpoint.objects.count() == start + 1
        assert not AuditUnsealed.objects.filter(event_id__in=ids).exists()
    assert len(assert_log_is_whole()) == STARTS * BACKLOG


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let a statement that waits for another transaction fail, instead of the whole run hanging."""
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
                finished = [
                    authenticate_event(NewEvent(action=Action.ACCESS_DENIED, origin=Origin(), now=NOW))
                    for _ in range(3)
                ]
                insert(build_rows(finished), using=AUDIT_ALIAS)
                late.extend(sorted(each.event.id for each in finished))
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
