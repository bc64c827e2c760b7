"""Expired claims are erased exactly once, by any number of workers, and no other claims."""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims import tasks
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.claims.retention import scrub_due_claims, scrub_past_limit, scrub_sessions, scrub_user
from django_phi_oidc.claims.retention_report import create_retention_report
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.sessions.models import OIDCSession
from tests.support import databases
from tests.support.celery_worker import eventually
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person
from tests.support.concurrent_transaction import transaction_beside

ROOT = Path(__file__).resolve().parents[3]
SECOND = timedelta(seconds=1)
PROGRAM = Path(__file__).with_name("scrub_process.py")


def fill(person: Person, *, due: int, later: int, names: tuple[str, ...] = ("address", "phone_number")) -> None:
    """Store `due` rows that expire at NOW, and `later` rows that expire a second later."""
    rows = [
        StoredClaim(
            subject=person.subject,
            session=uuid.uuid4(),
            name=names[n % len(names)],
            value="1",
            purpose="HOPERAT",
            obtained_at=NOW - DAY,
            expires_at=NOW if n < due else NOW + timedelta(seconds=1),
        )
        for n in range(due + later)
    ]
    StoredClaim.objects.bulk_create(rows)


def count_recorded_claims() -> Counter[str]:
    """Return the erased claims of all recorded `due` events by name."""
    counts: Counter[str] = Counter()
    for text in AuditEvent.objects.filter(action="claim.scrubbed").values_list("detail", flat=True):
        detail = json.loads(text)
        assert detail["cause"] == "due"
        counts.update(dict(zip(detail["claims"], detail["counts"], strict=True)))
    return counts


@pytest.mark.django_db
def test_scrub_session_erases_only_its_claims_with_one_event(
    person: Person, make_person: Callable[..., Person], outbox_events: Callable[[str], Any]
) -> None:
    other = make_person()
    for owner in (person, other):
        owner.store({"birthdate": "1990-05-17", "allergies": ["latex"], "address": "Bern"})
    with transaction.atomic():
        assert scrub_sessions([person.session_id], origin=person.origin(), now=NOW) == 2
    remaining = set(StoredClaim.objects.values_list("subject", "name"))
    assert remaining == {
        (person.subject.pk, "address"),
        *((other.subject.pk, name) for name in ("birthdate", "allergies", "address")),
    }
    ((event, detail),) = outbox_events("claim.scrubbed")
    assert detail == {"cause": "session_ended", "claims": ["allergies", "birthdate"], "counts": [1, 1]}
    assert (event.subject, event.session) == (str(person.subject.uuid), str(person.session_id))


@pytest.mark.django_db
def test_scrub_session_without_claims_writes_nothing(person: Person, outbox_events: Callable[[str], Any]) -> None:
    person.store({"address": "Bern"})
    with CaptureQueriesContext(connection) as context, transaction.atomic():
        assert scrub_sessions([person.session_id], origin=person.origin(), now=NOW) == 0
    assert not [query for query in context.captured_queries if re.match("DELETE|INSERT", query["sql"])]
    assert outbox_events("claim.scrubbed") == []


@pytest.mark.django_db
def test_scrub_session_rolled_back_erases_nothing(person: Person, outbox_events: Callable[[str], Any]) -> None:
    person.store({"birthdate": "1990-05-17"})
    with suppress(ZeroDivisionError), transaction.atomic():
        assert scrub_sessions([person.session_id], origin=person.origin(), now=NOW) == 1
        raise ZeroDivisionError
    assert StoredClaim.objects.count() == 1
    assert outbox_events("claim.scrubbed") == []


@pytest.mark.django_db
def test_scrub_of_no_session_is_refused(person: Person) -> None:
    person.store({"address": "Bern"})
    with pytest.raises(ValueError, match="NO_SESSION"):
        scrub_sessions([NO_SESSION], origin=Origin(), now=NOW)
    assert StoredClaim.objects.count() == 1


