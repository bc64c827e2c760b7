"""Pages that require a stronger or newer sign-in. Each records that it ran."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.generic import View

from django_phi_oidc.access.mixins import AssuranceMixin
from django_phi_oidc.decorators import phi_access, require_assurance
from tests.support.portal_urls import urlpatterns as unguarded

STRONG = "urn:example:loa:3"
RAN: list[str] = []
BODIES: list[str] = []


def _ran(name: str, request: HttpRequest) -> HttpResponse:
    RAN.append(name)
    BODIES.append(request.POST.get("note", ""))
    return HttpResponse(f"{name} ran")


@require_assurance(acr=[STRONG])
def strong(request: HttpRequest) -> HttpResponse:
    return _ran("strong", request)


@require_assurance(vot=["P9.Cp", "P9.Cm"])
def proofed(request: HttpRequest) -> HttpResponse:
    return _ran("proofed", request)


@require_assurance(max_age=timedelta(minutes=5))
def fresh(request: HttpRequest) -> HttpResponse:
    return _ran("fresh", request)


@require_assurance(acr=[STRONG], max_age=timedelta(minutes=5))
async def astrong(request: HttpRequest) -> HttpResponse:
    return _ran("astrong", request)


@require_assurance(acr=["urn:example:loa:2", STRONG], max_age=timedelta(minutes=5))
def either(request: HttpRequest) -> HttpResponse:
    return _ran("either", request)


class Strong(AssuranceMixin, View):
    acr = (STRONG,)

    def get(self, request: HttpRequest) -> HttpResponse:
        return _ran("class", request)


@phi_access(
    purpose="TREAT", resource=lambda request: "Patient/7", permission="auth.view_user", acr=[STRONG], max_age=None
)
def chart(request: HttpRequest) -> HttpResponse:
    return _ran("chart", request)


urlpatterns = [
    path("strong/", strong),
    path("proofed/", proofed),
    path("fresh/", fresh),
    path("astrong/", astrong),
    path("either/", either),
    path("class/", Strong.as_view()),
    path("chart/", chart),
    *unguarded,
]
