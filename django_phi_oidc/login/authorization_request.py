"""The browser leaves for the OP, with what must be remembered of it in a cookie. Spec: OIDC Core 3.1.2.1, RFC 7636.

The start of a sign-in: what is asked of the OP, and how it gets there. Spec: OIDC Core 3.1.2, RFC 9126.
"""

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


# A push holds the client's proof and all that the browser is not to carry.
@sensitive_variables()
def prepare_authorization_url(
    authorization_request: AuthorizationRequest,
    *,
    provider: Provider,
    declared_claims: Mapping[str, ClaimDeclaration],
    deadline: float,
    clock: Callable[[], datetime],
) -> str:
    """Return where the browser goes. A request that is pushed has arrived at the OP by then, and is not in the URL.

    deadline: seconds, for each call to the OP. No transaction is open.
    Raises: TransportError, MetadataError, PushedRequestError. Spec: OIDC Core 3.1.2.1; RFC 9126 2, 4.
    """
    declaration = provider.declaration
    metadata = provider.get_metadata(deadline=deadline)
    asked = minimization.build_claims_request(declared_claims, provider_declaration=declaration)
    parameters = build_authorization_parameters(
        metadata=metadata,
        declaration=declaration,
        request=authorization_request,
        scope=asked.scope,
        claims=asked.claims,
    )
    if is_par_enabled(metadata=metadata, declaration=declaration):
        push = build_par_request(
            metadata=metadata,
            declaration=declaration,
            parameters=parameters,
            freshness=AssertionFreshness(now=clock(), jti=randomness.token_b64url(32)),
        )
        parameters = process_par_response(provider.transport.send(push, deadline=deadline), declaration=declaration)
    return build_authorization_url(metadata=metadata, parameters=parameters)


def build_callback_url(request: HttpRequest, provider: str | None) -> str:
    """Return where the browser comes back to. provider: None where the URL names none."""
    kwargs = {"provider": provider} if provider is not None else None
    return request.build_absolute_uri(reverse("oidc_authentication_callback", kwargs=kwargs))


@sensitive_variables()
def redirect_to_provider(
    request: HttpRequest,
    provider: Provider,
    authorization_state: AuthorizationState,
    *,
    declared_claims: Mapping[str, ClaimDeclaration],
) -> HttpResponse:
    """Return the redirect to the OP; the browser remembers what is pending. Raises: SignInRefused."""
    state = randomness.token_b64url(32)
    request_secrets.register_secret(state, "state", location="location")
    url = prepare_authorization_url(
        AuthorizationRequest(
            state=state,
            nonce=authorization_state.nonce,
            code_verifier=authorization_state.code_verifier,
            redirect_uri=authorization_state.redirect_uri,
            prompts_login=bool(authorization_state.session_to_renew),
        ),
        provider=provider,
        declared_claims=declared_claims,
        deadline=PROVIDER_TIMEOUT_SECONDS,
        clock=clock.now,
    )
    response = HttpResponseRedirect(url)
    store_state(response, request, state, authorization_state)
    return set_private_headers(response)