@pytest.mark.django_db
def test_scrub_user_erases_claims_of_all_issuers(
    person: Person, make_person: Callable[..., Person], outbox_events: Callable[[str], Any]
) -> None:
    other_issuer = make_person(user=person.user, issuer="https://other.example.test")
    other = make_person()
    for owner in (person, other_issuer, other):
        owner.store({"birthdate": "1990-05-17", "address": "Bern"})
    assert scrub_user(person.user, origin=Origin(actor="officer"), now=NOW) == 4
    assert set(StoredClaim.objects.values_list("subject", flat=True)) == {other.subject.pk}
    events = outbox_events("claim.scrubbed")
    assert {event.subject for event, _ in events} == {str(person.subject.uuid), str(other_issuer.subject.uuid)}
    assert all(event.actor == "officer" and detail["cause"] == "requested" for event, detail in events)
    assert scrub_user(person.user, origin=Origin(), now=NOW) == 0
    assert len(outbox_events("claim.scrubbed")) == 2


@pytest.mark.django_db
def test_deleting_a_user_erases_their_claims(person: Person) -> None:
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    person.user.delete()
    assert not StoredClaim.objects.exists()


@pytest.mark.django_db
def test_scrub_due_erases_exactly_at_expiry_and_no_session_claims(person: Person) -> None:
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    assert scrub_due_claims(now=NOW + DAY - timedelta(microseconds=1)) == 0
    assert scrub_due_claims(now=NOW + DAY) == 1
    assert scrub_due_claims(now=NOW + 1000 * DAY) == 0
    assert StoredClaim.objects.get().name == "birthdate"


@pytest.mark.django_db
def test_scrub_due_works_in_batches_with_one_event_each(person: Person, outbox_events: Callable[[str], Any]) -> None:
    fill(person, due=25, later=5)
    assert scrub_due_claims(now=NOW, batch_size=10) == 25
    assert StoredClaim.objects.count() == 5
    details = [detail for _, detail in outbox_events("claim.scrubbed")]
    assert sorted(sum(detail["counts"]) for detail in details) == [5, 10, 10]
    assert sum((Counter(dict(zip(d["claims"], d["counts"], strict=True))) for d in details), Counter()) == Counter(
        address=13, phone_number=12
    )


@pytest.mark.django_db
def test_scrub_due_records_all_of_many_names(person: Person, outbox_events: Callable[[str], Any]) -> None:
    names = tuple(f"claim_{n:03}" for n in range(150))
    fill(person, due=300, later=0, names=names)
    assert scrub_due_claims(now=NOW) == 300
    details = sorted((detail["claims"], detail["counts"]) for _, detail in outbox_events("claim.scrubbed"))
    assert [name for names_, _ in details for name in names_] == list(names)
    assert [count for _, counts in details for count in counts] == [2] * 150


@pytest.mark.django_db
def test_full_batch_is_one_delete_and_one_insert(person: Person) -> None:
    fill(person, due=10_000, later=0)
    with CaptureQueriesContext(connection) as context:
        assert scrub_due_claims(now=NOW) == 10_000
    executed = [query["sql"] for query in context.captured_queries]
    assert sum("DELETE" in sql and "storedclaim" in sql for sql in executed) == 2, "the second one deletes nothing"
    assert sum("INSERT" in sql and "outbox" in sql for sql in executed) == 1


@pytest.mark.django_db
def test_task_and_command_erase_expired_claims(person: Person) -> None:
    out = StringIO()
    person.store({"address": "Bern"})
    with clock.override_clock(lambda: NOW + DAY):
        tasks.scrub()
        assert not StoredClaim.objects.exists()
        person.store({"address": "Thun"}, now=NOW)
        call_command("phi_oidc", "scrub", stdout=out)
    assert not StoredClaim.objects.exists()
    assert out.getvalue() == "1 claims were erased.\n"


