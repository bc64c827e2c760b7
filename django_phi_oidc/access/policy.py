"""Rules for revealing a claim and for access to a resource, as functions of plain values. They
refuse by default.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ..audit.purposes import PATIENT_REQUEST, PURPOSES
from ..config.assurance_levels import VECTOR_PATTERN
from ..errors import Code, DeclarationInvalid
from ..oidc.vectors_of_trust import is_vector_sufficient
from . import part2

SESSION_MISSING = "session_missing"
PURPOSE_UNKNOWN = "purpose_unknown"
PURPOSE_NOT_DECLARED = "purpose_not_declared"
PERMISSION_MISSING = "permission_missing"
EMERGENCY_MISSING = "emergency_missing"
"""A local account has no open emergency for the resource, or the object does not exist."""
RESOURCE_INVALID = "resource_invalid"
ACR_INSUFFICIENT = "acr_insufficient"
AUTH_TIME_MISSING = "auth_time_missing"
AUTH_TIME_STALE = "auth_time_stale"
VOT_INSUFFICIENT = "vot_insufficient"
SIGN_IN_DEMANDED = "sign_in_demanded"
"""A security event of the provider demands a new sign-in."""
STEP_UP_CODES = frozenset(
    {
        ACR_INSUFFICIENT,
        VOT_INSUFFICIENT,
        Code.AMR_INSUFFICIENT,
        AUTH_TIME_MISSING,
        AUTH_TIME_STALE,
        SIGN_IN_DEMANDED,
    }
)
"""Refusals that another sign-in of the same person can resolve."""
CONSENT_MISSING = "consent_missing"
CLAIM_NOT_DECLARED = "claim_not_declared"
CLAIM_BOUND_TO_SESSION = "claim_of_session"
"""The claim is stored only for the person's own session, so the answer "no such claim" would be
wrong for others.
"""
_ACR_PATTERN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
# An id is a key, not words: no blank, no "@", only ASCII, and short enough to be recorded in full.
_RESOURCE_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}/[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
MIN_MAX_AGE = timedelta(minutes=1)
"""The redirect back takes time, and clocks differ."""
MAX_CLOCK_SKEW = timedelta(minutes=2)
"""Of the provider's clock; also the longest `leeway` that may be declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assurance:
    """How strong and how recent a sign-in must be. The empty one requires nothing."""

    acr: tuple[str, ...] = ()
    """Accepted values. Spec: OIDC Core 2 (acr)."""
    vot: tuple[str, ...] = ()
    """Accepted vectors of trust: the sign-in has all components of one of them. Spec: RFC 8485."""
    max_age: timedelta | None = None
    """The longest time since the person authenticated. Spec: OIDC Core 2 (auth_time)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """The conditions for access to a resource. The empty one refuses everyone."""

    permission: str = ""
    """As Django's backends name it."""
    purposes: frozenset[str] = frozenset()
    assurance: Assurance = Assurance()
    label: str | None = None
    """`part2`, or None."""


def find_reveal_refusal(
    *,
    declared_purpose: str,
    stated_purpose: str,
    is_self: bool,
    is_permitted: bool,
    has_session: bool,
    lacks_consent: bool,
) -> str | None:
    """Return the code of the rule that refuses to reveal a claim, or None if it may be revealed.

    declared_purpose: what the claim is stored for; "" if only the person's own request may use it.
    is_self: the actor is the person. is_permitted: the actor may reveal claims of other persons.
    has_session: the actor has an OIDC session. lacks_consent: the label of the claim requires a
    consent, and none is stated; persons need none for their own claims (42 CFR 2.23).
    """
    if not has_session:
        return SESSION_MISSING
    if not (is_self or is_permitted):
        return PERMISSION_MISSING
    if stated_purpose not in PURPOSES:
        return PURPOSE_UNKNOWN
    if stated_purpose != declared_purpose and not (is_self and stated_purpose == PATIENT_REQUEST):
        return PURPOSE_NOT_DECLARED

    if lacks_consent and not is_self:
        return CONSENT_MISSING
    return None


def parse_assurance(*, acr: object, max_age: object, vot: object = ()) -> Assurance:
    """Return the assurance that a view declares; without arguments, the empty one.

    Raises: DeclarationInvalid if acr is not a list of values, vot not one of vectors, or max_age
    not a timedelta of at least one minute.
    """
    values: Any
    if isinstance(acr, list | tuple):
        values = acr
    else:
        values = [None]

    if not all(isinstance(value, str) and _ACR_PATTERN.fullmatch(value) for value in values):
        raise DeclarationInvalid(
            "acr is a list of values without blanks, such as those of acr_values."
        )

    vectors: Any
    if isinstance(vot, list | tuple):
        vectors = vot
    else:
        vectors = [None]

    if not all(isinstance(vector, str) and VECTOR_PATTERN.fullmatch(vector) for vector in vectors):
        raise DeclarationInvalid("vot is a list of vectors of trust such as P9.Cp.Cd.")
    if max_age is not None and (not isinstance(max_age, timedelta) or max_age < MIN_MAX_AGE):
        raise DeclarationInvalid("max_age is a timedelta of a minute or more.")
    return Assurance(acr=tuple(values), vot=tuple(vectors), max_age=max_age)


