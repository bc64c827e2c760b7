"""A client makes itself known to an OP, and sees whether it is known as it wants to be.

Spec: RFC 7591; OIDC Dynamic Client Registration 1.0.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..config.providers import ProviderDeclaration
from ..errors import RegistrationRefused
from .transport import TransportRequest, TransportResponse, parse_json_body

REGISTRATION_ERROR_CODES = frozenset(
    {
        # RFC 7591 3.2.2
        *("invalid_redirect_uri", "invalid_client_metadata"),
        *("invalid_software_statement", "unapproved_software_statement"),
        # RFC 6750 3.1, for the initial access token
        *("invalid_request", "invalid_token", "insufficient_scope"),
    }
)
REGISTRATION_DEFAULTS: Mapping[str, Any] = {
    "token_endpoint_auth_method": "client_secret_basic",
    "id_token_signed_response_alg": "RS256",
    "response_types": ["code"],
    "grant_types": ["authorization_code"],
    "application_type": "web",
}
"""What an answer that leaves a member out says. Spec: RFC 7591 2; Dynamic Client Registration 2."""
_CRITICAL_MEMBERS = frozenset(
    {
        *("redirect_uris", "subject_type", "token_endpoint_auth_method", "id_token_signed_response_alg"),
        *("response_types", "jwks_uri", "userinfo_signed_response_alg"),
    }
)
_UNORDERED_MEMBERS = frozenset({"redirect_uris", "post_logout_redirect_uris", "grant_types", "response_types"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientURLs:
    """Where the portal is, as the OP and browsers reach it: whole URLs."""

    callback: str
    logged_out: str
    backchannel_logout: str
    frontchannel_logout: str
    jwks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A member that the OP has registered as something else than was asked for."""

    name: str
    level: Literal["warning", "failure"]
    """failure: sign-ins would be refused, or less safe than was declared."""


def build_client_metadata(
    declaration: ProviderDeclaration,
    *,
    client_urls: ClientURLs,
    provider_metadata: Mapping[str, Any],
    id_token_alg: str,
) -> dict[str, Any]:
    """Return what the client says of itself: as it is declared, and no more.

    members: the OP's own metadata. alg: the algorithm for ID Tokens, one that both have.
    Spec: RFC 7591 2; Dynamic Client Registration 2; RP-Initiated Logout 3.1; Back-Channel Logout 2.2; RFC 9126 6.
    """
    told: dict[str, Any] = {
        "application_type": "web",
        "redirect_uris": [client_urls.callback],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "subject_type": declaration.subject_type,
        "token_endpoint_auth_method": declaration.token_endpoint_auth_method,
        "id_token_signed_response_alg": id_token_alg,
        "post_logout_redirect_uris": [client_urls.logged_out],
    }
    if declaration.token_endpoint_auth_method == "private_key_jwt":
        told["jwks_uri"] = client_urls.jwks
        told["token_endpoint_auth_signing_alg"] = declaration.get_assertion_alg(declaration.client_keys[0])
    if declaration.userinfo_signed_response_alg:
        told["userinfo_signed_response_alg"] = declaration.userinfo_signed_response_alg[0]
    if provider_metadata.get("backchannel_logout_supported") is True:
        told["backchannel_logout_uri"] = client_urls.backchannel_logout
        told["backchannel_logout_session_required"] = (
            provider_metadata.get("backchannel_logout_session_supported") is True
        )
    elif provider_metadata.get("frontchannel_logout_supported") is True:
        told["frontchannel_logout_uri"] = client_urls.frontchannel_logout
        told["frontchannel_logout_session_required"] = (
            provider_metadata.get("frontchannel_logout_session_supported") is True
        )
    if declaration.max_age is not None:
        told["require_auth_time"] = True
    if declaration.par == "require":
        told["require_pushed_authorization_requests"] = True
    return told


def build_registration_request(
    endpoint: str, *, metadata: Mapping[str, Any], initial_access_token: str
) -> TransportRequest:
    """Return the request. initial_access_token: empty where the OP lets anybody register. Spec: RFC 7591 3.1."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if initial_access_token:
        headers["Authorization"] = f"Bearer {initial_access_token}"
    return TransportRequest(method="POST", url=endpoint, headers=headers, body=json.dumps(metadata).encode())


def process_registration_response(response: TransportResponse) -> dict[str, Any]:
    """Return what the OP has registered, client_id and secrets included.

    Raises: RegistrationRefused, with the OP's error code where it is one that the specifications know.
    Spec: RFC 7591 3.2.1, 3.2.2.
    """
    members = parse_json_body(response) or {}
    # 200 is what some OPs say; what counts is that it names a client.
    if response.status not in (200, 201) or not _is_non_empty_string(members.get("client_id")):
        error = members.get("error")
        raise RegistrationRefused(
            error if isinstance(error, str) and error in REGISTRATION_ERROR_CODES else f"status_{response.status}"
        )
    return members


def compare_registration(requested: Mapping[str, Any], registered: Mapping[str, Any]) -> Iterator[Deviation]:
    """Yield what is registered otherwise than it was asked for, in the order of asking.

    What the answer leaves out is taken for its default. Spec: RFC 7591 3.2.1: the OP may replace what it likes, and
    must say so.
    """
    for name, wanted in requested.items():
        got = registered.get(name, REGISTRATION_DEFAULTS.get(name))
        if _normalize_for_comparison(name, got) != _normalize_for_comparison(name, wanted):
            yield Deviation(name=name, level="failure" if name in _CRITICAL_MEMBERS else "warning")


def _normalize_for_comparison(name: str, value: Any) -> Any:
    return frozenset(value) if name in _UNORDERED_MEMBERS and _is_string_collection(value) else value


def _is_string_collection(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _is_non_empty_string(value: Any) -> bool:
    return isinstance(value, str) and value != ""
