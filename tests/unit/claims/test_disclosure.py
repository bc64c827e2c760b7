"""The policy is checked, the event committed, and the value decrypted, in this order."""

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
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.audit_outage import audit_database_fails
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc

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


def list_events(*actions: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action__in=actions or ("claim.revealed", "access.denied")).order_by("id"))


@pytest.fixture
def clinician(make_person: Callable[..., Person], db: None) -> Person:
    """Return a person who may reveal claims of others."""
    person = make_person()
    person.user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    return person


@contextmanager
def record_key_uses(settings: Any) -> Iterator[list[int]]:
    """Yield a list; each use of an encryption key appends the number of recorded reveals."""
    before = settings.PHI_OIDC
    used: list[int] = []

    def source() -> Any:
        used.append(AuditEvent.objects.filter(action="claim.revealed").count())
        return before["KEYS"]["encryption"]

    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": source})
    try:
        yield used
    finally:
        settings.PHI_OIDC = before


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("name", ["birthdate", "address"])
def test_reveal_returns_the_stored_value(person: Person, name: str, value: Any) -> None:
    person.store({name: value})
    revealed = reveal(person.actor(), person.user, name, purpose="PATRQT")
    assert json.dumps(revealed) == json.dumps(value), "1 == 1.0 == True, but the values differ"
    assert type(revealed) is type(value)


