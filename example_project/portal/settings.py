"""The portal's settings, from environment variables. The table is in README.md next to manage.py."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import django

from django_phi_oidc.schedule import beat_schedule

from . import secretfiles, stores
from .environment import Environment

env = Environment(os.environ)
DEBUG = env.flag("DJANGO_DEBUG")

VAR = Path(env.text("PORTAL_VAR_DIR", str(Path(__file__).resolve().parent.parent / "var")))
VAR.mkdir(mode=0o700, parents=True, exist_ok=True)
KEY_FILES = VAR / "keys"
SECRET_KEY_FILE = KEY_FILES / "django-secret-key"
CLIENT_SECRET_FILE = KEY_FILES / "oidc-client-secret"

if DEBUG:
    SECRET_KEY = env.text("DJANGO_SECRET_KEY") or secretfiles.read(SECRET_KEY_FILE)
    ALLOWED_HOSTS = env.items("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
else:
    SECRET_KEY = env.required("DJANGO_SECRET_KEY")
    env.required("DJANGO_ALLOWED_HOSTS")
    ALLOWED_HOSTS = env.items("DJANGO_ALLOWED_HOSTS")


def key_ring(name: str, file: str) -> list[str] | Path:
    """Return the keys in the variable, newest first. With DEBUG, the default is the file that `migrate` creates."""
    if DEBUG and not env.text(name):
        return KEY_FILES / file
    env.required(name)
    return env.items(name)


def timeout(name: str, default: int) -> timedelta:
    """Return the duration in the variable; `manage.py check` reports 0 as an error."""
    seconds = env.seconds(name)
    return timedelta(seconds=default if seconds is None else seconds)


def signing_key() -> Path | None:
    """Return the file of the key that signs the audit log; in production only where the variable is set."""
    path = env.text("PHI_AUDIT_SIGNING_KEY")
    return Path(path) if path else KEY_FILES / "audit-signing-key.pem" if DEBUG else None


def emergency_spool() -> Path | None:
    """Return the file for emergency events during an outage of the audit log; in production only with the variable."""
    path = env.text("PHI_EMERGENCY_SPOOL")
    return Path(path) if path else VAR / "emergency.spool" if DEBUG else None


def client_authentication() -> dict[str, Any]:
    """Return the client authentication: the secret, or the keys for private_key_jwt."""
    method = env.text("OIDC_TOKEN_AUTH_METHOD", "client_secret_basic")
    if method == "private_key_jwt":
        return {
            "token_endpoint_auth_method": method,
            "client_keys": [Path(path) for path in env.items("OIDC_CLIENT_KEY")],
        }
    secret = env.text("OIDC_CLIENT_SECRET") or (secretfiles.read(CLIENT_SECRET_FILE) if DEBUG else "")
    return {"token_endpoint_auth_method": method, "client_secret": secret}


def default_provider() -> dict[str, Any]:
    """Return the provider declaration from the OIDC_* variables. Options without a variable keep their defaults."""
    if DEBUG:
        issuer = env.text("OIDC_ISSUER", "http://127.0.0.1:8765")
        client_id = env.text("OIDC_CLIENT_ID", "phi-portal")
    else:
        issuer, client_id = env.required("OIDC_ISSUER"), env.required("OIDC_CLIENT_ID")
    options = {
        "label": env.text("OIDC_LABEL"),
        "profile": env.text("OIDC_PROFILE"),
        "par": env.text("OIDC_PAR"),
        "id_token_signed_response_alg": env.items("OIDC_SIGNING_ALGS"),
        "subject_type": env.text("OIDC_SUBJECT_TYPE"),
        "acr_values": env.items("OIDC_ACR_VALUES"),
        "ca_bundle": env.text("OIDC_CA_BUNDLE"),
        "max_access_token_lifetime": env.seconds("OIDC_MAX_ACCESS_TOKEN_LIFETIME"),
        "revocation": env.text("OIDC_REVOCATION"),
        "trusted_audiences": env.items("OIDC_TRUSTED_AUDIENCES"),
        "provisioning": env.text("OIDC_PROVISIONING"),
        # {"subject": "extension"} needs the package scim2-models.
        "scim": env.json("OIDC_SCIM_JSON", None),
    }
    return {
        "issuer": issuer,
        "client_id": client_id,
        **client_authentication(),
        "allow_loopback_http": env.flag("OIDC_ALLOW_LOOPBACK_HTTP", default=DEBUG),
        "max_age": env.seconds("OIDC_MAX_AGE"),
        **{name: value for name, value in options.items() if value not in ("", [], None)},
    }


PHI_OIDC = {
    "PROVIDERS": {"default": default_provider(), **env.json("OIDC_PROVIDERS_JSON", {})},
    "CLAIMS": env.json(
        "PHI_CLAIMS_JSON",
        {
            "birthdate": {"purpose": "TREAT", "basis": "identity check before treatment", "retention": "session"},
            "address": {"purpose": "HOPERAT", "basis": "appointment letters", "retention": 24 * 60 * 60},
            "roles": {"purpose": "HOPERAT", "basis": "who works here, and as what", "retention": None},
        },
    ),
    "KEYS": {
        "encryption": key_ring("PHI_ENCRYPTION_KEYS", "encryption-keys"),
        "subject": key_ring("PHI_SUBJECT_KEYS", "subject-keys"),
        "audit_mac": key_ring("PHI_AUDIT_MAC_KEYS", "audit-mac-keys"),
        "pairwise": env.items("PHI_PAIRWISE_KEY") or (KEY_FILES / "pairwise-key" if DEBUG else None),
        "audit_signing": signing_key(),
        "audit_public": env.items("PHI_AUDIT_PUBLIC_KEYS"),
    },
    "AUDIT": {
        "origin": env.text("PHI_AUDIT_ORIGIN", "phi-oidc-audit"),
        "witness_file": env.text("PHI_AUDIT_WITNESS_FILE"),
    },
    "SIEM": env.json("PHI_SIEM_JSON", {}),
    "TRUSTED_PROXIES": env.items("PHI_TRUSTED_PROXIES"),
    "PATIENT_RESOURCES": "portal.records.resources_of",
    "EMERGENCY": {
        "permissions": {"portal.view_chart": "See the patient’s chart"},
        "mail_to": env.items("PHI_EMERGENCY_MAIL_TO", "privacy@clinic.example"),
        **({"spool": spool} if (spool := emergency_spool()) else {}),
    },
    "SESSIONS": {
        "idle_timeout": timeout("PHI_IDLE_TIMEOUT", 15 * 60),
        "absolute_timeout": timeout("PHI_ABSOLUTE_TIMEOUT", 8 * 60 * 60),
    },
}

INSTALLED_APPS = [
    "portal",
    "django_phi_oidc",
    "django_phi_oidc.audit",
    "django_phi_oidc.contrib.administrators",
    "django_phi_oidc.contrib.adoption",
    "django_phi_oidc.contrib.apis",
    "django_phi_oidc.contrib.audit_exports",
    "django_phi_oidc.contrib.doctor",
    "django_phi_oidc.contrib.emergency",
    "django_phi_oidc.contrib.evidence",
    "django_phi_oidc.contrib.federation",
    "django_phi_oidc.contrib.foreign_sessions",
    "django_phi_oidc.contrib.individual_rights",
    "django_phi_oidc.contrib.invitations",
    "django_phi_oidc.contrib.key_rotation",
    "django_phi_oidc.contrib.legal_holds",
    "django_phi_oidc.contrib.local_accounts",
    "django_phi_oidc.contrib.monitoring",
    "django_phi_oidc.contrib.notices",
    "django_phi_oidc.contrib.officer_admin",
    "django_phi_oidc.contrib.retention_keys",
    "django_phi_oidc.contrib.role_mapping",
    "django_phi_oidc.contrib.scim",
    "django_phi_oidc.contrib.shared_signals",
    "django_phi_oidc.contrib.siem",
    "django_phi_oidc.contrib.subject_links",
    "django_phi_oidc.contrib.third_party_login",
    "django_phi_oidc.testing",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "portal.headers.forwarded_proto",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "portal.headers.content_security_policy",
    "django_phi_oidc.middleware.LeakageGuardMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_phi_oidc.middleware.RevocationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
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

if "roles" in PHI_OIDC["CLAIMS"]:
    PHI_OIDC["ROLES"] = {
        "default": [
            {"claim": "roles", "values": ["clinician"], "groups": ["Clinicians"]},
            {"claim": "roles", "values": ["privacy-officer"], "groups": ["Privacy officer"], "is_staff": True},
            {"claim": "roles", "values": ["security-officer"], "groups": ["Security officer"], "is_staff": True},
            {"claim": "roles", "values": ["help-desk"], "groups": ["Help desk"], "is_staff": True},
        ],
    }

# The second backend signs no users in, it only decides about access to charts.
AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend", "portal.charts.CareTeamBackend"]
LOGIN_URL = "oidc_authentication_init"
LOGIN_REDIRECT_URL = "portal"
LOGOUT_REDIRECT_URL = "home"

# Two connections per thread, so that audit events survive the rollback of a request. Without a separate URL, the audit
# log is in the same PostgreSQL database: a file of one server would not be shared with the others.
DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
DATABASE_URL = env.text("DATABASE_URL")
AUDIT_URL = env.text("PHI_AUDIT_DATABASE_URL") or ("" if DATABASE_URL.startswith("sqlite") else DATABASE_URL)
CONNECTIONS = {"is_pooled": env.flag("DATABASE_POOLER"), "max_age": env.seconds("DATABASE_CONN_MAX_AGE")}
DATABASES = {
    "default": stores.database(DATABASE_URL, file=VAR / "portal.sqlite3", synchronous="NORMAL", **CONNECTIONS),
    "phi_audit": stores.database(AUDIT_URL, file=VAR / "audit.sqlite3", synchronous="FULL", **CONNECTIONS),
}
# For `manage.py create_roles` only.
ROLE_PASSWORDS = env.json("DATABASE_ROLES_JSON", {})
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": stores.cache(env.text("CACHE_URL"))}

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 8 * 60 * 60
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_HTTPONLY = True
CSRF_TRUSTED_ORIGINS = env.items("DJANGO_CSRF_TRUSTED_ORIGINS")
CSRF_FAILURE_VIEW = "portal.views.form_expired"
X_FRAME_OPTIONS = "DENY"

SECURE_REFERRER_POLICY = "same-origin"
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^oidc/health/$"]
if env.flag("DJANGO_SECURE_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60

# Only beat sends Celery messages, and they contain no data.
CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", "filesystem://")
CELERY_BROKER_TRANSPORT_OPTIONS = stores.broker_options(CELERY_BROKER_URL, folder=VAR / "queue")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
# In a queue of its own, so that only one worker needs the signing key.
CELERY_TASK_ROUTES = {"phi_oidc.seal": {"queue": "seal"}}
CELERY_BEAT_SCHEDULE = beat_schedule(INSTALLED_APPS, interval_seconds=float(env.seconds("CELERY_BEAT_SECONDS") or 10))
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "beat-schedule")

# In development, mails are written to files. In Django 6.1, MAILERS replaces the other settings.
EMAIL_BACKEND = f"django.core.mail.backends.{'filebased' if DEBUG else 'smtp'}.EmailBackend"
EMAIL_FILE_PATH = VAR / "mail"
EMAIL_HOST = env.text("EMAIL_HOST", "localhost")
EMAIL_USE_TLS = EMAIL_HOST != "localhost"
EMAIL_TIMEOUT = 10
if django.VERSION >= (6, 1):
    _smtp = {"host": EMAIL_HOST, "use_tls": EMAIL_USE_TLS, "timeout": EMAIL_TIMEOUT}
    _options = {"file_path": EMAIL_FILE_PATH} if DEBUG else _smtp
    MAILERS = {"default": {"BACKEND": EMAIL_BACKEND, "OPTIONS": _options}}
    del EMAIL_BACKEND, EMAIL_FILE_PATH, EMAIL_HOST, EMAIL_TIMEOUT, EMAIL_USE_TLS
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "portal@clinic.example")

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# Static files are served from the packages, so collectstatic is not needed.
STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
STATIC_ROOT.mkdir(exist_ok=True)
WHITENOISE_USE_FINDERS = True

DEFAULT_EXCEPTION_REPORTER = "django_phi_oidc.leak_guard.error_reporter.MaskingReporter"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "filters": {
        "without_query": {"()": "portal.logs.WithoutQuery"},
        "leakage": {"()": "django_phi_oidc.leak_guard.detector.LeakageFilter"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["without_query", "leakage"]},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
    },
}

env.check()
