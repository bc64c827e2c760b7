"""Rows have the canonical bytes of their event, and rows that are no events can be read."""

import ctypes.util
import hmac
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import rfc8785
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_phi_oidc.audit.events import (
    EVENT_FIELDS,
    NewEvent,
    Origin,
    canonical_bytes,
    canonical_json,
    find_event,
    register_actions,
)
from django_phi_oidc.audit.log.reader import (
    create_mac_calculator,
    find_raw_event,
    read_leafless_events,
    read_leaves,
    read_queue,
    read_queued_leafless_events,
)
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.audit.storage import parse_event_row
from django_phi_oidc.crypto import keyring
from tests.support.audit_log import NOW, events, sealed
from tests.support.audit_tampering import EVENT, executed, is_postgresql, sql, without_triggers
from tests.support.databases import child_environment

ANY_TEXT = st.text(max_size=40) | st.sampled_from(
    ['"', "\\", '\\"', "</x>", "é", "\u2028", "\x7f", "𝒳", "\ufeff", "e\u0301"]
)
FIRST = datetime(1970, 1, 2, tzinfo=UTC)
TIMES = st.integers(0, 10**17).map(lambda micros: FIRST + timedelta(microseconds=micros))
READ = "reader.read"
register_actions({READ: {"note", "notes", "number", "flag"}})
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "note": ANY_TEXT,
        "notes": st.lists(ANY_TEXT, max_size=3),
        "number": st.integers(-(2**53) + 1, 2**53 - 1),
        "flag": st.booleans(),
    },
)
NEW_EVENTS = st.builds(
    lambda texts, time, detail, outcome: NewEvent(
        action=READ,
        origin=Origin(actor=texts[0], session=texts[1], client_ip=texts[2], request_id=texts[3], on_behalf_of=texts[9]),
        now=time,
        outcome=outcome,
        subject=texts[4],
        provider=texts[5],
        purpose=texts[6],
        resource=texts[7],
        reason=texts[8],
        detail=detail,
    ),
    st.tuples(*[ANY_TEXT] * 10),
    TIMES,
    DETAILS,
    st.sampled_from(["success", "failure", "error"]),
)


ZONES = ["UTC", "America/St_Johns", "Asia/Kathmandu"]


@pytest.mark.django_db
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(new_events=st.lists(NEW_EVENTS, min_size=1, max_size=20), zone=st.sampled_from(ZONES))
def test_row_has_the_canonical_bytes_of_its_event_its_copies_and_another_library(
    new_events: list[NewEvent], zone: str
) -> None:
    compute = create_mac_calculator()
    local = [new_event._replace(now=new_event.now.astimezone(ZoneInfo(zone))) for new_event in new_events]
    with in_time_zone(zone):
        read = {id_: find_raw_event(id_) for id_ in record_many(local)}
    for id_, raw in read.items():
        stored, members = parse_event_row(AuditEvent.objects.get(id=id_)), json.loads(raw.canonical)
        assert raw.canonical == canonical_bytes(stored.event) == rfc8785.dumps(members)
        assert raw.canonical == canonical_json(members).encode()
        assert find_event(raw.canonical) == stored.event
        assert (raw.event_id, raw.leaf_index, raw.mac_key) == (id_.bytes, -1, stored.event.mac_key)
        assert raw.mac == stored.mac == compute(raw.mac_key, raw.canonical)


@contextmanager
def in_time_zone(zone: str) -> Iterator[None]:
    """Set the time zone of the connection inside the block, on PostgreSQL."""
    with executed(f"SET TIME ZONE '{zone}'", "SET TIME ZONE 'UTC'") if is_postgresql() else nullcontext():
        yield


COLUMN_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
COLUMN_VALUES = {
    "v": st.integers(0, 2**15 - 1),
    "occurred_at": TIMES.map(lambda time: time.replace(tzinfo=None)),
}


@pytest.mark.django_db
@pytest.mark.parametrize("column", [name for name in EVENT_FIELDS if name != "id"])
def test_rows_with_different_values_have_different_canonical_bytes(column: str) -> None:
    (id_,) = events(1)
    read: dict[bytes, Any] = {}

    @settings(max_examples=30, deadline=None)
    @given(COLUMN_VALUES.get(column, COLUMN_TEXT))
    def check(value: Any) -> None:
        sql(f"UPDATE {EVENT} SET {column} = %s WHERE id = %s", str(value), id_)
        assert read.setdefault(find_raw_event(id_).canonical, value) == value

    with without_triggers():
        check()
    assert b"" not in read


@pytest.mark.postgresql
@pytest.mark.django_db
@pytest.mark.parametrize("column", [name for name in EVENT_FIELDS if name != "id"])
def test_row_with_a_missing_value_has_no_canonical_bytes(column: str) -> None:
    (id_,) = events(1)
    with without_triggers():
        sql(f"ALTER TABLE {EVENT} ALTER {column} DROP NOT NULL")
        sql(f"UPDATE {EVENT} SET {column} = NULL WHERE id = %s", id_)
    assert find_raw_event(id_).canonical == b""


