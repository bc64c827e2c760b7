"""Settings of a portal under gunicorn, and of its Celery worker: those of the sign-in benchmark.

BENCH_REDIS: the Redis of the sessions; empty: they are in the database. BENCH_BROKER: the Redis of the worker, which
also seals the audit log.
"""

import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.benchmarks.sign_in import settings as shared
from tests.benchmarks.sign_in.settings import *  # noqa: F403 -- extends the settings of the sign-in benchmark

STATIC_URL = "static/"
SILENCED_SYSTEM_CHECKS = ["django_phi_oidc.W009"]
"""The database is local and needs no connect_timeout."""
if redis_url := os.environ.get("BENCH_REDIS"):
    SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_url}}
if broker_url := os.environ.get("BENCH_BROKER"):
    CELERY_BROKER_URL = broker_url
    CELERY_TASK_IGNORE_RESULT = True
    signing_key = Ed25519PrivateKey.from_private_bytes(b"a signing key, for benchmarks...")
    pem = signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    PHI_OIDC = {**shared.PHI_OIDC, "KEYS": {**shared.PHI_OIDC["KEYS"], "audit_signing": pem}}
