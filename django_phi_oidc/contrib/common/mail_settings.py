"""The mail backend of the project."""

from typing import Any

from django.conf import settings

_UNDELIVERED = ("console", "dummy", "filebased", "locmem")
_NON_DELIVERING_BACKENDS = tuple(f"django.core.mail.backends.{name}." for name in _UNDELIVERED)
"""Django's e-mail backends that do not deliver."""
_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
"""Also Django's default for a mailer without BACKEND."""


def does_mail_deliver() -> bool:
    """Return whether there is a mail backend that delivers."""
    backend, _ = _get_mail_backend()
    return bool(backend) and not backend.startswith(_NON_DELIVERING_BACKENDS)


def get_mail_timeout_seconds() -> float | None:
    return _get_mail_backend()[1]


def get_mail_backend_line() -> str:
    """Return the line for the settings that selects a backend that delivers."""
    if getattr(settings, "MAILERS", None) is None:
        return f'EMAIL_BACKEND = "{_SMTP_BACKEND}"'
    return (
        f'MAILERS["default"] = {{"BACKEND": "{_SMTP_BACKEND}", '
        f'"OPTIONS": {{"host": "…", "timeout": 10}}}}'
    )


def get_mail_timeout_line() -> str:
    """Return the line for the settings that limits how long a mail server may take."""
    if getattr(settings, "MAILERS", None) is None:
        return "EMAIL_TIMEOUT = 10"
    return 'MAILERS["default"].setdefault("OPTIONS", {})["timeout"] = 10'


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
