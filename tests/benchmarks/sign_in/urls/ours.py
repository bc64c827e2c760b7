"""A portal with django_phi_oidc."""

from django.urls import include, path

from .home import urlpatterns as home

urlpatterns = [*home, path("oidc/", include("django_phi_oidc.urls"))]
