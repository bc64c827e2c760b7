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
from django_phi_oidc.audit.purposes import PATIENT_REQUEST
from django_phi_oidc.claims.views import DisplayedClaim, RevealMixin
from django_phi_oidc.config.claims import ClaimDeclaration
from django_phi_oidc.contrib.emergency.queries import can_open
from django_phi_oidc.contrib.individual_rights.accounting import Disclosure
from django_phi_oidc.contrib.individual_rights.views import AccountingMixin

from . import view_models
from .forms import PurposeForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A claim as text. `state` is sealed, opened, absent, erased or broken; `text` is set if it is opened."""

    name: str
    label: str
    basis: str
    purpose: str
    retention: str
    state: str = "sealed"
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureText:
    """A disclosure as text: who did what with which data, and why."""

    at: datetime
    who: str
    did: str
    what: str
    purpose: str
    is_emergency: bool


@login_not_required
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The public page with the sign-in link."""
    return render(request, "portal/home.html", {"keeps": list_kept_claims(conf.claims())})


@login_required
@never_cache
@require_safe
def portal(request: HttpRequest) -> HttpResponse:
    """The first page after the sign-in."""
    return render(request, "portal/portal.html", {"keeps": list_kept_claims(conf.claims())})


@method_decorator([login_required, never_cache], name="dispatch")
class Profile(RevealMixin, TemplateView):
    """Asks for a purpose, then shows the claims for it. Each disclosure is recorded before the claim is shown."""

    template_name = "portal/profile.html"
    form_class = PurposeForm
    initial_purpose = PATIENT_REQUEST

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the details and the purpose as text."""
        context = super().get_context_data(**kwargs)
        context["details"] = [create_detail(claim) for claim in context["claims"]]
        context["said"] = view_models.get_purpose(context["purpose"]) if "purpose" in context else None
        return context

    def render_refused(self, form: Any) -> HttpResponse:
        """Return the page for a purpose without permitted claims."""
        return render(self.request, "portal/refused.html", status=403)

    def render_unavailable(self, form: Any) -> HttpResponse:
        """Return the page for an unavailable audit log."""
        return render(self.request, "portal/unavailable.html", status=503)


class Access(AccountingMixin, TemplateView):
    """Lists who looked at the user's record. Viewing this list is recorded, too."""

    template_name = "portal/access.html"
    page_size = 20

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the disclosures as text."""
        context = super().get_context_data(**kwargs)
        context["looks"] = [
            create_disclosure_text(row.disclosure, who=row.actor_name) for row in context["disclosures"]
        ]
        return context


def create_disclosure_text(disclosure: Disclosure, *, who: str) -> DisclosureText:
    """Return a disclosure as text."""
    return DisclosureText(
        at=disclosure.occurred_at,
        who=who,
        did=view_models.format_action(disclosure.action),
        what=view_models.format_disclosed_data(disclosure.action, disclosure.claims, disclosure.resource),
        purpose=view_models.get_purpose(disclosure.purpose).name,
        is_emergency=bool(disclosure.emergency),
    )


def create_detail(claim: DisplayedClaim) -> Detail:
    """Return a claim as text: its declaration and its state."""
    declared, revealed = claim.declared, claim.revealed
    state = "sealed"
    if revealed is not None and not revealed.is_refused:
        states = {"erased": revealed.is_scrubbed, "broken": revealed.is_undecryptable, "absent": revealed.value is None}
        state = next((name for name, applies in states.items() if applies), "opened")
    return Detail(
        name=declared.name,
        label=view_models.get_label(declared.name),
        basis=declared.basis,
        purpose=view_models.get_purpose(declared.purpose).name,
        retention=view_models.format_retention(declared.retention),
        state=state,
        text=view_models.format_value(revealed.value) if revealed is not None and state == "opened" else "",
    )


def list_kept_claims(claims: Mapping[str, ClaimDeclaration]) -> list[dict[str, str]]:
    """Return label, basis and retention of each declared claim as text."""
    return [
        {
            "label": view_models.get_label(name),
            "basis": claim.basis,
            "retention": view_models.format_retention(claim.retention),
        }
        for name, claim in claims.items()
    ]


@login_not_required
@require_safe
def admin_login(request: HttpRequest) -> HttpResponse:
    """The admin's login page: redirects to the identity provider, or refuses users who are not staff."""
    if request.user.is_authenticated:
        return render(request, "portal/staff_only.html", status=403)
    return redirect_to_login(request.GET.get("next") or reverse("admin:index"), login_url=settings.LOGIN_URL)


@login_not_required
@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200 if both databases are reachable, else 503. The page is public, so it does not name the fault."""
    try:
        for alias in ("default", "phi_audit"):
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT 1")
        text, status = "ok\n", 200
    except DatabaseError:
        text, status = "unavailable\n", 503
    return HttpResponse(text, status=status, content_type="text/plain", headers={"Cache-Control": "no-store"})


@login_not_required
def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page for a failed CSRF check: the form is from another site or too old."""
    return render(request, "portal/form_expired.html", status=403)


@login_not_required
def denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page for a refused request. For a chart, it may link to emergency access."""
    match, emergency = request.resolver_match, ""
    if match and match.url_name == "chart" and can_open(request.user, resource := f"Patient/{match.kwargs['pk']}"):
        emergency = f"{reverse('oidc_emergency')}?{urlencode({'resource': resource, 'next': request.path})}"
    # The refusals of the guards have the id of their event; those of Django have none.
    context = {"emergency": emergency, "reference": getattr(exception, "reference", "")}
    return render(request, "portal/denied.html", context, status=403)


@login_not_required
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page for an unknown URL."""
    return render(request, "portal/not_found.html", status=404)


@login_not_required
def broken(request: HttpRequest) -> HttpResponse:
    """The page for a server error. It uses neither session nor database."""
    return render(request, "portal/broken.html", {"signed_out": True}, status=500)
