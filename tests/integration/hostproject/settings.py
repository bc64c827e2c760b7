"""A project that installed the app and added the documented line: TEST_RUNNER here, pytest_plugins in conftest.py."""

import os

from tests.settings import *  # noqa: F403 -- a host project, but for its own databases and tests
from tests.settings import DATABASES as OURS
from tests.settings import INSTALLED_APPS as OURS_TOO

# As in a project: the runner names its test databases itself.
DATABASES = {alias: {**declared, "TEST": {}} for alias, declared in OURS.items()}
INSTALLED_APPS = [*OURS_TOO, "hospital"]
TEST_RUNNER = os.environ.get("HOST_TEST_RUNNER", "django_phi_oidc.testing.runner.PHIAuditTestRunner")
