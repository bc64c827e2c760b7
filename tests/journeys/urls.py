"""The portal of the journeys: the app's own URLs, and two pages that tell who is signed in."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie


@ensure_csrf_cookie
@login_required
def who(request: HttpRequest, page: str) -> HttpResponse:
    return HttpResponse(f'<main data-user="{request.user.pk}" data-page="{page}"></main>')


urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path("portal/<str:page>/", who, name="who"),
]