@pytest.mark.django_db(transaction=True)
def test_interrupted_scrub_loses_no_event(make_person: Callable[..., Person]) -> None:
    fill(make_person(), due=25, later=5)
    deleted = 0

    def interrupt_second_batch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal deleted
        result = execute(sql, params, many, context)
        if "DELETE" in sql and "storedclaim" in sql:
            deleted += 1
            if deleted == 2:
                raise KeyboardInterrupt
        return result

    with pytest.raises(KeyboardInterrupt), connection.execute_wrapper(interrupt_second_batch):
        scrub_due_claims(now=NOW, batch_size=10)
    assert StoredClaim.objects.count() == 20
    assert count_recorded_claims().total() == 10
    assert scrub_due_claims(now=NOW, batch_size=10) == 15
    assert count_recorded_claims() == Counter(address=13, phone_number=12)


@pytest.mark.django_db(transaction=True)
def test_scrub_due_in_several_threads_erases_each_row_once(make_person: Callable[..., Person]) -> None:
    fill(make_person(), due=400, later=7)
    start = threading.Barrier(4)

    def work() -> int:
        try:
            start.wait(10)
            return scrub_due_claims(now=NOW, batch_size=20)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        erased = [future.result(60) for future in [pool.submit(work) for _ in range(4)]]
    assert sum(erased) == 400
    assert StoredClaim.objects.count() == StoredClaim.objects.filter(expires_at__gt=NOW).count() == 7
    assert count_recorded_claims() == Counter(address=200, phone_number=200)
    assert AuditOutbox.objects.count() == 0


