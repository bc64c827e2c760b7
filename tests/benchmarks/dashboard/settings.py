"""Settings of whoever looks at a large trail: those of the trail's benchmark, with Django's admin, twice."""

from tests.benchmarks.audit import settings as of_trail
from tests.benchmarks.audit.settings import *  # noqa: F403 -- as Django's own settings are built on
from tests.settings import AUTHENTICATION_BACKENDS, MIDDLEWARE, TEMPLATES

__all__ = ["AUTHENTICATION_BACKENDS", "MIDDLEWARE", "TEMPLATES"]

INSTALLED_APPS = ["django.contrib.admin", "django.contrib.messages", *of_trail.INSTALLED_APPS]
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.benchmarks.dashboard.urls"
STATIC_URL = "static/"
