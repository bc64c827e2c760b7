"""A portal with social-auth-app-django."""

from django.urls import include, path

from .home import urlpatterns as home

urlpatterns = [*home, path("", include("social_django.urls", namespace="social"))]
