"""A portal with mozilla-django-oidc."""

from django.urls import include, path

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

urlpatterns = [*home, path("oidc/", include("mozilla_django_oidc.urls"))]
