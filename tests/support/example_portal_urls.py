"""The example portal's own routes and pages, and the style sheet that WhiteNoise serves elsewhere."""

from django.urls import path
from django.views.static import serve
from portal.urls import urlpatterns as example

from tests.support.example_portal import EXAMPLE

urlpatterns = [
    *example,
    path("static/<path:path>", serve, {"document_root": EXAMPLE / "portal" / "static"}),
]
