"""Which claims to request, keep and drop, according to the project's declaration. No Django."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import ClaimMissing

PROTOCOL_CLAIMS = frozenset(
    {
        *("iss", "sub", "aud", "exp", "iat", "nbf", "auth_time", "nonce", "acr", "amr", "azp"),
        *("at_hash", "c_hash", "s_hash", "sid", "jti", "vot", "vtm"),
    }
)
"""Claims about the token and the sign-in, not about the person: never stored, never reported as
undeclared.
"""

SCOPE_CLAIMS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "profile": frozenset(
            {
                *(
                    "name",
                    "family_name",
                    "given_name",
                    "middle_name",
                    "nickname",
                    "preferred_username",
                    "profile",
                ),
                *("picture", "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"),
            }
        ),
        "email": frozenset({"email", "email_verified"}),
        "address": frozenset({"address"}),
        "phone": frozenset({"phone_number", "phone_number_verified"}),
    }
)
"""Scope → the claims that it requests. Spec: OIDC Core 5.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsRequest:
    """The scope and the claims parameter of an authorization request."""

    scope: str
    claims: Mapping[str, Mapping[str, Mapping[str, bool] | None]] | None
    """None: the parameter is not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimizedClaims:
    """The declared values, and the names of all other claims."""

    kept: dict[str, Any] = field(repr=False)
    undeclared_claims: tuple[str, ...]
    """Sorted names, without values. `address.region` is a member of a claim."""


def build_claims_request(
    declared_claims: Mapping[str, ClaimDeclaration],
    *,
    provider_declaration: ProviderDeclaration,
    transient_claims: Collection[str] = (),
) -> ClaimsRequest:
    """Return what to request from this provider: its resource scopes, and the declared claims by
    the declared method.

    transient_claims: names of claims that are requested, too, but not kept.

    The claims parameter requests them in UserInfo, not in the ID Token, which is stored as the hint
    of a logout only if it has no claims about the person. A provider that follows Core 5.4 requires
    UserInfo anyway, so this costs no further request. `parameter_null` requests each claim as
    voluntary, because some providers accept only null; essential claims are still required here.

    Spec: OIDC Core 5.4, 5.5, 5.5.1; 3.1.2.1.
    """
    is_by_scope = provider_declaration.claims_request == "scopes"
    if is_by_scope:
        scopes = get_minimal_scope([*declared_claims, *transient_claims]).split()
    else:
        scopes = ["openid"]

    for resource_scope in provider_declaration.resource_scopes:
        scopes.append(resource_scope.name)

    scope = " ".join(dict.fromkeys(scopes))
    if is_by_scope:
        return ClaimsRequest(scope=scope, claims=None)
    is_marked = provider_declaration.claims_request == "parameter"
    requested: dict[str, dict[str, bool] | None] = dict.fromkeys(transient_claims)
    for name, claim in declared_claims.items():
        if name in PROTOCOL_CLAIMS:
            continue
        if claim.essential and is_marked:
            requested[name] = {"essential": True}
        else:
            requested[name] = None

    claims = None
    if requested:
        claims = {"userinfo": requested}

    return ClaimsRequest(scope=scope, claims=claims)


def get_minimal_scope(claim_names: Iterable[str]) -> str:
    """Return the smallest `scope` that requests these claims. A claim outside the standard scopes
    needs none.

    Spec: OIDC Core 3.1.2.1, 5.4; 5.2: `name#de` is `name` in a language.
    """
    names = {name.partition("#")[0] for name in claim_names}
    scopes = ["openid"]
    for scope, claims in SCOPE_CLAIMS.items():
        if claims & names:
            scopes.append(scope)
    return " ".join(scopes)


def minimize(
    received: Mapping[str, Any], declared_claims: Mapping[str, ClaimDeclaration]
) -> MinimizedClaims:
    """Return the received declared claims, and the names of the undeclared ones. Protocol claims
    are neither.

    A claim, or a member of one, that is null or empty counts as missing. A claim with declared
    members that is not an object counts as undeclared. Claims by reference count as missing:
    `_claim_names` and `_claim_sources` cannot be declared, and nothing in them is fetched or read.
    Spec: OIDC Core 5.3.2, 5.6.2.
    """
    kept: dict[str, Any] = {}
    dropped: set[str] = set()
    for name, value in received.items():
        if name in PROTOCOL_CLAIMS or is_empty(value):
            continue
        declaration = declared_claims.get(name)
        if declaration is None:
            selected = None
        else:
            selected = select_declared_members(value, declaration)

        if not is_empty(selected):
            kept[name] = selected
        if declaration is None or (declaration.members and not isinstance(value, Mapping)):
            dropped.add(name)
        elif declaration.members:
            for key in value:
                if key not in declaration.members and not is_empty(value[key]):
                    dropped.add(f"{name}.{key}")
    return MinimizedClaims(kept=kept, undeclared_claims=tuple(sorted(dropped)))


def list_personal_claims(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sorted names of the claims that are about the person: all but the protocol
    claims.
    """
    return tuple(sorted(claims.keys() - PROTOCOL_CLAIMS))


def select_declared_members(value: Any, declaration: ClaimDeclaration) -> Any:
    """Return the claim's value, or an object of the declared members that it has; None if it has
    none of them.
    """
    if not declaration.members:
        return value
    if not isinstance(value, Mapping):
        return None
    selected = {}
    for name in declaration.members:
        if not is_empty(value.get(name)):
            selected[name] = value[name]
    return selected or None


def validate_essential_claims(
    claims: Mapping[str, Any], declared_claims: Mapping[str, ClaimDeclaration]
) -> None:
    """Refuse a sign-in that lacks an essential claim. Raises: ClaimMissing. Spec: OIDC Core
    5.5.1.
    """
    missing = []
    for name, claim in declared_claims.items():
        if claim.essential and is_empty(claims.get(name)):
            missing.append(name)
    if missing:
        raise ClaimMissing(sorted(missing))


def needs_userinfo(received: Mapping[str, Any], claim_names: Iterable[str]) -> bool:
    """Return whether one of these claims is missing, so that UserInfo must be fetched. Spec: OIDC
    Core 5.3.
    """
    return any(is_empty(received.get(name)) for name in claim_names if name not in PROTOCOL_CLAIMS)


def is_empty(value: Any) -> bool:
    """Return whether a claim counts as missing. False and 0 are values."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value in ([], {})