def parse_required_assurance(*, acr: object, max_age: object, vot: object = ()) -> Assurance:
    """Return the assurance that a view declares. Raises: DeclarationInvalid, also for the empty
    one.
    """
    assurance = parse_assurance(acr=acr, vot=vot, max_age=max_age)
    if assurance == Assurance():
        raise DeclarationInvalid("require_assurance: acr, vot or max_age is missing.")
    return assurance


def find_assurance_refusal(
    assurance: Assurance, *, acr: str, vot: str = "", auth_time: datetime | None, now: datetime
) -> str | None:
    """Return the code of the rule that refuses a sign-in as too weak or too old, or None.

    acr, vot, auth_time: of the ID Token; "" and None if missing. vot: under the declared trust
    mark. An auth_time in the future does not show how recent the authentication is, and counts as
    stale.
    Spec: OIDC Core 2; RFC 8485 4; RFC 9470 3.
    """
    if assurance.acr and acr not in assurance.acr:
        return ACR_INSUFFICIENT
    if assurance.vot and not is_vector_sufficient(vot, accepted=assurance.vot):
        return VOT_INSUFFICIENT
    if assurance.max_age is None:
        return None
    if auth_time is None:
        return AUTH_TIME_MISSING

    if -MAX_CLOCK_SKEW <= now - auth_time <= assurance.max_age:
        return None
    return AUTH_TIME_STALE


def get_step_up_assurance(assurance: Assurance, refusal: str) -> Assurance:
    """Return what a step-up requires after that refusal: the assurance, and an authentication that
    is new if demanded.

    Single sign-on could answer with the authentication that a security event has made doubtful.
    """
    if refusal != SIGN_IN_DEMANDED:
        return assurance
    ages = []
    for age in (assurance.max_age, MIN_MAX_AGE):
        if age is not None:
            ages.append(age)
    return replace(assurance, max_age=min(ages))


def parse_access_policy(
    *,
    permission: object,
    purpose: object,
    purposes: Collection[object],
    acr: object = (),
    vot: object = (),
    max_age: object = None,
    label: object = None,
    has_consent: bool = False,
) -> AccessPolicy:
    """Return the policy that a view declares. purpose: the fixed one, or None if each request
    states one of purposes.

    has_consent: the view has a function that returns a reference to a consent.
    Raises: DeclarationInvalid without a permission, without a purpose, with an unknown purpose, or
    with both kinds of purpose; for an unknown label, or a label and a function for the consent
    without each other; and as parse_assurance does.
    """
    if not isinstance(permission, str) or not permission.strip():
        raise DeclarationInvalid("phi_access: permission is missing.")
    # A bare string is iterable too, so reject it explicitly.
    if isinstance(purposes, str) or (purpose is not None and purposes):
        raise DeclarationInvalid(
            "phi_access: purposes must be a list, and needs a purpose that each request states."
        )
    allowed = frozenset(purposes if purpose is None else [purpose])
    if not allowed:
        raise DeclarationInvalid("phi_access: purposes is empty, so no access would be granted.")
    if unknown := allowed - PURPOSES.keys():
        raise DeclarationInvalid(
            f"phi_access: no HL7 PurposeOfUse code: {', '.join(sorted(map(ascii, unknown)))}."
        )
    if label not in (None, part2.PART2):
        raise DeclarationInvalid(f"phi_access: label must be {part2.PART2!r}.")
    if has_consent != (label is not None):
        raise DeclarationInvalid("phi_access: label and consent require each other.")
    return AccessPolicy(
        permission=permission,
        purposes=frozenset(map(str, allowed)),
        assurance=parse_assurance(acr=acr, vot=vot, max_age=max_age),
        label=part2.PART2 if label else None,
    )


def is_resource_reference(resource: object) -> bool:
    """Return whether resource is `Type/id`, with an id that can be a key."""
    return isinstance(resource, str) and _RESOURCE_PATTERN.fullmatch(resource) is not None


def find_access_refusal(
    policy: AccessPolicy,
    *,
    has_session: bool,
    resource: str,
    is_permitted: bool,
    stated_purpose: str,
    lacks_consent: bool = False,
    assurance_refusal: str | None = None,
    emergency_purpose: str = "",
    needs_emergency: bool = False,
) -> str | None:
    """Return the code of the rule that refuses access to a resource, or None if access is granted.

    has_session: the actor has an OIDC session, or a local one. is_permitted: the actor has the
    policy's permission (on the object, if there is one), or an emergency grants it.
    emergency_purpose: the purpose of that emergency, accepted in addition to the policy's.
    lacks_consent: the policy's label requires a consent, and there is neither one nor an emergency.
    needs_emergency: the actor is a local account, which only an emergency admits.
    assurance_refusal: the result of find_assurance_refusal; it is returned last, because a new
    sign-in does not help if another rule refuses, too.
    """
    if not has_session:
        return SESSION_MISSING
    if not is_resource_reference(resource):
        return RESOURCE_INVALID
    if not (policy.permission and is_permitted):
        if needs_emergency:
            return EMERGENCY_MISSING
        return PERMISSION_MISSING
    if stated_purpose not in PURPOSES:
        return PURPOSE_UNKNOWN
    # A policy without purposes permits none, not even the emergency's.
    if not policy.purposes or (
        stated_purpose not in policy.purposes and stated_purpose != emergency_purpose
    ):
        return PURPOSE_NOT_DECLARED

    if lacks_consent:
        return CONSENT_MISSING
    return assurance_refusal
