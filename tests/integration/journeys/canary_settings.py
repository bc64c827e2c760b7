"""Settings of the portal in test_canaries.py: full logging, and error reports as mail in a folder."""

import os

from tests.support.mail_settings import mailer
from tests.support.portal_process_settings import *  # noqa: F403

ROOT_URLCONF = "tests.integration.journeys.canary_urls"
DEBUG = os.environ["TEST_DEBUG"] == "1"
ADMINS = [("Admin", "admin@clinic.example")]
globals().update(mailer("filebased", file_path=os.environ["TEST_MAIL_FOLDER"]))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "mail": {"class": "django.utils.log.AdminEmailHandler", "level": "ERROR", "include_html": True},
    },
    "loggers": {"django": {"level": "DEBUG", "handlers": ["mail"]}, "django.server": {"level": "DEBUG"}},
}
