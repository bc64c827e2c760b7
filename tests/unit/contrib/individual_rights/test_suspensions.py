"""Suspensions of the accounting by several apps, and by none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.common.accounting_suspension_sources import accounting_suspensions
from django_phi_oidc.contrib.individual_rights.suspensions import find_suspended_purposes, hide_suspensions
from tests.support.claims_fixtures import DAY, NOW


@dataclass
class Source:
    """Suspends these purposes, and hides the claims of that name."""

    purposes: Mapping[str, datetime]
    hidden_name: str

    def find_suspended_purposes(self, user_pk: Any, *, now: datetime) -> Mapping[str, datetime]:
        return self.purposes

    def hide_suspensions(self, claims: Sequence[StoredClaim], *, now: datetime) -> list[StoredClaim]:
        return [claim for claim in claims if claim.name != self.hidden_name]


SOURCES = (
    Source({"HLEGAL": NOW + DAY, "GOV": NOW + 3 * DAY}, "address"),
    Source({"HLEGAL": NOW + 2 * DAY, "GOV": NOW + 2 * DAY}, "birthdate"),
)


@pytest.mark.parametrize(
    ("sources", "suspended", "names"),
    [
        ((), {}, ["address", "birthdate", "gender"]),
        (SOURCES[:1], {"HLEGAL": NOW + DAY, "GOV": NOW + 3 * DAY}, ["birthdate", "gender"]),
        (SOURCES, {"HLEGAL": NOW + 2 * DAY, "GOV": NOW + 3 * DAY}, ["gender"]),
    ],
    ids=["none", "one", "two"],
)
def test_last_end_of_a_purpose_counts_and_each_source_hides(
    sources: Sequence[Source],
    suspended: Mapping[str, datetime],
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounting_suspensions, "_items", list(sources))
    claims = [StoredClaim(name=name) for name in ("address", "birthdate", "gender")]
    assert find_suspended_purposes(7, now=NOW) == suspended
    assert [claim.name for claim in hide_suspensions(claims, now=NOW)] == names
