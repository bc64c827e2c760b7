"""Claims on legal hold are disclosed with the permission, with an event for claim claim."""

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.legal_hold_disclosure import disclose_held_claims
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.claims_fixtures import DAY, NOW, Person

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def counsel(make_person: Callable[..., Person]) -> Person:
    """Return a person with the permission."""
    counsel = make_person()
    counsel.user.user_permissions.add(Permission.objects.get(codename="disclose_legalhold"))
    return counsel


@pytest.fixture
def held(make_person: Callable[..., Person]) -> Person:
    """Return a person on hold whose address a later sign-in has replaced."""
    person = make_person()
    person.store({"address": {"locality": "Bern"}})
    place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + 9 * DAY, origin=person.origin(), now=NOW)
    person.store({"address": {"locality": "Thun"}}, now=NOW + DAY)
    return person


def list_events() -> list[tuple[str, str, str, str]]:
    """Return the recorded disclosures."""
    rows = AuditEvent.objects.filter(action__in=["access.denied", "claim.revealed"]).order_by("id")
    return [(event.action, event.reason, event.purpose, event.detail) for event in rows]


def test_disclosure_includes_expired_and_replaced_claims(counsel: Person, held: Person) -> None:
    with clock.override_clock(lambda: NOW + 3 * DAY):
        with pytest.raises(ClaimScrubbed):
            reveal(held.actor(), held.user, "address", purpose="PATRQT")
        before = list_events()
        claims = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [(claim.name, claim.value, claim.obtained_at, claim.is_expired) for claim in claims] == [
        ("address", {"locality": "Bern"}, NOW, True),
        ("address", {"locality": "Thun"}, NOW + DAY, True),
    ]
    assert "Bern" not in repr(claims)
    assert Counter(list_events()) - Counter(before) == {
        ("claim.revealed", "legal_hold", "HLEGAL", '{"claim":"address"}'): 2
    }


def test_undecryptable_claim_is_listed_without_value(counsel: Person, held: Person) -> None:
    StoredClaim.objects.filter(obtained_at=NOW).update(name="birthdate")
    with clock.override_clock(lambda: NOW + DAY):
        claims = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [(claim.name, claim.value, claim.is_undecryptable) for claim in claims] == [
        ("birthdate", None, True),
        ("address", {"locality": "Thun"}, False),
    ]


@pytest.mark.parametrize(
    ("reason", "disclose"),
    [
        (
            "permission_missing",
            lambda counsel, held: disclose_held_claims(held.actor(), held.subject.uuid, purpose="HLEGAL"),
        ),
        (
            "session_missing",
            lambda counsel, held: disclose_held_claims(counsel.actor(session=""), held.subject.uuid, purpose="HLEGAL"),
        ),
        (
            "purpose_unknown",
            lambda counsel, held: disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="FUN"),
        ),
        ("not_held", lambda counsel, held: disclose_held_claims(counsel.actor(), uuid.uuid4(), purpose="HLEGAL")),
        (
            "not_held",
            lambda counsel, held: disclose_held_claims(counsel.actor(), counsel.subject.uuid, purpose="HLEGAL"),
        ),
    ],
)
def test_refused_disclosure_is_recorded(
    counsel: Person, held: Person, reason: str, disclose: Callable[[Person, Person], Any]
) -> None:
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(RevealRefused) as refusal:
        disclose(counsel, held)
    assert reason in str(refusal.value)
    assert [(action, code) for action, code, _, _ in list_events()] == [("access.denied", reason)]


def test_disclosure_needs_an_active_hold_and_the_audit_log(counsel: Person, held: Person) -> None:
    def count_claims(after: timedelta) -> int:
        with clock.override_clock(lambda: NOW + after):
            return len(disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL"))

    assert count_claims(9 * DAY - timedelta(seconds=1)) == 2
    with pytest.raises(RevealRefused):
        count_claims(9 * DAY)
    with audit_database_away(), pytest.raises(AuditUnavailable):
        count_claims(DAY)
    release_hold(held.subject.holds.get().pk, origin=counsel.origin(), now=NOW + DAY)
    with pytest.raises(RevealRefused):
        count_claims(DAY)


def test_disclosure_without_claims_is_recorded(counsel: Person, held: Person) -> None:
    StoredClaim.objects.all()._raw_delete("default")
    with clock.override_clock(lambda: NOW + DAY):
        assert disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL") == []
    assert list_events() == [("claim.revealed", "legal_hold", "HLEGAL", "{}")]


def test_f7_claims_of_a_moved_subject_are_not_disclosed(
    counsel: Person, held: Person, make_person: Callable[..., Person]
) -> None:
    PairwiseSubject.objects.filter(pk=held.subject.pk).update(user=make_person().user)
    with clock.override_clock(lambda: NOW):
        claims = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [(claim.value, claim.is_undecryptable) for claim in claims] == [(None, True)] * 2
    PairwiseSubject.objects.filter(pk=held.subject.pk).update(user=held.user)
    with clock.override_clock(lambda: NOW):
        claims = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [claim.value for claim in claims] == [{"locality": "Bern"}, {"locality": "Thun"}]
