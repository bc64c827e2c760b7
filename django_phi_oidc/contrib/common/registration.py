"""Registration of the client at a provider. Spec: RFC 7591; OIDC Dynamic Client Registration
1.0.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.x509 import load_der_x509_certificate

from ...config.providers import ProviderDeclaration
from ...errors import DeclarationInvalid
from ...http.transport import TransportRequest, TransportResponse, parse_json_body
from .registration_errors import RegistrationRefused

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
"""Values of members that the response omits. Spec: RFC 7591 2; Dynamic Client Registration 2."""
_CRITICAL_MEMBERS = frozenset(
    {
        *(
            "redirect_uris",
            "subject_type",
            "token_endpoint_auth_method",
            "id_token_signed_response_alg",
        ),
        *(
            "response_types",
            "jwks_uri",
            "userinfo_signed_response_alg",
            "tls_client_auth_subject_dn",
        ),
        *("id_token_encrypted_response_alg", "id_token_encrypted_response_enc"),
        *("userinfo_encrypted_response_alg", "userinfo_encrypted_response_enc"),
    }
)
_UNORDERED_MEMBERS = frozenset(
    {"redirect_uris", "post_logout_redirect_uris", "grant_types", "response_types"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientURLs:
    """Absolute URLs of the portal."""

    callback: str
    logged_out: str
    backchannel_logout: str
    frontchannel_logout: str
    jwks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A member that the provider registered with another value than requested."""

    name: str
    level: Literal["warning", "failure"]
    """failure: sign-ins would be refused, or would be less secure than declared."""


def build_client_metadata(
    declaration: ProviderDeclaration,
    *,
    client_urls: ClientURLs,
    provider_metadata: Mapping[str, Any],
    id_token_alg: str,
    certificate: bytes = b"",
) -> dict[str, Any]:
    """Return the client metadata of the declaration.

    id_token_alg: the algorithm for ID Tokens, which both sides support. certificate: that of
    client_certificate in DER.
    Spec: RFC 7591 2; Dynamic Client Registration 2; RP-Initiated Logout 3.1; Back-Channel Logout
    2.2; RFC 8705 2.1.2, 2.2, 3.4; RFC 9101 10.5; RFC 9126 6; RFC 9449 5.2.
    """
    members: dict[str, Any] = {
        "application_type": "web",
        "redirect_uris": [client_urls.callback],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "subject_type": declaration.subject_type,
        "token_endpoint_auth_method": declaration.token_endpoint_auth_method,
        "id_token_signed_response_alg": id_token_alg,
        "post_logout_redirect_uris": [client_urls.logged_out],
        **_build_encryption_members(declaration, provider_metadata),
    }
    members |= _build_key_members(declaration, jwks_uri=client_urls.jwks, certificate=certificate)
    if declaration.userinfo_signed_response_alg:
        members["userinfo_signed_response_alg"] = declaration.userinfo_signed_response_alg[0]
    logout_urls = {
        "backchannel": client_urls.backchannel_logout,
        "frontchannel": client_urls.frontchannel_logout,
    }
    for channel, url in logout_urls.items():
        if provider_metadata.get(f"{channel}_logout_supported") is True:
            members[f"{channel}_logout_uri"] = url
            with_session = provider_metadata.get(f"{channel}_logout_session_supported") is True
            members[f"{channel}_logout_session_required"] = with_session
            break
    if declaration.max_age is not None:
        members["require_auth_time"] = True
    if declaration.dpop == "require":
        members["dpop_bound_access_tokens"] = True
    if declaration.par == "require":
        members["require_pushed_authorization_requests"] = True
    return members


def _build_encryption_members(
    declaration: ProviderDeclaration, provider_metadata: Mapping[str, Any]
) -> dict[str, str]:
    members = {}
    kinds = {
        "id_token": declaration.id_token_encryption,
        "userinfo": declaration.userinfo_encryption,
    }
    for kind, encryption in kinds.items():
        for parameter, declared in (("alg", encryption.algs), ("enc", encryption.encs)):
            if encryption.algs:
                offered = provider_metadata.get(f"{kind}_encryption_{parameter}_values_supported")
                members[f"{kind}_encrypted_response_{parameter}"] = _choose(declared, offered)
    return members


