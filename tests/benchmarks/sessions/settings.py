"""Settings of the middleware benchmark: sessions in memory, so that little else is measured.

Those of the page benchmark, which names a database, differ: database sessions on PostgreSQL.
"""

import os
from importlib.util import find_spec
from typing import Any

import dj_database_url

from tests.settings import DEFAULT_AUTO_FIELD, PHI_OIDC, SECRET_KEY, USE_TZ

__all__ = ["DEFAULT_AUTO_FIELD", "PHI_OIDC", "SECRET_KEY", "USE_TZ"]

DEBUG = False
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.benchmarks.sessions.middleware_stacks"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_phi_oidc",
    "django_phi_oidc.audit",
    *(["auditlog"] if find_spec("auditlog") else []),
]
MIDDLEWARE: list[str] = []
"""Set by each stack."""
# In memory, and shared by the threads of the process.
DATABASES: dict[str, dict[str, Any]] = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"file:{name}?mode=memory&cache=shared"}
    for name in ("default", "phi_audit")
}
DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
AUTHENTICATION_BACKENDS = [
    "django_phi_oidc.backends.OIDCAuthenticationBackend",
    "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
]
# Required by the middleware of mozilla-django-oidc.
OIDC_OP_AUTHORIZATION_ENDPOINT = "https://op.example.test/authorize"
OIDC_OP_TOKEN_ENDPOINT = "https://op.example.test/token"
OIDC_OP_USER_ENDPOINT = "https://op.example.test/userinfo"
OIDC_RP_CLIENT_ID = "portal"
OIDC_RP_CLIENT_SECRET = "a secret for benchmarks only"
OIDC_RP_SIGN_ALGO = "RS256"
OIDC_OP_JWKS_ENDPOINT = "https://op.example.test/jwks"
if url := os.environ.get("BENCH_DATABASE_URL"):
    DATABASES["default"] = {
        **dj_database_url.parse(url),
        "NAME": os.environ["BENCH_DATABASE_NAME"],
        "CONN_MAX_AGE": None,
    }
    DATABASES["phi_audit"] = {**DATABASES["default"]}
    SESSION_ENGINE = "django.contrib.sessions.backends.db"
    AUTHENTICATION_BACKENDS = [*AUTHENTICATION_BACKENDS, "django.contrib.auth.backends.ModelBackend"]
    ROOT_URLCONF = "tests.benchmarks.sessions.page_stacks"
    TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
