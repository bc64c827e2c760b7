"""Permits and refusals are committed at once, or AuditUnavailable is raised."""

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import randomness
from django_phi_oidc.audit.events import (
    Action,
    AuthenticatedEvent,
    NewEvent,
    Origin,
    compute_mac,
    raise_on_refused_detail,
    serialize_event,
)
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import enqueue
from django_phi_oidc.audit.recorder import raise_audit_alert, record, record_many
from django_phi_oidc.audit.storage import authenticate_event, get_resource_pseudonym, insert_events, parse_event_row
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_tampering import DROPPED_ROWS, EVENT, DropRows, dropping_trigger, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)
ORIGIN = Origin(actor="7", session="a-session", client_ip="198.51.100.1", request_id="a-request")
ODD = 'naïve 𝒳 " \\ / <b> \U0001f600'


def new_event(**fields: Any) -> NewEvent:
    return NewEvent(**{"action": Action.CLAIM_REVEALED, "origin": ORIGIN, "now": NOW, **fields})


@pytest.mark.django_db
def test_record_stores_an_event_whose_mac_can_be_recomputed_from_the_row() -> None:
    id_ = record(
        Action.CLAIM_REVEALED,
        origin=ORIGIN,
        now=NOW,
        subject="a-subject",
        provider="default",
        purpose="TREAT",
        resource="Patient/1",
        reason=ODD,
        detail={"claim": ODD},
    )
    row = AuditEvent.objects.get()
    newest = keyring.get_keys("audit_mac")[0]
    stored = parse_event_row(row)
    assert (row.id, row.v, row.mac_key, row.occurred_at, row.reason) == (id_, 1, newest.id, NOW, ODD)
    assert (row.actor, row.session, row.client_ip, row.request_id) == ("7", "a-session", "198.51.100.1", "a-request")
    assert json.loads(row.detail) == {"claim": ODD}
    assert stored.mac == compute_mac(stored.event, newest.material)


@pytest.mark.django_db
def test_record_makes_one_statement_on_the_audit_database_only() -> None:
    with (
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
        CaptureQueriesContext(connections["default"]) as default_queries,
    ):
        record(Action.LOGIN_REFUSED, origin=ORIGIN, now=NOW, outcome="failure", reason="state_unknown")
    assert [query["sql"].split()[0] for query in audit_queries if "SAVEPOINT" not in query["sql"]] == ["INSERT"]
    assert len(default_queries) == 0


@pytest.mark.django_db(transaction=True)
def test_record_in_a_transaction_that_rolls_back_survives() -> None:
    with transaction.atomic():
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
        transaction.set_rollback(True)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_record_in_a_transaction_of_the_audit_database_raises() -> None:
    with transaction.atomic():
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    with transaction.atomic(using="phi_audit"), pytest.raises(RuntimeError, match="durable"):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_record_logs_each_event_after_it_is_committed(caplog: pytest.LogCaptureFixture) -> None:
    counts: list[int] = []
    handler = logging.Handler()
    handler.emit = lambda record_: counts.append(AuditEvent.objects.count())  # type: ignore[method-assign]  # a probe
    logger = logging.getLogger("phi_oidc.audit")
    logger.addHandler(handler)
    try:
        with caplog.at_level("INFO", "phi_oidc.audit"):
            record_many([new_event(), new_event(action=Action.ACCESS_DENIED)])
    finally:
        logger.removeHandler(handler)
    assert counts == [2, 2]
    assert sorted(caplog.messages) == sorted(serialize_event(parse_event_row(row)) for row in AuditEvent.objects.all())


def test_record_without_the_audit_database_raises_and_works_again_afterwards(
    audit_database_away: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with audit_database_away(), pytest.raises(AuditUnavailable), caplog.at_level("INFO", "phi_oidc.audit"):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert caplog.messages == []
    record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 1


@pytest.mark.postgresql
@pytest.mark.without_pooler("it ends a session of the server, which may also be that of the statement")
@pytest.mark.django_db(transaction=True)
def test_record_after_a_dropped_connection_raises_once() -> None:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(AuditUnavailable):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db
def test_record_without_a_mac_key_raises() -> None:
    with (
        override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})),
        pytest.raises(AuditUnavailable),
    ):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)


def with_options(**options: Any) -> Any:
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **options))


@pytest.mark.django_db
@pytest.mark.parametrize("detail", ['"a_rule"', '["a_rule"]', '{"a_rule"', '["a_rule",' + "[" * 100_000])
def test_e3_row_that_is_no_event_suppresses_no_alert(detail: str) -> None:
    item = authenticate_event(new_event(action=Action.ALERT_RAISED, detail={}))
    event = item.event._replace(detail=detail)
    insert_events([AuthenticatedEvent(event, compute_mac(event, keyring.get_keys("audit_mac")[0].material))])
    for _ in range(2):
        raise_audit_alert("a_rule", now=NOW)
    assert AuditEvent.objects.exclude(id=event.id).get().detail == '{"rule":"a_rule"}'


@pytest.mark.django_db
@pytest.mark.parametrize("options", [{}, {"AUDIT": {"resource_ids": "plain"}}])
def test_record_with_plain_resource_ids_stores_the_id(options: dict[str, str]) -> None:
    with with_options(**options):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW, resource="Chart/4711")
    assert AuditEvent.objects.get().resource == "Chart/4711"


