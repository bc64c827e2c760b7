"""Further parameters of authorization and logout requests that a project declares. No Django."""

import re
from collections.abc import Collection
from functools import partial
from typing import Any

from .option_parsers import fail, parse_mapping, parse_printable

PROTOCOL_PARAMETERS = frozenset(
    {
        "response_type",
        "response_mode",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "acr_values",
        "max_age",
        "claims",
    }
    | {"registration", "id_token_hint", "resource", "vtr"}
)
"""Authorization request parameters that the package sets, or that would change how the response
must be processed.
"""
PROTOCOL_PARAMETER_PREFIXES = ("client_", "code_challenge", "dpop_", "request")
REQUEST_OBJECT_CLAIMS = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
"""Claims of a signed request about itself, which it cannot have as parameters, too. Spec: RFC 7519
4.1; RFC 9101 4.
"""
END_SESSION_PROTOCOL_PARAMETERS = frozenset(
    {"id_token_hint", "logout_hint", "post_logout_redirect_uri", "state"}
)
"""Logout request parameters that the package sets; and those that begin with `client_`."""
_PARAMETER_NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def _parse_parameters(
    path: str, value: Any, *, protocol_names: Collection[str], protocol_prefixes: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    for name, parameter in parse_mapping(path, value).items():
        if not isinstance(name, str) or not _PARAMETER_NAME_PATTERN.fullmatch(name):
            fail(path, "has a name that no parameter can have")
        if name in protocol_names or name.startswith(protocol_prefixes):
            fail(f"{path}[{name!r}]", "is set by the protocol code")
        parse_printable(f"{path}[{name!r}]", parameter, max_length=1024)
    return tuple(value.items())


parse_authorization_parameters = partial(
    _parse_parameters,
    protocol_names=PROTOCOL_PARAMETERS,
    protocol_prefixes=PROTOCOL_PARAMETER_PREFIXES,
)
parse_end_session_parameters = partial(
    _parse_parameters,
    protocol_names=END_SESSION_PROTOCOL_PARAMETERS,
    protocol_prefixes=("client_",),
)
