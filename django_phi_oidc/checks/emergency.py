"""System checks of `EMERGENCY`; those of all else are in checks.py, where docs/reference/checks.md leads, too."""

import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..access.emergency.notifications import RETRY_DELAY

NON_DELIVERING_BACKENDS = ("console", "dummy", "filebased", "locmem")
"""Django's e-mail backends that reach nobody."""
_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
"""Also what Django takes for a mailer that names none."""


def _error(number: int, message: str) -> checks.Error:
    return checks.Error(f"PHI_OIDC['EMERGENCY']: {message}", id=f"django_phi_oidc.E{number:03}")


def _warning(number: int, message: str) -> checks.Warning:
    return checks.Warning(f"PHI_OIDC['EMERGENCY']: {message}", id=f"django_phi_oidc.W{number:03}")


@register(Tags.security)
def check_emergency(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E027: a spool that can't be written; W027, W028: mails that reach nobody, or hold up the worker."""
    try:
        declared = conf.emergency()
    except ImproperlyConfigured:
        # E002 tells of it.
        return []
    if declared is None:
        return []
    found: list[CheckMessage] = []
    if declared.spool and not os.access(declared.spool.parent, os.W_OK | os.X_OK):
        found.append(_error(27, "the folder of the spool is not there, or this account can't write to it."))
    backend, timeout = _get_mail_backend()
    if not backend or backend.startswith(
        tuple(f"django.core.mail.backends.{name}." for name in NON_DELIVERING_BACKENDS)
    ):
        found.append(_warning(27, "the mail backend sends no mail, so the privacy officer is not told."))
    elif not timeout or RETRY_DELAY.total_seconds() <= timeout:
        seconds = int(RETRY_DELAY.total_seconds())
        found.append(
            _warning(28, f"the mail timeout must be less than {seconds} s: a mail server that hangs holds up all.")
        )
    return found


def _get_mail_backend() -> tuple[str, float | None]:
    """Return the backend that sends our mail, empty where none does, and its timeout in seconds.

    They are those of MAILERS, or the settings before it: Django 6.1 knows both.
    """
    mailers: Any = getattr(settings, "MAILERS", None)
    if mailers is None:
        return settings.EMAIL_BACKEND, settings.EMAIL_TIMEOUT
    if "default" not in mailers:
        return "", None
    default = mailers["default"]
    return default.get("BACKEND", _SMTP_BACKEND), default.get("OPTIONS", {}).get("timeout")
