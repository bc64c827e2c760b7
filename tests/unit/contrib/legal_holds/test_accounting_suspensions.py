"""A suspension of the accounting names an agency, permitted purposes and an end."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.contrib.legal_holds.accounting_suspensions import (
    AccountingSuspension,
    find_suspension_fault,
)
from tests.support.claims_fixtures import DAY, NOW

VALID = AccountingSuspension(until=NOW + 90 * DAY, agency="Board of Health")
ORAL = replace(VALID, until=NOW + 29 * DAY, oral_statement_at=NOW - DAY)


@pytest.mark.parametrize(
    ("suspension", "hold_until", "fault"),
    [
        (VALID, None, None),
        (VALID, VALID.until, None),
        (VALID, VALID.until - timedelta(seconds=1), "ends after the hold"),
        (replace(VALID, agency=" "), None, "Name the agency"),
        (replace(VALID, purposes=["GOV", "FRAUD", "HCOMPL"]), None, None),
        (replace(VALID, purposes=["HLEGAL", "TREAT"]), None, "Only disclosures for these purposes"),
        (replace(VALID, purposes=[]), None, "Only disclosures for these purposes"),
        (replace(VALID, until=NOW + timedelta(seconds=1)), None, None),
        (replace(VALID, until=NOW), None, "is in the past"),
        (ORAL, None, None),
        (replace(ORAL, until=ORAL.until + timedelta(seconds=1)), None, "at most 30 days"),
        (replace(ORAL, oral_statement_at=NOW), None, None),
        (replace(ORAL, oral_statement_at=NOW + timedelta(seconds=1)), None, "is in the future"),
    ],
)
def test_g5_suspension_that_the_law_does_not_permit_is_refused(
    suspension: AccountingSuspension, hold_until: Any, fault: str | None
) -> None:
    found = find_suspension_fault(suspension, hold_until=hold_until, now=NOW)
    assert found is None if fault is None else fault in str(found)
