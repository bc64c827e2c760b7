"""The example portal, and a page for each provider that requires what a step-up there leads to."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_phi_oidc.decorators import require_assurance
from tests.integration.interop.provider_profiles import PROFILES
from tests.support.example_portal_urls import urlpatterns as example


def strong(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f'<body data-user="{request.user.pk}">the strong page')


urlpatterns = [
    *(path(f"portal/strong/{row.slug}/", require_assurance(**row.assurance)(strong)) for row in PROFILES),
    *example,
]
