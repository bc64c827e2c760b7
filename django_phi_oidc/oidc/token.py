"""The token request and its response (R5). Spec: OIDC Core 3.1.3, RFC 6749 4.1.3 and 5, RFC 7636
4.5.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, Unpack, cast, get_args
from urllib.parse import unquote_plus

from ..config.providers import ProviderDeclaration
from ..errors import Code, TokenError, TokenResponseError
from ..http.transport import (
    TransportRequest,
    TransportResponse,
    get_media_type,
    parse_json_body,
    parse_retry_after,
)
from .client_auth import ClientContext, build_client_request
from .error_codes import get_error_code
from .jwe import get_signed_token

LIFETIME_ALERT_THRESHOLD = timedelta(hours=1)
HEART_MAX_ACCESS_TOKEN_LIFETIME = timedelta(hours=1)
MAX_RECEIVED_TOKENS = 16
"""Tokens extracted from one refused response, so that a provider cannot fill the table of
revocations.
"""

TokenTypeHint = Literal["refresh_token", "access_token"]
TokenType = Literal["Bearer", "DPoP"]

_FORM_FIELD = re.compile(r"(?<![^&])(access_token|refresh_token)=([^&]*)")
_JSON_STRING_LITERAL = re.compile(r'"((?:[^"\\]++|\\.)*+)"?(\s*:\s*)?', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A checked token response (R5). The ID Token in it is decrypted, but not verified."""

    access_token: str = field(repr=False)
    id_token: str = field(repr=False)
    """The JWS. Empty if there is none, which only a refresh allows."""
    refresh_token: str = field(repr=False)
    """Empty if there is none."""
    expires_in: timedelta | None
    """None if the response omits it."""
    lifetime_alert: bool
    """The access token is valid for more than an hour, or for an unknown time."""
    token_type: TokenType = "Bearer"
    """`DPoP`: the access token is bound to the key of the proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedToken:
    """A token in a refused response. It was issued and must be revoked."""

    token_type_hint: TokenTypeHint
    value: str = field(repr=False)


def build_token_request(
    *, code: str, redirect_uri: str, code_verifier: str, **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return the request that redeems code. It must be sent only once, and not be retried after a
    timeout.

    Spec: RFC 6749 4.1.3, RFC 7636 4.5, Core 3.1.3.1, RFC 8707 2.2.
    """
    redirect = {"redirect_uri": redirect_uri, "code_verifier": code_verifier}
    resource = build_resource_parameter(client["declaration"])
    return build_client_request(
        operation="token",
        url=client["metadata"].token_endpoint,
        parameters={"grant_type": "authorization_code", "code": code, **redirect, **resource},
        **client,
    )


def build_resource_parameter(declaration: ProviderDeclaration) -> dict[str, str]:
    """Return the `resource` of a request for tokens: each one limits the access token again. Spec:
    RFC 8707 2.2.
    """
    if declaration.resource:
        return {"resource": declaration.resource}
    return {}


def list_accepted_token_types(
    declaration: ProviderDeclaration, *, has_proof: bool
) -> tuple[TokenType, ...]:
    """Return the token types that the response to a code may have. has_proof: the request has a
    DPoP proof.

    With `auto`, a provider may ignore the proof. Spec: RFC 9449 5.
    """
    if declaration.dpop == "require":
        return ("DPoP",)
    if has_proof:
        return ("DPoP", "Bearer")
    return ("Bearer",)


def process_token_response(
    response: TransportResponse,
    *,
    declaration: ProviderDeclaration,
    token_types: Sequence[TokenType] = ("Bearer",),
) -> TokenResponse:
    """Return the tokens of a response that satisfies RFC 6749 5.1 and Core 3.1.3.3.

    Requires: if this raises, the caller queues extract_received_tokens(response) for revocation.
    NOT checked: the ID Token and scope.
    Raises: TokenResponseError; IDTokenError if the ID Token is not encrypted as declared.
    Spec: RFC 6749 5.1, 5.2; Core 3.1.3.3 to 3.1.3.5, 3.1.3.7 (1).
    """
    return process_grant_response(
        response, declaration=declaration, id_token_getter=get_id_token, token_types=token_types
    )


def process_grant_response(
    response: TransportResponse,
    *,
    declaration: ProviderDeclaration,
    id_token_getter: Callable[[Mapping[str, Any]], str],
    token_types: Sequence[TokenType] = ("Bearer",),
) -> TokenResponse:
    """Process a token response. id_token_getter returns the ID Token or raises, depending on the
    grant.
    """
    body = parse_json_body(response)
    raise_for_token_error(body or {}, response=response)
    members = validate_json_response(body, response=response)
    token_type = get_token_type(members, accepted=token_types)
    expires_in = get_expires_in(members, declaration=declaration)
    access_token = get_access_token(members)
    id_token = id_token_getter(members)
    return TokenResponse(
        access_token=access_token,
        id_token=id_token
        and get_signed_token(id_token, encryption=declaration.id_token_encryption),
        refresh_token=get_refresh_token(members),
        expires_in=expires_in,
        lifetime_alert=expires_in is None or expires_in > LIFETIME_ALERT_THRESHOLD,
        token_type=token_type,
    )


