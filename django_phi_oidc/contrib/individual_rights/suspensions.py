"""Suspensions of the accounting of disclosures, from all apps. Spec: 45 CFR 164.528(a)(2)."""

from datetime import datetime
from typing import Any

from ...claims.models import StoredClaim
from ..common.accounting_suspension_sources import accounting_suspensions


def find_suspended_purposes(user_pk: Any, *, now: datetime) -> dict[str, datetime]:
    """Return the purposes whose disclosures the accounting of the user leaves out now, with the end
    of each.
    """
    suspended: dict[str, datetime] = {}
    for source in accounting_suspensions:
        for purpose, until in source.find_suspended_purposes(user_pk, now=now).items():
            suspended[purpose] = max(until, suspended.get(purpose, until))
    return suspended


def hide_suspensions(claims: list[StoredClaim], *, now: datetime) -> list[StoredClaim]:
    """Return the claims that would be stored without what suspends the accounting. It changes their
    `held_until`.

    Requires: `find_suspended_purposes` returns purposes of their person.
    """
    for source in accounting_suspensions:
        claims = source.hide_suspensions(claims, now=now)
    return claims
