"""The portal of the journeys: the app's own URLs, pages that tell who is signed in, and one that opens a claim."""

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie

from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims import disclosure


@ensure_csrf_cookie
@login_required
def who(request: HttpRequest, page: str) -> HttpResponse:
    return HttpResponse(f'<main data-user="{request.user.pk}" data-page="{page}"></main>')


@login_required
def birthdate(request: HttpRequest) -> HttpResponse:
    """Open the person's date of birth; with ?fail=1, write something and fall over after that."""
    value = disclosure.reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")
    if request.GET.get("fail"):
        get_user_model().objects.create_user("of the request that failed")
        raise RuntimeError("after the look")
    return HttpResponse(value)


urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path("birthdate/", birthdate),
    path("portal/<str:page>/", who, name="who"),
]
