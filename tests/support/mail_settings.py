"""Mail backends of tests."""

from typing import Any

import django
from django.core.mail.backends.locmem import EmailBackend

_NAMES = {"host": "EMAIL_HOST", "port": "EMAIL_PORT", "timeout": "EMAIL_TIMEOUT", "file_path": "EMAIL_FILE_PATH"}


def mailer(backend: str, **options: Any) -> dict[str, Any]:
    """Return the settings for this mail backend: MAILERS, or EMAIL_BACKEND before Django 6.1.

    backend: of Django by its name, another one by its dotted path.
    """
    path = backend if "." in backend else f"django.core.mail.backends.{backend}.EmailBackend"
    if django.VERSION >= (6, 1):
        return {"MAILERS": {"default": {"BACKEND": path, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": path, **{_NAMES[name]: value for name, value in options.items()}}


def mail_by(settings: Any, backend: str, **options: Any) -> None:
    """Apply them to the settings of pytest-django."""
    for name, value in mailer(backend, **options).items():
        setattr(settings, name, value)


class MailAPIError(Exception):
    """Like `AnymailAPIError`: neither an OSError nor an SMTPException."""


class RefusingBackend(EmailBackend):
    """A backend of a mail service that refuses mails to `ada@…`."""

    def send_messages(self, messages: Any) -> int:
        addresses = [address for message in messages for address in message.recipients()]
        if refused := [address for address in addresses if address.startswith("ada@")]:
            raise MailAPIError(refused)
        return super().send_messages(messages)


REFUSING_BACKEND = f"{__name__}.RefusingBackend"
