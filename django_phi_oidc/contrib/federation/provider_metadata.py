"""The metadata and keys of a provider from its trust chain, in place of discovery. Spec: OpenID
Federation 1.0 5.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime

from ...config.providers import ProviderDeclaration
from ...errors import Code, MetadataError
from ...http.transport import TransportRequest, TransportResponse
from ...oidc.jwks import JSONWebKeySet, parse_jwks
from ...oidc.metadata import (
    MetadataStatement,
    ProviderMetadata,
    create_metadata,
    merge_metadata,
    validate_https_url,
    validate_issuer,
)
from .entity_statement import parse_signed_jwks
from .trust_chain import TrustChain


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChainStatement(MetadataStatement):
    """What a trust chain states about a provider, besides its metadata. Keys for tokens that it
    does not contain are in the signed JWKS, or at jwks_uri.
    """

    federation_keys: JSONWebKeySet = field(repr=False)
    """They sign entity statements and the signed JWKS, and no tokens."""
    signed_jwks_uri: str


def process_trust_chain(chain: TrustChain, *, declaration: ProviderDeclaration) -> ProviderMetadata:
    """Return the resolved metadata of the declared issuer, with support for everything declared.

    Raises: MetadataError; TransportError for an endpoint that is not https.
    Spec: OpenID Federation 1.0 5.1.3, 5.2.1, 12.1.
    """
    members = chain.metadata
    if chain.entity_identifiers[0] != declaration.issuer:
        raise MetadataError(Code.ISSUER_MISMATCH)
    validate_issuer(members, issuer=declaration.issuer)
    registration_types = members.get("client_registration_types_supported", ["automatic"])
    if not isinstance(registration_types, list) or "automatic" not in registration_types:
        raise MetadataError(
            Code.METADATA_INVALID, "The provider does not support automatic registration."
        )
    jwks = members.get("jwks")
    signed_jwks_uri = members.get("signed_jwks_uri", "")
    if not isinstance(signed_jwks_uri, str) or not (
        jwks or signed_jwks_uri or "jwks_uri" in members
    ):
        raise MetadataError(Code.METADATA_INVALID, "The provider publishes no keys.")
    if signed_jwks_uri:
        validate_https_url(signed_jwks_uri, allow_loopback_http=declaration.allow_loopback_http)
    keys = None
    if jwks:
        keys = parse_jwks(json.dumps(jwks).encode())
    return create_metadata(
        merge_metadata(members, oauth_members={}, declaration=declaration),
        declaration=declaration,
        statement=TrustChainStatement(
            expires_at=chain.expires_at,
            federation_keys=chain.federation_keys,
            jwks=keys,
            signed_jwks_uri=signed_jwks_uri,
        ),
    )


def build_signed_jwks_request(url: str) -> TransportRequest:
    """Return the request for the signed JWKS. Spec: OpenID Federation 1.0 5.2.1.1."""
    return TransportRequest(
        method="GET", url=url, headers={"Accept": "application/jwk-set+jwt"}, operation="keys"
    )


def process_signed_jwks_response(
    response: TransportResponse,
    *,
    federation_keys: JSONWebKeySet,
    declaration: ProviderDeclaration,
    now: datetime,
) -> JSONWebKeySet:
    """Return the keys of the provider. Raises: MetadataError. Spec: OpenID Federation 1.0
    5.2.1.1.
    """
    if response.status != 200:
        raise MetadataError(Code.METADATA_INVALID)
    return parse_signed_jwks(
        response.body,
        entity_identifier=declaration.issuer,
        keys=federation_keys,
        now=now,
        leeway=declaration.leeway,
    )
