"""Settings of the growth benchmark: those of the dashboard benchmark, with timeouts that outlast a run."""

from datetime import timedelta

from tests.benchmarks.audit.settings import *  # noqa: F403 -- extends the settings of the audit benchmarks
from tests.benchmarks.dashboard.settings import (  # noqa: F401 -- settings
    ALLOWED_HOSTS,
    AUTHENTICATION_BACKENDS,
    INSTALLED_APPS,
    MIDDLEWARE,
    ROOT_URLCONF,
    STATIC_URL,
    TEMPLATES,
)
from tests.benchmarks.dashboard.settings import PHI_OIDC as _PHI_OIDC

PHI_OIDC = {
    **_PHI_OIDC,
    "SESSIONS": {"idle_timeout": timedelta(hours=24), "absolute_timeout": timedelta(hours=24)},
}
