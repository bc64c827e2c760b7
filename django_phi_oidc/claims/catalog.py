"""What to ask for, what to keep and what to drop at the door, by the project's declaration. No Django."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..declarations import ClaimDeclaration, ProviderDeclaration
from ..errors import ClaimMissing

PROTOCOL_CLAIMS = frozenset(
    {
        *("iss", "sub", "aud", "exp", "iat", "nbf", "auth_time", "nonce", "acr", "amr", "azp"),
        *("at_hash", "c_hash", "s_hash", "sid", "jti"),
    }
)
"""Claims about the token and the sign-in, not about the person: never kept, never called overfetched."""

SCOPES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "profile": frozenset(
            {
                *("name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile"),
                *("picture", "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at"),
            }
        ),
        "email": frozenset({"email", "email_verified"}),
        "address": frozenset({"address"}),
        "phone": frozenset({"phone_number", "phone_number_verified"}),
    }
)
"""Scope → the claims it asks for. Spec: OIDC Core 5.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an authorization request asks for."""

    scope: str
    claims: Mapping[str, Mapping[str, Mapping[str, bool] | None]] | None
    """The claims parameter; None: it is not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimized:
    """What came, parted: declared values, and the names of all else."""

    kept: dict[str, Any] = field(repr=False)
    dropped: tuple[str, ...]
    """Sorted names of claims that came undeclared; their values are gone."""


def ask(declared: Mapping[str, ClaimDeclaration], *, declaration: ProviderDeclaration) -> Asked:
    """Return what to ask this provider for: the declared claims, in the way that it was declared, and resource scopes.

    By parameter, claims are asked for in UserInfo, not in the ID Token: that one is kept as long as its session, when a
    claim may long have been scrubbed, and is the hint of a logout while no claim of a person stands in it. An OP that
    goes by Core 5.4 makes UserInfo necessary in any case, so it costs no further request. `parameter_null` asks for
    each claim as voluntary: some OPs take nothing but null. It is demanded here all the same.

    Spec: OIDC Core 5.4, 5.5, 5.5.1; 3.1.2.1.
    """
    resources = [scope.name for scope in declaration.resource_scopes]
    if declaration.claims_request == "scopes":
        return Asked(scope=_joined([*scopes_for(declared).split(), *resources]), claims=None)
    marked = declaration.claims_request == "parameter"
    wanted = {
        name: {"essential": True} if claim.essential and marked else None
        for name, claim in declared.items()
        if name not in PROTOCOL_CLAIMS
    }
    return Asked(scope=_joined(["openid", *resources]), claims={"userinfo": wanted} if wanted else None)


def scopes_for(declared: Mapping[str, ClaimDeclaration]) -> str:
    """Return the smallest `scope` that asks for the declared claims. A claim of no standard scope needs none.

    Spec: OIDC Core 3.1.2.1, 5.4; 5.2: `name#de` is `name` in a language.
    """
    names = {name.partition("#")[0] for name in declared}
    return " ".join(["openid", *(scope for scope, claims in SCOPES.items() if claims & names)])


def minimize(received: Mapping[str, Any], declared: Mapping[str, ClaimDeclaration]) -> Minimized:
    """Return the declared claims that came, and the names of the undeclared ones. Claims of the protocol are neither.

    A claim that is null or empty did not come. Spec: OIDC Core 5.3.2.
    """
    came = {name: value for name, value in received.items() if name not in PROTOCOL_CLAIMS and not is_empty(value)}
    return Minimized(
        kept={name: came[name] for name in declared if name in came},
        dropped=tuple(sorted(came.keys() - declared.keys())),
    )


def require_essential(kept: Mapping[str, Any], declared: Mapping[str, ClaimDeclaration]) -> None:
    """Refuse a sign-in that lacks an essential claim.

    Raises: ClaimMissing. Spec: OIDC Core 5.5.1.
    """
    missing = sorted(name for name, claim in declared.items() if claim.essential and is_empty(kept.get(name)))
    if missing:
        raise ClaimMissing(f"Essential claims did not come: {', '.join(missing)}.")


def needs_userinfo(received: Mapping[str, Any], declared: Mapping[str, ClaimDeclaration]) -> bool:
    """Say whether a declared claim is not in received, so that UserInfo must be asked. Spec: OIDC Core 5.3."""
    return any(is_empty(received.get(name)) for name in declared if name not in PROTOCOL_CLAIMS)


def _joined(scopes: list[str]) -> str:
    """Each once, in the order of first mention."""
    return " ".join(dict.fromkeys(scopes))


def is_empty(value: Any) -> bool:
    """False and 0 are values."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value in ([], {})
