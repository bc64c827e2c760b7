"""The URLs of the example portal, and its static files, which WhiteNoise serves otherwise."""

from django.urls import path
from django.views.static import serve
from portal.urls import urlpatterns as example

from tests.support.example_portal import EXAMPLE

urlpatterns = [
    *example,
    path("static/<path:path>", serve, {"document_root": EXAMPLE / "portal" / "static"}),
]
