"""The page that every portal in the race has: who is signed in."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def home(request: HttpRequest) -> HttpResponse:
    """Answer the user's primary key, or nothing."""
    return HttpResponse(str(request.user.pk) if request.user.is_authenticated else "")


urlpatterns = [path("home/", home)]
