"""Settings of the tests: a host project with this app only. The keys are for tests."""

import base64
import os
from datetime import timedelta

from tests.support import databases
from tests.support.installed_apps import select_apps
from tests.support.mail_settings import mailer
from tests.support.shifted_clock import shift_clock

# Before anything reads the time. `make test-dates` sets the variable.
shift_clock(os.environ)


def key(text: str) -> str:
    """Return a key of 32 bytes, base64url, that says what it is."""
    return base64.urlsafe_b64encode(text.encode().ljust(32, b".")).decode()


SECRET_KEY = "a key for tests only, long enough to please the deployment checks: 0123456789"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
USE_TZ = True
LANGUAGE_CODE = os.environ.get("PHI_TEST_LANGUAGE") or "en-us"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    *select_apps(os.environ),
]
# The theme has to come before the admin.
INSTALLED_APPS = [*filter(None, [os.environ.get("PHI_TEST_THEME")]), *INSTALLED_APPS]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_phi_oidc.middleware.RevocationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]

DATABASES = databases.declare(os.environ)
DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]

# Messages only wake a sweep; here they go nowhere until a test starts a worker.
CELERY_BROKER_URL = os.environ.get("TEST_BROKER_URL", "memory://")
CELERY_TASK_IGNORE_RESULT = True

PHI_OIDC = {
    "PROVIDERS": {
        "default": {
            "issuer": "https://op.example.test",
            "client_id": "portal",
            "client_secret": "a secret for tests only",
        },
    },
    "CLAIMS": {
        "birthdate": {"purpose": "TREAT", "basis": "identity check at sign-in", "retention": "session"},
        "address": {"purpose": "HOPERAT", "basis": "letters to the patient", "retention": timedelta(days=1)},
    },
    "KEYS": {
        "encryption": [key("test encryption key 2"), key("test encryption key 1")],
        "subject": [key("test subject key 2"), key("test subject key 1")],
        "audit_mac": [key("test audit mac key 2"), key("test audit mac key 1")],
    },
}
globals().update(mailer("smtp", timeout=10))
