"""What a legal hold keeps is seen by who may, with an event for each claim, and by nobody else."""

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
from django_phi_oidc.claims.legal_hold_disclosure import disclose_held_claims
from django_phi_oidc.claims.legal_holds import place_hold, release_hold
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.claims_fixtures import DAY, NOW, Person

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def counsel(make_person: Callable[..., Person]) -> Person:
    """Return somebody who may."""
    counsel = make_person()
    counsel.user.user_permissions.add(Permission.objects.get(codename="disclose_legalhold"))
    return counsel


@pytest.fixture
def held(make_person: Callable[..., Person]) -> Person:
    """Return somebody whose old address a later sign-in has replaced, under a hold."""
    person = make_person()
    person.store({"address": {"locality": "Bern"}})
    place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + 9 * DAY, origin=person.origin(), now=NOW)
    person.store({"address": {"locality": "Thun"}}, now=NOW + DAY)
    return person


def told() -> list[tuple[str, str, str, str]]:
    """Return what the trail tells of looks."""
    looks = AuditEvent.objects.filter(action__in=["access.denied", "claim.revealed"]).order_by("id")
    return [(event.action, event.reason, event.purpose, event.detail) for event in looks]


def test_who_may_sees_all_that_is_held_past_its_time_too(counsel: Person, held: Person) -> None:
    with clock.override_clock(lambda: NOW + 3 * DAY):
        with pytest.raises(ClaimScrubbed):
            reveal(held.actor(), held.user, "address", purpose="PATRQT")
        before = told()
        found = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [(each.name, each.value, each.obtained_at, each.is_expired) for each in found] == [
        ("address", {"locality": "Bern"}, NOW, True),
        ("address", {"locality": "Thun"}, NOW + DAY, True),
    ]
    assert "Bern" not in repr(found)
    assert Counter(told()) - Counter(before) == {("claim.revealed", "legal_hold", "HLEGAL", '{"claim":"address"}'): 2}


def test_claim_that_no_key_opens_is_named(counsel: Person, held: Person) -> None:
    StoredClaim.objects.filter(obtained_at=NOW).update(name="birthdate")
    with clock.override_clock(lambda: NOW + DAY):
        found = disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL")
    assert [(each.name, each.value, each.is_undecryptable) for each in found] == [
        ("birthdate", None, True),
        ("address", {"locality": "Thun"}, False),
    ]


@pytest.mark.parametrize(
    ("reason", "act"),
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
def test_refused_look_is_an_event_and_opens_nothing(
    counsel: Person, held: Person, reason: str, act: Callable[[Person, Person], Any]
) -> None:
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(RevealRefused) as caught:
        act(counsel, held)
    assert reason in str(caught.value)
    assert [(action, why) for action, why, _, _ in told()] == [("access.denied", reason)]


def test_nothing_is_seen_after_the_hold_nor_without_the_trail(counsel: Person, held: Person) -> None:
    def look(after: timedelta) -> int:
        with clock.override_clock(lambda: NOW + after):
            return len(disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL"))

    assert look(9 * DAY - timedelta(seconds=1)) == 2
    with pytest.raises(RevealRefused):
        look(9 * DAY)
    with audit_database_away(), pytest.raises(AuditUnavailable):
        look(DAY)
    release_hold(held.subject.holds.get().pk, origin=counsel.origin(), now=NOW + DAY)
    with pytest.raises(RevealRefused):
        look(DAY)


def test_look_at_a_held_person_of_whom_nothing_is_held_is_an_event(counsel: Person, held: Person) -> None:
    StoredClaim.objects.all().delete()
    with clock.override_clock(lambda: NOW + DAY):
        assert disclose_held_claims(counsel.actor(), held.subject.uuid, purpose="HLEGAL") == []
    assert told() == [("claim.revealed", "legal_hold", "HLEGAL", "{}")]
