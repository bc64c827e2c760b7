"""The pages of the portal."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.decorators import login_not_required, login_required
from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_safe

from django_phi_oidc import conf
from django_phi_oidc.access.policy import PATIENT_REQUEST
from django_phi_oidc.audit.request import Actor
from django_phi_oidc.claims import reveal
from django_phi_oidc.declarations import ClaimDeclaration
from django_phi_oidc.errors import AuditUnavailable, ClaimScrubbed, RevealRefused

from . import presenting


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A claim as the page shows it."""

    name: str
    label: str
    text: str = ""
    erased: bool = False


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


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """First a purpose, then the claims that may be seen for it; each look is an event before it is a look."""
    declared = conf.claims()
    context = {"purposes": presenting.choices(declared), "chosen": PATIENT_REQUEST, "keeps": keeps(declared)}
    if request.method != "POST":
        return render(request, "portal/profile.html", context)
    purpose = request.POST.get("purpose", "")
    if not purpose:
        return render(request, "portal/profile.html", {**context, "fault": "Choose a purpose first."}, status=400)
    try:
        shown = see(request, declared, purpose=purpose)
    except RevealRefused:
        return render(request, "portal/refused.html", status=403)
    except AuditUnavailable:
        return render(request, "portal/unavailable.html", status=503)
    said = presenting.purpose(purpose)
    return render(request, "portal/profile.html", {**context, "chosen": purpose, "said": said, "shown": shown})


def see(request: HttpRequest, declared: Mapping[str, ClaimDeclaration], *, purpose: str) -> list[Shown]:
    """Return the person's claims that are kept for that purpose; all of them on the person's own request.

    For a purpose that none is kept for, the app is asked all the same: the refusal belongs in the trail.

    Raises: RevealRefused, AuditUnavailable.
    """
    kept = {name: claim for name, claim in declared.items() if claim.retention is not None}
    fitting = [name for name, claim in kept.items() if purpose in {claim.purpose, PATIENT_REQUEST}]
    actor = Actor.from_request(request)
    return [shown(actor, request.user, name, purpose=purpose) for name in fitting or kept]


def shown(actor: Actor, user: object, name: str, *, purpose: str) -> Shown:
    """Return one claim, opened for that purpose, or as erased."""
    label = presenting.label(name)
    try:
        value = reveal(actor, user, name, purpose=purpose)
    except ClaimScrubbed:
        return Shown(name=name, label=label, erased=True)
    return Shown(name=name, label=label, text="" if value is None else presenting.text(value))


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
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What an address gets that is none."""
    return render(request, "portal/not_found.html", status=404)


@login_not_required
def broken(request: HttpRequest) -> HttpResponse:
    """What a fault of ours gets. Asks neither session nor database."""
    return render(request, "portal/broken.html", {"signed_out": True}, status=500)
