"""The setting `API`: which access tokens the portal's own APIs accept, and what their scopes
permit. No Django.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from ...config._parsing import (
    checked,
    fail,
    mapping_of,
    parse_declaration,
    parse_duration,
    parse_mapping,
    parse_raw,
    parse_strings,
)

TokenVerificationMethod = Literal["jwt", "introspection"]
MAX_INTROSPECTION_CACHE = timedelta(seconds=60)
_MAX_CLIENT_ID_LENGTH = 200
"""The actor of an event contains it."""
_parse_cache_duration = partial(
    parse_duration, minimum=timedelta(0), maximum=MAX_INTROSPECTION_CACHE
)


def is_scope_token(value: object) -> bool:
    """Say whether value is a scope-token of at most 255 characters. Spec: RFC 6749 3.3."""
    return _is_visible_ascii(value) and not set(str(value)) & set('"\\')


def _is_visible_ascii(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[!-~]{1,255}", value) is not None


def _parse_scopes(path: str, value: Any) -> tuple[tuple[str, frozenset[str]], ...]:
    scopes = []
    for scope, permissions in parse_mapping(path, value).items():
        if not is_scope_token(scope):
            fail(path, "has a scope that is not visible ASCII without quotation mark and backslash")
        names = parse_strings(f"{path}[{scope!r}]", permissions, items="permissions")
        scopes.append((scope, frozenset(names)))
    return tuple(scopes)


def _parse_subs(path: str, value: Any) -> tuple[tuple[str, str], ...]:
    subs = tuple(parse_mapping(path, value).items())
    if not subs or not all(
        _is_visible_ascii(text) and len(text) < _MAX_CLIENT_ID_LENGTH
        for pair in subs
        for text in pair
    ):
        fail(path, "must be a dictionary from client ids to the sub of each, of visible ASCII")
    return subs


_parse_scope = checked(parse_raw, is_scope_token, "must be one scope")
_parse_audience = checked(parse_raw, _is_visible_ascii, "must be 1 to 255 visible ASCII characters")
_parse_clients = checked(
    lambda path, ids: frozenset(parse_strings(path, ids, items="client ids")), bool, "is empty"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class APIDeclaration:
    """Which access tokens of a provider the portal's APIs accept."""

    provider: str
    audience: Annotated[str, _parse_audience]
    """Must be in `aud` of an access token (RFC 9068 2.2, RFC 8707 2): 1 to 255 visible ASCII
    characters, and not the provider's `client_id`.
    """
    method: TokenVerificationMethod
    """`jwt`: signed tokens (RFC 9068); `introspection`: a request to the provider (RFC 7662), for
    one provider only.
    """
    scopes: Annotated[tuple[tuple[str, frozenset[str]], ...], _parse_scopes] = ()
    """Scope → list of permissions for `has_perm`. A token with the scope can use those of them that
    the user has.
    """
    introspection_cache: Annotated[timedelta, _parse_cache_duration] = timedelta(seconds=10)
    """timedelta or seconds, at most 60: how long a process caches a positive introspection
    response.
    """
    clients: Annotated[frozenset[str], _parse_clients] | None = None
    """List of the clients whose tokens are accepted. Default: none: all clients of the provider."""
    allow_client_cert_header: bool = False
    """With warning W107: a token that is [bound to a
    certificate](../how-to/client-certificates.md#at-your-own-apis)
    is accepted if a proxy of `TRUSTED_PROXIES` sends that certificate in `Client-Cert` (RFC 9440).
    """
    dpop_nonce: bool = False
    """Each [DPoP proof](../how-to/sender-constrained-tokens.md#at-your-own-apis) must have a nonce
    of this server, valid for five minutes, so that no proof can be made long before its use.
    """

    def get_permissions(self, scopes: Iterable[str]) -> frozenset[str]:
        """Return the permissions of these scopes together; undeclared scopes have none."""
        known = dict(self.scopes)
        return frozenset().union(*(known.get(scope, ()) for scope in scopes))

    def get_scopes(self, permission: str) -> tuple[str, ...]:
        """Return the scopes that include the permission, in the order of their declaration."""
        return tuple(scope for scope, permissions in self.scopes if permission in permissions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTokensDeclaration:
    """Access tokens that clients of a provider get for themselves, by the grant
    `client_credentials`.
    """

    audience: Annotated[str, _parse_audience]
    """Must be in `aud` of an access token (RFC 9068 2.2, RFC 8707 2): 1 to 255 visible ASCII
    characters, and not the provider's `client_id`.
    """
    method: TokenVerificationMethod
    """`jwt`: signed tokens (RFC 9068); `introspection`: a request to the provider (RFC 7662), for
    one provider only.
    """
    subs: Annotated[tuple[tuple[str, str], ...], _parse_subs]
    """Client id → the `sub` of the tokens that the client gets for itself: usually the client id
    again, at Keycloak the id of its service account. Tokens of other clients, and with another
    `sub`, such as that of a person, are refused.
    """
    scope: Annotated[str, _parse_scope] = "scim"
    """A token must have this scope."""
    introspection_cache: Annotated[timedelta, _parse_cache_duration] = timedelta(seconds=10)
    """timedelta or seconds, at most 60: how long a process caches a positive introspection
    response.
    """
    allow_client_cert_header: bool = False
    """With warning W107: a token that is [bound to a
    certificate](../how-to/client-certificates.md#at-your-own-apis)
    is accepted if a proxy of `TRUSTED_PROXIES` sends that certificate in `Client-Cert` (RFC 9440).
    """

    @property
    def clients(self) -> frozenset[str]:
        """The clients whose tokens are accepted."""
        return frozenset(dict(self.subs))

    def get_sub(self, client_id: str) -> str:
        """Return the sub of the tokens of a declared client."""
        return dict(self.subs)[client_id]


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
    if len(names := [name for name, api in apis.items() if api.method == "introspection"]) > 1:
        yield (
            f"API: {' and '.join(map(repr, names))} would see tokens of "
            "each other; only one can use introspection."
        )


@dataclass(frozen=True, kw_only=True)
class APIsOptions:
    """The options of access tokens at the portal's own APIs."""

    API: Annotated[Mapping[str, APIDeclaration], mapping_of(parse_api)] = field(
        default_factory=dict
    )
    """Provider → [access tokens](#an-api) that the portal's own APIs accept. Default: none: no
    token is accepted.
    """
