"""Texts under older keys are encrypted again, once and in place; everything else is left unchanged."""

import base64
import gc
import threading
import tracemalloc
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_phi_oidc.contrib.key_rotation.encryption_keys import (
    EncryptedColumn,
    KeyUsage,
    ReencryptionResult,
    count_key_usage,
    list_encrypted_columns,
    reencrypt,
)
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, SessionToken
from tests.support.concurrent_transaction import transaction_beside
from tests.support.session_fixtures import NOW
from tests.unit.contrib.key_rotation.conftest import NEW, OLD

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PACKAGE_COLUMNS = {
    "phi_oidc_individual_rights_accountingcopy.lines",
    "phi_oidc_notices_accountnotice.address",
    "phi_oidc_individual_rights_disclosurerecipient.identity",
    "phi_oidc_emergency_emergencyaccess.reason",
    "phi_oidc_emergency_emergencyaccess.note",
    "django_phi_oidc_storedclaim.value",
    "django_phi_oidc_oidcsession.session_key",
    "django_phi_oidc_oidcsession.access_token",
    "django_phi_oidc_oidcsession.refresh_token",
    "django_phi_oidc_oidcsession.id_token",
    "django_phi_oidc_oidcsession.dpop_seed",
    "django_phi_oidc_oidcsession.id_token_claims",
    "django_phi_oidc_pendingrevocation.token",
    "django_phi_oidc_pendingrevocation.session_token",
}
HOST_COLUMNS = {"ward_chart.text", "ward_chart.remark", "ward_bed.The Note", "ward_visit.note", "ward_patient.history"}
RETENTION = (
    "20261125-86400",
    "20261125-session",
    "20261125-86400+person/01/23456789abcdef0123456789abcdef",
    "hold-0123456789abcdef0123456789abcdef",
)


def column_of(model: Any, name: str) -> EncryptedColumn:
    return EncryptedColumn("default", model._meta.get_field(name))


def texts(column: EncryptedColumn) -> dict[str, str]:
    """Return the ciphertexts of the column by primary key, read without a model."""
    quote = connection.ops.quote_name
    table, text = quote(column.table), quote(column.field.column)
    (key, *_) = column.field.model._meta.pk_fields
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {quote(key.column)}, {text} FROM {table}")
        return {str(pk): text for pk, text in cursor.fetchall()}


def write(column: EncryptedColumn, pk: uuid.UUID, text: str) -> None:
    with connection.cursor() as cursor:
        key = column.field.model._meta.pk.get_db_prep_value(pk, connection)
        cursor.execute(f"UPDATE {column.table} SET {column.field.column} = %s WHERE id = %s", [text, key])


def opened(row: Any, name: str) -> str:
    return str(row._meta.get_field(name).decrypt(row))


def charts(ward: Any, many: int, *, archived: bool = False) -> list[Any]:
    return list(ward.Chart.objects.bulk_create(ward.Chart(text=f"text {n}", archived=archived) for n in range(many)))


def test_encrypted_columns_include_the_host_projects_and_each_once(ward: Any) -> None:
    assert {str(column) for column in list_encrypted_columns()} == PACKAGE_COLUMNS | HOST_COLUMNS
    assert len(list_encrypted_columns()) == len(PACKAGE_COLUMNS | HOST_COLUMNS)
    assert {column.using for column in list_encrypted_columns()} == {"default"}


