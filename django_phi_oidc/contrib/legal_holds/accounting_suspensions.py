"""Suspension of the accounting of disclosures to an agency or official, as part of a legal hold.

While it lasts, the person does not learn of these disclosures. After its end the accounting lists
all of them.
Spec: 45 CFR 164.528(a)(2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext_noop

from ..common.visible_text import has_visible_text

SUSPENDABLE_PURPOSES = ("HLEGAL", "GOV", "FRAUD", "HCOMPL")
"""HL7 codes of disclosures to a health oversight agency or law enforcement official, as in
164.512(d) and (f). No other disclosure may be left out.
"""
MAX_ORAL_SUSPENSION = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingSuspension:
    """What an agency or official has stated, in writing or orally."""

    until: datetime
    """Aware: the time that the agency specified."""
    agency: str
    """The agency or official, which the law requires to be documented."""
    purposes: Sequence[str] = ("HLEGAL",)
    """Of the disclosures to this agency: of SUSPENDABLE_PURPOSES."""
    oral_statement_at: datetime | None = None
    """When it was stated orally; None: in writing."""


def find_suspension_fault(
    suspension: AccountingSuspension, *, hold_until: datetime | None, now: datetime
) -> str | None:
    """Return why the suspension is not permitted, in English, or None. hold_until: the end of its
    legal hold.

    Spec: 45 CFR 164.528(a)(2).
    """
    if not has_visible_text(suspension.agency):
        return gettext_noop("Name the agency or official who requires the suspension.")
    if not suspension.purposes or not set(suspension.purposes) <= set(SUSPENDABLE_PURPOSES):
        return gettext_noop(
            "Only disclosures for these purposes can be left out: HLEGAL, GOV, FRAUD, HCOMPL."
        )
    if suspension.until <= now:
        return gettext_noop("The end of the suspension is in the past.")
    if hold_until is not None and suspension.until > hold_until:
        return gettext_noop("The suspension ends after the hold.")

    stated_at = suspension.oral_statement_at
    if stated_at is None:
        return None
    if stated_at > now:
        return gettext_noop("The oral statement is in the future.")
    if suspension.until > stated_at + MAX_ORAL_SUSPENSION:
        return gettext_noop("After an oral statement, the suspension lasts at most 30 days.")
    return None