def test_mac_calculator_computes_hmac_and_knows_configured_keys_only() -> None:
    compute = create_mac_calculator()
    for key in keyring.get_keys("audit_mac"):
        for text in (b"", b"x", b"y" * 1000):
            assert compute(key.id, text) == hmac.digest(key.material, text, "sha256")
    assert compute("0badc0de", b"x") is None


@pytest.mark.django_db
def test_read_queue_orders_by_id_and_skips_refused_events() -> None:
    ids = events(5)
    assert [uuid.UUID(bytes=row.event_id) for row in read_queue(after_id=ids[1], limit=2)] == ids[2:4]
    sql("UPDATE phi_oidc_audit_auditunsealed SET refused = true WHERE event_id = %s", ids[2])
    assert [uuid.UUID(bytes=row.event_id) for row in read_queue(after_id=ids[1], limit=2)] == ids[3:5]
    again = read_queue(after_id=ids[1], limit=2, include_refused=True)
    assert [uuid.UUID(bytes=row.event_id) for row in again] == ids[2:4]


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_every_event_is_a_leaf_or_leafless() -> None:
    leaves, late = sealed(5), events(2, at=NOW + timedelta(hours=1))
    assert [(row.leaf_index, uuid.UUID(bytes=row.event_id)) for row in read_leaves(1, 4)] == [
        (number, leaves[number]) for number in (1, 2, 3)
    ]
    assert [uuid.UUID(bytes=row.event_id) for row in read_queued_leafless_events(10)] == late
    assert list(read_leafless_events(10)) == []
    sql("DELETE FROM phi_oidc_audit_auditunsealed WHERE event_id = %s", late[0])
    assert [uuid.UUID(bytes=row.event_id) for row in read_leafless_events(10)] == late[:1]
    assert list(read_leafless_events(10, first_id=leaves[0], end_id=late[0])) == []
    assert list(read_leafless_events(10, first_id=late[1])) == []
    assert len(list(read_leafless_events(10, first_id=late[0], end_id=late[1]))) == 1
    assert find_raw_event(uuid.uuid4()) is None
    assert find_raw_event(leaves[3]).leaf_index == 3


ODD: dict[str, Any] = {
    "occurred_at": ["infinity", "0044-03-15 12:00:00 BC", "294276-01-01"],
    "detail": ["", "not json", '{"claim":"x"},"id":"y"', "{" * 5000],
    "mac": [b"", b"x" * 33],
    "actor": ["\x01\n\t", '"\\'],
}
ODD_ON_SQLITE = {
    "id": ["no uuid", 7, "14 characters "],
    "actor": [8, b"\x00\xff", b"7", 1.5],
    "occurred_at": ["yesterday", 7, "2026-11-24T16:05:09", "2026-11-24 16:05:09+00:00", "2026-11-24 16:05:09.000000"],
    "v": ["x"],
    "mac": ["x"],
}


@pytest.mark.django_db
@pytest.mark.parametrize("column", sorted({*ODD, *ODD_ON_SQLITE}))
def test_row_that_no_model_can_load_is_read_with_an_invalid_mac(column: str) -> None:
    values = ODD.get(column, []) if is_postgresql() else ODD.get(column, []) + ODD_ON_SQLITE.get(column, [])
    compute = create_mac_calculator()
    for value in values:
        (id_,) = events(1)
        with without_triggers():
            assert sql(f"UPDATE {EVENT} SET {column} = %s WHERE id = %s", value, id_) == 1
        (row,) = [
            row
            for row in (*read_leafless_events(10), *read_queued_leafless_events(10))
            if row.canonical is None or compute(row.mac_key, row.canonical) != row.mac
        ]
        assert row.canonical is not None
        with without_triggers():
            sql(f"DELETE FROM {EVENT}")
            sql("DELETE FROM phi_oidc_audit_auditunsealed")
    assert values or is_postgresql()


SEALED_BY_PURE_PYTHON = """
import django, psycopg
django.setup()
from datetime import timedelta
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from tests.support.audit_log import KEY, NOW, seal_now
assert psycopg.pq.__impl__ == "python"
result, summary = seal_now(), VerificationSummary()
found = list(verify_log(keys=[KEY.public_key()], now=NOW + timedelta(hours=1), summary=summary))
print(result.event_count, summary.events, sorted({finding.kind.value for finding in found}))
"""


@pytest.mark.postgresql
@pytest.mark.skipif(ctypes.util.find_library("pq") is None, reason="psycopg without C extension needs libpq")
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_e9_log_is_sealed_and_verified_without_the_c_extension_of_psycopg() -> None:
    events(300)
    environment = child_environment(os.environ, django_settings.DATABASES) | {"PSYCOPG_IMPL": "python"}
    command = [sys.executable, "-c", SEALED_BY_PURE_PYTHON]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    # The process does not know that this is a test database, whose triggers against DELETE and TRUNCATE were dropped.
    assert done.stdout == "300 300 ['protection_altered']\n"