def test_encrypted_columns_of_a_database_are_those_migrated_there(ward: Any, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [NothingOnTheTrail()]
    assert {(column.using, str(column)) for column in list_encrypted_columns("default")} == {
        ("default", name) for name in PACKAGE_COLUMNS | HOST_COLUMNS
    }
    assert list_encrypted_columns("phi_audit") == ()


class NothingOnTheTrail:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"


def test_key_usage_counts_texts_by_key_without_decryption(ward: Any, seal_under: Any) -> None:
    (old,) = seal_under(OLD)
    column, (first, second, third, fourth, _) = column_of(ward.Chart, "text"), charts(ward, 5)
    ward.Chart.objects.create(text=None)
    (new,) = seal_under(NEW)
    ward.Chart.objects.create(text="x")
    write(column, first.pk, f"{RETENTION[0]}:gAAAAAAAAAAA")
    write(column, second.pk, "x-ray: nothing found")
    write(column, third.pk, "x-ray:gAAAA is no key")
    write(column, fourth.pk, "deadbeef without a colon")
    assert count_key_usage(column) == KeyUsage(
        counts_by_key_id={old.id: 1, new.id: 1}, retention_count=1, unrecognized_count=3
    )


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 100])
def test_reencrypt_encrypts_old_texts_under_the_newest_key_in_batches(ward: Any, seal_under: Any, batch: int) -> None:
    seal_under(OLD)
    column, created = column_of(ward.Chart, "text"), charts(ward, 7)
    seal_under(NEW, OLD)
    newest = charts(ward, 2)
    ward.Chart.objects.create(text=None)
    stored = {str(pk): text for pk, text in texts(column).items() if pk in {str(c.pk) for c in newest} or text is None}
    ring, looked_at = keyring.get_keys("encryption"), list[int]()
    assert reencrypt(column, keys=ring, batch_size=batch, report_progress=looked_at.append) == ReencryptionResult(
        reencrypted=7
    )
    assert looked_at == [*range(batch, 7, batch), 7]
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={ring[0].id: 9})
    assert stored.items() <= texts(column).items()
    seal_under(NEW)
    assert [opened(ward.Chart.objects.get(pk=item.pk), "text") for item in created] == [f"text {n}" for n in range(7)]
    assert reencrypt(column, keys=ring, batch_size=batch) == ReencryptionResult()


