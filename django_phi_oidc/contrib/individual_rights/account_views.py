"""The pages "Your access": a user's own sessions, who looked at the record, what is held, and a
copy of all data.
"""

import json
import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import TemplateView, View

from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...access.enforcement import enforce_assurance, render_unavailable
from ...access.no_store import add_notice
from ...access.policy import Assurance
from ...access.responses import set_private_headers
from ...audit.request_context import Actor
from ...errors import AuditUnavailable
from .own_account import (
    RECENT_SIGN_IN,
    end_other_sessions,
    export_own_data,
    find_other_session,
    list_held_claims,
    list_own_sessions,
)
from .views import AccountingMixin


@method_decorator([public_view, csrf_protect, sensitive_variables()], name="dispatch")
class _AccountView(View):
    """A page for a user with a session of the provider. Nothing of it is stored by browser or
    cache.
    """

    assurance = Assurance()

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return enforce_assurance(request, self.assurance) or super().dispatch(
            request, *args, **kwargs
        )

    def render_page(self, template: str, context: dict[str, Any]) -> HttpResponse:
        response = set_private_headers(
            render(self.request, f"phi_oidc_individual_rights/{template}.html", context)
        )
        # With `no-referrer` the form would be sent with the origin "null", which Django's CSRF
        # check refuses.
        response["Referrer-Policy"] = "same-origin"
        return response


class AccountView(_AccountView):
    """The overview, with the results of the actions as Django's messages."""

    http_method_names = ("get", "head")

    def get(self, request: HttpRequest) -> HttpResponse:
        actor = Actor.from_request(request)
        context = {
            "sessions": list_own_sessions(actor),
            "claims": list_held_claims(actor.user, now=clock.now()),  # type: ignore[arg-type]  # a user with a session
            "messages": messages.get_messages(request),
        }
        return self.render_page("account", context)


class _ConfirmedView(_AccountView):
    """A page that asks before it acts. A sign-in that is too old leads to the provider, and back to
    the question.
    """

    http_method_names = ("get", "head", "post")
    assurance = RECENT_SIGN_IN

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.render_page(
            "account_confirm", self.get_question(Actor.from_request(request), **kwargs)
        )

    def get_question(self, actor: Actor, **kwargs: Any) -> dict[str, str]:
        """Return `heading`, `text` and `button`. Raises: Http404."""
        raise NotImplementedError


class EndSessionView(_ConfirmedView):
    """End one other session of the user. The id of another person's session is unknown here."""

    def get_question(self, actor: Actor, **kwargs: Any) -> dict[str, str]:
        other = find_other_session(actor, kwargs["session"])
        if other is None:
            raise Http404
        text = _("%(device)s is signed out at once, and has to sign in again.") % {
            "device": other.device
        }
        return {"heading": _("Sign out this device?"), "text": text, "button": _("Sign out")}

    def post(self, request: HttpRequest, session: uuid.UUID) -> HttpResponse:
        if not end_other_sessions(Actor.from_request(request), session_id=session, now=clock.now()):
            raise Http404
        return _redirect_to_account(request, _("The device was signed out."))


class EndOtherSessionsView(_ConfirmedView):
    """End all sessions of the user but that of the request."""

    def get_question(self, actor: Actor, **kwargs: Any) -> dict[str, str]:
        text = _("Every device except this one is signed out at once.")
        return {
            "heading": _("Sign out all other devices?"),
            "text": text,
            "button": _("Sign out all others"),
        }

    def post(self, request: HttpRequest) -> HttpResponse:
        count = end_other_sessions(Actor.from_request(request), now=clock.now())
        text = ngettext(
            "%(count)d device was signed out.", "%(count)d devices were signed out.", count
        )
        return _redirect_to_account(request, text % {"count": count})


class OwnExportView(_ConfirmedView):
    """Download a copy of all data about the user."""

    def get_question(self, actor: Actor, **kwargs: Any) -> dict[str, str]:
        text = _(
            "The file contains everything that this portal's sign-in stores about you, readable "
            "for anyone who opens it. Do not download it on a computer that you share. The "
            "download is recorded."
        )
        return {"heading": _("Download your data?"), "text": text, "button": _("Download")}

    def post(self, request: HttpRequest) -> HttpResponse:
        try:
            exported = export_own_data(Actor.from_request(request), now=clock.now())
        except AuditUnavailable:
            return render_unavailable(request)
        if exported.document["redisclosure_notice"]:
            add_notice(request)
        document = json.dumps(exported.document, indent=2, ensure_ascii=False)
        headers = {"Content-Disposition": 'attachment; filename="my-data.json"'}
        return set_private_headers(
            HttpResponse(document, content_type="application/json", headers=headers)
        )


@method_decorator(public_view, name="dispatch")
class OwnDisclosuresView(AccountingMixin, TemplateView):
    """Who looked at the user's record, when and why."""

    template_name = "phi_oidc_individual_rights/account_disclosures.html"


def _redirect_to_account(request: HttpRequest, message: str) -> HttpResponse:
    # A portal without Django's messages shows none.
    messages.success(request, message, fail_silently=True)
    return set_private_headers(HttpResponseRedirect(reverse("oidc_account")))
