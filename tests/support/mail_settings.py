"""Where the mails of a test go."""

from typing import Any

import django

_NAMES = {"host": "EMAIL_HOST", "port": "EMAIL_PORT", "timeout": "EMAIL_TIMEOUT", "file_path": "EMAIL_FILE_PATH"}


def mailer(backend: str, **options: Any) -> dict[str, Any]:
    """Return the settings that send by this backend of Django's: MAILERS, or those that it replaces in Django 6.1."""
    path = f"django.core.mail.backends.{backend}.EmailBackend"
    if django.VERSION >= (6, 1):
        return {"MAILERS": {"default": {"BACKEND": path, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": path, **{_NAMES[name]: value for name, value in options.items()}}


def mail_by(settings: Any, backend: str, **options: Any) -> None:
    """Set them on pytest-django's settings."""
    for name, value in mailer(backend, **options).items():
        setattr(settings, name, value)
