"""Mail backends of tests."""

from typing import Any

import django

_NAMES = {"host": "EMAIL_HOST", "port": "EMAIL_PORT", "timeout": "EMAIL_TIMEOUT", "file_path": "EMAIL_FILE_PATH"}


def mailer(backend: str, **options: Any) -> dict[str, Any]:
    """Return the settings for this mail backend of Django: MAILERS, or EMAIL_BACKEND before Django 6.1."""
    path = f"django.core.mail.backends.{backend}.EmailBackend"
    if django.VERSION >= (6, 1):
        return {"MAILERS": {"default": {"BACKEND": path, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": path, **{_NAMES[name]: value for name, value in options.items()}}


def mail_by(settings: Any, backend: str, **options: Any) -> None:
    """Apply them to the settings of pytest-django."""
    for name, value in mailer(backend, **options).items():
        setattr(settings, name, value)