@contextmanager
def workers(count: int, *, batch: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that are ready to erase claims, and wait for `go`."""
    environment = databases.child_environment(
        os.environ, {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    )
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, PROGRAM, NOW.isoformat(), str(batch)],
                    env={**environment, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        assert [worker.stdout.readline() for worker in running if worker.stdout] == ["ready\n"] * count
        yield running


def go(*running: subprocess.Popen[str]) -> None:
    for worker in running:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()


@pytest.mark.django_db(transaction=True)
def test_scrub_due_in_two_processes_erases_each_row_once(make_person: Callable[..., Person]) -> None:
    fill(make_person(), due=300, later=7)
    with workers(2, batch=20) as running:
        go(*running)
        erased = [int(worker.communicate(timeout=60)[0]) for worker in running]
    assert sum(erased) == 300
    assert StoredClaim.objects.count() == 7
    assert count_recorded_claims().total() == 300


@pytest.mark.django_db(transaction=True)
def test_scrub_due_with_killed_workers_erases_each_row_once(
    make_person: Callable[..., Person],
) -> None:
    fill(make_person(), due=8_000, later=2_000)

    def has_fewer_rows(fewer_than: int) -> bool:
        return StoredClaim.objects.filter(expires_at=NOW).count() < fewer_than

    with workers(4, batch=10) as running:
        # On SQLite some workers may wait for a long time: make sure that the first killed one has erased rows.
        go(running[-1])
        assert eventually(lambda: has_fewer_rows(7_900))
        go(*running[:-1])
        for left in (7_500, 6_000):
            assert eventually(lambda left=left: has_fewer_rows(left))
            running.pop().kill()
        assert StoredClaim.objects.filter(expires_at=NOW).exists(), "the workers were killed while rows were left"
        erased = [int(worker.communicate(timeout=120)[0]) for worker in running]
    assert 0 < sum(erased) < 8_000
    # The other workers have skipped the rows that a killed one had locked.
    scrub_due_claims(now=NOW)
    assert StoredClaim.objects.count() == StoredClaim.objects.filter(expires_at__gt=NOW).count() == 2_000
    flush(limit=10_000)
    assert AuditOutbox.objects.count() == 0
    assert count_recorded_claims() == Counter(address=4_000, phone_number=4_000)
    details = AuditEvent.objects.filter(action="claim.scrubbed").values_list("detail", flat=True)
    assert max(sum(json.loads(detail)["counts"]) for detail in details) <= 10


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_scrub_due_skips_locked_rows_and_erases_them_later(make_person: Callable[..., Person]) -> None:
    fill(make_person(), due=10, later=0)
    locked = StoredClaim.objects.order_by("pk").values_list("pk", flat=True)[0]
    with transaction_beside(lambda: StoredClaim.objects.select_for_update().get(pk=locked)):
        assert scrub_due_claims(now=NOW, batch_size=5) == 9
    assert scrub_due_claims(now=NOW, batch_size=5) == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_scrub_due_keeps_a_concurrently_renewed_claim(make_person: Callable[..., Person]) -> None:
    person = make_person()
    person.store({"address": "Bern"})
    with transaction_beside(lambda: person.store({"address": "Thun"}, now=NOW + DAY)):
        assert scrub_due_claims(now=NOW + DAY) == 0
    assert scrub_due_claims(now=NOW + DAY) == 0
    assert StoredClaim.objects.get().expires_at == NOW + DAY + DAY


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_scrub_user_and_a_sign_in_do_not_deadlock(
    make_person: Callable[..., Person],
) -> None:
    person, declared = make_person(), {"zip": DECLARED["address"], "address": DECLARED["address"]}
    # A claim that was declared later: first by name, last by key.
    person.store({"zip": "3000"}, declared=declared)
    person.store({"address": "Bern"}, declared=declared)

    def sign_in() -> None:
        person.store({"zip": "3600", "address": "Thun"}, declared=declared, now=NOW + DAY)
        connections.close_all()

    def scrub() -> None:
        scrub_user(person.user, origin=Origin(), now=NOW)
        connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            StoredClaim.objects.select_for_update().get(name="address")
            waiting = [pool.submit(sign_in)]
            threading.Event().wait(0.3)
            waiting.append(pool.submit(scrub))
            threading.Event().wait(0.3)
        for future in waiting:
            future.result(20)
    assert not StoredClaim.objects.exists(), "the sign-in was first"


def delete_session_by_sql(person: Person) -> None:
    """Delete the row of the person's session past Django's signals."""
    with connection.cursor() as cursor:
        table = connection.ops.quote_name(OIDCSession._meta.db_table)
        cursor.execute(f"DELETE FROM {table}")


@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_c6_claims_of_a_session_that_is_gone_are_overdue_and_erased(person: Person) -> None:
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    assert scrub_past_limit(now=NOW) == 0
    delete_session_by_sql(person)
    report = create_retention_report(now=NOW + DAY - SECOND)
    assert (report.overdue, report.overdue_since, report.is_late) == (1, NOW, True)
    assert sum(summary.of_sessions for summary in report.claims) == 0
    assert scrub_past_limit(now=NOW) == 1
    assert list(StoredClaim.objects.values_list("name", flat=True)) == ["address"]
    assert create_retention_report(now=NOW).overdue == 0
    flush()
    event = AuditEvent.objects.get(action="claim.scrubbed")
    assert (event.session, event.subject) == (str(person.session_id), str(person.subject.uuid))
    assert json.loads(event.detail) == {"cause": "session_ended", "claims": ["birthdate"], "counts": [1]}


@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_c6_claims_of_a_live_session_are_not_overdue(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    report = create_retention_report(now=NOW + DAY)
    assert (report.overdue, report.overdue_since) == (0, None)
    assert sum(summary.of_sessions for summary in report.claims) == 1
    assert scrub_due_claims(now=NOW + DAY) == 0


@pytest.mark.django_db(databases=["default", "phi_audit"])
def test_c6_held_claims_of_a_session_that_is_gone_are_kept_until_the_hold_ends(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    place_hold(person.subject.uuid, reason="matter 7", until=NOW + DAY, origin=Origin(), now=NOW)
    delete_session_by_sql(person)
    assert create_retention_report(now=NOW).overdue == 0
    assert scrub_past_limit(now=NOW) == 0
    assert StoredClaim.objects.get().expires_at == NOW
    assert scrub_due_claims(now=NOW + DAY) == 1
