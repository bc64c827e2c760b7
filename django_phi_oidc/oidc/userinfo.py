"""Claims from the UserInfo endpoint, unsigned or signed (R7). Spec: OIDC Core 5.3."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..config.providers import ProviderDeclaration
from ..errors import Code, IDTokenError, UserInfoError
from ..http.transport import TransportRequest, TransportResponse, get_media_type, parse_json_body
from .id_token import (
    validate_alg,
    validate_aud,
    validate_exp,
    validate_iss,
    validate_nbf,
    validate_signature,
)
from .jose import parse_compact_jws
from .jwe import get_signed_token
from .jwks import KeySet
from .metadata import ProviderMetadata
from .token import TokenType


def build_userinfo_request(
    *,
    metadata: ProviderMetadata,
    declaration: ProviderDeclaration,
    access_token: str,
    token_type: TokenType = "Bearer",
) -> TransportRequest:
    """Return the request, with the access token in the header. Spec: Core 5.3.1, RFC 6750 2.1, RFC
    8705 3,
    RFC 9449 7.1.

    Requires: a proof is added for a token of type DPoP. Raises: UserInfoError if the provider has
    no UserInfo endpoint.
    """
    if not metadata.userinfo_endpoint:
        raise UserInfoError(Code.USERINFO_INVALID, "The provider has no UserInfo endpoint.")

    if declaration.userinfo_signed_response_alg:
        accepted = "application/jwt"
    else:
        accepted = "application/json"

    headers = {"Accept": accepted, "Authorization": f"{token_type} {access_token}"}
    return TransportRequest(
        method="GET",
        url=metadata.userinfo_endpoint,
        headers=headers,
        operation="userinfo",
        presents_certificate=True,
    )


def process_userinfo_response(
    response: TransportResponse,
    *,
    expected_sub: str,
    keys: KeySet,
    declaration: ProviderDeclaration,
    now: datetime,
) -> Mapping[str, Any]:
    """Return the claims of the person with expected_sub, the sub of the verified ID Token.

    NOT checked: types and values of the claims. Spec: Core 5.3.2, 5.3.4.
    Raises: UserInfoError; for a signed response also what keys raises (KeyNotFound, TransportError,
    MetadataError).
    """
    if response.status == 200 and get_media_type(response) == "application/jwt":
        claims = verify_signed_userinfo(response, keys=keys, declaration=declaration, now=now)
    else:
        claims = parse_unsigned_userinfo(response, declaration=declaration)
    validate_userinfo_sub(claims, expected_sub=expected_sub)
    return claims


def parse_unsigned_userinfo(
    response: TransportResponse, *, declaration: ProviderDeclaration
) -> Mapping[str, Any]:
    """`userinfo_invalid`: the response is 200 with a JSON object, and need not be signed. Spec:
    Core 5.3.2.
    """
    if declaration.userinfo_signed_response_alg:
        members = None
    else:
        members = parse_json_body(response)

    if response.status != 200 or get_media_type(response) != "application/json" or members is None:
        raise UserInfoError(Code.USERINFO_INVALID)
    return members


def verify_signed_userinfo(
    response: TransportResponse, *, keys: KeySet, declaration: ProviderDeclaration, now: datetime
) -> Mapping[str, Any]:
    """`userinfo_invalid`: the response is a JWS of at most 64 KiB that the issuer signed for this
    client.

    It must be encrypted if that is declared. iss and aud are checked as in an ID Token, exp and nbf
    if present, also if no signature was declared. Spec: Core 5.3.2, 5.3.4 (2, 4).
    """
    failed_rule = ""
    try:
        token = response.body.decode("ascii", errors="replace")
        jws = parse_compact_jws(get_signed_token(token, encryption=declaration.userinfo_encryption))
        validate_alg(
            jws,
            allowed=declaration.userinfo_signed_response_alg
            or declaration.id_token_signed_response_alg,
        )
        validate_signature(jws, keys=keys)
        claims = jws.payload
        validate_iss(claims, issuer=declaration.issuer)
        validate_aud(
            claims, client_id=declaration.client_id, trusted_audiences=declaration.trusted_audiences
        )
        if "exp" in claims:
            validate_exp(claims, now=now, leeway=declaration.leeway)
        validate_nbf(claims, now=now, leeway=declaration.leeway)
    except IDTokenError as error:
        failed_rule = error.code
    if failed_rule:
        message = f"The signed UserInfo response failed a check of ID Tokens: {failed_rule}."
        raise UserInfoError(Code.USERINFO_INVALID, message)
    return claims


def validate_userinfo_sub(claims: Mapping[str, Any], *, expected_sub: str) -> None:
    """`userinfo_sub_mismatch`: sub is that of the ID Token. Spec: Core 5.3.2 (token
    substitution).
    """
    claimed = claims.get("sub")
    if not isinstance(claimed, str) or not hmac.compare_digest(
        claimed.encode(), expected_sub.encode()
    ):
        raise UserInfoError(Code.USERINFO_SUB_MISMATCH)
