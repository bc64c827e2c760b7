"""A list is as strict as one look, claim by claim; and it costs what one look costs."""

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
from django_phi_oidc.claims.disclosure import RevealResult
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused, Undecryptable
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person

pytestmark = pytest.mark.django_db
Many = dict[Any, dict[str, RevealResult]]


def reveal_many(person: Person, users: Any, names: Any, *, purpose: str = "HOPERAT", now: Any = NOW) -> Many:
    with clock.override_clock(lambda: now):
        return disclosure.reveal_many(person.actor(), users, names, purpose=purpose)


def told() -> Counter[tuple[str, str, str, str, str]]:
    """Return what the trail tells of looks; those of one instant have no order."""
    return Counter(
        (event.action, event.outcome, event.reason, json.loads(event.detail)["claim"], event.subject)
        for event in AuditEvent.objects.filter(action__in=["claim.revealed", "access.denied"])
    )


@pytest.fixture
def clinician(make_person: Callable[..., Person], db: None) -> Person:
    """Return a person who may reveal claims of others."""
    person = make_person()
    person.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    return person


@pytest.fixture
def patients(make_person: Callable[..., Person], db: None) -> list[Person]:
    """Return four persons: two with an address, one whose address is over, one who has none."""
    persons = [make_person() for _ in range(4)]
    persons[0].store({"address": {"locality": "Bern"}, "birthdate": "1990-05-17"})
    persons[1].store({"address": {"locality": "Thun"}})
    persons[2].store({"address": "over"}, now=NOW - DAY)
    return persons


def test_reveal_many_gives_each_its_own_answer_and_tells_of_each(clinician: Person, patients: list[Person]) -> None:
    found = reveal_many(clinician, [each.user for each in patients], ["address", "birthdate", "ssn"])
    assert list(found) == [each.user.pk for each in patients]
    assert [of["address"].value for of in found.values()] == [{"locality": "Bern"}, {"locality": "Thun"}, None, None]
    assert [of["address"].is_scrubbed for of in found.values()] == [False, False, True, False]
    assert not any(of["address"].is_refused for of in found.values())
    assert all(of["birthdate"].is_refused and of["ssn"].is_refused for of in found.values())
    assert told() == Counter(
        look
        for each in patients
        for look in (
            ("claim.revealed", *answered_of(each, patients), "address", str(each.subject.uuid)),
            ("access.denied", "failure", "purpose_not_declared", "birthdate", str(each.subject.uuid)),
            ("access.denied", "failure", "claim_not_declared", "ssn", str(each.subject.uuid)),
        )
    )


def answered_of(person: Person, patients: list[Person]) -> tuple[str, str]:
    return ("failure", "claim_scrubbed") if person is patients[2] else ("success", "")


def outcome(look: Callable[[], Any]) -> tuple[Any, str]:
    """Return the value, or the error's type, and its text."""
    try:
        return look(), ""
    except (RevealRefused, ClaimScrubbed) as error:
        return type(error), str(error)


@pytest.mark.parametrize("purpose", ["TREAT", "HOPERAT", "HMARKT", "curiosity", "PATRQT"])
@pytest.mark.parametrize("permitted", [True, False])
@pytest.mark.parametrize("at", [NOW, NOW + DAY])
def test_reveal_many_answers_and_tells_as_reveal_does(
    purpose: str, permitted: bool, at: Any, clinician: Person, patients: list[Person]
) -> None:
    if not permitted:
        clinician.user.user_permissions.clear()
    clinician.store({"birthdate": "1970-01-01", "address": "Chur"})
    users = [*(each.user for each in patients), clinician.user]
    many = reveal_many(clinician, users, [*DECLARED, "ssn"], purpose=purpose, now=at)
    of_many = told()
    for user in users:
        for name in [*DECLARED, "ssn"]:
            with clock.override_clock(lambda: at):
                alone = outcome(lambda u=user, n=name: disclosure.reveal(clinician.actor(), u, n, purpose=purpose))
            assert outcome(many[user.pk][name].get) == alone
    assert (of_many.total(), told()) == (25, of_many + of_many)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("names", "selects"), [("address", 2), (["address", "groups"], 2)])
def test_reveal_many_is_two_selects_and_one_insert_at_most(
    names: Any, selects: int, clinician: Person, patients: list[Person]
) -> None:
    users, actor = [each.user for each in patients], clinician.actor()
    assert actor.user.has_perm(disclosure.REVEAL_PERMISSION), "Django has asked for the permissions by now"
    with CaptureQueriesContext(connection) as ours, CaptureQueriesContext(connections["phi_audit"]) as trail:
        disclosure.reveal_many(actor, users, names, purpose="HOPERAT")
    assert [query["sql"][:6] for query in ours.captured_queries] == ["SELECT"] * selects
    assert [query["sql"][:6] for query in trail.captured_queries] == ["INSERT"]
    with CaptureQueriesContext(connection) as ours:
        disclosure.reveal_many(actor, users[:2], "address", purpose="HOPERAT")
    assert [query["sql"][:6] for query in ours.captured_queries] == ["SELECT"], "a row answers for each"


