"""The setting `EMERGENCY`: permissions for emergency access, and its limits. No Django."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from ...config.assurance_levels import parse_acr_values
from ...config.option_grades import LATER, RARE
from ...config.option_parsers import (
    checked,
    fail,
    parse_duration,
    parse_email_addresses,
    parse_mapping,
)

PACKAGE_PERMISSION_PREFIXES = ("django_phi_oidc.", "phi_oidc_")
"""No emergency access grants permissions of this package, because they permit opening and reviewing
emergency access and disclosing claims.
"""
MAX_DURATION = timedelta(hours=24)
MAX_UNREVIEWED = 1_000
MIN_DURATION = timedelta(minutes=1)
_parse_longest = partial(parse_duration, minimum=MIN_DURATION, maximum=MAX_DURATION)
_parse_review_period = partial(
    parse_duration, minimum=timedelta(hours=1), maximum=timedelta(days=90)
)
_PERMISSION_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")


def _parse_permissions(path: str, value: Any) -> Mapping[str, str]:
    for name, label in parse_mapping(path, value).items():
        if (
            not isinstance(name, str)
            or not _PERMISSION_PATTERN.fullmatch(name)
            or not str(label).strip()
        ):
            fail(path, "must map 'app.codename' to a description")
        if name.startswith(PACKAGE_PERMISSION_PREFIXES):
            fail(f"{path}[{name!r}]", "can't be granted in an emergency")
    return dict(value) or fail(path, "is empty")


def _parse_max_unreviewed(path: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_UNREVIEWED:
        fail(path, f"must be a number from 1 to {MAX_UNREVIEWED}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyDeclaration:
    """The rules of emergency access in this portal."""

    permissions: Annotated[Mapping[str, str], _parse_permissions] = field(metadata=LATER)
    """Permission → its description for users. Permissions of `django_phi_oidc` are refused."""
    mail_to: Annotated[tuple[str, ...], checked(parse_email_addresses, bool, "is empty")] = field(
        default=(), metadata=LATER
    )
    """Mail addresses that get a mail about each emergency at once: the privacy officer's. Default:
    `SECURITY_CONTACTS`.
    """
    longest: Annotated[timedelta, _parse_longest] = field(
        default=timedelta(hours=1), metadata=LATER
    )
    """The maximum duration, from a minute to 24 hours."""
    local_longest: Annotated[timedelta, _parse_longest] = field(
        default=timedelta(minutes=30), metadata=RARE
    )
    """The same for a [local account](../how-to/local-accounts.md#see-records); a shorter `longest`
    applies too.
    """
    max_unreviewed: Annotated[int, _parse_max_unreviewed] = field(default=10, metadata=LATER)
    """How many emergency accesses without [a review](../how-to/emergency-access.md#the-review),
    from 1 to 1,000, a user may have opened within 24 hours. A further one is refused.
    """
    review_within: Annotated[timedelta, _parse_review_period] = field(
        default=timedelta(days=3), metadata=LATER
    )
    """When, from an hour to 90 days after its end, an access must be
    [reviewed](../how-to/emergency-access.md#the-review). Then it is overdue, and `mail_to` gets a
    mail.
    """
    acr: Annotated[tuple[str, ...], parse_acr_values] | None = field(default=None, metadata=LATER)
    """`acr` values, the weakest first, of which the sign-in must have one; otherwise the page asks
    for a [stronger sign-in](../how-to/require-assurance.md). Empty: none is required. Default:
    [multi-factor values](../how-to/emergency-access.md#in-your-templates) that the provider offers.
    """
    spool: Path | None = field(default=None, metadata=RARE)
    """Absolute path of a file on this machine, for permits [while the audit database is
    unavailable](../how-to/emergency-access.md#while-the-audit-log-is-unavailable). Default: none:
    they are refused then.
    """

    def get_longest(self, *, is_local: bool) -> timedelta:
        """Return the maximum duration. is_local: the person signed in with a local account."""
        if is_local:
            return min(self.longest, self.local_longest)
        return self.longest


@dataclass(frozen=True, kw_only=True)
class EmergencyOptions:
    """The options of emergency access."""

    EMERGENCY: EmergencyDeclaration | None = field(default=None, metadata=LATER)
    """Rules of [emergency access](../how-to/emergency-access.md), [below](#emergency). Default:
    none: no emergency access.
    """
