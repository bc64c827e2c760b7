"""A portal with django_phi_oidc, to which the provider encrypts ID Tokens."""

from django.urls import include, path

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

urlpatterns = [*home, path("oidc/", include("django_phi_oidc.urls"))]
