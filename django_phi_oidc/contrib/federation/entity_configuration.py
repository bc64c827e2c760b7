"""The entity configuration of the portal: what it states about itself. Spec: OpenID Federation 1.0
3, 5.1.2, 9.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ...config.providers import ProviderDeclaration
from ...oidc.client_auth import create_jws
from ..common.registration import ClientURLs, build_client_metadata
from .declaration import FederationDeclaration
from .entity_statement import ENTITY_STATEMENT_TYP, FEDERATION_ENTITY, OPENID_RELYING_PARTY

ENTITY_CONFIGURATION_LIFETIME = timedelta(days=1)
LOGOUT_SUPPORT = {
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
}
"""One configuration is for all providers, so the logout URL is always in it."""


def build_relying_party_metadata(
    declaration: ProviderDeclaration,
    federation: FederationDeclaration,
    *,
    client_urls: ClientURLs,
    redirect_uris: Sequence[str],
    keys: Sequence[Mapping[str, Any]],
    scope: str,
) -> dict[str, Any]:
    """Return the metadata of the portal as a relying party.

    redirect_uris: for all providers and hosts. keys: the public client keys, which are published by
    value: so the superior or the provider can see them without a further request. Spec: OpenID
    Federation 1.0 5.1.2, 5.2.1.
    """
    members = build_client_metadata(
        declaration,
        client_urls=client_urls,
        provider_metadata=LOGOUT_SUPPORT,
        id_token_alg=declaration.id_token_signed_response_alg[0],
    )
    members.pop("jwks_uri", None)
    members |= {
        "redirect_uris": list(redirect_uris),
        "client_registration_types": ["automatic"],
        "jwks": {"keys": list(keys)},
        # Italy's federation requires it.
        "client_id": declaration.client_id,
    }
    if scope != "openid":
        # All relying parties have `openid`. Software of Italy's federation cannot apply its
        # policies to a string.
        members["scope"] = scope
    if declaration.acr_values:
        members["default_acr_values"] = list(declaration.acr_values)
    if federation.organization_name:
        members["client_name"] = federation.organization_name
    return {**members, **_build_informational_metadata(federation)}


def create_entity_configuration(
    entity_identifier: str,
    federation: FederationDeclaration,
    *,
    metadata: Mapping[str, Any],
    now: datetime,
) -> str:
    """Return the signed statement, valid for a day. metadata: of the portal as a relying party.

    Spec: OpenID Federation 1.0 3.1, 9.2; 12.1.
    """
    key = federation.keys[0]
    issued_at = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": entity_identifier,
        "sub": entity_identifier,
        "iat": issued_at,
        "exp": issued_at + int(ENTITY_CONFIGURATION_LIFETIME.total_seconds()),
        "jwks": {"keys": [key.build_public_jwk(key.list_algs()[0]) for key in federation.keys]},
        "authority_hints": list(federation.authority_hints),
        "metadata": {
            FEDERATION_ENTITY: _build_informational_metadata(federation),
            OPENID_RELYING_PARTY: dict(metadata),
        },
    }
    if federation.trust_marks:
        claims["trust_marks"] = [dict(mark) for mark in federation.trust_marks]
    return create_jws(
        {"alg": key.list_algs()[0], "typ": ENTITY_STATEMENT_TYP, "kid": key.kid}, claims, key=key
    )


def _build_informational_metadata(federation: FederationDeclaration) -> dict[str, Any]:
    """Spec: OpenID Federation 1.0 5.2.2."""
    members = {
        "organization_name": federation.organization_name,
        "contacts": list(federation.contacts),
    }
    informational_metadata = {}
    for name, value in members.items():
        if value:
            informational_metadata[name] = value
    return informational_metadata
