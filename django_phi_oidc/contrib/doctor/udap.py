"""Registration by a software statement that the client signs, for UDAP. Spec: HL7 UDAP Security
3.1; RFC 7591 2.3.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography.x509 import (
    ExtensionNotFound,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    load_der_x509_certificate,
)

from ...config.providers import ProviderDeclaration
from ...errors import DeclarationInvalid
from ...http.transport import TransportRequest
from ...oidc.client_auth import AssertionFreshness, sign_client_jwt

UDAP_VERSION = "1"
SOFTWARE_STATEMENT_LIFETIME = timedelta(minutes=5)
_STATED_MEMBERS = ("redirect_uris", "grant_types", "response_types", "token_endpoint_auth_method")


@dataclass(frozen=True, slots=True, kw_only=True)
class UDAPClientInformation:
    """What a software statement says in addition to the declaration."""

    client_name: str
    contacts: tuple[str, ...]
    """URIs; at least one is mailto."""
    logo_uri: str
    scope: str
    """Space-separated."""


def build_udap_metadata(
    metadata: Mapping[str, Any], *, information: UDAPClientInformation
) -> dict[str, Any]:
    """Return those members of the client metadata that a software statement contains. Spec: UDAP
    Security 3.1.
    """
    return {
        **{name: metadata[name] for name in _STATED_MEMBERS},
        "client_name": information.client_name,
        "contacts": list(information.contacts),
        "logo_uri": information.logo_uri,
        "scope": information.scope,
    }


def build_udap_registration_request(
    endpoint: str,
    *,
    metadata: Mapping[str, Any],
    declaration: ProviderDeclaration,
    freshness: AssertionFreshness,
) -> TransportRequest:
    """Return the request with a software statement that is valid for five minutes at this endpoint.

    Its issuer is the URI in the certificate of the key that signs. Requires: client_key_header is
    x5c.
    Raises: DeclarationInvalid if the certificate has not exactly one URI. Spec: UDAP Security 3.1,
    3.2.3.
    """
    key = declaration.list_keys("sig")[0]
    uri = get_subject_uri(key.certificate[0])
    issued_at = int(freshness.now.timestamp())
    claims = {
        **metadata,
        "iss": uri,
        "sub": uri,
        "aud": endpoint,
        "iat": issued_at,
        "exp": issued_at + int(SOFTWARE_STATEMENT_LIFETIME.total_seconds()),
        "jti": freshness.jti,
    }
    alg = declaration.get_assertion_alg(key)
    statement = sign_client_jwt(claims, typ="JWT", alg=alg, declaration=declaration)
    return TransportRequest(
        method="POST",
        url=endpoint,
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        body=json.dumps({"software_statement": statement, "udap": UDAP_VERSION}).encode("ascii"),
    )


def get_subject_uri(der: bytes) -> str:
    """Return the only URI among the alternative names of the subject. Raises: DeclarationInvalid.

    Spec: RFC 5280 4.2.1.6; UDAP Security 3.1 (iss).
    """
    try:
        names = (
            load_der_x509_certificate(der)
            .extensions.get_extension_for_class(SubjectAlternativeName)
            .value
        )
        (uri,) = names.get_values_for_type(UniformResourceIdentifier)
    except (ExtensionNotFound, ValueError):
        raise DeclarationInvalid(
            "The certificate must have exactly one URI as a subject alternative name."
        ) from None
    return uri