def _build_key_members(
    declaration: ProviderDeclaration, *, jwks_uri: str, certificate: bytes
) -> dict[str, Any]:
    """Return what the provider has to know about the keys and the certificate of the client."""
    members: dict[str, Any] = {}
    method = declaration.token_endpoint_auth_method
    request_alg = declaration.request_object_signing_alg
    is_published = method in (
        "private_key_jwt",
        "self_signed_tls_client_auth",
    ) or declaration.list_keys("enc")
    if is_published or request_alg:
        members["jwks_uri"] = jwks_uri
    if method == "private_key_jwt":
        members["token_endpoint_auth_signing_alg"] = declaration.get_assertion_alg(
            declaration.list_keys("sig")[0]
        )
    if request_alg:
        members |= {
            "request_object_signing_alg": request_alg,
            "require_signed_request_object": True,
        }
    if method == "tls_client_auth":
        members["tls_client_auth_subject_dn"] = get_subject_dn(certificate)
    if declaration.client_certificate is not None:
        members["tls_client_certificate_bound_access_tokens"] = True
    return members


def build_registration_request(
    endpoint: str, *, metadata: Mapping[str, Any], initial_access_token: str
) -> TransportRequest:
    """Return the request. initial_access_token: empty if the provider requires none. Spec: RFC 7591
    3.1.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if initial_access_token:
        headers["Authorization"] = f"Bearer {initial_access_token}"
    return TransportRequest(
        method="POST", url=endpoint, headers=headers, body=json.dumps(metadata).encode()
    )


def process_registration_response(response: TransportResponse) -> dict[str, Any]:
    """Return the registered members, including client_id and secrets.

    Raises: RegistrationRefused, with the provider's error code if the specifications define it.
    Spec: RFC 7591 3.2.1, 3.2.2.
    """
    members = parse_json_body(response) or {}
    # Some providers answer 200. The response must contain a client_id.
    client_id = members.get("client_id")
    if response.status not in (200, 201) or not isinstance(client_id, str) or not client_id:
        error = members.get("error")
        is_specified = isinstance(error, str) and error in REGISTRATION_ERROR_CODES
        raise RegistrationRefused(str(error) if is_specified else f"status_{response.status}")
    return members


def compare_registration(
    requested: Mapping[str, Any], registered: Mapping[str, Any]
) -> Iterator[Deviation]:
    """Yield the members with another value than requested. Omitted members have their default.

    The provider may replace values, and must return the registered ones. Spec: RFC 7591 3.2.1.
    """
    for name, value in requested.items():
        registered_value = registered.get(name, REGISTRATION_DEFAULTS.get(name))
        if _normalize_for_comparison(name, registered_value) != _normalize_for_comparison(
            name, value
        ):
            level: Literal["warning", "failure"]
            if name in _CRITICAL_MEMBERS:
                level = "failure"
            else:
                level = "warning"
            yield Deviation(name=name, level=level)


def _choose(declared: Sequence[str], offered: object) -> str:
    """Return the first declared value that the provider offers; the first one if it offers none of
    them.
    """
    return next(
        (value for value in declared if isinstance(offered, list) and value in offered), declared[0]
    )


def _normalize_for_comparison(name: str, value: Any) -> Any:
    if name in _UNORDERED_MEMBERS and _is_string_collection(value):
        return frozenset(value)
    return value


def _is_string_collection(value: Any) -> bool:
    return (
        isinstance(value, Collection)
        and not isinstance(value, str)
        and all(isinstance(item, str) for item in value)
    )


def get_subject_dn(der: bytes) -> str:
    """Return the distinguished name of the subject as text. Spec: RFC 4514, RFC 8705 2.1.2.

    Raises: DeclarationInvalid if it has none, so that no empty name is registered.
    """
    if not (name := load_der_x509_certificate(der).subject.rfc4514_string()):
        raise DeclarationInvalid(
            "The certificate has no subject: register its alternative name at the provider."
        )
    return name
