"""The example portal's pages and the app's static files, and pages of a host project."""

from pathlib import Path

from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_not_required, login_required
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from django.views.static import serve

import django_phi_oidc
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.decorators import passive
from tests.support.example_portal import EXAMPLE  # noqa: F401 -- the example's packages can be imported
from tests.support.example_portal_urls import urlpatterns as portal

HEAD = "{% load phi_oidc %}<!doctype html><html lang=en><head><title>Chart</title>{% phi_oidc_session %}</head>"
BODY = '<body><h1>Chart of {{ request.user.pk }}</h1><p><input aria-label="Note"></p></body></html>'


def chart(request: HttpRequest) -> HttpResponse:
    """A page without a cache header, so that browsers store it for Back."""
    return HttpResponse(engines["django"].from_string(HEAD + BODY).render({}, request))


def twice(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(HEAD + "{% phi_oidc_session %}" + BODY).render({}, request))


@login_required
def record(request: HttpRequest) -> HttpResponse:
    """A page that reveals a claim by GET, also without a cache header."""
    birthdate = reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")
    template = engines["django"].from_string(HEAD + BODY + "<p>Born on {{ birthdate }}</p>")
    return HttpResponse(template.render({"birthdate": birthdate}, request))


@passive
def board(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(HEAD + BODY).render({}, request))


def enter(request: HttpRequest) -> HttpResponse:
    auth.login(request, get_user_model()._default_manager.get(), backend="django.contrib.auth.backends.ModelBackend")
    return chart(request)


@login_not_required
def elsewhere(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<!doctype html><html lang=en><title>Elsewhere</title><h1>Elsewhere</h1></html>")


STATIC = Path(str(django_phi_oidc.__file__)).parent / "static" / "django_phi_oidc"

urlpatterns = [
    path("static/django_phi_oidc/<path:path>", serve, {"document_root": STATIC}),
    # The test server serves //elsewhere.example/chart/ as this path, as many servers do.
    path("elsewhere.example/chart/", chart),
    *(path(f"{view.__name__}/", view) for view in (chart, record, twice, board, enter, elsewhere)),
    *portal,
]
