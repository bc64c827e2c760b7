"""Access tokens that an endpoint of the portal accepts. No Django."""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from ...config.option_grades import RARE
from ...config.option_parsers import checked, fail, parse_duration, parse_mapping, parse_raw

TokenVerificationMethod = Literal["jwt", "introspection"]
MAX_INTROSPECTION_CACHE = timedelta(seconds=60)
_MAX_CLIENT_ID_LENGTH = 200
"""The actor of an event contains it."""
parse_cache_duration = partial(
    parse_duration, minimum=timedelta(0), maximum=MAX_INTROSPECTION_CACHE
)


def is_scope_token(value: object) -> bool:
    """Say whether value is a scope-token of at most 255 characters. Spec: RFC 6749 3.3."""
    return _is_visible_ascii(value) and not set(str(value)) & set('"\\')


def _is_visible_ascii(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[!-~]{1,255}", value) is not None


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
parse_audience = checked(parse_raw, _is_visible_ascii, "must be 1 to 255 visible ASCII characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTokensDeclaration:
    """Access tokens that clients of a provider get for themselves, by the grant
    `client_credentials`.
    """

    audience: Annotated[str, parse_audience] = field(metadata=RARE)
    """As in [`API`](#an-api)."""
    method: TokenVerificationMethod = field(metadata=RARE)
    """`jwt` or `introspection`, as in `API`."""
    subs: Annotated[tuple[tuple[str, str], ...], _parse_subs] = field(metadata=RARE)
    """Client id → the `sub` of the tokens that the client gets for itself: usually the client id,
    at Keycloak the id of its service account.
    """
    scope: Annotated[str, _parse_scope] = field(default="scim", metadata=RARE)
    """A token must have this scope."""
    introspection_cache: Annotated[timedelta, parse_cache_duration] = field(
        default=timedelta(seconds=10), metadata=RARE
    )
    """As in `API`."""
    allow_client_cert_header: bool = field(default=False, metadata=RARE)
    """As in `API`."""

    @property
    def clients(self) -> frozenset[str]:
        """The clients whose tokens are accepted."""
        return frozenset(dict(self.subs))

    def get_sub(self, client_id: str) -> str:
        """Return the sub of the tokens of a declared client."""
        return dict(self.subs)[client_id]
