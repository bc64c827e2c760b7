"""The example portal, and pages that require a stronger or newer sign-in."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_phi_oidc.decorators import require_assurance
from tests.support.example_portal_urls import urlpatterns as example


@require_assurance(acr=["strong"])
def strong(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f'<body data-user="{request.user.pk}">the strong page')


@require_assurance(max_age=timedelta(minutes=5))
def fresh(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f'<body data-user="{request.user.pk}">the fresh page')


urlpatterns = [path("portal/strong/", strong), path("portal/fresh/", fresh), *example]
