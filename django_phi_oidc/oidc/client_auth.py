"""Client authentication with a secret or a signed assertion. Spec: RFC 6749 2.3, 7523; OIDC Core 9."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypedDict, Unpack
from urllib.parse import quote_plus, urlencode

from ..config.providers import ProviderDeclaration
from .jose import encode_b64url
from .metadata import ProviderMetadata
from .transport import TransportRequest

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_ASSERTION_LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionFreshness:
    """Values of a client assertion that must be new for each request. Unused with a client secret."""

    now: datetime
    jti: str = field(repr=False)
    """Unpredictable, and new for each request, also for a retry. Spec: RFC 7523 3 (7)."""


class ClientContext(TypedDict):
    """The keyword arguments that every request of the authenticated client depends on."""

    metadata: ProviderMetadata
    declaration: ProviderDeclaration
    freshness: AssertionFreshness


def build_client_authentication(
    *, parameters: Mapping[str, str], **client: Unpack[ClientContext]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return (headers, parameters) of a form request, with the client's authentication in exactly one of them.

    For Basic, id and secret are form-encoded before they are joined. Spec: RFC 6749 2.3.1; RFC 7523 2.2.
    """
    declaration = client["declaration"]
    client_id = declaration.client_id
    match declaration.token_endpoint_auth_method:
        case "private_key_jwt":
            assertion = create_client_assertion(**client)
            proof = {"client_assertion_type": CLIENT_ASSERTION_TYPE, "client_assertion": assertion}
            return {}, {**parameters, "client_id": client_id, **proof}
        case "client_secret_post":
            return {}, {**parameters, "client_id": client_id, "client_secret": declaration.client_secret}
        case "client_secret_basic":
            credentials = f"{quote_plus(client_id)}:{quote_plus(declaration.client_secret)}"
            encoded = base64.b64encode(credentials.encode("ascii")).decode("ascii")
            return {"Authorization": f"Basic {encoded}"}, dict(parameters)


def create_client_assertion(
    *, metadata: ProviderMetadata, declaration: ProviderDeclaration, freshness: AssertionFreshness
) -> str:
    """Return a JWT signed with the first declared key, valid for one minute and one provider.

    By default the audience is the issuer, for all endpoints of the provider. Endpoint URLs come from the metadata, so a
    malicious provider could name another provider's endpoint and obtain an assertion that is valid there. HEART's
    profile of OAuth 2.0 (Requests to the Token Endpoint) requires the token endpoint, which can be declared.
    Spec: RFC 7523 3; OIDC Core 9 (private_key_jwt); RFC 7515 3.1.
    """
    key = declaration.client_keys[0]
    alg = declaration.get_assertion_alg(key)
    header = {"alg": alg, "kid": key.kid, "typ": "JWT"}
    issued_at = int(freshness.now.timestamp())
    claims = {
        "iss": declaration.client_id,
        "sub": declaration.client_id,
        "aud": declaration.issuer if declaration.client_assertion_audience == "issuer" else metadata.token_endpoint,
        "iat": issued_at,
        "exp": issued_at + int(CLIENT_ASSERTION_LIFETIME.total_seconds()),
        "jti": freshness.jti,
    }
    parts = (json.dumps(part, separators=(",", ":")).encode("ascii") for part in (header, claims))
    signing_input = ".".join(map(encode_b64url, parts))
    return f"{signing_input}.{encode_b64url(key.sign(alg, signing_input.encode('ascii')))}"


def build_client_request(
    *, operation: str, url: str, parameters: Mapping[str, str], **client: Unpack[ClientContext]
) -> TransportRequest:
    """Return a POST request of the authenticated client with parameters as a form in the body, not in the URL.

    Spec: RFC 6749 2.3.1, 4.1.3, appendix B.
    """
    headers, authenticated = build_client_authentication(parameters=parameters, **client)
    return TransportRequest(
        method="POST",
        url=url,
        headers={"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", **headers},
        body=urlencode(authenticated).encode("ascii"),
        operation=operation,
    )
