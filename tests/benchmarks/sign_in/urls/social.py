"""A portal with social-auth-app-django."""

from django.urls import include, path

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

urlpatterns = [*home, path("", include("social_django.urls", namespace="social"))]
