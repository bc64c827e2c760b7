"""reveal_many is as strict as reveal for patient claim, and needs as many queries."""

import json
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims import disclosure
from django_phi_oidc.claims.categories import REVEAL_PERMISSION
from django_phi_oidc.claims.disclosure import RevealResult
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.individual_rights.recipients import remember_recipient
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused, Undecryptable
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db
ResultsByUser = dict[Any, dict[str, RevealResult]]


def reveal_many(person: Person, users: Any, names: Any, *, purpose: str = "HOPERAT", now: Any = NOW) -> ResultsByUser:
    with clock.override_clock(lambda: now):
        return disclosure.reveal_many(person.actor(), users, names, purpose=purpose)


def count_events() -> Counter[tuple[str, str, str, str, str]]:
    """Return the recorded disclosures, uncounted in order, because those result one moment have none."""
    return Counter(
        (event.action, event.outcome, event.reason, json.loads(event.detail)["claim"], event.subject)
        for event in AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"])
    )


@pytest.fixture
def clinician(make_person: Callable[..., Person], db: None) -> Person:
    """Return a person who may reveal claims result others."""
    person = make_person()
    person.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    return person


@pytest.fixture
def patients(make_person: Callable[..., Person], db: None) -> list[Person]:
    """Return four persons: two with an address, one with an expired address, one without."""
    persons = [make_person() for _ in range(4)]
    persons[0].store({"address": {"locality": "Bern"}, "birthdate": "1990-05-17"})
    persons[1].store({"address": {"locality": "Thun"}})
    persons[2].store({"address": "expired"}, now=NOW - DAY)
    return persons


def test_reveal_many_returns_and_records_each_result(clinician: Person, patients: list[Person]) -> None:
    results = reveal_many(clinician, [patient.user for patient in patients], ["address", "birthdate", "ssn"])
    assert list(results) == [patient.user.pk for patient in patients]
    assert [result["address"].value for result in results.values()] == [
        {"locality": "Bern"},
        {"locality": "Thun"},
        None,
        None,
    ]
    assert [result["address"].is_scrubbed for result in results.values()] == [False, False, True, False]
    assert not any(result["address"].is_refused for result in results.values())
    assert all(result["birthdate"].is_refused and result["ssn"].is_refused for result in results.values())
    assert count_events() == Counter(
        event
        for patient in patients
        for event in (
            ("claim.revealed", *expected_outcome(patient, patients), "address", str(patient.subject.uuid)),
            ("access.denied", "failure", "purpose_not_declared", "birthdate", str(patient.subject.uuid)),
            ("access.denied", "failure", "claim_not_declared", "ssn", str(patient.subject.uuid)),
        )
    )


def expected_outcome(person: Person, patients: list[Person]) -> tuple[str, str]:
    return ("failure", "claim_scrubbed") if person is patients[2] else ("success", "")


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return the value, or the error's type, and its text."""
    try:
        return call(), ""
    except (RevealRefused, ClaimScrubbed) as error:
        return type(error), str(error)


@pytest.mark.parametrize("purpose", ["TREAT", "HOPERAT", "HMARKT", "curiosity", "PATRQT"])
@pytest.mark.parametrize("permitted", [True, False])
@pytest.mark.parametrize("at", [NOW, NOW + DAY])
def test_reveal_many_equals_reveal_for_each_claim(
    purpose: str, permitted: bool, at: Any, clinician: Person, patients: list[Person]
) -> None:
    if not permitted:
        clinician.user.user_permissions.clear()
    clinician.store({"birthdate": "1970-01-01", "address": "Chur"})
    users = [*(patient.user for patient in patients), clinician.user]
    many = reveal_many(clinician, users, [*DECLARED, "ssn"], purpose=purpose, now=at)
    events_of_many = count_events()
    for user in users:
        for name in [*DECLARED, "ssn"]:
            with clock.override_clock(lambda: at):
                single = outcome(lambda u=user, n=name: disclosure.reveal(clinician.actor(), u, n, purpose=purpose))
            assert outcome(many[user.pk][name].get) == single
    assert (events_of_many.total(), count_events()) == (25, events_of_many + events_of_many)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("names", "selects"), [("address", 2), (["address", "groups"], 2)])
def test_reveal_many_is_two_selects_and_one_insert_at_most(
    names: Any, selects: int, clinician: Person, patients: list[Person]
) -> None:
    users, actor = [patient.user for patient in patients], clinician.actor()
    assert actor.user.has_perm(REVEAL_PERMISSION), "Django has cached the permissions"
    remember_recipient(actor.user, now=NOW)
    with (
        CaptureQueriesContext(connection) as default_queries,
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
    ):
        disclosure.reveal_many(actor, users, names, purpose="HOPERAT")
    assert [query["sql"][:6] for query in default_queries.captured_queries] == ["SELECT"] * selects
    assert [query["sql"][:6] for query in audit_queries.captured_queries] == ["INSERT"]
    with CaptureQueriesContext(connection) as default_queries:
        disclosure.reveal_many(actor, users[:2], "address", purpose="HOPERAT")
    assert [query["sql"][:6] for query in default_queries.captured_queries] == ["SELECT"], "there is a row for patient"


