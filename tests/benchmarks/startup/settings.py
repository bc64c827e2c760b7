"""Settings of a started portal. They import nothing that a portal of this contender does not need."""

import base64
import os

import dj_database_url

CONTENDER = os.environ["BENCH_CONTENDER"]
ISSUER = os.environ.get("BENCH_ISSUER", "https://op.example.test")
CA_BUNDLE = os.environ.get("BENCH_CA_BUNDLE", "")
CLIENT_ID, CLIENT_SECRET = "portal", "a secret for benchmarks only"
HAS_ADMIN = "BENCH_ADMIN" in os.environ


def key(text: str) -> str:
    """Return a key of 32 bytes in base64url."""
    return base64.urlsafe_b64encode(text.encode().ljust(32, b".")).decode()


SECRET_KEY = "a key for benchmarks only, long enough for all checks: 0123456789"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = os.environ.get("BENCH_URLCONF", "tests.benchmarks.startup.urls")
LOGIN_REDIRECT_URL = "/home/"
STATIC_URL = "static/"
INSTALLED_APPS = [
    *(["django.contrib.admin"] if HAS_ADMIN else []),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
DATABASES = {
    "default": {
        **dj_database_url.parse(os.environ["BENCH_DATABASE_URL"]),
        "NAME": os.environ.get("BENCH_DATABASE_NAME", "portal"),
    }
}

if CONTENDER == "phi_oidc":
    INSTALLED_APPS += ["django_phi_oidc", "django_phi_oidc.audit"]
    if HAS_ADMIN:
        INSTALLED_APPS += ["django_phi_oidc.contrib.officer_admin"]
    INSTALLED_APPS += os.environ.get("BENCH_APPS", "").split()
    MIDDLEWARE += ["django_phi_oidc.middleware.RevocationMiddleware"]
    AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]
    DATABASES["phi_audit"] = {**DATABASES["default"]}
    DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
    PHI_OIDC = {
        "PROVIDERS": {
            "default": {
                "issuer": ISSUER,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                **({"ca_bundle": CA_BUNDLE} if CA_BUNDLE else {}),
            }
        },
        "CLAIMS": {
            "birthdate": {"purpose": "TREAT", "basis": "identity check at sign-in", "retention": "session"},
        },
        "KEYS": {name: [key(f"bench {name} key")] for name in ("encryption", "subject", "audit_mac")},
    }
elif CONTENDER == "mozilla":
    INSTALLED_APPS += ["mozilla_django_oidc"]
    AUTHENTICATION_BACKENDS = ["mozilla_django_oidc.auth.OIDCAuthenticationBackend"]
    OIDC_RP_CLIENT_ID, OIDC_RP_CLIENT_SECRET, OIDC_RP_SIGN_ALGO = CLIENT_ID, CLIENT_SECRET, "RS256"
    OIDC_OP_AUTHORIZATION_ENDPOINT = f"{ISSUER}/authorize"
    OIDC_OP_TOKEN_ENDPOINT = f"{ISSUER}/token"
    OIDC_OP_USER_ENDPOINT = f"{ISSUER}/userinfo"
    OIDC_OP_JWKS_ENDPOINT = f"{ISSUER}/jwks"
    OIDC_VERIFY_SSL = CA_BUNDLE
elif CONTENDER == "allauth":
    INSTALLED_APPS += ["allauth", "allauth.account", "allauth.socialaccount"]
    INSTALLED_APPS += ["allauth.socialaccount.providers.openid_connect"]
    MIDDLEWARE += ["allauth.account.middleware.AccountMiddleware"]
    AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
