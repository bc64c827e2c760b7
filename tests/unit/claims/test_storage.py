"""Declared claims are kept, sealed, in one statement; all else is not."""

import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.claims.models import NO_SESSION, StoredClaim

pytestmark = pytest.mark.django_db
CANARY = "1990-05-17-canary"


def opened(row: StoredClaim) -> Any:
    field: Any = StoredClaim._meta.get_field("value")
    return field.decrypt(row)


def stored() -> dict[tuple[str, uuid.UUID], StoredClaim]:
    return {(row.name, row.session): row for row in StoredClaim.objects.all()}


def test_store_keeps_each_kind_with_its_purpose_and_end(person: Any) -> None:
    now = person.subject.first_seen_at
    names = person.store({"birthdate": CANARY, "address": {"locality": "Bern"}, "groups": ["staff"]})
    assert names == ("address", "birthdate")
    rows = stored()
    assert set(rows) == {("birthdate", person.session_id), ("address", NO_SESSION)}
    birthdate, address = rows["birthdate", person.session_id], rows["address", NO_SESSION]
    assert (birthdate.purpose, birthdate.obtained_at, birthdate.expires_at) == ("TREAT", now, None)
    assert (address.purpose, address.obtained_at, address.expires_at) == ("HOPERAT", now, now + timedelta(days=1))
    assert opened(birthdate) == f'"{CANARY}"'


def test_store_is_one_upsert_and_one_event(person: Any, outbox_events: Callable[[str], Any]) -> None:
    with CaptureQueriesContext(connection) as context:
        person.store({"birthdate": CANARY, "allergies": ["latex"], "address": {}})
    upserts = [query["sql"] for query in context.captured_queries if "storedclaim" in query["sql"]]
    assert len(upserts) == 1
    assert upserts[0].startswith("INSERT")
    assert "ON CONFLICT" in upserts[0]
    ((event, detail),) = outbox_events("claim.stored")
    assert detail == {"claims": ["address", "allergies", "birthdate"]}
    assert (event.subject, event.provider, event.session) == (
        str(person.subject.uuid),
        "default",
        str(person.session_id),
    )


@pytest.mark.parametrize("claims", [{}, {"groups": ["staff"]}, {"ssn": "078-05-1120"}], ids=repr)
def test_store_without_anything_to_store_makes_no_statement_and_no_event(
    person: Any, claims: Any, outbox_events: Callable[[str], Any]
) -> None:
    with CaptureQueriesContext(connection) as context:
        assert person.store(claims) == ()
    assert not [query for query in context.captured_queries if re.match("INSERT", query["sql"])]
    assert outbox_events("claim.stored") == []
    assert not StoredClaim.objects.exists()


def test_store_sends_no_plain_value_to_the_database(person: Any) -> None:
    with CaptureQueriesContext(connection) as context:
        person.store({"birthdate": CANARY, "address": {"street": CANARY}})
    assert len(context) > 2
    assert not [query["sql"] for query in context.captured_queries if CANARY in query["sql"]]


def test_store_in_two_sessions_keeps_both_and_replaces_what_outlives_them(person: Any) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    now = person.subject.first_seen_at
    later = now + timedelta(hours=1)
    person.store({"birthdate": "1990-05-17", "address": {"locality": "Bern"}}, session_id=first)
    person.store({"birthdate": "1990-05-18", "address": {"locality": "Thun"}}, session_id=second, now=later)
    rows = stored()
    assert set(rows) == {("birthdate", first), ("birthdate", second), ("address", NO_SESSION)}
    assert [opened(rows["birthdate", session]) for session in (first, second)] == ['"1990-05-17"', '"1990-05-18"']
    address = rows["address", NO_SESSION]
    assert opened(address) == '{"locality": "Thun"}'
    assert (address.obtained_at, address.expires_at) == (later, later + timedelta(days=1))


def test_store_again_in_one_session_replaces_value_and_purpose(person: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    changed = {"birthdate": {"purpose": "HOPERAT", "basis": "letters", "retention": "session"}}
    person.store({"birthdate": "1990-05-18"}, declared=changed)
    (row,) = StoredClaim.objects.all()
    assert (opened(row), row.purpose) == ('"1990-05-18"', "HOPERAT")


def test_store_of_a_protocol_claim_keeps_nothing(person: Any) -> None:
    declared = {"sub": {"purpose": "TREAT", "basis": "a mistake", "retention": "session"}}
    assert person.store({"sub": "248"}, declared=declared) == ()


def test_store_rolled_back_leaves_neither_claim_nor_event(person: Any, outbox_events: Callable[[str], Any]) -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        person.store({"birthdate": CANARY})
        assert StoredClaim.objects.count() == 1
        raise ZeroDivisionError
    assert not StoredClaim.objects.exists()
    assert outbox_events("claim.stored") == []


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), {1, 2}], ids=["NaN", "infinity", "object", "set"]
)
def test_store_of_what_json_can_not_say_raises(person: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        person.store({"birthdate": value})
    assert not StoredClaim.objects.exists()


def test_stored_claim_without_session_and_without_end_is_refused_by_the_database(person: Any) -> None:
    row = {"subject": person.subject, "name": "x", "value": "1", "purpose": "TREAT"}
    now = person.subject.first_seen_at
    StoredClaim.objects.create(**row, session=NO_SESSION, obtained_at=now, expires_at=now)
    with pytest.raises(IntegrityError), transaction.atomic():
        StoredClaim.objects.create(**row | {"name": "y"}, session=NO_SESSION, obtained_at=now, expires_at=None)