def test_reencrypt_covers_every_primary_key_type_and_rows_that_the_manager_hides(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    charts(ward, 2, archived=True)
    for code in ("a,b", "ünï·'\"\\\t", "%s", "Ω"):
        ward.Bed.objects.create(code=code, note=f"of {code}")
    for bed in ("1", "2"):
        for day in (date(2026, 1, 1), date(2026, 12, 31)):
            ward.Visit.objects.create(day=day, bed_code=bed, note=f"{day} {bed}")
    patients = [ward.Patient.objects.create(history=f"history {n}") for n in range(3)]
    ring = seal_under(NEW, OLD)
    done = {str(column): reencrypt(column, keys=ring, batch_size=2) for column in list_encrypted_columns()}
    expected = {"ward_chart.text": 2, "ward_bed.The Note": 4, "ward_visit.note": 4, "ward_patient.history": 3}
    assert done == {
        name: ReencryptionResult(reencrypted=expected.get(name, 0)) for name in PACKAGE_COLUMNS | HOST_COLUMNS
    }
    seal_under(NEW)
    assert all(opened(bed, "note") == f"of {bed.code}" for bed in ward.Bed.objects.all())
    assert all(opened(visit, "note") == str(visit) for visit in ward.Visit.objects.all())
    assert [opened(ward.Patient.objects.get(pk=patient.pk), "history") for patient in patients] == [
        f"history {n}" for n in range(3)
    ]


def test_a1_reencrypt_covers_the_queued_ciphertext_of_a_session(seal_under: Any) -> None:
    seal_under(OLD)
    session = OIDCSession.objects.create(
        id=uuid.uuid4(), provider="default", refresh_token="canary", started_at=NOW, last_seen_at=NOW
    )
    seal_under(NEW)
    ((pk,), _) = PendingRevocation.objects.move_tokens([SessionToken(session.pk, "refresh_token")], now=NOW)
    ring = seal_under(NEW, OLD)
    assert reencrypt(column_of(PendingRevocation, "session_token"), keys=ring) == ReencryptionResult(reencrypted=1)
    seal_under(NEW)
    assert PendingRevocation.objects.get(pk=pk).decrypt_token() == "canary"


def raw(text: str) -> bytearray:
    return bytearray(base64.urlsafe_b64decode(text.partition(":")[2]))


def one_bit(text: str, others: list[str]) -> str:
    damaged = raw(text)
    damaged[30] ^= 1
    return f"{text[:8]}:{base64.urlsafe_b64encode(damaged).decode()}"


DAMAGES: dict[str, Callable[[str, list[str]], str]] = {
    "plain text": lambda text, others: "plain text",
    "empty": lambda text, others: "",
    "truncated": lambda text, others: text[:-8],
    "the id alone": lambda text, others: text[:9],
    "one bit": one_bit,
    "a missing key": lambda text, others: f"00000000:{text[9:]}",
    "another key's id": lambda text, others: f"{keyring.get_keys('encryption')[1].id}:{text[9:]}",
    "another row's": lambda text, others: others[0],
    "another column's": lambda text, others: others[1],
    "what base64 passes over": lambda text, others: f"{text[:20]},{text[20:]}",
    "hyphenated plain text": lambda text, others: "follow-up: in a week",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_reencrypt_keeps_and_reports_undecryptable_texts(ward: Any, seal_under: Any, damage: str) -> None:
    unrelated = "a key that has sealed nothing......"
    ring = seal_under(OLD, base64.urlsafe_b64encode(unrelated.encode()[:32]).decode())
    column = column_of(ward.Chart, "text")
    damaged, other = charts(ward, 2)
    damaged.remark = "text 0"
    damaged.save()
    others = [
        texts(column)[key_in_database(other.pk)],
        texts(column_of(ward.Chart, "remark"))[key_in_database(damaged.pk)],
    ]
    text = DAMAGES[damage](texts(column)[key_in_database(damaged.pk)], others)
    write(column, damaged.pk, text)
    ring, reported = seal_under(NEW, OLD, keyring_text(ring[1])), list[str]()
    assert reencrypt(column, keys=ring, batch_size=1, report_undecryptable=reported.append) == ReencryptionResult(
        reencrypted=1, undecryptable=1
    )
    assert reported == [str(damaged.pk)]
    assert texts(column)[key_in_database(damaged.pk)] == text
    assert opened(ward.Chart.objects.get(pk=other.pk), "text") == "text 1"


def key_in_database(pk: uuid.UUID) -> str:
    return str(pk) if connection.vendor == "postgresql" else pk.hex


def keyring_text(key: keyring.SymmetricKey) -> str:
    return base64.urlsafe_b64encode(key.material).decode()


@pytest.mark.parametrize("name", RETENTION)
def test_reencrypt_keeps_texts_under_retention_keys_without_reporting_them(
    ward: Any, seal_under: Any, name: str
) -> None:
    seal_under(OLD)
    column, (chart, other) = column_of(ward.Chart, "text"), charts(ward, 2)
    write(column, chart.pk, f"{name}:{texts(column)[key_in_database(other.pk)][9:]}")
    before = texts(column)[key_in_database(chart.pk)]
    ring = seal_under(NEW, OLD)
    assert reencrypt(column, keys=ring) == ReencryptionResult(reencrypted=1)
    assert texts(column)[key_in_database(chart.pk)] == before
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={ring[0].id: 1}, retention_count=1)


def in_a_thread(act: Callable[[], Any]) -> Any:
    """Return the result of the function, run with its own connection."""

    def with_its_own_connection() -> Any:
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(with_its_own_connection).result(30)


def test_reencrypt_keeps_concurrent_changes(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, created = column_of(ward.Chart, "text"), charts(ward, 6)
    ring, changed, deleted, reads = seal_under(NEW, OLD), created[1].pk, created[2].pk, list[str]()

    def change() -> None:
        ward.Chart.objects.filter(pk=deleted).delete()
        chart = ward.Chart.objects.get(pk=changed)
        chart.text = "new"
        chart.save()

    def change_after_the_first_read(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        reads.append(sql)
        if len(reads) == 1:
            in_a_thread(change)
        return result

    with connection.execute_wrapper(change_after_the_first_read):
        assert reencrypt(column, keys=ring, batch_size=6) == ReencryptionResult(reencrypted=4)
    assert opened(ward.Chart.objects.get(pk=changed), "text") == "new"
    assert not ward.Chart.objects.filter(pk=deleted).exists()
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={ring[0].id: 5})
    assert [opened(ward.Chart.objects.get(pk=item.pk), "text") for item in created[3:]] == [
        "text 3",
        "text 4",
        "text 5",
    ]


def test_reencrypt_repeats_texts_that_a_concurrent_writer_changed_under_an_old_key(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, created = column_of(ward.Chart, "text"), charts(ward, 2)
    sealed_elsewhere = ward.Chart(pk=created[0].pk, text="new")
    column.field.pre_save(sealed_elsewhere, add=False)
    ring, reads = seal_under(NEW, OLD), list[str]()

    def change_after_the_first_read(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        reads.append(sql)
        if len(reads) == 1:
            in_a_thread(lambda: write(column, created[0].pk, sealed_elsewhere.text.ciphertext))
        return result

    with connection.execute_wrapper(change_after_the_first_read):
        assert reencrypt(column, keys=ring) == ReencryptionResult(reencrypted=2)
    assert opened(ward.Chart.objects.get(pk=created[0].pk), "text") == "new"
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={ring[0].id: 2})


@pytest.mark.postgresql
def test_reencrypt_skips_locked_rows_and_the_next_run_processes_them(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, created = column_of(ward.Chart, "text"), charts(ward, 10)
    ring = seal_under(NEW, OLD)
    with transaction_beside(lambda: ward.Chart.objects.select_for_update().get(pk=created[4].pk)):
        assert reencrypt(column, keys=ring, batch_size=5) == ReencryptionResult(reencrypted=9, skipped=1)
    assert reencrypt(column, keys=ring, batch_size=5) == ReencryptionResult(reencrypted=1)


def test_stopped_reencryption_is_continued(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, _ = column_of(ward.Chart, "text"), charts(ward, 9)
    ring = seal_under(NEW, OLD)

    def stop(looked_at: int) -> None:
        if looked_at == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reencrypt(column, keys=ring, batch_size=3, report_progress=stop)
    done = count_key_usage(column).counts_by_key_id[ring[0].id]
    assert done == 6
    assert reencrypt(column, keys=ring, batch_size=3) == ReencryptionResult(reencrypted=3)


def test_two_concurrent_reencryptions_share_the_work(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, created = column_of(ward.Chart, "text"), charts(ward, 400)
    ring, start = seal_under(NEW, OLD), threading.Barrier(2)

    def work() -> ReencryptionResult:
        try:
            start.wait(10)
            return reencrypt(column, keys=ring, batch_size=20)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        results = [future.result(60) for future in [pool.submit(work) for _ in range(2)]]
    assert sum(result.reencrypted for result in results) == 400
    assert not any(result.undecryptable or result.skipped for result in results)
    assert {opened(chart, "text") for chart in ward.Chart.objects.all()} == {f"text {n}" for n in range(len(created))}


def test_reencrypt_inside_a_transaction_is_refused(ward: Any, seal_under: Any) -> None:
    seal_under(OLD)
    column, _ = column_of(ward.Chart, "text"), charts(ward, 1)
    ring = seal_under(NEW, OLD)
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        reencrypt(column, keys=ring)
    assert reencrypt(column, keys=ring) == ReencryptionResult(reencrypted=1)


def test_reencrypt_needs_no_more_memory_for_more_rows(ward: Any, seal_under: Any) -> None:
    column, peaks = column_of(ward.Chart, "text"), []
    # The first run fills caches and prepared statements.
    for many in (500, 500, 5_000):
        seal_under(OLD)
        ward.Chart.objects.all().delete()
        charts(ward, many)
        ring = seal_under(NEW, OLD)
        gc.collect()
        tracemalloc.start()
        assert reencrypt(column, keys=ring, batch_size=100) == ReencryptionResult(reencrypted=many)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten times as many rows. Kept rows would need about 500 bytes each; the garbage collector accounts for the rest.
    assert peaks[2] < 3 * peaks[1]
