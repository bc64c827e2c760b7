"""tests.settings for a portal in a separate process, changed by environment variables."""

import json
import os
from pathlib import Path

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, PHI_OIDC
from tests.support.key_service import KeyService
from tests.support.phi_oidc_settings import override_phi_oidc

ROOT_URLCONF = os.environ.get("TEST_URLCONF", "tests.support.portal_urls")
LOGIN_URL = "oidc_authentication_init"
PHI_OIDC = override_phi_oidc(PHI_OIDC, **json.loads(os.environ["TEST_PHI_OIDC"]))
DATABASES["default"]["ATOMIC_REQUESTS"] = os.environ.get("TEST_ATOMIC_REQUESTS") == "1"
if "TEST_THREADS" in os.environ:
    for database in DATABASES.values():
        database["CONN_MAX_AGE"] = None
for alias, variable in {"default": "TEST_MAIN_PORT", "phi_audit": "TEST_AUDIT_PORT"}.items():
    if variable in os.environ:
        DATABASES[alias] |= {"HOST": "127.0.0.1", "PORT": os.environ[variable]}
if "TEST_DATABASE_USER" in os.environ:
    for database in DATABASES.values():
        database["USER"] = os.environ["TEST_DATABASE_USER"]
AUTHENTICATION_BACKENDS = os.environ.get("TEST_BACKEND", "django_phi_oidc.backends.OIDCAuthenticationBackend").split()
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ.get("TEST_BROKER_OPTIONS", "{}"))
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("TEST_QUEUE", "celery")
if "TEST_CACHE" in os.environ:
    SESSION_ENGINE = f"django.contrib.sessions.backends.{os.environ['TEST_SESSION_ENGINE']}"
    CACHES = {"default": json.loads(os.environ["TEST_CACHE"])}
if "TEST_KEY_SERVICE" in os.environ:
    folder = Path(os.environ["TEST_KEY_SERVICE"])
    service = KeyService(folder)
    PHI_OIDC = override_phi_oidc(
        PHI_OIDC, KEYS={path.stem: service.read_ring(path.stem) for path in folder.glob("*.json")}
    )
