"""Authorization requests as a JWT that the client signs. Spec: RFC 9101; OIDC Core 6.1; RFC 9126
3.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..config.providers import ProviderDeclaration
from .client_auth import AssertionFreshness, sign_client_jwt

REQUEST_OBJECT_TYP = "oauth-authz-req+jwt"
REQUEST_OBJECT_LIFETIME = timedelta(minutes=5)


def build_signed_parameters(
    parameters: Mapping[str, str],
    *,
    declaration: ProviderDeclaration,
    freshness: AssertionFreshness,
    is_pushed: bool,
) -> dict[str, str]:
    """Return the parameters with which the request is sent: as they are, or as a request object, if
    that is declared.

    is_pushed: only client_id is sent with the object. For a request by the browser, response_type
    and scope are repeated, because Core 6.1 requires them outside of the object, too.
    Spec: RFC 9101 5; RFC 9126 3; Core 6.1.
    """
    if not declaration.request_object_signing_alg:
        return dict(parameters)
    request = create_request_object(parameters, declaration=declaration, freshness=freshness)

    repeated: tuple[str, ...]
    if is_pushed:
        repeated = ("client_id",)
    else:
        repeated = ("client_id", "response_type", "scope")

    return {**{name: parameters[name] for name in repeated}, "request": request}


def create_request_object(
    parameters: Mapping[str, str],
    *,
    declaration: ProviderDeclaration,
    freshness: AssertionFreshness,
) -> str:
    """Return the JWT of all parameters, valid for five minutes and one provider.

    Its typ prevents its use as another JWT of the client. It has no sub: with sub and the provider
    as aud it would be a client assertion. Spec: RFC 9101 4, 10.8; Core 6.1.
    """
    issued_at = int(freshness.now.timestamp())
    claims: dict[str, Any] = {
        **parameters,
        "iss": declaration.client_id,
        "aud": declaration.issuer,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + int(REQUEST_OBJECT_LIFETIME.total_seconds()),
        "jti": freshness.jti,
    }
    # Strings in a query, but a number, an object and an array in JSON (RFC 8485 4).
    claims |= {
        name: json.loads(parameters[name])
        for name in ("max_age", "claims", "vtr")
        if name in parameters
    }
    return sign_client_jwt(
        claims,
        typ=REQUEST_OBJECT_TYP,
        alg=declaration.request_object_signing_alg,
        declaration=declaration,
    )