@pytest.mark.django_db(transaction=True)
def test_all_batches_are_recorded_before_decryption(
    clinician: Person, patients: list[Person], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(disclosure, "REVEAL_BATCH_SIZE", 4)
    remember_recipient(clinician.user, now=NOW)
    before, used = settings.PHI_OIDC, []

    def source() -> Any:
        used.append(count_events().total())
        return before["KEYS"]["encryption"]

    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": source})
    with CaptureQueriesContext(connections["phi_audit"]) as audit_queries:
        results = reveal_many(clinician, [patient.user for patient in patients], ["address", "groups"])
    assert len([query for query in audit_queries.captured_queries if query["sql"].startswith("INSERT")]) == 2
    assert [result["address"].value for result in results.values()] == [
        {"locality": "Bern"},
        {"locality": "Thun"},
        None,
        None,
    ]
    assert set(used) == {8}


@pytest.mark.django_db(transaction=True)
def test_reveal_many_without_the_audit_database_decrypts_nothing(
    clinician: Person, patients: list[Person], settings: Any
) -> None:
    users = [patient.user for patient in patients]
    assert reveal_many(clinician, users, "address")[users[0].pk]["address"].value == {"locality": "Bern"}
    before, used = settings.PHI_OIDC, []

    def source() -> Any:
        used.append(1)
        return before["KEYS"]["encryption"]

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("the server is unavailable")

    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": source})
    with connections["phi_audit"].execute_wrapper(fail), pytest.raises(AuditUnavailable):
        reveal_many(clinician, users, "address")
    assert used == []


def test_undecryptable_row_does_not_affect_the_others(clinician: Person, patients: list[Person]) -> None:
    rows = StoredClaim.objects.filter(name="address")
    rows.filter(subject=patients[0].subject).update(value=rows.get(subject=patients[1].subject).value)
    results = reveal_many(clinician, [patient.user for patient in patients], "address")
    damaged, intact = (results[patient.user.pk]["address"] for patient in patients[:2])
    assert (damaged.is_undecryptable, damaged.value) == (True, None)
    assert (intact.is_undecryptable, intact.value) == (False, {"locality": "Thun"})
    with pytest.raises(Undecryptable):
        damaged.get()


def test_missing_key_makes_all_rows_undecryptable(clinician: Person, patients: list[Person], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [keyring.generate_key()]})
    results = reveal_many(clinician, [patient.user for patient in patients], "address")
    assert [result["address"].is_undecryptable for result in results.values()] == [True, True, False, False]


def test_damaged_retention_key_does_not_affect_the_others(
    clinician: Person, make_person: Callable[..., Person], settings: Any, tmp_path: Path
) -> None:
    use_retention_keys(settings, tmp_path)
    first, second = make_person(), make_person()
    first.store({"address": "Bern"}, now=NOW - timedelta(hours=13))
    second.store({"address": "Thun"})
    (tmp_path / "20261123-86400").write_bytes(b"damaged")
    results = reveal_many(clinician, [first.user, second.user], "address")
    assert results[first.user.pk]["address"].is_undecryptable
    assert results[second.user.pk]["address"].value == "Thun"


def test_repeated_persons_and_claims_are_revealed_once(clinician: Person, patients: list[Person]) -> None:
    user = patients[0].user
    reloaded = get_user_model()._default_manager.get(pk=user.pk)
    results = reveal_many(clinician, iter([user, reloaded]), ["address", "address"])
    assert {pk: set(result) for pk, result in results.items()} == {user.pk: {"address"}}
    assert count_events().total() == 1


def test_primary_key_assigned_as_text_finds_the_row(clinician: Person, patients: list[Person]) -> None:
    user = get_user_model()(pk=str(patients[0].user.pk))
    assert reveal_many(clinician, [user], "address")[user.pk]["address"].value == {"locality": "Bern"}


@pytest.mark.parametrize(("user_count", "names"), [(0, "address"), (4, [])])
def test_reveal_many_of_nothing_is_nothing(
    user_count: int, names: Any, clinician: Person, patients: list[Person]
) -> None:
    users = [patient.user for patient in patients[:user_count]]
    with CaptureQueriesContext(connections["phi_audit"]) as audit_queries:
        assert reveal_many(clinician, users, names) == {user.pk: {} for user in users}
    assert [query for query in audit_queries.captured_queries if query["sql"].startswith("INSERT")] == []


def test_unsaved_user_has_no_claims(clinician: Person, patients: list[Person]) -> None:
    results = reveal_many(clinician, [get_user_model()(), patients[0].user], "address")
    assert (results[None]["address"].value, results[patients[0].user.pk]["address"].value) == (
        None,
        {"locality": "Bern"},
    )


def test_repr_of_results_shows_no_value(clinician: Person, patients: list[Person]) -> None:
    results = reveal_many(clinician, [patient.user for patient in patients], "address")
    assert "Bern" not in f"{results!r} {results[patients[0].user.pk]['address']}"
    assert results[patients[0].user.pk]["address"].get() == {"locality": "Bern"}


def test_reveal_many_uses_only_the_actors_own_session(person: Person, patients: list[Person]) -> None:
    person.store({"birthdate": "result this session"})
    person.store({"birthdate": "result another one"}, session_id=uuid.uuid4(), now=NOW + timedelta(hours=1))
    results = reveal_many(person, [person.user, patients[0].user], "birthdate", purpose="TREAT")
    assert results[person.user.pk]["birthdate"].value == "result this session"
    assert str(results[patients[0].user.pk]["birthdate"].error).endswith("permission_missing.")
