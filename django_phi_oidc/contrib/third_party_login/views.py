"""Third-party initiated login: another site sends the browser here to begin a sign-in. Spec: OIDC
Core 4.
"""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from ... import conf
from ..._internal.view_decorators import public_view
from ...access.responses import set_private_headers
from ...errors import CallbackError, Code
from ...login.failures import LOGIN_ERRORS, create_sign_in_attempt, render_login_failure
from ...login.provider_selection import build_sign_in_url, parse_local_url
from .declaration import ThirdPartyLoginDeclaration


@method_decorator(
    [public_view, csrf_exempt, xframe_options_deny, sensitive_variables()], name="dispatch"
)
class InitiateLoginView(View):
    """Redirects to the sign-in with the provider that `iss` names, if it has `third_party_login`.

    Nothing of the request is trusted or stored: `iss` must equal a declared issuer,
    `target_link_uri` is checked as `next` is, and `login_hint` is neither read nor forwarded,
    because it may be about a person. The sign-in that follows has its own `state`, and asks before
    it replaces a session. Spec: OIDC Core 4.
    """

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._redirect(
            request, request.GET.getlist("iss"), request.GET.get("target_link_uri", "")
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        return self._redirect(
            request, request.POST.getlist("iss"), request.POST.get("target_link_uri", "")
        )

    def _redirect(
        self, request: HttpRequest, issuers: list[str], target_link_uri: str
    ) -> HttpResponse:
        try:
            provider = _find_provider(issuers)
        except LOGIN_ERRORS as error:
            attempt = create_sign_in_attempt(self, None, stage="request")
            return render_login_failure(request, error, attempt, next_url="")
        # With one provider, the URL without its name: only the redirect URI of that one is
        # registered.
        name = None
        if len(conf.providers()) > 1:
            name = provider

        url = build_sign_in_url(name, next_url=parse_local_url(request, target_link_uri))
        # 303: the browser follows a form with GET.
        return set_private_headers(HttpResponseRedirect(url, status=303))


def _find_provider(issuers: list[str]) -> str:
    """Return the name of the provider. Raises: CallbackError."""
    if len(issuers) != 1:
        raise CallbackError(Code.PARAMETER_REPEATED if issuers else Code.ISS_MISSING)
    for name, declaration in conf.providers().items():
        option = declaration.find_option(ThirdPartyLoginDeclaration)
        is_allowed = option is not None and option.is_allowed
        if is_allowed and declaration.issuer == issuers[0]:
            return name
    raise CallbackError(Code.ISS_MISMATCH)
