"""The OP says whether an access token is alive, for whom and for what. Spec: RFC 7662."""

from datetime import datetime

from ..declarations import ProviderDeclaration
from ..errors import AccessTokenInvalid, IDTokenError, IntrospectionFailed
from .access_token import BEARER, AccessToken, Addressee, read_claims
from .client_auth import Freshness, build_client_request
from .id_token import check_iss_invalid
from .metadata import ProviderMetadata
from .transport import Request, Response, json_members


def build_introspection_request(
    *, metadata: ProviderMetadata, declaration: ProviderDeclaration, token: str, freshness: Freshness
) -> Request:
    """Return the question about token, which stands in the body alone, asked by the authenticated client.

    Raises: IntrospectionFailed when the OP has no introspection endpoint.
    Spec: RFC 7662 2.1.
    """
    if not metadata.introspection_endpoint:
        raise IntrospectionFailed("The OP has no introspection endpoint.")
    return build_client_request(
        call="introspection",
        url=metadata.introspection_endpoint,
        metadata=metadata,
        declaration=declaration,
        parameters={"token": token, "token_type_hint": "access_token"},
        freshness=freshness,
    )


def judge_introspection_response(response: Response, *, meant: Addressee, now: datetime) -> AccessToken:
    """Return what the OP says of a token that is alive, and is an access token for this API.

    aud, exp, sub and client_id are optional in an answer; without them a token is refused all the same. iss and
    token_type are judged when they are there.

    Raises: AccessTokenInvalid; IntrospectionFailed, when the answer is none: this client is not accepted, say.
    Spec: RFC 7662 2.2, 2.3.
    """
    members = json_members(response)
    # So some OPs answer an ID Token, and a signed token where they introspect opaque ones alone.
    if response.status == 400 and members is not None and members.get("error") == "unsupported_token_type":
        raise AccessTokenInvalid("token_type_unsupported")
    if response.status != 200 or members is None or not isinstance(members.get("active"), bool):
        raise IntrospectionFailed
    declaration = meant.provider
    if not members["active"]:
        raise AccessTokenInvalid("token_inactive")
    token_type = members.get("token_type", BEARER)
    if not isinstance(token_type, str) or token_type.lower() != BEARER:
        raise AccessTokenInvalid("token_type_unsupported")
    try:
        if "iss" in members:
            check_iss_invalid(members, issuer=declaration.issuer)
        return read_claims(members, meant=meant, now=now)
    except IDTokenError as error:
        raise AccessTokenInvalid(error.code) from error
