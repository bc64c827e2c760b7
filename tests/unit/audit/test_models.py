"""The model, its QuerySet and the database triggers each refuse changes of events."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AppendOnlyError, AuditEvent
from django_phi_oidc.audit.recorder import record

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)
TABLE = "phi_oidc_audit_auditevent"
COPIED = f"SELECT * FROM {TABLE}"


def recorded() -> AuditEvent:
    return AuditEvent.objects.get(id=record(Action.CLAIM_REVEALED, origin=Origin(actor="7"), now=NOW))


def execute(sql: str) -> None:
    with transaction.atomic(using="phi_audit"), connections["phi_audit"].cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        lambda event: event.save(),
        lambda event: event.delete(),
        lambda event: AuditEvent.objects.update(actor="8"),
        lambda event: AuditEvent.objects.all().delete(),
        lambda event: AuditEvent.objects.bulk_update([event], ["actor"]),
        lambda event: AuditEvent.objects.update_or_create(id=event.id, defaults={"actor": "8"}),
        lambda event: AuditEvent._base_manager.update(actor="8"),
    ],
)
def test_change_of_an_event_by_the_model_is_refused(change: Callable[[AuditEvent], Any]) -> None:
    event = recorded()
    with pytest.raises(AppendOnlyError):
        change(event)
    assert AuditEvent.objects.get().actor == "7"


@pytest.mark.django_db
def test_save_with_an_existing_id_only_inserts_and_is_refused() -> None:
    event = recorded()
    (row,) = AuditEvent.objects.values()
    forged = AuditEvent(**{**row, "actor": "8"})
    with (
        CaptureQueriesContext(connections["phi_audit"]) as queries,
        pytest.raises(IntegrityError),
        transaction.atomic(using="phi_audit"),
    ):
        forged.save()
    statements = [query["sql"].partition(" ")[0] for query in queries if TABLE in query["sql"]]
    assert statements == ["INSERT"], "no statement that could change a row"
    assert AuditEvent.objects.get(id=event.id).actor == "7"


SQLITE_CHANGES = {
    "update": f"UPDATE {TABLE} SET actor = '8'",
    "update or replace": f"UPDATE OR REPLACE {TABLE} SET actor = '8'",
    "delete": f"DELETE FROM {TABLE}",
    "delete one": f"DELETE FROM {TABLE} WHERE actor = '7'",
    "replace": f"INSERT OR REPLACE INTO {TABLE} {COPIED}",
    "replace by rowid": f"INSERT OR REPLACE INTO {TABLE} (rowid, id, v, mac_key, occurred_at, action, outcome, actor, "
    "subject, provider, session, client_ip, purpose, resource, reason, request_id, detail, mac) SELECT rowid, 'other', "
    "v, mac_key, occurred_at, action, outcome, '8', subject, provider, session, client_ip, purpose, resource, reason, "
    f"request_id, detail, mac FROM {TABLE}",
    "upsert": f"INSERT INTO {TABLE} {COPIED} WHERE true ON CONFLICT (id) DO UPDATE SET actor = '8'",
}
POSTGRESQL_CHANGES = {
    "update": f"UPDATE {TABLE} SET actor = '8'",
    "delete": f"DELETE FROM {TABLE}",
    "truncate": f"TRUNCATE {TABLE}",
    "upsert": f"INSERT INTO {TABLE} {COPIED} ON CONFLICT (id) DO UPDATE SET actor = '8'",
    "merge": f"MERGE INTO {TABLE} t USING {TABLE} s ON t.id = s.id WHEN MATCHED THEN DELETE",
}


def check_refused(sql: str) -> None:
    row = AuditEvent.objects.values().get()
    with pytest.raises(DatabaseError, match="never changed or deleted"):
        execute(sql)
    assert AuditEvent.objects.values().get() == row


@pytest.mark.sqlite
@pytest.mark.usefixtures("triggers_in_place")
@pytest.mark.parametrize("sql", SQLITE_CHANGES.values(), ids=SQLITE_CHANGES)
def test_change_of_an_event_on_sqlite_is_refused(sql: str) -> None:
    recorded()
    check_refused(sql)


@pytest.mark.postgresql
@pytest.mark.usefixtures("triggers_in_place")
@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("sql", POSTGRESQL_CHANGES.values(), ids=POSTGRESQL_CHANGES)
def test_change_of_an_event_on_postgresql_is_refused(sql: str, role: str) -> None:
    recorded()
    execute(f"SET LOCAL session_replication_role = {role}")
    check_refused(sql)


@pytest.mark.usefixtures("triggers_in_place")
def test_insert_of_more_events_is_allowed() -> None:
    assert recorded() != recorded()
    assert AuditEvent.objects.count() == 2


@pytest.mark.django_db
def test_update_of_an_event_in_a_test_database_is_refused_too() -> None:
    recorded()
    check_refused(f"UPDATE {TABLE} SET actor = '8'")
