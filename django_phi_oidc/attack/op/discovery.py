"""The metadata document. Spec: OIDC Discovery 3, RFC 8414, RFC 9207 3."""

from .claims import SCOPES, supported_claims
from .messages import Reply, Request
from .state import State


def respond(state: State, request: Request) -> Reply:
    """Return what this provider says it can do; it does all of it, unless the hook has it lie."""
    issuer = state.issuer
    auth_methods = ["client_secret_basic", "client_secret_post"]
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
            "claims_supported": supported_claims(state.accounts.values()),
            "claim_types_supported": ["normal"],
            "claims_parameter_supported": True,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": [state.subject_type],
            "acr_values_supported": sorted({account.acr for account in state.accounts.values()}),
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "id_token_signing_alg_values_supported": sorted({key.alg for key in state.published}),
            "token_endpoint_auth_methods_supported": auth_methods,
            "revocation_endpoint_auth_methods_supported": auth_methods,
            "introspection_endpoint_auth_methods_supported": auth_methods,
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
        },
    )
