"""Settings of the audit benchmarks: shared ones, then those of the contender in the environment."""

import os
from typing import Any

import dj_database_url
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.settings import key
from tests.support.installed_apps import CORE_APPS

CONTENDER = os.environ.get("BENCH_CONTENDER", "phi_oidc")
PEERS = {"auditlog": ["auditlog"], "easyaudit": ["easyaudit"], "pghistory": ["pgtrigger", "pghistory"]}
"""Their installed apps."""

SECRET_KEY = "a key for benchmarks only, long enough for all checks: 0123456789"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **dj_database_url.parse(os.environ["BENCH_DATABASE_URL"]),
        "NAME": os.environ["BENCH_DATABASE_NAME"],
        "CONN_MAX_AGE": None,
    }
}
if CONTENDER.endswith("no wait"):
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = "-c synchronous_commit=off"
CELERY_BROKER_URL = "memory://"

if CONTENDER in PEERS:
    INSTALLED_APPS += PEERS[CONTENDER]
    PGTRIGGER_INSTALL_ON_MIGRATE = True
else:
    INSTALLED_APPS += [*CORE_APPS, *os.environ.get("BENCH_APPS", "").split()]
    # As recommended for a direct connection without a transaction-mode pooler.
    options = {**DATABASES["default"].get("OPTIONS", {}), "prepare_threshold": 5}
    DATABASES["phi_audit"] = {**DATABASES["default"], "OPTIONS": options}
    DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": "https://op.example.test", "client_id": "portal", "client_secret": "none"}},
        "KEYS": {
            "encryption": [key("bench encryption key")],
            "subject": [key("bench subject key")],
            "audit_mac": [key("bench audit mac key")],
            "audit_signing": Ed25519PrivateKey.from_private_bytes(b"a signing key, for benchmarks...")
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            .decode("ascii"),
        },
    }

# Last, so that the auditing apps are loaded before the model.
INSTALLED_APPS += ["tests.benchmarks.audit.rows"]
