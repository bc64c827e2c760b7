"""The shorter of the retention at the sign-in and the current one applies to a stored claim."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims import tasks
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import scrub_past_limit
from django_phi_oidc.claims.retention_limits import UNDECLARED_MARGIN
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.errors import ClaimScrubbed, RevealRefused
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
YEAR = 365 * DAY


def declare(settings: Any, retention: Any) -> None:
    """Declare the retention of the address now, or remove it ("")."""
    claims = {**DECLARED, "address": {**DECLARED["address"], "retention": retention}}
    if retention == "":
        del claims["address"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": claims}


def store_for_a_year(person: Person) -> None:
    person.store({"address": "Bern"}, declared={"address": {**DECLARED["address"], "retention": YEAR}})


def reveal_at(person: Person, after: timedelta) -> Any:
    with clock.override_clock(lambda: NOW + after):
        return reveal(person.actor(), person.user, "address", purpose="PATRQT")


@pytest.mark.parametrize(
    ("retention", "limit"), [(DAY, DAY), (2 * YEAR, YEAR), ("session", 8 * HOUR)], ids=["shorter", "longer", "session"]
)
def test_a6_reveal_ends_with_the_shorter_retention(
    person: Person, settings: Any, retention: Any, limit: timedelta
) -> None:
    store_for_a_year(person)
    declare(settings, retention)
    assert reveal_at(person, limit - SECOND) == "Bern"
    with pytest.raises(ClaimScrubbed):
        reveal_at(person, limit)


def test_a6_claim_without_a_retention_is_revealed_no_more(person: Person, settings: Any) -> None:
    store_for_a_year(person)
    declare(settings, YEAR)
    assert reveal_at(person, SECOND) == "Bern"
    declare(settings, None)
    with pytest.raises(ClaimScrubbed):
        reveal_at(person, SECOND)
    declare(settings, "")
    with pytest.raises(RevealRefused):
        reveal_at(person, SECOND)


@pytest.mark.parametrize(
    ("retention", "limit"),
    [(DAY, DAY), ("session", 8 * HOUR), (None, UNDECLARED_MARGIN), ("", UNDECLARED_MARGIN)],
    ids=["shorter", "session", "none", "removed"],
)
def test_a6_scrub_erases_what_the_current_declaration_does_not_permit(
    make_person: Callable[..., Person], settings: Any, retention: Any, limit: timedelta
) -> None:
    first, second = make_person(), make_person()
    store_for_a_year(first)
    second.store({"birthdate": "1990-05-17", "allergies": ["latex"]})
    declare(settings, YEAR)
    assert scrub_past_limit(now=NOW + 300 * DAY) == 0
    declare(settings, retention)
    assert scrub_past_limit(now=NOW + limit - SECOND) == 0
    assert scrub_past_limit(now=NOW + limit) == 1
    assert scrub_past_limit(now=NOW + limit) == 0
    assert set(StoredClaim.objects.values_list("name", flat=True)) == {"birthdate", "allergies"}
    flush()
    (event,) = AuditEvent.objects.filter(action="claim.scrubbed")
    assert json.loads(event.detail) == {"cause": "declaration", "claims": ["address"], "counts": [1]}


def test_f7_claim_whose_end_was_moved_is_erased_at_its_declared_end(person: Person, settings: Any) -> None:
    store_for_a_year(person)
    declare(settings, 2 * YEAR)
    StoredClaim.objects.update(expires_at=NOW + 2 * YEAR)
    assert scrub_past_limit(now=NOW + YEAR - SECOND) == 0
    assert scrub_past_limit(now=NOW + YEAR) == 1


def test_a6_shorter_retention_applies_to_claims_of_a_session(person: Person, settings: Any) -> None:
    person.store({"birthdate": "1990-05-17"})
    assert scrub_past_limit(now=NOW + 10 * DAY) == 0
    claims = {**DECLARED, "birthdate": {**DECLARED["birthdate"], "retention": HOUR}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": claims}
    assert scrub_past_limit(now=NOW + HOUR - SECOND) == 0
    assert scrub_past_limit(now=NOW + HOUR) == 1


def test_a6_legal_hold_preserves_a_claim_past_its_shortened_retention(person: Person, settings: Any) -> None:
    store_for_a_year(person)
    hold = place_hold(person.subject.uuid, reason="matter 7", until=None, origin=Origin(), now=NOW)
    declare(settings, DAY)
    assert scrub_past_limit(now=NOW + 2 * DAY) == 0
    release_hold(hold.pk, origin=Origin(), now=NOW + 2 * DAY)
    assert scrub_past_limit(now=NOW + 2 * DAY) == 1


def test_a6_scrub_in_batches_erases_all(make_person: Callable[..., Person], settings: Any) -> None:
    for _ in range(5):
        store_for_a_year(make_person())
    declare(settings, DAY)
    assert scrub_past_limit(now=NOW + DAY, batch_size=2) == 5
    assert not StoredClaim.objects.exists()


def test_a6_task_applies_the_current_declarations(person: Person, settings: Any) -> None:
    store_for_a_year(person)
    declare(settings, DAY)
    with clock.override_clock(lambda: NOW + DAY - SECOND):
        tasks.apply_retention()
    assert StoredClaim.objects.exists()
    with clock.override_clock(lambda: NOW + DAY):
        tasks.apply_retention()
    assert not StoredClaim.objects.exists()