def raise_for_token_error(members: Mapping[str, Any], *, response: TransportResponse) -> None:
    """`token_error`: the status is 200 and there is no `error`. error_description is not read.
    Spec: RFC 6749 5.2.
    """
    if response.status != 200 or "error" in members:
        error = get_error_code(members.get("error"))
        raise TokenError(
            status=response.status, error=error, retry_after=parse_retry_after(response)
        )


def validate_json_response(
    body: Mapping[str, Any] | None, *, response: TransportResponse
) -> Mapping[str, Any]:
    """`token_response_invalid`: the body is a JSON object, with that media type. Spec: RFC 6749
    5.1.
    """
    if body is None or get_media_type(response) != "application/json":
        raise TokenResponseError(Code.TOKEN_RESPONSE_INVALID)
    return body


def get_token_type(members: Mapping[str, Any], *, accepted: Sequence[TokenType]) -> TokenType:
    """`token_type_unsupported`: token_type is an accepted one, in any case.

    Spec: RFC 6749 5.1, 7.1; Core 3.1.3.3; RFC 9449 5.
    """
    value = members.get("token_type")
    for token_type in accepted:
        if isinstance(value, str) and value.lower() == token_type.lower():
            return token_type
    raise TokenResponseError(Code.TOKEN_TYPE_UNSUPPORTED)


def get_access_token(members: Mapping[str, Any]) -> str:
    """`access_token_missing`: access_token is a string of visible ASCII characters. Spec: RFC 6749
    5.1, A.12.
    """
    access_token = members.get("access_token")
    if not _is_valid_token(access_token):
        raise TokenResponseError(Code.ACCESS_TOKEN_MISSING)
    return cast(str, access_token)


def get_refresh_token(members: Mapping[str, Any]) -> str:
    """`token_response_invalid`: refresh_token is absent, or a string of visible ASCII. Spec: RFC
    6749 5.1, A.17.
    """
    refresh_token = members.get("refresh_token", "")
    if "refresh_token" in members and not _is_valid_token(refresh_token):
        raise TokenResponseError(Code.TOKEN_RESPONSE_INVALID)
    return cast(str, refresh_token)


def get_id_token(members: Mapping[str, Any]) -> str:
    """`id_token_missing`: id_token is a non-empty string. Spec: Core 3.1.3.3."""
    id_token = members.get("id_token")
    if not isinstance(id_token, str) or not id_token:
        raise TokenResponseError(Code.ID_TOKEN_MISSING)
    return id_token


def get_expires_in(
    members: Mapping[str, Any], *, declaration: ProviderDeclaration
) -> timedelta | None:
    """`access_token_lifetime`: expires_in is a positive JSON integer of seconds, within the
    declared limit.

    None if absent. The profile `heart` refuses an absent value and more than an hour.
    Spec: RFC 6749 5.1, A.14; HEART's profile of OAuth 2.0 (Token Lifetimes).
    """
    limit = declaration.max_access_token_lifetime
    if declaration.profile == "heart":
        limit = min(limit, HEART_MAX_ACCESS_TOKEN_LIFETIME)
    elif "expires_in" not in members:
        return None
    expires_in = members.get("expires_in")
    if type(expires_in) is not int or not 0 < expires_in <= limit.total_seconds():
        raise TokenResponseError(Code.ACCESS_TOKEN_LIFETIME)
    return timedelta(seconds=expires_in)


def extract_received_tokens(response: TransportResponse) -> tuple[ReceivedToken, ...]:
    """Return all tokens in a refused or malformed response: refresh tokens first, at most 16. Never
    raises.

    Ignores status, nesting, repeated names, and invalid or truncated JSON, because the tokens in it
    are valid.
    """
    text = response.body.decode("utf-8", errors="replace")
    pairs: Iterator[tuple[str, str]]
    if get_media_type(response) == "application/x-www-form-urlencoded":
        pairs = ((field[1], unquote_plus(field[2])) for field in _FORM_FIELD.finditer(text))
    else:
        pairs = _scan_string_members(text)
    values_by_hint: dict[TokenTypeHint, dict[str, None]] = {}
    for hint in get_args(TokenTypeHint):
        values_by_hint[hint] = {}
    for name, value in pairs:
        values = values_by_hint.get(cast(TokenTypeHint, name))
        if values is not None and len(values) < MAX_RECEIVED_TOKENS and _is_encodable_text(value):
            values[value] = None
    hints = values_by_hint.items()
    tokens = (
        ReceivedToken(token_type_hint=hint, value=value)
        for hint, values in hints
        for value in values
    )
    return tuple(islice(tokens, MAX_RECEIVED_TOKENS))


def _is_valid_token(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()


def _is_encodable_text(value: str) -> bool:
    """Lone surrogates cannot be sent back, and no token contains them."""
    return value != "" and not any("\ud800" <= character <= "\udfff" for character in value)


def _scan_string_members(text: str) -> Iterator[tuple[str, str]]:
    """Yield each name with a string value, in one pass over text that may not be valid JSON."""
    name = ""
    end = -1
    for literal in _JSON_STRING_LITERAL.finditer(text):
        if name and literal.start() == end:
            yield name, _unescape_json_string(literal[1])

        if literal[2]:
            name = _unescape_json_string(literal[1])
        else:
            name = ""

        end = literal.end()


def _unescape_json_string(literal: str) -> str:
    if "\\" not in literal:
        return literal
    try:
        return str(json.loads(f'"{literal}"', strict=False))
    except ValueError:
        return literal