@pytest.mark.django_db(transaction=True)
def test_reveal_many_of_more_than_a_batch_records_all_before_it_opens_one(
    clinician: Person, patients: list[Person], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(disclosure, "REVEAL_BATCH_SIZE", 4)
    before, used = settings.PHI_OIDC, []

    def source() -> Any:
        used.append(told().total())
        return before["ENCRYPTION_KEYS"]

    settings.PHI_OIDC = {**before, "ENCRYPTION_KEYS": source}
    with CaptureQueriesContext(connections["phi_audit"]) as trail:
        found = reveal_many(clinician, [each.user for each in patients], ["address", "groups"])
    assert len([query for query in trail.captured_queries if query["sql"].startswith("INSERT")]) == 2
    assert [of["address"].value for of in found.values()] == [{"locality": "Bern"}, {"locality": "Thun"}, None, None]
    assert set(used) == {8}


@pytest.mark.django_db(transaction=True)
def test_reveal_many_without_the_audit_database_opens_nothing(
    clinician: Person, patients: list[Person], settings: Any
) -> None:
    users = [each.user for each in patients]
    assert reveal_many(clinician, users, "address")[users[0].pk]["address"].value == {"locality": "Bern"}
    before, used = settings.PHI_OIDC, []

    def source() -> Any:
        used.append(1)
        return before["ENCRYPTION_KEYS"]

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("the server is away")

    settings.PHI_OIDC = {**before, "ENCRYPTION_KEYS": source}
    with connections["phi_audit"].execute_wrapper(fail), pytest.raises(AuditUnavailable):
        reveal_many(clinician, users, "address")
    assert used == []


def test_reveal_many_with_a_row_that_can_not_be_opened_still_lists_the_others(
    clinician: Person, patients: list[Person]
) -> None:
    rows = StoredClaim.objects.filter(name="address")
    rows.filter(subject=patients[0].subject).update(value=rows.get(subject=patients[1].subject).value)
    found = reveal_many(clinician, [each.user for each in patients], "address")
    broken, whole = (found[each.user.pk]["address"] for each in patients[:2])
    assert (broken.is_undecryptable, broken.value) == (True, None)
    assert (whole.is_undecryptable, whole.value) == (False, {"locality": "Thun"})
    with pytest.raises(Undecryptable):
        broken.get()


def test_reveal_many_with_the_key_gone_lists_everybody_and_opens_nobody(
    clinician: Person, patients: list[Person], settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ENCRYPTION_KEYS": [keyring.generate_key()]}
    found = reveal_many(clinician, [each.user for each in patients], "address")
    assert [of["address"].is_undecryptable for of in found.values()] == [True, True, False, False]


def test_reveal_many_with_one_damaged_retention_key_still_lists_the_others(
    clinician: Person, make_person: Callable[..., Person], settings: Any, tmp_path: Path
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path}
    first, second = make_person(), make_person()
    first.store({"address": "Bern"}, now=NOW - timedelta(hours=13))
    second.store({"address": "Thun"})
    (tmp_path / "20261123-86400").write_bytes(b"damaged")
    found = reveal_many(clinician, [first.user, second.user], "address")
    assert found[first.user.pk]["address"].is_undecryptable
    assert found[second.user.pk]["address"].value == "Thun"


def test_reveal_many_of_the_same_person_or_claim_twice_is_one_look(clinician: Person, patients: list[Person]) -> None:
    user = patients[0].user
    again = get_user_model()._default_manager.get(pk=user.pk)
    found = reveal_many(clinician, iter([user, again]), ["address", "address"])
    assert {pk: set(of) for pk, of in found.items()} == {user.pk: {"address"}}
    assert told().total() == 1


def test_reveal_many_of_a_user_whose_key_was_assigned_as_text_finds_the_row(
    clinician: Person, patients: list[Person]
) -> None:
    user = get_user_model()(pk=str(patients[0].user.pk))
    assert reveal_many(clinician, [user], "address")[user.pk]["address"].value == {"locality": "Bern"}


@pytest.mark.parametrize(("users", "names"), [(0, "address"), (4, [])])
def test_reveal_many_of_nothing_is_nothing(users: int, names: Any, clinician: Person, patients: list[Person]) -> None:
    some = [each.user for each in patients[:users]]
    with CaptureQueriesContext(connections["phi_audit"]) as trail:
        assert reveal_many(clinician, some, names) == {user.pk: {} for user in some}
    assert [query for query in trail.captured_queries if query["sql"].startswith("INSERT")] == []


def test_reveal_many_of_somebody_unsaved_beside_others_finds_nothing_of_theirs(
    clinician: Person, patients: list[Person]
) -> None:
    found = reveal_many(clinician, [get_user_model()(), patients[0].user], "address")
    assert (found[None]["address"].value, found[patients[0].user.pk]["address"].value) == (None, {"locality": "Bern"})


def test_revealed_shows_no_value(clinician: Person, patients: list[Person]) -> None:
    found = reveal_many(clinician, [each.user for each in patients], "address")
    assert "Bern" not in f"{found!r} {found[patients[0].user.pk]['address']}"
    assert found[patients[0].user.pk]["address"].get() == {"locality": "Bern"}


def test_reveal_many_looks_into_the_actors_own_session_alone(person: Person, patients: list[Person]) -> None:
    person.store({"birthdate": "of this session"})
    person.store({"birthdate": "of another one"}, session_id=uuid.uuid4(), now=NOW + timedelta(hours=1))
    found = reveal_many(person, [person.user, patients[0].user], "birthdate", purpose="TREAT")
    assert found[person.user.pk]["birthdate"].value == "of this session"
    assert str(found[patients[0].user.pk]["birthdate"].error).endswith("permission_missing.")
