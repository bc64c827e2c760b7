"""A portal with django-allauth."""

from django.urls import include, path

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

urlpatterns = [*home, path("accounts/", include("allauth.urls"))]
