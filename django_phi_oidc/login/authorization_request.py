"""The authorization request: its URL, and the redirect to the provider. Spec: OIDC Core 3.1.2, RFC
7636, RFC 9126.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from .._internal import clock, randomness, request_secrets
from ..access.responses import set_private_headers
from ..claims import minimization
from ..config.claims import ClaimDeclaration
from ..http.transport import TransportRequest
from ..oidc.authorization import (
    AuthorizationRequest,
    build_authorization_parameters,
    build_authorization_url,
)
from ..oidc.client_auth import AssertionFreshness
from ..oidc.dpop import SEED_BYTES, ProofKey, create_proof_key, is_dpop_enabled
from ..oidc.pushed_authorization import build_par_request, is_par_enabled, process_par_response
from ..oidc.request_object import build_signed_parameters
from ..provider.dpop_requests import send_with_proof
from ..provider.registry import Provider
from .code_exchange import PROVIDER_TIMEOUT_SECONDS
from .state_cookie import AuthorizationState, store_state


# A pushed request contains the client authentication and all that the browser must not see.
@sensitive_variables()
def prepare_authorization_url(
    authorization_request: AuthorizationRequest,
    *,
    provider: Provider,
    proof_key: ProofKey | None = None,
    declared_claims: Mapping[str, ClaimDeclaration],
    transient_claims: Collection[str] = (),
    timeout_seconds: float,
    clock: Callable[[], datetime],
) -> str:
    """Return the URL to redirect the browser to, after pushing the request to the provider if PAR
    is enabled.

    proof_key: the key that the code will be bound to. timeout_seconds: for each call to the
    provider.
    Requires: no open transaction.
    Raises: TransportError, MetadataError, PushedRequestError. Spec: OIDC Core 3.1.2.1; RFC 9101 5;
    RFC 9126 2, 4; RFC 9449 10.1.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
    claims_request = minimization.build_claims_request(
        declared_claims, provider_declaration=declaration, transient_claims=transient_claims
    )
    parameters = build_authorization_parameters(
        metadata=metadata,
        declaration=declaration,
        request=replace(authorization_request, dpop_jkt=proof_key.thumbprint if proof_key else ""),
        scope=claims_request.scope,
        claims=claims_request.claims,
    )
    is_pushed = is_par_enabled(metadata=metadata, declaration=declaration)

    def sign_parameters() -> dict[str, str]:
        freshness = AssertionFreshness(now=clock(), jti=randomness.token_b64url(32))
        return build_signed_parameters(
            parameters, declaration=declaration, freshness=freshness, is_pushed=is_pushed
        )

    if not is_pushed:
        return build_authorization_url(metadata=metadata, parameters=sign_parameters())

    def build_request() -> TransportRequest:
        freshness = AssertionFreshness(now=clock(), jti=randomness.token_b64url(32))
        return build_par_request(
            metadata=metadata,
            declaration=declaration,
            parameters=sign_parameters(),
            freshness=freshness,
        )

    response = send_with_proof(
        build_request,
        transport=provider.transport,
        key=proof_key,
        clock=clock,
        timeout_seconds=timeout_seconds,
    )
    pushed = process_par_response(response, declaration=declaration)
    return build_authorization_url(metadata=metadata, parameters=pushed)


def build_callback_url(request: HttpRequest, provider: str | None) -> str:
    """Return the redirect_uri. provider: None for the URL without a provider name."""
    kwargs = None
    if provider is not None:
        kwargs = {"provider": provider}
    return request.build_absolute_uri(reverse("oidc_authentication_callback", kwargs=kwargs))


@sensitive_variables()
def redirect_to_provider(
    request: HttpRequest,
    provider: Provider,
    pending: AuthorizationState,
    *,
    declared_claims: Mapping[str, ClaimDeclaration],
    transient_claims: Collection[str] = (),
) -> HttpResponse:
    """Return the redirect to the provider, which sets the state cookie.

    `prompt=login` is not sent to a provider that refuses it (`reauthentication: "never"`): what the
    ID Token must contain is verified all the same. Raises: SignInRefused.
    """
    state = randomness.token_b64url(32)
    request_secrets.register_secret(state, "state", location="location")
    proof_key = None
    metadata = provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
    if is_dpop_enabled(metadata=metadata, declaration=provider.declaration):
        pending = replace(pending, dpop_seed=randomness.token_b64url(SEED_BYTES))
        request_secrets.register_secret(pending.dpop_seed, "dpop_seed")
        proof_key = create_proof_key(pending.dpop_seed)
    is_prompt_accepted = provider.declaration.reauthentication != "never"
    url = prepare_authorization_url(
        AuthorizationRequest(
            state=state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
            redirect_uri=pending.redirect_uri,
            prompts_login=is_prompt_accepted
            and bool(pending.session_to_renew or pending.reauthenticates),
        ),
        provider=provider,
        proof_key=proof_key,
        declared_claims=declared_claims,
        transient_claims=transient_claims,
        timeout_seconds=PROVIDER_TIMEOUT_SECONDS,
        clock=clock.now,
    )
    response = HttpResponseRedirect(url)
    store_state(response, request, state, pending)
    return set_private_headers(response)
