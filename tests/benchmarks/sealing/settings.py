"""Settings of whoever seals: a project with one app, and two encryption keys, of which all rows are under the older."""

import os
from typing import Any

import dj_database_url

from tests.settings import key

SECRET_KEY = "a key for benchmarks only, long enough to please everybody: 0123456789"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "tests.benchmarks.sealing.rows"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **dj_database_url.parse(os.environ["BENCH_DATABASE_URL"]),
        "NAME": os.environ["BENCH_DATABASE_NAME"],
        "CONN_MAX_AGE": None,
    }
}
PHI_OIDC = {"ENCRYPTION_KEYS": [key("bench encryption key of today"), key("bench encryption key, before")]}
