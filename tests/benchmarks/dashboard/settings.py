"""Settings of the dashboard benchmark: those of the audit benchmarks with two admin sites."""

from datetime import timedelta

from tests.benchmarks.audit import settings as audit_settings
from tests.benchmarks.audit.settings import *  # noqa: F403 -- extends the settings of the audit benchmarks
from tests.benchmarks.dashboard.large_tables import UNUSED_CLAIM, UNUSED_PROVIDER
from tests.settings import AUTHENTICATION_BACKENDS, MIDDLEWARE, TEMPLATES
from tests.support.installed_apps import CONTRIB_APPS

__all__ = ["AUTHENTICATION_BACKENDS", "MIDDLEWARE", "TEMPLATES"]

_PROVIDERS = audit_settings.PHI_OIDC["PROVIDERS"]
_CLAIM = {"purpose": "TREAT", "basis": "identity check", "retention": timedelta(days=40)}
PHI_OIDC = {
    **audit_settings.PHI_OIDC,
    # Some without a row, for the filters.
    "PROVIDERS": {**_PROVIDERS, UNUSED_PROVIDER: {**_PROVIDERS["default"], "issuer": "https://unused.example.test"}},
    "CLAIMS": {"birthdate": _CLAIM, UNUSED_CLAIM: {**_CLAIM, "purpose": "HOPERAT"}},
    "SIEM": {"siem": {"type": "syslog", "host": "siem.example.test"}},
}
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.messages", *audit_settings.INSTALLED_APPS, *CONTRIB_APPS]
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.benchmarks.dashboard.urls"
STATIC_URL = "static/"