@pytest.mark.django_db
def test_record_with_keyed_resource_ids_stores_type_and_pseudonym() -> None:
    with with_options(AUDIT={"resource_ids": "keyed"}):
        for resource in ("Chart/4711", "Chart/4711", "Chart/4712", "AuditEvent/1", "Sink/siem", ""):
            record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW, resource=resource)
        matching = AuditEvent.objects.filter(resource=get_resource_pseudonym("Chart/4711"))
    assert matching.count() == 2
    resources = set(AuditEvent.objects.values_list("resource", flat=True))
    assert {"AuditEvent/1", "Sink/siem", ""} < resources
    assert len({resource for resource in resources if re.fullmatch(r"Chart/[0-9a-f]{32}", resource)}) == 2
    assert len(resources) == 5


def test_resource_pseudonym_is_stable_while_the_oldest_key_stays() -> None:
    newer, oldest = settings.PHI_OIDC["KEYS"]["audit_mac"]
    before = get_resource_pseudonym("Chart/4711")
    for keys, same in (([keyring.generate_key(), newer, oldest], True), ([oldest], True), ([newer], False)):
        with with_options(KEYS={"audit_mac": keys}):
            assert (get_resource_pseudonym("Chart/4711") == before) is same


@pytest.mark.django_db
def test_record_with_an_invalid_resource_ids_setting_writes_nothing() -> None:
    with with_options(AUDIT={"resource_ids": "hashed"}), pytest.raises(ImproperlyConfigured, match="resource_ids"):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW, resource="Chart/4711")
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db
def test_record_with_an_existing_id_raises() -> None:
    with randomness.override_randomness(bytes):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
        with pytest.raises(AuditUnavailable) as caught:
            record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db
def test_record_many_makes_one_insert_and_keeps_the_order() -> None:
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        ids = record_many([new_event(reason=str(number)) for number in range(20)])
    assert sum(query["sql"].startswith("INSERT") for query in queries) == 1
    assert [AuditEvent.objects.get(id=id_).reason for id_ in ids] == [str(number) for number in range(20)]


@pytest.mark.django_db
def test_record_many_of_nothing_makes_no_statement() -> None:
    with CaptureQueriesContext(connections["phi_audit"]) as queries:
        assert record_many([]) == ()
    assert len(queries) == 0


@pytest.mark.django_db
def test_record_with_an_unknown_detail_in_tests_raises() -> None:
    with raise_on_refused_detail(), pytest.raises(ValueError, match="birthdate"):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW, detail={"birthdate": "1970-01-01"})
    assert record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW, detail={"claim": "birthdate"})


@pytest.mark.django_db
def test_p7_declaration_is_recorded_only_with_the_signing_key() -> None:
    for action in (Action.AUDIT_RESTORED, "audit.restored", Action.AUDIT_ARCHIVED, "audit.archived"):
        with pytest.raises(ValueError, match="signing key"):
            record(action, origin=ORIGIN, now=NOW)
        with pytest.raises(ValueError, match="signing key"), transaction.atomic():
            enqueue(action, origin=ORIGIN, now=NOW)
    assert record(Action.AUDIT_EXPORTED, origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("drop_rows", DROPPED_ROWS.values(), ids=DROPPED_ROWS)
def test_e4_record_permits_nothing_if_the_database_stores_no_row(drop_rows: DropRows, count: int) -> None:
    permits = [new_event()] * count
    with drop_rows("auditevent"), pytest.raises(AuditUnavailable):
        record_many(permits)
    assert AuditEvent.objects.count() == 0
    assert len(record_many(permits)) == AuditEvent.objects.count() == count


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_e4_record_outside_a_test_transaction_permits_nothing_if_no_row_is_stored() -> None:
    with dropping_trigger("auditevent"), pytest.raises(AuditUnavailable):
        record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)
    assert AuditEvent.objects.count() == 0
    assert record(Action.CLAIM_REVEALED, origin=ORIGIN, now=NOW)


def count_rows() -> int:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {EVENT}")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db
def test_recorded_alert_is_not_raised_again_within_an_hour() -> None:
    for minutes in (0, 1, 59):
        raise_audit_alert("sealing_lag", now=NOW + timedelta(minutes=minutes))
    assert count_rows() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "occurred_at",
    [
        "2026-11-24 16:05:09.123456",
        pytest.param("infinity", marks=pytest.mark.postgresql),
        pytest.param("today", marks=pytest.mark.sqlite),
    ],
)
def test_p1_forged_row_suppresses_no_alert_though_no_model_can_load_it(occurred_at: str) -> None:
    row: dict[str, Any] = {field.column: "" for field in AuditEvent._meta.concrete_fields}
    row |= {"id": randomness.lowest_uuid7(NOW), "v": 1, "occurred_at": "2026-11-24 16:05:09", "outcome": "success"}
    row |= {"action": "alert.raised", "detail": '{"rule":"sealing_lag"}'}
    row |= {"mac_key": keyring.get_keys("audit_mac")[0].id, "mac": bytes(32)}
    sql(f"INSERT INTO {EVENT} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())
    with without_triggers():
        sql(f"UPDATE {EVENT} SET occurred_at = %s", occurred_at)
    raise_audit_alert("sealing_lag", now=NOW + timedelta(minutes=1))
    assert count_rows() == 2
