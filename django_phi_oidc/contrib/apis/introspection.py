"""Introspection of an access token at the provider. Spec: RFC 7662."""

from datetime import datetime
from typing import Unpack

from ...errors import IDTokenError
from ...http.transport import TransportRequest, TransportResponse, parse_json_body
from ...oidc.client_auth import ClientContext, build_client_request
from ...oidc.dpop import DPOP_TOKEN_TYPE
from ...oidc.id_token import validate_iss
from ..common.api_errors import AccessTokenInvalid, IntrospectionFailed
from .access_token import (
    BEARER_TOKEN_TYPE,
    AccessToken,
    ResourceServer,
    parse_access_token_claims,
)


def build_introspection_request(*, token: str, **client: Unpack[ClientContext]) -> TransportRequest:
    """Return the request of the authenticated client, with the token only in the body.

    Raises: IntrospectionFailed if the provider has no introspection endpoint. Spec: RFC 7662 2.1.
    """
    endpoint = client["metadata"].introspection_endpoint
    if not endpoint:
        raise IntrospectionFailed("The provider has no introspection endpoint.")
    parameters = {"token": token, "token_type_hint": "access_token"}
    return build_client_request(
        operation="introspection", url=endpoint, parameters=parameters, **client
    )


def process_introspection_response(
    response: TransportResponse, *, resource_server: ResourceServer, now: datetime
) -> AccessToken:
    """Return an active access token for this API.

    NOT checked: that the presenter has the key that the token is bound to; validate_confirmation
    does that.
    aud, exp, sub and client_id are optional in the specification but required here. iss and
    token_type are checked if present.
    Raises: AccessTokenInvalid; IntrospectionFailed if the response is not one, for example if the
    client is refused.
    Spec: RFC 7662 2.2, 2.3; RFC 9449 6.2.
    """
    members = parse_json_body(response)
    # Some providers return this error for an ID Token, or for a JWT if they only introspect
    # opaque tokens.
    if (
        response.status == 400
        and members is not None
        and members.get("error") == "unsupported_token_type"
    ):
        raise AccessTokenInvalid("token_type_unsupported")
    if response.status != 200 or members is None or not isinstance(members.get("active"), bool):
        raise IntrospectionFailed
    if not members["active"]:
        raise AccessTokenInvalid("token_inactive")
    token_type = members.get("token_type", BEARER_TOKEN_TYPE)
    if not isinstance(token_type, str) or token_type.lower() not in (
        BEARER_TOKEN_TYPE,
        DPOP_TOKEN_TYPE,
    ):
        raise AccessTokenInvalid("token_type_unsupported")
    try:
        if "iss" in members:
            validate_iss(members, issuer=resource_server.provider.issuer)
        access_token = parse_access_token_claims(members, resource_server=resource_server, now=now)
    except IDTokenError as error:
        raise AccessTokenInvalid(error.code) from error
    if token_type.lower() == DPOP_TOKEN_TYPE and "jkt" not in dict(access_token.confirmation):
        # Without the thumbprint, the proof of any key would do.
        raise AccessTokenInvalid("cnf_missing")
    return access_token
