"""The URLs of a started portal: a page, those of the contender, and the admin if it is installed."""

from importlib import import_module

from django.conf import settings
from django.urls import include, path

from tests.benchmarks.sign_in.urls.home import urlpatterns as home

URLS = {"phi_oidc": "django_phi_oidc.urls", "mozilla": "mozilla_django_oidc.urls", "allauth": "allauth.urls"}

urlpatterns = [*home]
if settings.CONTENDER in URLS:
    urlpatterns += [path("oidc/", include(URLS[settings.CONTENDER]))]
else:
    # What the bare view of the sign-in benchmark imports.
    for name in ("jwt", "urllib3"):
        import_module(name)
if settings.HAS_ADMIN:
    urlpatterns += [path("admin/", import_module("django.contrib.admin").site.urls)]
