"""Consent to a sign-in that would replace a live session: any site can send a browser to the
sign-in URL.
"""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.http import urlencode

from ..access.responses import set_private_headers
from .provider_selection import is_login_prompt_requested
from .redirect_url import get_landing_url

CONSENT_PARAMETER = "replace"
_SALT = "django_phi_oidc.login.replacement"


def needs_consent(request: HttpRequest) -> bool:
    """Say whether a user is signed in, and the URL is not that of the link on our page for this
    session.
    """
    if not request.user.is_authenticated:
        return False
    return not constant_time_compare(
        request.GET.get(CONSENT_PARAMETER, ""), _create_consent(request)
    )


def render_consent_page(request: HttpRequest, *, next_url: str) -> HttpResponse:
    """Return the page that asks whether to sign in again. Nothing changes until the person follows
    its link.

    A link instead of a form, because `form-action` of the project's policy would have to name the
    provider.
    """
    query = {}
    if next_url:
        query["next"] = next_url
    if is_login_prompt_requested(request):
        query["prompt"] = "login"
    query[CONSENT_PARAMETER] = _create_consent(request)

    context = {
        "sign_in_url": f"{request.path}?{urlencode(query)}",
        "continue_url": next_url or get_landing_url(),
    }
    response = set_private_headers(render(request, "django_phi_oidc/replace_session.html", context))
    # Another site must not show the link in a frame of its own page.
    response["X-Frame-Options"] = "DENY"
    return response


def _create_consent(request: HttpRequest) -> str:
    """Return a value that only pages of this session know."""
    return salted_hmac(_SALT, str(request.session.session_key), algorithm="sha256").hexdigest()
