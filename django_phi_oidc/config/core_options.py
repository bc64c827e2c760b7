"""The options of the setting `PHI_OIDC`: type, default and meaning of each. No Django.

The tables of docs/reference/settings.md are generated from the texts below the fields, here and in
the declarations; their links are relative to that page. `Default:` at the end of a text explains an
empty default. The metadata of a field is its grade (`option_grades`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from .admin_assurance import AdminAssuranceDeclaration
from .claims import ClaimDeclaration, parse_claim
from .option_grades import LATER, RARE, START_HERE
from .option_parsers import (
    checked,
    fail,
    mapping_of,
    parse_choices,
    parse_dotted_path,
    parse_duration,
    parse_email_addresses,
    parse_strings,
)
from .providers import ProviderDeclaration, parse_provider

SESSION_ENDING_CHANGES = ("password", "roles")
_parse_operational_retention = partial(
    parse_duration, minimum=timedelta(days=1), maximum=timedelta(days=3653)
)
_ORIGIN_PATTERN = re.compile(r"https://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


_parse_origins = checked(
    parse_strings,
    lambda origins: all(map(_ORIGIN_PATTERN.fullmatch, origins)),
    "must be a list of origins: each is https:// and a host",
)


def _parse_session_count(path: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail(path, "must be a number of sessions, from 1")
    return value


@dataclass(frozen=True, kw_only=True)
class SessionsDeclaration:
    """The option `SESSIONS`."""

    idle_timeout: timedelta = field(default=timedelta(minutes=15), metadata=START_HERE)
    """How long a session lasts without activity."""
    absolute_timeout: timedelta = field(default=timedelta(hours=8), metadata=START_HERE)
    """How long a session lasts at most."""
    recheck: Annotated[timedelta, partial(parse_duration, minimum=timedelta(0))] = field(
        default=timedelta(seconds=30), metadata=RARE
    )
    """How long requests rely on the last read of the session's row; zero: every request reads it.
    """
    end_on: Annotated[tuple[str, ...], partial(parse_choices, choices=SESSION_ENDING_CHANGES)] = (
        field(default=("password",), metadata=LATER)
    )
    """Changes of an account that end its sessions: `password`, `roles` (its groups and
    permissions). For changes of a group itself, `is_staff` or `is_superuser`, [end those
    sessions](../how-to/end-sessions.md) yourself.
    """
    max_parallel: Annotated[int, _parse_session_count] | None = field(default=None, metadata=LATER)
    """How many sessions a user may have at the same time: a further sign-in [ends the
    oldest](../how-to/end-sessions.md#limit-the-parallel-sessions-of-a-user). Default: not limited.
    """


@dataclass(frozen=True, kw_only=True)
class CoreOptions:
    """The options of the core."""

    PROVIDERS: Annotated[Mapping[str, ProviderDeclaration], mapping_of(parse_provider)] = field(
        default_factory=dict, metadata=START_HERE
    )
    """Name (letters, digits, `.`, `_`, `-`) → [provider](#a-provider), the default first. Default:
    required.
    """
    CLAIMS: Annotated[Mapping[str, ClaimDeclaration], mapping_of(parse_claim)] = field(
        default_factory=dict, metadata=START_HERE
    )
    """Name → [claim](#a-claim); undeclared claims are dropped at sign-in. Default: none stored."""
    SESSIONS: SessionsDeclaration = field(default=SessionsDeclaration(), metadata=START_HERE)
    """[Timeouts](#sessions), and changes that end sessions. Default: see there."""
    SECTOR_ORIGINS: Annotated[tuple[str, ...], _parse_origins] = field(default=(), metadata=RARE)
    """Further origins of this portal, such as `https://other.example`, for
    `oidc/sector-identifier.json`.
    """
    REVOCATION_GIVE_UP_AFTER: timedelta = field(default=timedelta(days=3), metadata=RARE)
    """How long, and at least ten attempts, until a revocation is abandoned, with an alert."""
    OPERATIONAL_RETENTION: Annotated[timedelta, _parse_operational_retention] = field(
        default=timedelta(days=90), metadata=LATER
    )
    """How long [ended sessions, finished revocations and acknowledged
    alerts](../how-to/retention.md#rows-without-claims) are stored: a day to ten years.
    """
    CLEAR_ALL_COOKIES: bool = field(default=False, metadata=RARE)
    """A logout deletes every cookie of the registered domain, also those of other applications."""
    KEEP_OFFLINE: bool = field(default=False, metadata=RARE)
    """A back-channel logout does not revoke refresh tokens of `offline_access`."""
    PERSON_LABEL: Annotated[str, parse_dotted_path] | None = field(default=None, metadata=LATER)
    """Dotted path of a function from a user to the
    [name](../how-to/read-the-audit-log.md#names-of-people) in the admin. It must not query the
    database. Default: the full name, or the user name.
    """
    ADMIN_ASSURANCE: AdminAssuranceDeclaration = field(
        default_factory=AdminAssuranceDeclaration, metadata=LATER
    )
    """How strong and recent the sign-in of a user of the admin must be, [below](#admin_assurance).
    Default: nothing is required.
    """
    SECURITY_CONTACTS: Annotated[tuple[str, ...], parse_email_addresses] = field(
        default=(), metadata=START_HERE
    )
    """Mail addresses that get [security alerts](../how-to/detect-anomalies.md), and mails about
    emergencies unless `EMERGENCY` has others.
    """
    LEAKAGE_GUARD: Literal["report", "block"] = field(default="report", metadata=LATER)
    """What `LeakageGuardMiddleware` does with a response that
    [leaks](../how-to/detect-leaked-secrets.md): `report`, or `block`.
    """
