"""The option `link_verified_email` of a provider. No Django."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from .option_grades import LATER

MAX_EMAIL_LINKING = timedelta(days=90)
"""From `accounts_created_before` to `until`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailLinking:
    """The time in which a verified e-mail address links a first sign-in to an existing account."""

    accounts_created_before: date = field(metadata=LATER)
    """The first day. Accounts that were created on this day (UTC) or later are not linked."""
    until: date = field(metadata=LATER)
    """The last day (UTC), at most 90 days later. After it, the option has no effect."""

    def is_in_force(self, now: datetime) -> bool:
        return self.accounts_created_before <= now.astimezone(UTC).date() and not self.is_over(now)

    def is_over(self, now: datetime) -> bool:
        return now.astimezone(UTC).date() > self.until
