"""The test settings, with a custom user model."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.hospital_staff"]
AUTH_USER_MODEL = "hospital_staff.Member"
MIGRATION_MODULES = {"hospital_staff": "hospital_staff_migrations"}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
