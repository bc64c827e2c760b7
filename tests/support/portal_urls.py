"""The test portal: the URLs of the package, pages that show the signed-in user, and a page that reveals a claim."""

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie

from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims import disclosure


@ensure_csrf_cookie
@login_required
def show_user(request: HttpRequest, page: str) -> HttpResponse:
    return HttpResponse(f'<main data-user="{request.user.pk}" data-page="{page}"></main>')


@login_required
def birthdate(request: HttpRequest) -> HttpResponse:
    """Reveal the user's date of birth. With ?fail=1, write to the database and raise."""
    value = disclosure.reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")
    if request.GET.get("fail"):
        get_user_model().objects.create_user("failed-request")
        raise RuntimeError("after the reveal")
    return HttpResponse(value)


urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path("birthdate/", birthdate),
    path("portal/<str:page>/", show_user, name="who"),
]
