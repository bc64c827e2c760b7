"""The accounts that BREAK_GLASS_ACCOUNTS lists, and the response to one that a view refuses."""

from collections.abc import Collection

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from ...access.responses import (
    get_sign_in_url,
    is_navigation,
    render_problem,
    set_private_headers,
)
from ...audit.request_context import get_reference
from . import conf


class _DeclaredAccounts:
    def list_names(self) -> Collection[str]:
        return conf.break_glass_accounts()

    def render_refusal(
        self, request: HttpRequest, *, code: str, emergency_url: str
    ) -> HttpResponse:
        """Return the page, or the problem document, that says what the account may do."""
        if not is_navigation(request):
            title = "A local account is not admitted here."
            if not emergency_url:
                return render_problem(403, title, code=code)
            return render_problem(403, title, code=code, emergency=emergency_url)
        context = {
            "emergency_url": emergency_url,
            "sign_in_url": get_sign_in_url(),
            "reference": get_reference(request),
        }
        template = "phi_oidc_local_accounts/local_account.html"
        return set_private_headers(render(request, template, context, status=403))


DECLARED_ACCOUNTS = _DeclaredAccounts()
