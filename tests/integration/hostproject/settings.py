"""A project with the app and its documented test configuration: TEST_RUNNER here, pytest_plugins in conftest.py."""

import os

from tests.settings import *  # noqa: F403 -- the settings of the tests, except databases and apps
from tests.settings import DATABASES as TEST_DATABASES
from tests.settings import INSTALLED_APPS as TEST_APPS

# As in a host project, the runner chooses the names of the test databases.
DATABASES = {alias: {**database, "TEST": {}} for alias, database in TEST_DATABASES.items()}
INSTALLED_APPS = [*TEST_APPS, "hospital"]
TEST_RUNNER = os.environ.get("HOST_TEST_RUNNER", "django_phi_oidc.testing.runner.PHIAuditTestRunner")
