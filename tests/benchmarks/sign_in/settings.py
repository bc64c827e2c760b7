"""Settings of a measured portal: shared ones, then those of the contender in the environment."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url

from tests.benchmarks.sign_in.encryption import DECRYPTION_KEY_PEM, ENCRYPTED_CLIENT_ID
from tests.settings import key

CONTENDER = os.environ["BENCH_CONTENDER"]
ISSUER = os.environ["BENCH_ISSUER"]
CA_BUNDLE = os.environ["BENCH_CA_BUNDLE"]
CLIENT_ID = "portal"
CLIENT_SECRET = "a secret for benchmarks only"

SECRET_KEY = "a key for benchmarks only, long enough for all checks: 0123456789"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = f"tests.benchmarks.sign_in.urls.{CONTENDER.removesuffix('_dpop')}"
LOGIN_REDIRECT_URL = "/home/"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **dj_database_url.parse(os.environ["BENCH_DATABASE_URL"]),
        "NAME": os.environ["BENCH_DATABASE_NAME"],
        "CONN_MAX_AGE": None,
        "ATOMIC_REQUESTS": False,
    }
}
CELERY_BROKER_URL = "memory://"

if CONTENDER.startswith("phi_oidc"):
    INSTALLED_APPS += ["django_phi_oidc", "django_phi_oidc.audit"]
    INSTALLED_APPS += os.environ.get("BENCH_APPS", "").split()
    MIDDLEWARE += ["django_phi_oidc.middleware.RevocationMiddleware"]
    AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]
    DATABASES["phi_audit"] = {**DATABASES["default"]}
    DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
    ENCRYPTION = {
        "client_id": ENCRYPTED_CLIENT_ID,
        "client_keys": {"key": DECRYPTION_KEY_PEM, "use": "enc"},
        "id_token_encrypted_response_alg": ["ECDH-ES"],
    }
    PHI_OIDC = {
        "PROVIDERS": {
            "default": {
                "issuer": ISSUER,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "ca_bundle": CA_BUNDLE,
                "dpop": "require" if CONTENDER == "phi_oidc_dpop" else "never",
                **(ENCRYPTION if CONTENDER == "phi_oidc_jwe" else {}),
                **({"scim": {"subject": "extension"}} if "django_phi_oidc.contrib.scim" in INSTALLED_APPS else {}),
            }
        },
        "CLAIMS": {
            "birthdate": {"purpose": "TREAT", "basis": "identity check at sign-in", "retention": "session"},
            "address": {"purpose": "HOPERAT", "basis": "letters to the patient", "retention": timedelta(days=1)},
        },
        "KEYS": {
            "encryption": [key("bench encryption key")],
            "subject": [key("bench subject key")],
            "audit_mac": [key("bench audit mac key")],
            # A folder prepared by `phi_oidc keys generate`, to measure what retention keys cost.
            **({"retention": Path(folder)} if (folder := os.environ.get("BENCH_RETENTION_KEYS")) else {}),
        },
    }

if CONTENDER == "mozilla":
    INSTALLED_APPS += ["mozilla_django_oidc"]
    AUTHENTICATION_BACKENDS = ["mozilla_django_oidc.auth.OIDCAuthenticationBackend"]
    OIDC_RP_CLIENT_ID = CLIENT_ID
    OIDC_RP_CLIENT_SECRET = CLIENT_SECRET
    OIDC_RP_SIGN_ALGO = "RS256"
    OIDC_OP_AUTHORIZATION_ENDPOINT = f"{ISSUER}/authorize"
    OIDC_OP_TOKEN_ENDPOINT = f"{ISSUER}/token"
    OIDC_OP_USER_ENDPOINT = f"{ISSUER}/userinfo"
    OIDC_OP_JWKS_ENDPOINT = f"{ISSUER}/jwks"
    OIDC_VERIFY_SSL = CA_BUNDLE

if CONTENDER == "social":
    INSTALLED_APPS += ["social_django"]
    AUTHENTICATION_BACKENDS = ["social_core.backends.open_id_connect.OpenIdConnectAuth"]
    SOCIAL_AUTH_OIDC_OIDC_ENDPOINT = ISSUER
    SOCIAL_AUTH_OIDC_KEY = CLIENT_ID
    SOCIAL_AUTH_OIDC_SECRET = CLIENT_SECRET
    SOCIAL_AUTH_VERIFY_SSL = CA_BUNDLE

if CONTENDER == "allauth":
    INSTALLED_APPS += [
        "allauth",
        "allauth.account",
        "allauth.socialaccount",
        "allauth.socialaccount.providers.openid_connect",
    ]
    MIDDLEWARE += ["allauth.account.middleware.AccountMiddleware"]
    AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
    ACCOUNT_EMAIL_VERIFICATION = "none"
    SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "APPS": [
                {
                    "provider_id": "bench",
                    "name": "Bench",
                    "client_id": CLIENT_ID,
                    "secret": CLIENT_SECRET,
                    "settings": {"server_url": ISSUER},
                }
            ]
        }
    }
    # It has no setting for the certificate.
    os.environ["REQUESTS_CA_BUNDLE"] = CA_BUNDLE
