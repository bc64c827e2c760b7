"""Settings of whoever seals: a project with one app, and two encryption keys, of which all rows are under the older."""

from tests.benchmarks.audit import settings as of_trail
from tests.settings import key

SECRET_KEY, USE_TZ = of_trail.SECRET_KEY, of_trail.USE_TZ
DEFAULT_AUTO_FIELD = of_trail.DEFAULT_AUTO_FIELD
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "tests.benchmarks.encryption.rows"]
DATABASES = {"default": of_trail.DATABASES["default"]}
PHI_OIDC = {"ENCRYPTION_KEYS": [key("bench encryption key of today"), key("bench encryption key, before")]}
