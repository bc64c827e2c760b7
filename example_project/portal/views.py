"""The pages of the portal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.decorators import login_not_required, login_required
from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe
from django.views.generic import TemplateView

from django_phi_oidc import conf
from django_phi_oidc.access.emergency.queries import can_open
from django_phi_oidc.access.policy import PATIENT_REQUEST
from django_phi_oidc.claims.views import DisplayedClaim, RevealMixin
from django_phi_oidc.config.claims import ClaimDeclaration
from django_phi_oidc.individual_rights.accounting import Disclosure
from django_phi_oidc.individual_rights.views import AccountingMixin

from . import presenting
from .forms import PurposeForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A claim in words. `state` is sealed, opened, absent, erased or broken; `text` is there when it is opened."""

    name: str
    label: str
    basis: str
    purpose: str
    retention: str
    state: str = "sealed"
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """That somebody looked, as a sentence: who did what to which part, and why."""

    at: datetime
    who: str
    did: str
    what: str
    purpose: str
    is_emergency: bool


@login_not_required
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The public page: what this is, and the way in."""
    return render(request, "portal/home.html", {"keeps": keeps(conf.claims())})


@login_required
@never_cache
@require_safe
def portal(request: HttpRequest) -> HttpResponse:
    """The first page of a signed-in person."""
    return render(request, "portal/portal.html", {"keeps": keeps(conf.claims())})


@method_decorator([login_required, never_cache], name="dispatch")
class Profile(RevealMixin, TemplateView):
    """First a purpose, then the claims that may be seen for it; each look is an event before it is a look."""

    template_name = "portal/profile.html"
    form_class = PurposeForm
    initial_purpose = PATIENT_REQUEST

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the details in words, and what they were opened for."""
        context = super().get_context_data(**kwargs)
        context["details"] = [detail(claim) for claim in context["claims"]]
        context["said"] = presenting.purpose(context["purpose"]) if "purpose" in context else None
        return context

    def render_refused(self, form: Any) -> HttpResponse:
        """Return a page of its own for a purpose that nothing may be seen for."""
        return render(self.request, "portal/refused.html", status=403)

    def render_unavailable(self, form: Any) -> HttpResponse:
        """Return a page of its own for when nothing can be recorded."""
        return render(self.request, "portal/unavailable.html", status=503)


class Access(AccountingMixin, TemplateView):
    """Who looked at the record of whoever is signed in; to look at this is an event, too."""

    template_name = "portal/access.html"
    page_size = 20

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the looks in words."""
        context = super().get_context_data(**kwargs)
        context["looks"] = [look(shown.disclosure, who=shown.who) for shown in context["disclosures"]]
        return context


def look(disclosure: Disclosure, *, who: str) -> Look:
    """Return one look in words."""
    return Look(
        at=disclosure.occurred_at,
        who=who,
        did=presenting.did(disclosure.action),
        what=presenting.looked_at(disclosure.action, disclosure.claims, disclosure.resource),
        purpose=presenting.purpose(disclosure.purpose).name,
        is_emergency=bool(disclosure.emergency),
    )


def detail(claim: DisplayedClaim) -> Detail:
    """Return one claim in words: what is declared of it, and what came of it."""
    declared, revealed = claim.declared, claim.revealed
    state = "sealed"
    if revealed is not None and not revealed.is_refused:
        kinds = {"erased": revealed.is_scrubbed, "broken": revealed.is_undecryptable, "absent": revealed.value is None}
        state = next((kind for kind, holds in kinds.items() if holds), "opened")
    return Detail(
        name=declared.name,
        label=presenting.label(declared.name),
        basis=declared.basis,
        purpose=presenting.purpose(declared.purpose).name,
        retention=presenting.retention(declared.retention),
        state=state,
        text=presenting.text(revealed.value) if revealed is not None and state == "opened" else "",
    )


def keeps(declared: Mapping[str, ClaimDeclaration]) -> list[dict[str, str]]:
    """Return in words what is kept, why, and for how long."""
    return [
        {
            "label": presenting.label(name),
            "basis": claim.basis,
            "retention": presenting.retention(claim.retention),
        }
        for name, claim in declared.items()
    ]


@login_not_required
@require_safe
def admin_login(request: HttpRequest) -> HttpResponse:
    """The admin's way in: the identity provider, and for somebody who is no member of staff a plain no."""
    if request.user.is_authenticated:
        return render(request, "portal/staff_only.html", status=403)
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"), login_url=settings.LOGIN_URL)


@login_not_required
@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """200 while both databases answer, else 503. Names no fault: anybody may ask."""
    try:
        for alias in ("default", "phi_audit"):
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT 1")
    except DatabaseError:
        return HttpResponse(
            "unavailable\n", status=503, content_type="text/plain", headers={"Cache-Control": "no-store"}
        )
    return HttpResponse("ok\n", content_type="text/plain", headers={"Cache-Control": "no-store"})


@login_not_required
def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """What a form gets that did not come from a page of ours, or came too late."""
    return render(request, "portal/form_expired.html", status=403)


@login_not_required
def denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What somebody gets who asks for what is not theirs to see: of a chart, with the way to break the glass."""
    match, emergency = request.resolver_match, ""
    if match and match.url_name == "chart" and can_open(request.user, resource := f"Patient/{match.kwargs['pk']}"):
        emergency = f"{reverse('oidc_emergency')}?{urlencode({'resource': resource, 'next': request.path})}"
    return render(request, "portal/denied.html", {"emergency": emergency}, status=403)


@login_not_required
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What an address gets that is none."""
    return render(request, "portal/not_found.html", status=404)


@login_not_required
def broken(request: HttpRequest) -> HttpResponse:
    """What a fault of ours gets. Asks neither session nor database."""
    return render(request, "portal/broken.html", {"signed_out": True}, status=500)
