"""Policy, then the event, committed, then the value: and none of them out of order."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims import disclosure
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused, Undecryptable
from tests.support.audit_outage import audit_database_fails
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person

pytestmark = pytest.mark.django_db
VALUES = [
    "1990-05-17",
    "Ægir \U0001f9ea 中 e\u0301",
    42,
    10**60 + 7,
    -0.0,
    0.1,
    1e300,
    1.5,
    True,
    False,
    0,
    ["a", ["b", None]],
    {"locality": "Bern", "ünï": {"deep": [1]}},
    "\x00\\",
]


def reveal(actor: Actor, user: Any, name: str, *, purpose: str, now: datetime = NOW) -> Any:
    with clock.override_clock(lambda: now):
        return disclosure.reveal(actor, user, name, purpose=purpose)


def events(*actions: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action__in=actions or ("claim.revealed", "access.denied")).order_by("id"))


@pytest.fixture
def clinician(make_person: Callable[..., Person], db: None) -> Person:
    """Return a person who may reveal claims of others."""
    person = make_person()
    person.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    return person


@contextmanager
def watching_keys(settings: Any) -> Iterator[list[int]]:
    """Yield a list to which every use of an encryption key adds how many reveals were in the trail by then."""
    before = settings.PHI_OIDC
    used: list[int] = []

    def source() -> Any:
        used.append(AuditEvent.objects.filter(action="claim.revealed").count())
        return before["ENCRYPTION_KEYS"]

    settings.PHI_OIDC = {**before, "ENCRYPTION_KEYS": source}
    try:
        yield used
    finally:
        settings.PHI_OIDC = before


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("name", ["birthdate", "address"])
def test_reveal_gives_the_value_back_as_it_came(person: Person, name: str, value: Any) -> None:
    person.store({name: value})
    revealed = reveal(person.actor(), person.user, name, purpose="PATRQT")
    assert json.dumps(revealed) == json.dumps(value), "1 == 1.0 == True, and they are three values"
    assert type(revealed) is type(value)


def test_reveal_commits_its_event_before_anything_is_opened(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    with watching_keys(settings) as used:
        assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    assert used == [1]
    (event,) = events()
    assert (event.action, event.outcome, event.purpose, event.reason) == ("claim.revealed", "success", "TREAT", "")
    assert (event.subject, event.actor) == (str(person.subject.uuid), str(person.user.pk))
    assert (event.session, event.client_ip, event.request_id) == (str(person.session_id), "192.0.2.1", "r-1")
    assert (json.loads(event.detail), event.occurred_at) == ({"claim": "birthdate"}, NOW)


def test_reveal_without_the_audit_database_opens_nothing(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    with watching_keys(settings) as used, audit_database_fails(), pytest.raises(AuditUnavailable):
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")
    assert used == []


def test_reveal_refused_without_the_audit_database_is_no_less_refused(person: Person) -> None:
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        reveal(person.actor(), person.user, "ssn", purpose="TREAT")


def test_reveal_writes_no_value_and_no_ciphertext_into_the_trail(person: Person) -> None:
    person.store({"birthdate": "1990-05-17-canary"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17-canary"
    sealed = StoredClaim.objects.get().value.ciphertext
    for row in AuditEvent.objects.values():
        assert "canary" not in repr(row)
        assert sealed not in repr(row)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("name", "selects"), [("birthdate", 1), ("allergies", 2), ("ssn", 2)])
def test_reveal_is_one_insert_beside_one_select_when_a_row_answers_and_two_when_none_does(
    person: Person, name: str, selects: int
) -> None:
    person.store({"birthdate": "1990-05-17"})
    actor = person.actor()
    counting = CaptureQueriesContext(connection), CaptureQueriesContext(connections["phi_audit"])
    with counting[0] as ours, counting[1] as trail, suppress(RevealRefused):
        reveal(actor, person.user, name, purpose="TREAT")
    assert [query["sql"][:6] for query in ours.captured_queries] == ["SELECT"] * selects
    assert [query["sql"][:6] for query in trail.captured_queries] == ["INSERT"]


def test_reveal_in_a_transaction_that_rolls_back_leaves_its_event(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    with suppress(ZeroDivisionError), transaction.atomic():
        assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
        raise ZeroDivisionError
    assert len(events("claim.revealed")) == 1


def test_reveal_of_another_persons_claim_takes_the_permission(person: Person, clinician: Person) -> None:
    person.store({"address": {"locality": "Bern"}})
    assert reveal(clinician.actor(), person.user, "address", purpose="HOPERAT") == {"locality": "Bern"}
    clinician.user.user_permissions.clear()
    with pytest.raises(RevealRefused) as refused:
        reveal(clinician.actor(), person.user, "address", purpose="HOPERAT")
    assert refused.value.reason == "permission_missing"
    (permitted,), (denied,) = events("claim.revealed"), events("access.denied")
    assert (permitted.action, permitted.actor) == ("claim.revealed", str(clinician.user.pk))
    assert (denied.action, denied.outcome, denied.reason) == ("access.denied", "failure", "permission_missing")
    assert denied.subject == permitted.subject == str(person.subject.uuid)
    assert json.loads(denied.detail) == {"claim": "address"}


REFUSED = {
    "undeclared": ("ssn", "TREAT", "claim_not_declared"),
    "another purpose": ("birthdate", "HOPERAT", "purpose_not_declared"),
    "no such purpose": ("birthdate", "curiosity", "purpose_unknown"),
    "no purpose": ("birthdate", "", "purpose_unknown"),
    "a purpose that is none": ("birthdate", None, "purpose_unknown"),
    "several purposes": ("birthdate", ["TREAT"], "purpose_unknown"),
}


@pytest.mark.parametrize(("name", "purpose", "reason"), REFUSED.values(), ids=REFUSED)
def test_reveal_with_one_thing_wrong_is_refused_and_told(
    person: Person, settings: Any, name: str, purpose: Any, reason: str
) -> None:
    person.store({"birthdate": "1990-05-17"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    with watching_keys(settings) as used, pytest.raises(RevealRefused) as refused:
        reveal(person.actor(), person.user, name, purpose=purpose)
    assert (refused.value.reason, used) == (reason, [])
    (denied,) = events("access.denied")
    assert (denied.reason, denied.purpose, denied.outcome) == (
        reason,
        purpose if isinstance(purpose, str) else "",
        "failure",
    )
    assert denied.subject == str(person.subject.uuid)


def test_reveal_outside_a_session_of_an_op_is_refused(person: Person) -> None:
    person.store({"address": "Bern"})
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == "Bern"
    with pytest.raises(RevealRefused) as refused:
        reveal(person.actor(session=""), person.user, "address", purpose="PATRQT")
    assert refused.value.reason == "session_missing"


def test_reveal_by_a_deactivated_person_is_refused(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    person.user.is_active = False
    person.user.save()
    with pytest.raises(RevealRefused) as refused:
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")
    assert refused.value.reason == "permission_missing"


def test_reveal_by_nobody_of_nobody_is_refused(person: Person) -> None:
    nobody = Actor(user=AnonymousUser(), origin=Origin(session=str(uuid.uuid4())))
    with pytest.raises(RevealRefused) as refused:
        reveal(nobody, type(person.user)(), "birthdate", purpose="TREAT")
    assert refused.value.reason == "permission_missing"


def test_reveal_looks_into_the_actors_own_session_first(person: Person) -> None:
    """The declaration was of another kind before: both rows are there."""
    lasting = {"birthdate": {**DECLARED["birthdate"], "retention": DAY}}
    person.store({"birthdate": "lasting"}, declared=lasting, now=NOW + timedelta(hours=1))
    person.store({"birthdate": "of the session"})
    other = str(uuid.uuid4())
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "of the session"
    assert reveal(person.actor(session=other), person.user, "birthdate", purpose="TREAT") == "lasting"


def test_reveal_does_not_look_into_another_session_of_the_person(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"}, session_id=uuid.uuid4())
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") is None


def test_reveal_of_a_claim_of_another_persons_session_is_refused_and_not_denied_to_exist(
    person: Person, clinician: Person
) -> None:
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    clinician.store({"birthdate": "the clinician's"})
    assert reveal(clinician.actor(), person.user, "address", purpose="HOPERAT") == "Bern"
    with pytest.raises(RevealRefused) as refused:
        reveal(clinician.actor(), person.user, "birthdate", purpose="TREAT")
    assert refused.value.reason == "claim_of_session"


def test_reveal_of_a_person_with_two_issuers_takes_what_is_live_then_newest(person: Person) -> None:
    elsewhere = Person(user=person.user, issuer="https://other.example.test")
    person.store({"address": "older"})
    elsewhere.store({"address": "newer"}, now=NOW + timedelta(hours=1))
    short = {"address": {**DECLARED["address"], "retention": timedelta(minutes=1)}}
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + timedelta(hours=1)) == "newer"
    elsewhere.store({"address": "newest, for a minute"}, now=NOW + timedelta(hours=2), declared=short)
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + timedelta(hours=3)) == "older"
    assert events()[0].subject == str(elsewhere.subject.uuid)


def test_reveal_after_the_declared_purpose_changed_serves_neither_until_stored_again(
    person: Person, clinician: Person, settings: Any
) -> None:
    person.store({"address": "Bern"})
    changed = {**DECLARED, "address": {**DECLARED["address"], "purpose": "HMARKT"}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": changed}
    for purpose in ("HOPERAT", "HMARKT"):
        with pytest.raises(RevealRefused) as refused:
            reveal(clinician.actor(), person.user, "address", purpose=purpose)
        assert refused.value.reason == "purpose_not_declared"
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == "Bern"
    person.store({"address": "Thun"}, declared=changed)
    assert reveal(clinician.actor(), person.user, "address", purpose="HMARKT") == "Thun"


def test_reveal_is_scrubbed_to_the_microsecond_though_the_row_is_there(person: Person) -> None:
    person.store({"address": "Bern"})
    last = NOW + DAY - timedelta(microseconds=1)
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=last) == "Bern"
    with pytest.raises(ClaimScrubbed) as gone:
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + DAY)
    assert gone.value.code == "claim_scrubbed"
    assert StoredClaim.objects.exists()
    permitted, attempted = events()
    assert (permitted.outcome, permitted.reason) == ("success", "")
    assert (attempted.action, attempted.outcome, attempted.reason) == ("claim.revealed", "failure", "claim_scrubbed")


def test_reveal_of_what_was_stored_when_more_of_it_was_declared_gives_what_is_declared_now(
    person: Person, settings: Any
) -> None:
    person.store({"address": {"street_address": "Tulegatan 7B", "country": "SE"}, "birthdate": "1984-03-09"})
    for members, given in ((["country", "region"], {"country": "SE"}), (["region"], None)):
        narrower = {**DECLARED, "address": {**DECLARED["address"], "members": members}}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": narrower}
        assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == given
    assert reveal(person.actor(), person.user, "birthdate", purpose="PATRQT") == "1984-03-09"


def test_reveal_of_a_claim_that_did_not_come_is_none_and_told(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    for name in ("allergies", "address", "groups"):
        assert reveal(person.actor(), person.user, name, purpose="PATRQT") is None
    assert [(event.outcome, event.subject) for event in events()] == [("success", str(person.subject.uuid))] * 3


def test_reveal_of_an_erased_claim_is_scrubbed_once_its_time_is_over(person: Person) -> None:
    person.store({"address": "Bern"})
    StoredClaim.objects.filter(session=NO_SESSION).delete()
    with pytest.raises(ClaimScrubbed):
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + DAY)


def test_reveal_of_a_user_who_never_signed_in_is_none(person: Person, clinician: Person) -> None:
    stranger = type(person.user)._default_manager.create_user(username="stranger")
    assert reveal(clinician.actor(), stranger, "address", purpose="HOPERAT") is None
    assert events()[0].subject == ""


@pytest.mark.parametrize("change", ["value", "name", "session"])
def test_reveal_of_a_row_that_was_tampered_with_raises_after_its_event(person: Person, change: str) -> None:
    person.store({"birthdate": "1990-05-17", "allergies": ["latex"]})
    rows = StoredClaim.objects.filter(name="birthdate")
    if change == "value":
        other = StoredClaim.objects.get(name="allergies").value
        rows.update(value=other)
    elif change == "name":
        StoredClaim.objects.filter(name="allergies").delete()
        rows.update(name="allergies")
    else:
        rows.update(session=NO_SESSION, expires_at=NOW + DAY)
    with pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "allergies" if change == "name" else "birthdate", purpose="TREAT")
    assert [event.action for event in events()] == ["claim.revealed"]


def test_reveal_with_the_key_gone_raises_undecryptable(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    kept = settings.PHI_OIDC
    settings.PHI_OIDC = {**kept, "ENCRYPTION_KEYS": [keyring.generate_key()]}
    with pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")
    settings.PHI_OIDC = {**kept, "ENCRYPTION_KEYS": [keyring.generate_key(), *kept["ENCRYPTION_KEYS"]]}
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
