"""The retention keys in the retention report."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.retention import scrub_user
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.retention_keys.key_summary import RetentionKeySummary
from django_phi_oidc.crypto.claim_keys import find_enabled_source
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def get_summary() -> Any:
    source = find_enabled_source()
    assert source is not None
    return source.get_summary()


def test_key_summary_counts_keys_and_has_the_oldest_day(
    make_person: Callable[..., Person], settings: Any, tmp_path: Path
) -> None:
    use_retention_keys(settings, tmp_path)
    assert get_summary() == RetentionKeySummary(count=0, oldest=None, of_holds=0, of_erased_persons=0)
    persons = [make_person(), make_person()]
    for number, person in enumerate(persons):
        person.store({"birthdate": "1990-05-17", "address": "Bern"}, now=NOW + number * DAY)
    place_hold(persons[1].subject.uuid, reason="matter 7", until=None, origin=Origin(), now=NOW + DAY)
    scrub_user(persons[0].user, origin=Origin(), now=NOW)
    # Two days with a key for sessions and a key for a day, and the key of the hold.
    expected = RetentionKeySummary(count=5, oldest=date(2026, 11, 24), of_holds=1, of_erased_persons=1)
    assert get_summary() == expected


def test_there_is_no_summary_if_retention_keys_are_disabled(person: Person) -> None:
    person.store({"address": "Bern"})
    assert find_enabled_source() is None
