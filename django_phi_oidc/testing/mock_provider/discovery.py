"""The metadata document. Spec: OIDC Discovery 3, RFC 8414, RFC 9126 5, RFC 9207 3.

The public keys. Spec: RFC 7517 5, OIDC Core 10.1.1.
"""

from typing import Any, get_args

from ...config.providers import SIGNING_ALGS
from .claims import SCOPES, list_supported_claims
from .messages import ReceivedRequest, Reply
from .registrations import ClientAuthMethod
from .state import ProviderState


def respond_with_keys(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the key set, the keys that sign now first."""
    keys = [key.public_jwk() for key in state.published_keys]
    return Reply(headers={"Cache-Control": "public, max-age=300"}, json={"keys": keys})


_CLIENT_AUTH_ENDPOINTS = ("token", "revocation", "introspection")


def handle_discovery(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return what this provider says it can do; it does all of it, unless the hook has it lie."""
    issuer = state.issuer
    algs = sorted({key.alg for key in state.published_keys})
    auth_methods = list(get_args(ClientAuthMethod))
    return Reply(
        headers={"Cache-Control": "public, max-age=300"},
        json={
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "userinfo_endpoint": f"{issuer}/userinfo",
            "jwks_uri": f"{issuer}/jwks",
            "revocation_endpoint": f"{issuer}/revoke",
            "introspection_endpoint": f"{issuer}/introspect",
            "end_session_endpoint": f"{issuer}/end-session",
            "scopes_supported": list(SCOPES),
            "claims_supported": list_supported_claims(state.accounts.values()),
            "claim_types_supported": ["normal"],
            "claims_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": [state.subject_type],
            "acr_values_supported": sorted(
                {acr for each in state.accounts.values() for acr in (each.acr, each.step_up_acr) if acr}
            ),
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "id_token_signing_alg_values_supported": algs,
            "userinfo_signing_alg_values_supported": algs,
            **{f"{name}_endpoint_auth_methods_supported": auth_methods for name in _CLIENT_AUTH_ENDPOINTS},
            **{
                f"{name}_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGS)
                for name in _CLIENT_AUTH_ENDPOINTS
            },
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
            **_create_par_metadata(state),
        },
    )


def _create_par_metadata(state: ProviderState) -> dict[str, Any]:
    if state.par == "off":
        return {}
    return {
        "pushed_authorization_request_endpoint": f"{state.issuer}/par",
        "require_pushed_authorization_requests": state.par == "required",
    }
