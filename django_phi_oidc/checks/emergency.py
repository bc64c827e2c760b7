"""System checks of `EMERGENCY`."""

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..access.emergency.notifications import RETRY_DELAY
from ._messages import error, warning

NON_DELIVERING_BACKENDS = tuple(
    f"django.core.mail.backends.{name}." for name in ("console", "dummy", "filebased", "locmem")
)
"""Django's e-mail backends that do not deliver."""
_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
"""Also Django's default for a mailer without BACKEND."""


@register(Tags.security)
def check_emergency(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E027: a spool that can't be written; W027, W028: mails that are not delivered, or block the worker."""
    try:
        declared = conf.emergency()
    except ImproperlyConfigured:  # E002 reports it
        return []
    if declared is None:
        return []
    messages: list[CheckMessage] = []
    if declared.spool and not os.access(declared.spool.parent, os.W_OK | os.X_OK):
        text = "PHI_OIDC['EMERGENCY']: the folder of the spool does not exist, or this account can't write to it."
        messages.append(error(27, text))
    backend, timeout = _get_mail_backend()
    limit = int(RETRY_DELAY.total_seconds())
    if not backend or backend.startswith(NON_DELIVERING_BACKENDS):
        text = "PHI_OIDC['EMERGENCY']: the mail backend does not deliver, so the privacy officer gets no mail."
        messages.append(warning(27, text))
    elif not timeout or limit <= timeout:
        text = (
            f"PHI_OIDC['EMERGENCY']: the mail timeout must be less than {limit} s, or a hanging mail server blocks all."
        )
        messages.append(warning(28, text))
    return messages


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
