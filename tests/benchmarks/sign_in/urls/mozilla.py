"""A portal with mozilla-django-oidc."""

from django.urls import include, path

from .home import urlpatterns as home

urlpatterns = [*home, path("oidc/", include("mozilla_django_oidc.urls"))]
