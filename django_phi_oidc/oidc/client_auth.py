"""How this client proves itself to the OP: with its secret, or with its key. Spec: RFC 6749 2.3, 7523; OIDC Core 9."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote_plus, urlencode

from ..config.providers import ProviderDeclaration
from .jose import encode_b64url
from .metadata import ProviderMetadata
from .transport import TransportRequest

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT_ASSERTION_LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionFreshness:
    """What no two requests of this client share. A secret needs none of it, a client assertion both."""

    now: datetime
    jti: str = field(repr=False)
    """Unpredictable, and new for each request that is sent, the repetition of one too. Spec: RFC 7523 3 (7)."""


def build_client_authentication(
    *,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    parameters: Mapping[str, str],
    freshness: AssertionFreshness,
) -> tuple[dict[str, str], dict[str, str]]:
    """Return (headers, parameters) of a request's form with the client's authentication in one of them, never both.

    Spec: RFC 6749 2.3.1: for Basic, id and secret are form-encoded each before they are joined; RFC 7523 2.2.
    """
    client_id = declaration.client_id
    match declaration.token_endpoint_auth_method:
        case "private_key_jwt":
            assertion = create_client_assertion(metadata=metadata, declaration=declaration, freshness=freshness)
            proof = {"client_assertion_type": CLIENT_ASSERTION_TYPE, "client_assertion": assertion}
            return {}, {**parameters, "client_id": client_id, **proof}
        case "client_secret_post":
            return {}, {**parameters, "client_id": client_id, "client_secret": declaration.client_secret}
        case "client_secret_basic":
            joined = f"{quote_plus(client_id)}:{quote_plus(declaration.client_secret)}"
            credentials = base64.b64encode(joined.encode("ascii")).decode("ascii")
            return {"Authorization": f"Basic {credentials}"}, dict(parameters)


def create_client_assertion(
    *, metadata: ProviderMetadata, declaration: ProviderDeclaration, freshness: AssertionFreshness
) -> str:
    """Return a JWT that the declaration's first key signed, good for a minute and for one OP.

    Its audience is the issuer, unless the declaration says otherwise, and the same at each of the OP's endpoints: an
    endpoint is what the metadata names, so a lying OP could name another's and get an assertion that is good there.

    Spec: RFC 7523 3; OIDC Core 9 (private_key_jwt); RFC 7515 3.1. HEART's profile of OAuth 2.0 (Requests to the Token
    Endpoint) still has the token endpoint as audience, which a provider that insists on it gets by its declaration.
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
    signing_input = ".".join(
        encode_b64url(json.dumps(part, separators=(",", ":")).encode("ascii")) for part in (header, claims)
    )
    return f"{signing_input}.{encode_b64url(key.sign(alg, signing_input.encode('ascii')))}"


def build_client_request(
    *,
    operation: str,
    url: str,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    parameters: Mapping[str, str],
    freshness: AssertionFreshness,
) -> TransportRequest:
    """Return a POST of parameters as a form by the authenticated client. Nothing of them stands in the URL.

    Spec: RFC 6749 2.3.1, 4.1.3, appendix B.
    """
    headers, authenticated = build_client_authentication(
        metadata=metadata, declaration=declaration, parameters=parameters, freshness=freshness
    )
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
    )
