"""The browser leaves for the OP, with what must be remembered of it in a cookie. Spec: OIDC Core 3.1.2.1, RFC 7636."""

from collections.abc import Mapping

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from .. import clock, entropy, secrecy
from ..access.answering import private
from ..declarations import ClaimDeclaration
from ..oidc.authorization import AuthorizationRequest
from ..provider.registry import Provider
from .beginning import authorization_url
from .completing import DEADLINE
from .pending import Pending, keep


def callback_url(request: HttpRequest, provider: str | None) -> str:
    """Return where the browser comes back to. provider: None where the URL names none."""
    kwargs = {"provider": provider} if provider is not None else None
    return request.build_absolute_uri(reverse("oidc_authentication_callback", kwargs=kwargs))


@sensitive_variables()
def redirect(
    request: HttpRequest, provider: Provider, pending: Pending, *, declared: Mapping[str, ClaimDeclaration]
) -> HttpResponse:
    """Return the redirect to the OP; the browser remembers what is pending. Raises: SignInRefused."""
    state = entropy.token_b64url(32)
    secrecy.learn(state, "state", place="location")
    url = authorization_url(
        AuthorizationRequest(
            state=state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
            redirect_uri=pending.redirect_uri,
            prompts_login=bool(pending.renews),
        ),
        provider=provider,
        declared=declared,
        deadline=DEADLINE,
        clock=clock.now,
    )
    response = HttpResponseRedirect(url)
    keep(response, request, state, pending)
    return private(response)
