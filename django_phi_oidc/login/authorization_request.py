"""The authorization request: its URL, and the redirect to the provider. Spec: OIDC Core 3.1.2, RFC 7636, RFC 9126."""

from collections.abc import Callable, Mapping
from datetime import datetime

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from .._internal import clock, randomness, request_secrets
from ..access.responses import set_private_headers
from ..claims import minimization
from ..config.claims import ClaimDeclaration
from ..oidc.authorization import AuthorizationRequest, build_authorization_parameters, build_authorization_url
from ..oidc.client_auth import AssertionFreshness
from ..oidc.pushed_authorization import build_par_request, is_par_enabled, process_par_response
from ..provider.registry import Provider
from .code_exchange import PROVIDER_TIMEOUT_SECONDS
from .state_cookie import AuthorizationState, store_state


# A pushed request contains the client authentication and all that the browser must not see.
@sensitive_variables()
def prepare_authorization_url(
    authorization_request: AuthorizationRequest,
    *,
    provider: Provider,
    declared_claims: Mapping[str, ClaimDeclaration],
    timeout_seconds: float,
    clock: Callable[[], datetime],
) -> str:
    """Return the URL to redirect the browser to, after pushing the request to the provider if PAR is enabled.

    timeout_seconds: for each call to the provider. Requires: no open transaction.
    Raises: TransportError, MetadataError, PushedRequestError. Spec: OIDC Core 3.1.2.1; RFC 9126 2, 4.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(timeout_seconds=timeout_seconds)
    claims_request = minimization.build_claims_request(declared_claims, provider_declaration=declaration)
    parameters = build_authorization_parameters(
        metadata=metadata,
        declaration=declaration,
        request=authorization_request,
        scope=claims_request.scope,
        claims=claims_request.claims,
    )
    if is_par_enabled(metadata=metadata, declaration=declaration):
        freshness = AssertionFreshness(now=clock(), jti=randomness.token_b64url(32))
        par_request = build_par_request(
            metadata=metadata, declaration=declaration, parameters=parameters, freshness=freshness
        )
        response = provider.transport.send(par_request, timeout_seconds=timeout_seconds)
        parameters = process_par_response(response, declaration=declaration)
    return build_authorization_url(metadata=metadata, parameters=parameters)


def build_callback_url(request: HttpRequest, provider: str | None) -> str:
    """Return the redirect_uri. provider: None for the URL without a provider name."""
    kwargs = {"provider": provider} if provider is not None else None
    return request.build_absolute_uri(reverse("oidc_authentication_callback", kwargs=kwargs))


@sensitive_variables()
def redirect_to_provider(
    request: HttpRequest,
    provider: Provider,
    pending: AuthorizationState,
    *,
    declared_claims: Mapping[str, ClaimDeclaration],
) -> HttpResponse:
    """Return the redirect to the provider, which sets the state cookie. Raises: SignInRefused."""
    state = randomness.token_b64url(32)
    request_secrets.register_secret(state, "state", location="location")
    url = prepare_authorization_url(
        AuthorizationRequest(
            state=state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
            redirect_uri=pending.redirect_uri,
            prompts_login=bool(pending.session_to_renew) or pending.reauthenticates,
        ),
        provider=provider,
        declared_claims=declared_claims,
        timeout_seconds=PROVIDER_TIMEOUT_SECONDS,
        clock=clock.now,
    )
    response = HttpResponseRedirect(url)
    store_state(response, request, state, pending)
    return set_private_headers(response)
