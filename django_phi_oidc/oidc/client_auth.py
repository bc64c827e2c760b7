"""Client authentication: a secret, a signed assertion or a TLS certificate. Spec: RFC 6749 2.3,
7523, 8705; Core 9.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack
from urllib.parse import quote_plus, urlencode

from ..config.certificates import compute_certificate_thumbprint, encode_certificate_chain
from ..config.client_keys import ClientKey
from ..config.providers import ProviderDeclaration
from ..http.transport import TransportRequest
from .jose import encode_b64url
from .metadata import ProviderMetadata

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_ASSERTION_LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionFreshness:
    """Values of a client assertion that must be new for each request. Unused with a client
    secret.
    """

    now: datetime
    jti: str = field(repr=False)
    """Unpredictable, and new for each request, also for a retry. Spec: RFC 7523 3 (7)."""


class ClientContext(TypedDict):
    """The keyword arguments that every request of the authenticated client depends on."""

    metadata: ProviderMetadata
    declaration: ProviderDeclaration
    freshness: AssertionFreshness


def build_client_authentication(
    *, url: str, parameters: Mapping[str, str], **client: Unpack[ClientContext]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return (headers, parameters) of a form request to url, with the client's authentication in
    one of them at most.

    For Basic, id and secret are form-encoded before they are joined. With mutual TLS the connection
    authenticates the client, and the form has only its id. Spec: RFC 6749 2.3.1; RFC 7523 2.2; RFC
    8705 2; UDAP Security
    4.1.3.
    """
    declaration = client["declaration"]
    client_id = declaration.client_id
    match declaration.token_endpoint_auth_method:
        case "private_key_jwt":
            assertion = create_client_assertion(url=url, **client)
            proof = {"client_assertion_type": CLIENT_ASSERTION_TYPE, "client_assertion": assertion}
            if declaration.udap:
                proof["udap"] = "1"
            return {}, {**parameters, "client_id": client_id, **proof}
        case "client_secret_post":
            return {}, {
                **parameters,
                "client_id": client_id,
                "client_secret": declaration.client_secret,
            }
        case "client_secret_basic":
            credentials = f"{quote_plus(client_id)}:{quote_plus(declaration.client_secret)}"
            encoded = base64.b64encode(credentials.encode("ascii")).decode("ascii")
            return {"Authorization": f"Basic {encoded}"}, dict(parameters)
        case "tls_client_auth" | "self_signed_tls_client_auth":
            return {}, {**parameters, "client_id": client_id}


def create_client_assertion(
    *,
    url: str,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    freshness: AssertionFreshness,
) -> str:
    """Return a JWT signed with the first declared key, valid for one minute and one provider. url:
    of the request.

    By default the audience is the issuer, for all endpoints of the provider. Endpoint URLs come
    from the metadata, so a malicious provider could name another provider's endpoint and obtain an
    assertion that is valid there. HEART's profile of OAuth 2.0 (Requests to the Token Endpoint)
    requires the token endpoint, and Italy's federation the endpoint that is called, which can be
    declared.
    Spec: RFC 7523 3; OIDC Core 9 (private_key_jwt); RFC 7515 3.1.
    """
    issued_at = int(freshness.now.timestamp())
    audiences = {
        "issuer": declaration.issuer,
        "token_endpoint": metadata.token_endpoint,
        "endpoint": url,
    }
    claims = {
        "iss": declaration.client_id,
        "sub": declaration.client_id,
        "aud": audiences[declaration.client_assertion_audience],
        "iat": issued_at,
        "exp": issued_at + int(CLIENT_ASSERTION_LIFETIME.total_seconds()),
        "jti": freshness.jti,
    }
    alg = declaration.get_assertion_alg(declaration.list_keys("sig")[0])
    return sign_client_jwt(claims, typ="JWT", alg=alg, declaration=declaration)


def sign_client_jwt(
    claims: Mapping[str, Any], *, typ: str, alg: str, declaration: ProviderDeclaration
) -> str:
    """Return a JWT signed with the first declared key to sign, which the header names as declared.

    Spec: RFC 7515 3.1, 4.1.4, 4.1.6, 4.1.8; RFC 7519 3.
    """
    key = declaration.list_keys("sig")[0]
    header: dict[str, Any] = {"alg": alg, "typ": typ}
    match declaration.client_key_header:
        case "kid":
            header["kid"] = key.kid
        case "x5t#S256":
            header["x5t#S256"] = compute_certificate_thumbprint(key.certificate[0])
        case "x5c":
            header["x5c"] = encode_certificate_chain(key.certificate)
    return create_jws(header, claims, key=key)


def create_jws(header: Mapping[str, Any], claims: Mapping[str, Any], *, key: ClientKey) -> str:
    """Return a compact JWS of the claims, signed by the alg of the header. Spec: RFC 7515 3.1,
    7.1.
    """
    parts = (json.dumps(part, separators=(",", ":")).encode("ascii") for part in (header, claims))
    signing_input = ".".join(map(encode_b64url, parts))
    return (
        f"{signing_input}.{encode_b64url(key.sign(header['alg'], signing_input.encode('ascii')))}"
    )


def build_client_request(
    *, operation: str, url: str, parameters: Mapping[str, str], **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return a POST request of the authenticated client with parameters as a form in the body, not
    in the URL.

    Spec: RFC 6749 2.3.1, 4.1.3, appendix B; RFC 8705 2.
    """
    headers, authenticated = build_client_authentication(url=url, parameters=parameters, **client)
    return TransportRequest(
        method="POST",
        url=url,
        headers={
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **headers,
        },
        body=urlencode(authenticated).encode("ascii"),
        operation=operation,
        presents_certificate=True,
    )
