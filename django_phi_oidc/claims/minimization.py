"""What to ask for, what to keep and what to drop at the door, by the project's declaration. No Django."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..config.claims import ClaimDeclaration
from ..config.providers import ProviderDeclaration
from ..errors import ClaimMissing

PROTOCOL_CLAIMS = frozenset(
    {
        *("iss", "sub", "aud", "exp", "iat", "nbf", "auth_time", "nonce", "acr", "amr", "azp"),
        *("at_hash", "c_hash", "s_hash", "sid", "jti"),
    }
)
"""Claims about the token and the sign-in, not about the person: never kept, never called overfetched."""

SCOPE_CLAIMS: Mapping[str, frozenset[str]] = MappingProxyType(
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
class ClaimsRequest:
    """What an authorization request asks for."""

    scope: str
    claims: Mapping[str, Mapping[str, Mapping[str, bool] | None]] | None
    """The claims parameter; None: it is not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimizedClaims:
    """What came, parted: declared values, and the names of all else."""

    kept: dict[str, Any] = field(repr=False)
    undeclared_claims: tuple[str, ...]
    """Sorted names of what came and was not declared; the values are gone. `address.region` is a member of a claim."""


def build_claims_request(
    declared_claims: Mapping[str, ClaimDeclaration], *, provider_declaration: ProviderDeclaration
) -> ClaimsRequest:
    """Return what to ask this provider for: the declared claims, in the way that it was declared, and resource scopes.

    By parameter, claims are asked for in UserInfo, not in the ID Token: that one is kept as long as its session, when a
    claim may long have been scrubbed, and is the hint of a logout while no claim of a person stands in it. An OP that
    goes by Core 5.4 makes UserInfo necessary in any case, so it costs no further request. `parameter_null` asks for
    each claim as voluntary: some OPs take nothing but null. It is demanded here all the same.

    Spec: OIDC Core 5.4, 5.5, 5.5.1; 3.1.2.1.
    """
    resources = [scope.name for scope in provider_declaration.resource_scopes]
    if provider_declaration.claims_request == "scopes":
        return ClaimsRequest(scope=_join_scopes([*get_minimal_scope(declared_claims).split(), *resources]), claims=None)
    marked = provider_declaration.claims_request == "parameter"
    wanted = {
        name: {"essential": True} if claim.essential and marked else None
        for name, claim in declared_claims.items()
        if name not in PROTOCOL_CLAIMS
    }
    return ClaimsRequest(scope=_join_scopes(["openid", *resources]), claims={"userinfo": wanted} if wanted else None)


def get_minimal_scope(declared_claims: Mapping[str, ClaimDeclaration]) -> str:
    """Return the smallest `scope` that asks for the declared claims. A claim of no standard scope needs none.

    Spec: OIDC Core 3.1.2.1, 5.4; 5.2: `name#de` is `name` in a language.
    """
    names = {name.partition("#")[0] for name in declared_claims}
    return " ".join(["openid", *(scope for scope, claims in SCOPE_CLAIMS.items() if claims & names)])


def minimize(received: Mapping[str, Any], declared_claims: Mapping[str, ClaimDeclaration]) -> MinimizedClaims:
    """Return the declared claims that came, and the names of what came undeclared. Claims of the protocol are neither.

    A claim, or a member of one, that is null or empty did not come. A claim whose members are declared and that is no
    object is not what was declared. What comes by reference alone did not come: `_claim_names` and `_claim_sources`
    can't be declared, and nothing in them is fetched or read. Spec: OIDC Core 5.3.2, 5.6.2.
    """
    kept: dict[str, Any] = {}
    dropped: set[str] = set()
    for name, value in received.items():
        if name in PROTOCOL_CLAIMS or is_empty(value):
            continue
        claim = declared_claims.get(name)
        narrowed = None if claim is None else select_declared_members(value, claim)
        if not is_empty(narrowed):
            kept[name] = narrowed
        dropped.update(_list_dropped_names(name, value, claim))
    return MinimizedClaims(kept=kept, undeclared_claims=tuple(sorted(dropped)))


def select_declared_members(value: Any, declaration: ClaimDeclaration) -> Any:
    """Return of a claim's value what is declared: all of it, or an object of the declared members that it has.

    None where members are declared and there is none of them.
    """
    if not declaration.members:
        return value
    if not isinstance(value, Mapping):
        return None
    return {name: value[name] for name in declaration.members if not is_empty(value.get(name))} or None


def _list_dropped_names(name: str, value: Any, declaration: ClaimDeclaration | None) -> Iterator[str]:
    if declaration is None or (declaration.members and not isinstance(value, Mapping)):
        yield name
    elif declaration.members:
        yield from (f"{name}.{each}" for each in value if each not in declaration.members and not is_empty(value[each]))


def validate_essential_claims(claims: Mapping[str, Any], declared_claims: Mapping[str, ClaimDeclaration]) -> None:
    """Refuse a sign-in that lacks an essential claim.

    Raises: ClaimMissing. Spec: OIDC Core 5.5.1.
    """
    missing = sorted(name for name, claim in declared_claims.items() if claim.essential and is_empty(claims.get(name)))
    if missing:
        raise ClaimMissing(f"Essential claims did not come: {', '.join(missing)}.")


def needs_userinfo(received: Mapping[str, Any], declared_claims: Mapping[str, ClaimDeclaration]) -> bool:
    """Say whether a declared claim is not in received, so that UserInfo must be asked. Spec: OIDC Core 5.3."""
    return any(is_empty(received.get(name)) for name in declared_claims if name not in PROTOCOL_CLAIMS)


def _join_scopes(scopes: list[str]) -> str:
    """Each once, in the order of first mention."""
    return " ".join(dict.fromkeys(scopes))


def is_empty(value: Any) -> bool:
    """False and 0 are values."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value in ([], {})
