"""The setting `API`: which access tokens the portal's own APIs accept, and what their scopes
permit. No Django.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from ...config.option_grades import LATER, RARE
from ...config.option_parsers import (
    checked,
    fail,
    mapping_of,
    parse_declaration,
    parse_mapping,
    parse_strings,
)
from ..common.accepted_tokens import (
    TokenVerificationMethod,
    is_scope_token,
    parse_audience,
    parse_cache_duration,
)


def _parse_scopes(path: str, value: Any) -> tuple[tuple[str, frozenset[str]], ...]:
    scopes = []
    for scope, permissions in parse_mapping(path, value).items():
        if not is_scope_token(scope):
            fail(path, "has a scope that is not visible ASCII without quotation mark and backslash")
        names = parse_strings(f"{path}[{scope!r}]", permissions, items="permissions")
        scopes.append((scope, frozenset(names)))
    return tuple(scopes)


_parse_clients = checked(
    lambda path, ids: frozenset(parse_strings(path, ids, items="client ids")), bool, "is empty"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class APIDeclaration:
    """Which access tokens of a provider the portal's APIs accept."""

    provider: str
    audience: Annotated[str, parse_audience] = field(metadata=LATER)
    """Must be in `aud` of an access token (RFC 9068 2.2, RFC 8707 2): visible ASCII, and not the
    `client_id`.
    """
    method: TokenVerificationMethod = field(metadata=LATER)
    """`jwt`: signed tokens (RFC 9068); `introspection`: a request to the provider (RFC 7662), for
    one provider only.
    """
    scopes: Annotated[tuple[tuple[str, frozenset[str]], ...], _parse_scopes] = field(
        default=(), metadata=LATER
    )
    """Scope → permissions for `has_perm`. A token with the scope can use those of them that the
    user has.
    """
    introspection_cache: Annotated[timedelta, parse_cache_duration] = field(
        default=timedelta(seconds=10), metadata=RARE
    )
    """How long, at most 60 seconds, a process caches a positive introspection response."""
    clients: Annotated[frozenset[str], _parse_clients] | None = field(default=None, metadata=LATER)
    """The clients whose tokens are accepted. Default: none: all clients of the provider."""
    allow_client_cert_header: bool = field(default=False, metadata=RARE)
    """With warning W107: a token [bound to a
    certificate](../how-to/client-certificates.md#at-your-own-apis) is accepted if a proxy of
    `TRUSTED_PROXIES` sends that certificate in `Client-Cert` (RFC 9440).
    """
    dpop_nonce: bool = field(default=False, metadata=RARE)
    """Each [DPoP proof](../how-to/sender-constrained-tokens.md#at-your-own-apis) must have a nonce
    of this server, valid for five minutes, so proofs cannot be made long before their use.
    """

    def get_permissions(self, scopes: Iterable[str]) -> frozenset[str]:
        """Return the permissions of these scopes together; undeclared scopes have none."""
        known = dict(self.scopes)
        return frozenset().union(*(known.get(scope, ()) for scope in scopes))

    def get_scopes(self, permission: str) -> tuple[str, ...]:
        """Return the scopes that include the permission, in the order of their declaration."""
        scopes = []
        for scope, permissions in self.scopes:
            if permission in permissions:
                scopes.append(scope)
        return tuple(scopes)


def parse_api(provider: str, raw: Any) -> APIDeclaration:
    """Return the rules for access tokens of a provider. Raises: DeclarationInvalid with all
    mistakes.
    """
    return parse_declaration(APIDeclaration, f"API[{provider!r}]", raw, provider=provider)


def list_api_faults(
    apis: Mapping[str, APIDeclaration], *, client_ids: Mapping[str, str]
) -> Iterable[str]:
    """Yield what makes a declaration useless or unsafe. client_ids: of the declared providers, by
    name.
    """
    for name, api in apis.items():
        if name not in client_ids:
            yield f"API[{name!r}]: there is no such provider."
        elif api.audience == client_ids[name]:
            yield f"API[{name!r}]['audience'] is the client_id, which is the audience of ID Tokens."
    names = []
    for name, api in apis.items():
        if api.method == "introspection":
            names.append(name)
    if len(names) > 1:
        yield (
            f"API: {' and '.join(map(repr, names))} would see tokens of "
            "each other; only one can use introspection."
        )


@dataclass(frozen=True, kw_only=True)
class APIsOptions:
    """The options of access tokens at the portal's own APIs."""

    API: Annotated[Mapping[str, APIDeclaration], mapping_of(parse_api)] = field(
        default_factory=dict, metadata=LATER
    )
    """Provider → [access tokens](#an-api) that the portal's own APIs accept. Default: none: no
    token is accepted.
    """
