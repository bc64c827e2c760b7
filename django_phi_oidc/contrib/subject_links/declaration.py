"""The option `link_verified_email` of a provider. No Django."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from ...config.option_grades import LATER
from ...config.providers import ProviderDeclaration
from ...config.sections import ProviderOption

MAX_EMAIL_LINKING = timedelta(days=90)
"""From `accounts_created_before` to `until`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailLinkingDeclaration(ProviderOption):
    """The time in which a verified e-mail address links a first sign-in to an existing account."""

    accounts_created_before: date = field(metadata=LATER)
    """The first day. Accounts that were created on this day (UTC) or later are not linked."""
    until: date = field(metadata=LATER)
    """The last day (UTC), at most 90 days later. After it, the option has no effect."""

    def list_faults(self, provider: ProviderDeclaration) -> Iterator[str]:
        length = self.until - self.accounts_created_before
        if not timedelta(0) < length <= MAX_EMAIL_LINKING:
            yield (
                f"['link_verified_email']: until must be 1 to {MAX_EMAIL_LINKING.days} days after "
                "accounts_created_before."
            )

    def is_in_force(self, now: datetime) -> bool:
        return self.accounts_created_before <= now.astimezone(UTC).date() and not self.is_over(now)

    def is_over(self, now: datetime) -> bool:
        return now.astimezone(UTC).date() > self.until
