"""Declared claims are list_rows encrypted with one statement; others are not list_rows."""

import re
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.extensions import ClaimPreservation, retention_guards
from django_phi_oidc.subjects.models import PairwiseSubject

pytestmark = pytest.mark.django_db
CANARY = "1990-05-17-canary"


def decrypt(row: StoredClaim) -> Any:
    field: Any = StoredClaim._meta.get_field("value")
    return field.decrypt(row)


def list_rows() -> dict[tuple[str, uuid.UUID], StoredClaim]:
    return {(row.name, row.session): row for row in StoredClaim.objects.all()}


def test_claims_are_stored_with_their_purpose_and_end(person: Any) -> None:
    now = person.subject.first_seen_at
    names = person.store({"birthdate": CANARY, "address": {"locality": "Bern"}, "groups": ["staff"]})
    assert names == ("address", "birthdate")
    rows = list_rows()
    assert set(rows) == {("birthdate", person.session_id), ("address", NO_SESSION)}
    birthdate, address = rows["birthdate", person.session_id], rows["address", NO_SESSION]
    assert (birthdate.purpose, birthdate.obtained_at, birthdate.expires_at) == ("TREAT", now, None)
    assert (address.purpose, address.obtained_at, address.expires_at) == ("HOPERAT", now, now + timedelta(days=1))
    assert decrypt(birthdate) == f'"{CANARY}"'


def test_store_is_one_upsert(person: Any) -> None:
    with CaptureQueriesContext(connection) as context:
        person.store({"birthdate": CANARY, "allergies": ["latex"], "address": {}})
    upserts = [query["sql"] for query in context.captured_queries if "storedclaim" in query["sql"]]
    assert len(upserts) == 1
    assert upserts[0].startswith("INSERT")
    assert "ON CONFLICT" in upserts[0]


@pytest.mark.parametrize("claims", [{}, {"groups": ["staff"]}, {"ssn": "078-05-1120"}], ids=repr)
def test_nothing_to_store_writes_nothing(person: Any, claims: Any) -> None:
    with CaptureQueriesContext(connection) as context:
        assert person.store(claims) == ()
    assert not [query for query in context.captured_queries if re.match("INSERT", query["sql"])]
    assert not StoredClaim.objects.exists()


def test_no_plain_value_is_sent_to_the_database(person: Any) -> None:
    with CaptureQueriesContext(connection) as context:
        person.store({"birthdate": CANARY, "address": {"street": CANARY}})
    assert len(context) > 2
    assert not [query["sql"] for query in context.captured_queries if CANARY in query["sql"]]


def test_session_claims_are_separate_and_others_replaced(person: Any) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    now = person.subject.first_seen_at
    later = now + timedelta(hours=1)
    person.store({"birthdate": "1990-05-17", "address": {"locality": "Bern"}}, session_id=first)
    person.store({"birthdate": "1990-05-18", "address": {"locality": "Thun"}}, session_id=second, now=later)
    rows = list_rows()
    assert set(rows) == {("birthdate", first), ("birthdate", second), ("address", NO_SESSION)}
    assert [decrypt(rows["birthdate", session]) for session in (first, second)] == ['"1990-05-17"', '"1990-05-18"']
    address = rows["address", NO_SESSION]
    assert decrypt(address) == '{"locality": "Thun"}'
    assert (address.obtained_at, address.expires_at) == (later, later + timedelta(days=1))


def test_storing_again_replaces_value_and_purpose(person: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    changed = {"birthdate": {"purpose": "HOPERAT", "basis": "letters", "retention": "session"}}
    person.store({"birthdate": "1990-05-18"}, declared=changed)
    (row,) = StoredClaim.objects.all()
    assert (decrypt(row), row.purpose) == ('"1990-05-18"', "HOPERAT")


def test_protocol_claim_is_not_stored(person: Any) -> None:
    declared = {"sub": {"purpose": "TREAT", "basis": "a mistake", "retention": "session"}}
    assert person.store({"sub": "248"}, declared=declared) == ()


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), {1, 2}], ids=["NaN", "infinity", "object", "set"]
)
def test_value_that_json_cannot_represent_raises(person: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        person.store({"birthdate": value})
    assert not StoredClaim.objects.exists()


def test_claim_without_session_and_end_is_refused_by_the_database(person: Any) -> None:
    row = {"subject": person.subject, "name": "x", "value": "1", "purpose": "TREAT"}
    now = person.subject.first_seen_at
    StoredClaim.objects.create(**row, session=NO_SESSION, obtained_at=now, expires_at=now)
    with pytest.raises(IntegrityError), transaction.atomic():
        StoredClaim.objects.create(**row | {"name": "y"}, session=NO_SESSION, obtained_at=now, expires_at=None)


class Guard:
    """Holds each subject with `held_until`, and cannot preserve the stored address."""

    def preserve_claims(self, subject: Any, names: Any, *, now: datetime) -> ClaimPreservation:
        return ClaimPreservation(key_name="", kept_names={"address"})

    def may_need_key(self, key_name: str, *, now: datetime) -> bool:
        raise NotImplementedError

    def list_held_subjects(self, *, now: datetime) -> Any:
        raise NotImplementedError

    def count_holds(self, *, now: datetime) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("is_guarded", "is_held", "stored"),
    [
        (True, True, ("birthdate",)),
        (True, False, ("address", "birthdate")),
        (False, True, ("address", "birthdate")),
    ],
)
def test_guard_decides_which_claims_of_a_held_person_are_replaced(
    is_guarded: bool, is_held: bool, stored: tuple[str, ...], person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_guards, "_items", [Guard()] if is_guarded else [])
    now = person.subject.first_seen_at
    PairwiseSubject.objects.update(held_until=now + timedelta(days=1) if is_held else now)
    assert person.store({"address": {"locality": "Bern"}, "birthdate": CANARY}) == stored
