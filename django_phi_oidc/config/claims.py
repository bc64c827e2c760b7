"""The claims that a project requests, parsed into frozen values. No Django."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

from .option_grades import LATER, RARE, START_HERE
from .option_parsers import (
    checked,
    fail,
    parse_declaration,
    parse_duration,
    parse_printable,
    parse_string,
    parse_strings,
)

MAX_RETENTION = timedelta(days=36_525)
CLAIM_REFERENCES = frozenset({"_claim_names", "_claim_sources"})
"""References to distributed and aggregated claims, which are never fetched. Spec: OIDC Core
5.6.2.
"""
MAX_PURPOSE_LENGTH = 32
_CATEGORY_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,31}")

ClaimRetention = Literal["session"] | timedelta | None


parse_basis = checked(parse_string, str.strip, "must not be blank")
parse_purpose = checked(
    parse_basis,
    lambda purpose: len(purpose) <= MAX_PURPOSE_LENGTH,
    f"must be a PurposeOfUse code, {MAX_PURPOSE_LENGTH} characters at most",
)
"""Not checked: that HL7 defines the code, which is check E007."""
_parse_category = checked(
    parse_string,
    _CATEGORY_PATTERN.fullmatch,
    "must be 1 to 32 lower-case letters, digits and _, the first a letter",
)


def _parse_retention(path: str, value: Any) -> ClaimRetention:
    if value is None or value == "session":
        return "session" if value else None
    return parse_duration(path, value, maximum=MAX_RETENTION)


def _parse_members(path: str, value: Any) -> tuple[str, ...]:
    members = parse_strings(path, value)
    for member in members:
        parse_printable(f"{path}: {member!r}", member)
    if not members or len(set(members)) != len(members):
        fail(path, "must name at least one member, and each once")
    return members


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDeclaration:
    """A claim that the project requests: why, and how long the value is stored."""

    name: str
    purpose: Annotated[str, parse_purpose] = field(metadata=START_HERE)
    """HL7 PurposeOfUse code for which the claim may be disclosed."""
    basis: Annotated[str, parse_basis] = field(metadata=START_HERE)
    """Text: why the law permits the request."""
    retention: Annotated[ClaimRetention, _parse_retention] = field(metadata=START_HERE)
    """`"session"`, a positive duration, or None: used at sign-in, never stored."""
    essential: bool = field(default=False, metadata=LATER)
    """True: a sign-in without the claim is refused (`claim_missing`)."""
    members: Annotated[tuple[str, ...], _parse_members] = field(default=(), metadata=LATER)
    """For a claim that is an object, such as `address`: the members that are stored. Default: all
    members.
    """
    category: Annotated[str, _parse_category] = field(default="", metadata=LATER)
    """A short name such as `contact`. Actors need [the permission of this
    category](claims.md#permissions) for the claim of another person. Default: none: they need
    `reveal_storedclaim`.
    """
    label: Literal["part2"] | None = field(default=None, metadata=RARE)
    """`part2`: a substance use disorder record. Disclosures to others need a reference to the
    patient's consent, and have [the notice of 42 CFR Part 2](../explanation/part2.md).
    """


def parse_claim(name: str, raw: Mapping[str, Any]) -> ClaimDeclaration:
    """Return the claim that raw declares. Raises: DeclarationInvalid with all mistakes."""
    path = f"CLAIMS[{name!r}]"
    if parse_printable(path, name) in CLAIM_REFERENCES:
        fail(path, "can't be declared: distributed and aggregated claims are refused")
    return parse_declaration(ClaimDeclaration, path, raw, name=name)
