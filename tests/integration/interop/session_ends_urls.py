"""The example portal, and pages that lose a session in ways that its own do not."""

from django.contrib import auth
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.support.example_portal_urls import urlpatterns as example


@csrf_exempt
def leave(request: HttpRequest) -> HttpResponse:
    """Sign out as a host's own view does."""
    auth.logout(request)
    return HttpResponse("left")


@csrf_exempt
def flush(request: HttpRequest) -> HttpResponse:
    """Lose the session."""
    request.session.flush()
    return HttpResponse("flushed")


urlpatterns = [*example, path("leave/", leave), path("flush/", flush)]