def test_reveal_commits_its_event_before_decryption(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    with record_key_uses(settings) as used:
        assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    assert used == [1]
    (event,) = list_events()
    assert (event.action, event.outcome, event.purpose, event.reason) == ("claim.revealed", "success", "TREAT", "")
    assert (event.subject, event.actor) == (str(person.subject.uuid), str(person.user.pk))
    assert (event.session, event.client_ip, event.request_id) == (str(person.session_id), "192.0.2.1", "r-1")
    assert (json.loads(event.detail), event.occurred_at) == ({"claim": "birthdate"}, NOW)


def test_reveal_without_the_audit_database_decrypts_nothing(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    with record_key_uses(settings) as used, audit_database_fails(), pytest.raises(AuditUnavailable):
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")
    assert used == []


def test_refused_reveal_without_the_audit_database_raises_audit_unavailable(person: Person) -> None:
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        reveal(person.actor(), person.user, "ssn", purpose="TREAT")


def test_reveal_records_neither_value_nor_ciphertext(person: Person) -> None:
    person.store({"birthdate": "1990-05-17-canary"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17-canary"
    ciphertext = StoredClaim.objects.get().value.ciphertext
    for row in AuditEvent.objects.values():
        assert "canary" not in repr(row)
        assert ciphertext not in repr(row)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("name", "selects"), [("birthdate", 1), ("allergies", 2), ("ssn", 2)])
def test_reveal_is_one_insert_and_one_or_two_selects(person: Person, name: str, selects: int) -> None:
    person.store({"birthdate": "1990-05-17"})
    actor = person.actor()
    captures = CaptureQueriesContext(connection), CaptureQueriesContext(connections["phi_audit"])
    with captures[0] as default_queries, captures[1] as audit_queries, suppress(RevealRefused):
        reveal(actor, person.user, name, purpose="TREAT")
    assert [query["sql"][:6] for query in default_queries.captured_queries] == ["SELECT"] * selects
    assert [query["sql"][:6] for query in audit_queries.captured_queries] == ["INSERT"]


def test_event_survives_a_rollback_of_the_caller(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    with suppress(ZeroDivisionError), transaction.atomic():
        assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
        raise ZeroDivisionError
    assert len(list_events("claim.revealed")) == 1


def test_reveal_of_another_persons_claim_needs_the_permission(person: Person, clinician: Person) -> None:
    person.store({"address": {"locality": "Bern"}})
    assert reveal(clinician.actor(), person.user, "address", purpose="HOPERAT") == {"locality": "Bern"}
    clinician.user.user_permissions.clear()
    with pytest.raises(RevealRefused) as refused:
        reveal(clinician.actor(), person.user, "address", purpose="HOPERAT")
    assert refused.value.reason == "permission_missing"
    (permitted,), (denied,) = list_events("claim.revealed"), list_events("access.denied")
    assert (permitted.action, permitted.actor) == ("claim.revealed", str(clinician.user.pk))
    assert (denied.action, denied.outcome, denied.reason) == ("access.denied", "failure", "permission_missing")
    assert denied.subject == permitted.subject == str(person.subject.uuid)
    assert json.loads(denied.detail) == {"claim": "address"}


REFUSED = {
    "undeclared": ("ssn", "TREAT", "claim_not_declared"),
    "another purpose": ("birthdate", "HOPERAT", "purpose_not_declared"),
    "unknown purpose": ("birthdate", "curiosity", "purpose_unknown"),
    "no purpose": ("birthdate", "", "purpose_unknown"),
    "None as purpose": ("birthdate", None, "purpose_unknown"),
    "several purposes": ("birthdate", ["TREAT"], "purpose_unknown"),
}


@pytest.mark.parametrize(("name", "purpose", "reason"), REFUSED.values(), ids=REFUSED)
def test_invalid_reveal_is_refused_and_recorded(
    person: Person, settings: Any, name: str, purpose: Any, reason: str
) -> None:
    person.store({"birthdate": "1990-05-17"})
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    with record_key_uses(settings) as used, pytest.raises(RevealRefused) as refused:
        reveal(person.actor(), person.user, name, purpose=purpose)
    assert (refused.value.reason, used) == (reason, [])
    (denied,) = list_events("access.denied")
    assert (denied.reason, denied.purpose, denied.outcome) == (
        reason,
        purpose if isinstance(purpose, str) else "",
        "failure",
    )
    assert denied.subject == str(person.subject.uuid)


def test_reveal_without_an_oidc_session_is_refused(person: Person) -> None:
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


def test_reveal_for_an_anonymous_actor_and_unsaved_user_is_refused(person: Person) -> None:
    anonymous = Actor(user=AnonymousUser(), origin=Origin(session=str(uuid.uuid4())))
    with pytest.raises(RevealRefused) as refused:
        reveal(anonymous, type(person.user)(), "birthdate", purpose="TREAT")
    assert refused.value.reason == "permission_missing"


def test_reveal_prefers_the_actors_own_session(person: Person) -> None:
    """The declared retention was changed, so both rows exist."""
    with_retention = {"birthdate": {**DECLARED["birthdate"], "retention": DAY}}
    person.store({"birthdate": "with retention"}, declared=with_retention, now=NOW + timedelta(hours=1))
    person.store({"birthdate": "of the session"})
    other = str(uuid.uuid4())
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "of the session"
    assert reveal(person.actor(session=other), person.user, "birthdate", purpose="TREAT") == "with retention"


def test_reveal_ignores_other_sessions_of_the_person(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"}, session_id=uuid.uuid4())
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") is None


def test_session_claim_of_another_person_is_refused_and_not_reported_as_missing(
    person: Person, clinician: Person
) -> None:
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    clinician.store({"birthdate": "the clinician's"})
    assert reveal(clinician.actor(), person.user, "address", purpose="HOPERAT") == "Bern"
    with pytest.raises(RevealRefused) as refused:
        reveal(clinician.actor(), person.user, "birthdate", purpose="TREAT")
    assert refused.value.reason == "claim_of_session"


def test_reveal_with_two_issuers_prefers_unexpired_then_newest(person: Person) -> None:
    other_issuer = Person(user=person.user, issuer="https://other.example.test")
    person.store({"address": "older"})
    other_issuer.store({"address": "newer"}, now=NOW + timedelta(hours=1))
    short = {"address": {**DECLARED["address"], "retention": timedelta(minutes=1)}}
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + timedelta(hours=1)) == "newer"
    other_issuer.store({"address": "newest, for a minute"}, now=NOW + timedelta(hours=2), declared=short)
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + timedelta(hours=3)) == "older"
    assert list_events()[0].subject == str(other_issuer.subject.uuid)


def test_changed_purpose_refuses_both_purposes_until_stored_again(
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


def test_expiry_is_exact_to_the_microsecond(person: Person) -> None:
    person.store({"address": "Bern"})
    last_moment = NOW + DAY - timedelta(microseconds=1)
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT", now=last_moment) == "Bern"
    with pytest.raises(ClaimScrubbed) as error:
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + DAY)
    assert error.value.code == "claim_scrubbed"
    assert StoredClaim.objects.exists()
    permitted, attempted = list_events()
    assert (permitted.outcome, permitted.reason) == ("success", "")
    assert (attempted.action, attempted.outcome, attempted.reason) == ("claim.revealed", "failure", "claim_scrubbed")


def test_reveal_returns_only_currently_declared_members(person: Person, settings: Any) -> None:
    person.store({"address": {"street_address": "Tulegatan 7B", "country": "SE"}, "birthdate": "1984-03-09"})
    for members, expected in ((["country", "region"], {"country": "SE"}), (["region"], None)):
        narrower = {**DECLARED, "address": {**DECLARED["address"], "members": members}}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": narrower}
        assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == expected
    assert reveal(person.actor(), person.user, "birthdate", purpose="PATRQT") == "1984-03-09"


def test_reveal_of_a_missing_claim_is_none_and_recorded(person: Person) -> None:
    person.store({"birthdate": "1990-05-17"})
    for name in ("allergies", "address", "groups"):
        assert reveal(person.actor(), person.user, name, purpose="PATRQT") is None
    assert [(event.outcome, event.subject) for event in list_events()] == [("success", str(person.subject.uuid))] * 3


def test_reveal_of_an_erased_claim_raises_claim_scrubbed(person: Person) -> None:
    person.store({"address": "Bern"})
    StoredClaim.objects.filter(session=NO_SESSION).delete()
    with pytest.raises(ClaimScrubbed):
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=NOW + DAY)


def test_reveal_of_a_user_who_never_signed_in_is_none(person: Person, clinician: Person) -> None:
    stranger = type(person.user)._default_manager.create_user(username="stranger")
    assert reveal(clinician.actor(), stranger, "address", purpose="HOPERAT") is None
    assert list_events()[0].subject == ""


@pytest.mark.parametrize("change", ["value", "name", "session"])
def test_reveal_of_a_tampered_row_raises_after_its_event(person: Person, change: str) -> None:
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
    assert [event.action for event in list_events()] == ["claim.revealed"]


def test_reveal_without_its_key_raises_undecryptable(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    phi_oidc = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(phi_oidc, KEYS={"encryption": [keyring.generate_key()]})
    with pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")
    settings.PHI_OIDC = override_phi_oidc(
        phi_oidc, KEYS={"encryption": [keyring.generate_key(), *phi_oidc["KEYS"]["encryption"]]}
    )
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"


def test_f7_claim_is_not_revealed_to_another_account(
    make_person: Callable[..., Person],
) -> None:
    victim, attacker = make_person(), make_person()
    victim.store({"address": {"locality": "Bern"}})
    assert reveal(victim.actor(), victim.user, "address", purpose="PATRQT") == {"locality": "Bern"}
    PairwiseSubject.objects.filter(pk=victim.subject.pk).update(user=attacker.user)
    with pytest.raises(Undecryptable):
        reveal(attacker.actor(), attacker.user, "address", purpose="PATRQT")
    StoredClaim.objects.update(owner=str(attacker.user.pk))
    with pytest.raises(Undecryptable):
        reveal(attacker.actor(), attacker.user, "address", purpose="PATRQT")
    PairwiseSubject.objects.filter(pk=victim.subject.pk).update(user=victim.user)
    StoredClaim.objects.update(owner=str(victim.user.pk))
    assert reveal(victim.actor(), victim.user, "address", purpose="PATRQT") == {"locality": "Bern"}


def test_f7_end_of_retention_cannot_be_moved(person: Person, settings: Any) -> None:
    person.store({"address": {"locality": "Bern"}})
    later = NOW + 2 * DAY
    longer = {**DECLARED, "address": {**DECLARED["address"], "retention": 9 * DAY}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": longer}
    StoredClaim.objects.update(expires_at=NOW + 9 * DAY)
    assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == {"locality": "Bern"}
    with pytest.raises(ClaimScrubbed):
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=later)
    StoredClaim.objects.update(retained_until=NOW + 9 * DAY)
    with pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "address", purpose="PATRQT", now=later)
