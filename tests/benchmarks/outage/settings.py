"""Settings of the portal whose provider hangs: those of the sign-in benchmark, with a break-glass account."""

import os

os.environ |= {"BENCH_CONTENDER": "phi_oidc", "BENCH_CA_BUNDLE": ""}

from tests.benchmarks.sign_in import settings as sign_in_settings
from tests.benchmarks.sign_in.settings import *  # noqa: F403 -- extends the settings of the sign-in benchmark

INSTALLED_APPS = [
    *sign_in_settings.INSTALLED_APPS,
    "django_phi_oidc.contrib.local_accounts",
    "django_phi_oidc.contrib.monitoring",
]
AUTHENTICATION_BACKENDS = [
    "django_phi_oidc.backends.OIDCAuthenticationBackend",
    "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend",
]
PHI_OIDC = {
    **sign_in_settings.PHI_OIDC,
    "PROVIDERS": {
        "default": {**sign_in_settings.PHI_OIDC["PROVIDERS"]["default"], "ca_bundle": "", "allow_loopback_http": True}
    },
    "BREAK_GLASS_ACCOUNTS": ["night-desk"],
}
SILENCED_SYSTEM_CHECKS = ["django_phi_oidc.E006"]
"""The provider is reached by http on loopback."""
STATIC_URL = "static/"
