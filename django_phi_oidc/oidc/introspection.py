"""The OP says whether an access token is alive, for whom and for what. Spec: RFC 7662."""

from datetime import datetime

from ..config.providers import ProviderDeclaration
from ..errors import AccessTokenInvalid, IDTokenError, IntrospectionFailed
from .access_token import BEARER_TOKEN_TYPE, AccessToken, ResourceServer, parse_access_token_claims
from .client_auth import AssertionFreshness, build_client_request
from .id_token import validate_iss
from .metadata import ProviderMetadata
from .transport import TransportRequest, TransportResponse, parse_json_body


def build_introspection_request(
    *, metadata: ProviderMetadata, declaration: ProviderDeclaration, token: str, freshness: AssertionFreshness
) -> TransportRequest:
    """Return the question about token, which stands in the body alone, asked by the authenticated client.

    Raises: IntrospectionFailed when the OP has no introspection endpoint.
    Spec: RFC 7662 2.1.
    """
    if not metadata.introspection_endpoint:
        raise IntrospectionFailed("The OP has no introspection endpoint.")
    return build_client_request(
        operation="introspection",
        url=metadata.introspection_endpoint,
        metadata=metadata,
        declaration=declaration,
        parameters={"token": token, "token_type_hint": "access_token"},
        freshness=freshness,
    )


def process_introspection_response(
    response: TransportResponse, *, resource_server: ResourceServer, now: datetime
) -> AccessToken:
    """Return what the OP says of a token that is alive, and is an access token for this API.

    aud, exp, sub and client_id are optional in an answer; without them a token is refused all the same. iss and
    token_type are judged when they are there.

    Raises: AccessTokenInvalid; IntrospectionFailed, when the answer is none: this client is not accepted, say.
    Spec: RFC 7662 2.2, 2.3.
    """
    members = parse_json_body(response)
    # So some OPs answer an ID Token, and a signed token where they introspect opaque ones alone.
    if response.status == 400 and members is not None and members.get("error") == "unsupported_token_type":
        raise AccessTokenInvalid("token_type_unsupported")
    if response.status != 200 or members is None or not isinstance(members.get("active"), bool):
        raise IntrospectionFailed
    declaration = resource_server.provider
    if not members["active"]:
        raise AccessTokenInvalid("token_inactive")
    token_type = members.get("token_type", BEARER_TOKEN_TYPE)
    if not isinstance(token_type, str) or token_type.lower() != BEARER_TOKEN_TYPE:
        raise AccessTokenInvalid("token_type_unsupported")
    try:
        if "iss" in members:
            validate_iss(members, issuer=declaration.issuer)
        return parse_access_token_claims(members, resource_server=resource_server, now=now)
    except IDTokenError as error:
        raise AccessTokenInvalid(error.code) from error
