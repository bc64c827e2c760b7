"""System checks of `EMERGENCY`."""

import os
from typing import Any

from django.conf import settings
from django.core.checks import Tags

from .. import conf
from ..access.emergency.notifications import RETRY_DELAY
from ._messages import Messages, error, register_check, warning

_UNDELIVERED = ("console", "dummy", "filebased", "locmem")
NON_DELIVERING_BACKENDS = tuple(f"django.core.mail.backends.{name}." for name in _UNDELIVERED)
"""Django's e-mail backends that do not deliver."""
_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
"""Also Django's default for a mailer without BACKEND."""


@register_check(Tags.security)
def check_emergency(**kwargs: Any) -> Messages:
    """E027: a spool that can't be written; W027, W028: mails that are not delivered, or block the worker."""
    declared = conf.emergency()
    if declared is None:
        return
    if declared.spool and not os.access(declared.spool.parent, os.W_OK | os.X_OK):
        text = "PHI_OIDC['EMERGENCY']: the folder of the spool does not exist, or this account can't write to it."
        yield error(27, text)
    backend, timeout = _get_mail_backend()
    limit = int(RETRY_DELAY.total_seconds())
    if not backend or backend.startswith(NON_DELIVERING_BACKENDS):
        text = "PHI_OIDC['EMERGENCY']: the mail backend does not deliver, so the privacy officer gets no mail."
        yield warning(27, text)
    elif not timeout or limit <= timeout:
        text = f"PHI_OIDC['EMERGENCY']: the mail timeout must be less than {limit} s; a slow mail server blocks all."
        yield warning(28, text)


def _get_mail_backend() -> tuple[str, float | None]:
    """Return the mail backend, empty if there is none, and its timeout in seconds.

    They are in MAILERS, or in the settings that it replaces: Django 6.1 supports both.
    """
    mailers: Any = getattr(settings, "MAILERS", None)
    if mailers is None:
        return settings.EMAIL_BACKEND, settings.EMAIL_TIMEOUT
    if "default" not in mailers:
        return "", None
    default = mailers["default"]
    return default.get("BACKEND", _SMTP_BACKEND), default.get("OPTIONS", {}).get("timeout")
