"""Claims for the rules in ROLES that an app supplies, and not the provider."""

from collections.abc import Sequence
from typing import Any, Protocol

from ...extensions import Registry


class ClaimSource(Protocol):
    """Supplies a claim about a person that the provider does not send."""

    claim: str
    """The name of the claim in rules. A rule about it has no path."""
    provider_option: str
    """The option of a provider that the source needs."""

    def is_declared(self, provider: str) -> bool:
        """Return whether the provider has the option."""

    def get_values(self, user_pk: Any, *, provider: str) -> Sequence[str]:
        """Return the values of the claim.

        Called in the transaction of a sign-in, if a rule of the provider uses the claim.
        """


claim_sources: Registry[ClaimSource] = Registry(
    "Supply claims for the rules in ROLES, in addition to those of the provider."
)
"""Apps that require this one fill it in `AppConfig.ready()`."""
