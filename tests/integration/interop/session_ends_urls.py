"""The example portal, and pages that end a session without our logout view."""

from django.contrib import auth
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.support.example_portal_urls import urlpatterns as example


@csrf_exempt
def leave(request: HttpRequest) -> HttpResponse:
    """Sign out with Django's logout function, as a view of a host project does."""
    auth.logout(request)
    return HttpResponse("left")


@csrf_exempt
def flush(request: HttpRequest) -> HttpResponse:
    """Flush the session without signing out."""
    request.session.flush()
    return HttpResponse("flushed")


urlpatterns = [*example, path("leave/", leave), path("flush/", flush)]
