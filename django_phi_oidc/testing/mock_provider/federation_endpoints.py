"""A federation whose trust anchor is part of the provider, its only member. Spec: OpenID Federation
1.0.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .messages import ReceivedRequest, Reply
from .state import ProviderState

_STATEMENT_LIFETIME = timedelta(days=1)


def create_entity_configuration(
    state: ProviderState, request: ReceivedRequest, *, metadata: Mapping[str, Any]
) -> Reply:
    """Return the provider's statement about itself, with the metadata of discovery. Spec: OpenID
    Federation 1.0 9.2.
    """
    metadata = {**metadata, "client_registration_types_supported": ["automatic"]}
    claims = {
        **_build_statement(state, iss=state.issuer, sub=state.issuer),
        "authority_hints": [state.trust_anchor],
        "metadata": {"openid_provider": metadata},
    }
    return _create_statement_reply(state, request, "entity_configuration", claims)


def handle_anchor_configuration(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the trust anchor's statement about itself. Spec: OpenID Federation 1.0 9.2."""
    claims = {
        **_build_statement(state, iss=state.trust_anchor, sub=state.trust_anchor),
        "metadata": {
            "federation_entity": {"federation_fetch_endpoint": f"{state.trust_anchor}/fetch"}
        },
    }
    return _create_statement_reply(state, request, "anchor_configuration", claims)


def handle_federation_fetch(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the trust anchor's statement about this provider, its only member. Spec: OpenID
    Federation 1.0 8.1.
    """
    if dict(request.query).get("sub") != state.issuer:
        return Reply(status=404, json={"error": "not_found"})
    claims = _build_statement(state, iss=state.trust_anchor, sub=state.issuer)
    return _create_statement_reply(state, request, "subordinate_statement", claims)


def _build_statement(state: ProviderState, *, iss: str, sub: str) -> dict[str, Any]:
    now = state.clock()
    key = state.federation_keys[sub == state.trust_anchor]
    return {
        "iss": iss,
        "sub": sub,
        "iat": int(now.timestamp()),
        "exp": int((now + _STATEMENT_LIFETIME).timestamp()),
        "jwks": {"keys": [key.public_jwk()]},
    }


def _create_statement_reply(
    state: ProviderState, request: ReceivedRequest, stage: str, claims: dict[str, Any]
) -> Reply:
    key = state.federation_keys[claims["iss"] == state.trust_anchor]
    statement = state.sign_claims(stage, request, claims, typ="entity-statement+jwt", key=key)
    return Reply(
        headers={"Content-Type": "application/entity-statement+jwt"}, body=statement.encode()
    )
