"""The registry by which an app suspends the accounting of disclosures to an agency."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ...claims.models import StoredClaim
from ...extensions import Registry


class AccountingSuspensionSource(Protocol):
    """Suspends the accounting of disclosures to an agency. Spec: 45 CFR 164.528(a)(2)."""

    def find_suspended_purposes(self, user_pk: Any, *, now: datetime) -> Mapping[str, datetime]:
        """Return the purposes whose disclosures the accounting of the user leaves out now, with the
        end of each.
        """

    def hide_suspensions(
        self, claims: "Sequence[StoredClaim]", *, now: datetime
    ) -> "list[StoredClaim]":
        """Return the claims that would be stored without what suspends the accounting, with
        `held_until` as it would be then. The instances are changed, and not saved.

        Requires: `find_suspended_purposes` returns purposes of the person of these claims.
        """


accounting_suspensions: Registry[AccountingSuspensionSource] = Registry(
    "Suspend the accounting of disclosures to an agency."
)
