"""The page of every measured portal: the signed-in user."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def home(request: HttpRequest) -> HttpResponse:
    """Return the primary key of the user, or nothing."""
    return HttpResponse(str(request.user.pk) if request.user.is_authenticated else "")


urlpatterns = [path("home/", home)]
