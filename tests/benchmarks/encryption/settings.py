"""Settings of the encryption benchmark: one app and two encryption keys; all rows use the older key."""

from tests.benchmarks.audit import settings as audit_settings
from tests.settings import key
from tests.support.installed_apps import CORE_APPS

SECRET_KEY, USE_TZ = audit_settings.SECRET_KEY, audit_settings.USE_TZ
DEFAULT_AUTO_FIELD = audit_settings.DEFAULT_AUTO_FIELD
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    *CORE_APPS,
    "tests.benchmarks.encryption.rows",
]
DATABASES, DATABASE_ROUTERS = audit_settings.DATABASES, audit_settings.DATABASE_ROUTERS
PHI_OIDC = {
    **audit_settings.PHI_OIDC,
    "KEYS": {
        **audit_settings.PHI_OIDC["KEYS"],
        "encryption": [key("bench encryption key of today"), key("bench encryption key, before")],
    },
}
