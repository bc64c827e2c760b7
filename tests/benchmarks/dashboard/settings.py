"""Settings of the dashboard benchmark: those of the audit benchmarks with two admin sites."""

from tests.benchmarks.audit import settings as audit_settings
from tests.benchmarks.audit.settings import *  # noqa: F403 -- extends the settings of the audit benchmarks
from tests.settings import AUTHENTICATION_BACKENDS, MIDDLEWARE, TEMPLATES

__all__ = ["AUTHENTICATION_BACKENDS", "MIDDLEWARE", "TEMPLATES"]

PHI_OIDC = {
    **audit_settings.PHI_OIDC,
    "AUDIT": {"sinks": {"siem": {"type": "syslog", "host": "siem.example.test"}}},
}
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.messages", *audit_settings.INSTALLED_APPS]
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.benchmarks.dashboard.urls"
STATIC_URL = "static/"
