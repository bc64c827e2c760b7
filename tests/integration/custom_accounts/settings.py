"""The test settings with the user model that TEST_USER_MODEL names."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.custom_accounts"]
AUTH_USER_MODEL = f"custom_accounts.{os.environ['TEST_USER_MODEL']}"
AUTHENTICATION_BACKENDS = [os.environ.get("TEST_BACKEND", "django_phi_oidc.backends.OIDCAuthenticationBackend")]
MIGRATION_MODULES = {"custom_accounts": "custom_accounts_migrations"}
ROOT_URLCONF = "tests.support.portal_urls"
LOGIN_URL = "oidc_authentication_init"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
