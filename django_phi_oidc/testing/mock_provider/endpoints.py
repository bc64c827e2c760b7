"""The routing of requests to endpoints, and the metadata document. Every response passes the hook
here.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

from ...config.encryption_algorithms import CONTENT_ENCRYPTION_ALGS, KTY_BY_KEY_MANAGEMENT_ALG
from ...config.signature_algorithms import SIGNATURE_ALGORITHMS
from ...contrib.common.dpop_proofs import ACCEPTED_PROOF_ALGS
from .authorization_endpoints import handle_authorization, handle_par
from .claims import SCOPES, list_supported_claims
from .end_session import handle_end_session
from .event_streams import (
    handle_add_subject,
    handle_event_poll,
    handle_remove_subject,
    handle_stream_status,
    handle_streams,
    handle_transmitter_metadata,
    handle_verification,
)
from .federation_endpoints import (
    create_entity_configuration,
    handle_anchor_configuration,
    handle_federation_fetch,
)
from .messages import ReceivedRequest, Reply, create_exchange, create_logged_request
from .registrations import ClientAuthMethod
from .state import ProviderState
from .token_endpoints import handle_introspection, handle_revocation, handle_token, handle_userinfo

_CACHE_HEADERS = {"Cache-Control": "public, max-age=300"}
_CLIENT_AUTH_ENDPOINTS = ("token", "revocation", "introspection")


def handle_jwks(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the key set, current signing keys first. Spec: RFC 7517 5, OIDC Core 10.1.1."""
    keys = []
    for key in state.published_keys:
        keys.append(key.public_jwk())
    return Reply(headers=dict(_CACHE_HEADERS), json={"keys": keys})


def handle_discovery(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the metadata document. Spec: OIDC Discovery 3, RFC 8414, RFC 9126 5, RFC 9207 3."""
    issuer = state.issuer
    algs = sorted({key.alg for key in state.published_keys})
    acr_values = set()
    for account in state.accounts.values():
        for acr in (account.acr, account.step_up_acr):
            if acr:
                acr_values.add(acr)
    metadata = {
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
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "subject_types_supported": [state.subject_type],
        "acr_values_supported": sorted(acr_values),
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "id_token_signing_alg_values_supported": algs,
        "userinfo_signing_alg_values_supported": algs,
        "id_token_encryption_alg_values_supported": list(KTY_BY_KEY_MANAGEMENT_ALG),
        "id_token_encryption_enc_values_supported": list(CONTENT_ENCRYPTION_ALGS),
        "userinfo_encryption_alg_values_supported": list(KTY_BY_KEY_MANAGEMENT_ALG),
        "userinfo_encryption_enc_values_supported": list(CONTENT_ENCRYPTION_ALGS),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }
    for name in _CLIENT_AUTH_ENDPOINTS:
        metadata[f"{name}_endpoint_auth_methods_supported"] = list(get_args(ClientAuthMethod))
        metadata[f"{name}_endpoint_auth_signing_alg_values_supported"] = list(SIGNATURE_ALGORITHMS)
    if state.par != "off":
        metadata["pushed_authorization_request_endpoint"] = f"{issuer}/par"
        metadata["require_pushed_authorization_requests"] = state.par == "required"
    if state.dpop != "off":
        metadata["dpop_signing_alg_values_supported"] = list(ACCEPTED_PROOF_ALGS)
    return Reply(headers=dict(_CACHE_HEADERS), json=metadata)


def handle_entity_configuration(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the provider's statement about itself. Spec: OpenID Federation 1.0 9.2."""
    return create_entity_configuration(
        state, request, metadata=handle_discovery(state, request).json
    )


class Endpoint(NamedTuple):
    """An endpoint. The hook gets its name."""

    name: str
    handle: Callable[[ProviderState, ReceivedRequest], Reply]
    methods: tuple[str, ...]


ENDPOINTS = {
    "/.well-known/openid-configuration": Endpoint("discovery", handle_discovery, ("GET",)),
    "/.well-known/openid-federation": Endpoint("federation", handle_entity_configuration, ("GET",)),
    "/trust-anchor/.well-known/openid-federation": Endpoint(
        "trust_anchor", handle_anchor_configuration, ("GET",)
    ),
    "/trust-anchor/fetch": Endpoint("federation_fetch", handle_federation_fetch, ("GET",)),
    "/jwks": Endpoint("jwks", handle_jwks, ("GET",)),
    "/par": Endpoint("par", handle_par, ("POST",)),
    "/authorize": Endpoint("authorize", handle_authorization, ("GET", "POST")),
    "/token": Endpoint("token", handle_token, ("POST",)),
    "/userinfo": Endpoint("userinfo", handle_userinfo, ("GET", "POST")),
    "/revoke": Endpoint("revocation", handle_revocation, ("POST",)),
    "/introspect": Endpoint("introspection", handle_introspection, ("POST",)),
    "/.well-known/ssf-configuration": Endpoint(
        "ssf_configuration", handle_transmitter_metadata, ("GET",)
    ),
    "/ssf/streams": Endpoint("ssf_streams", handle_streams, ("GET", "POST", "PATCH", "DELETE")),
    "/ssf/status": Endpoint("ssf_status", handle_stream_status, ("GET", "POST")),
    "/ssf/subjects:add": Endpoint("ssf_add_subject", handle_add_subject, ("POST",)),
    "/ssf/subjects:remove": Endpoint("ssf_remove_subject", handle_remove_subject, ("POST",)),
    "/ssf/verify": Endpoint("ssf_verify", handle_verification, ("POST",)),
    "/ssf/poll": Endpoint("ssf_poll", handle_event_poll, ("POST",)),
    "/end-session": Endpoint("end_session", handle_end_session, ("GET", "POST")),
}


def handle_request(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the reply as the hook leaves it. The request is logged before it is processed."""
    with state.lock:
        state.requests.append(create_logged_request(request))
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None:
        return state.apply_hook("unknown", request, Reply(status=404))
    if request.method not in endpoint.methods:
        reply = Reply(status=405, headers={"Allow": ", ".join(endpoint.methods)})
        return state.apply_hook(endpoint.name, request, reply)
    if state.intercept is not None:
        replacement = state.intercept(endpoint.name, create_exchange(request))
        if replacement is not None:
            return replacement
    return state.apply_hook(endpoint.name, request, endpoint.handle(state, request))


def handle_malformed_request(state: ProviderState, status: int) -> Reply:
    """Return the reply to bytes that are not a valid request."""
    request = ReceivedRequest(method="", path="")
    return state.apply_hook("malformed", request, Reply(status=status))
