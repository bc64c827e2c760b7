"""System checks of `EXPORT_FOLDER`."""

import os
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf


def _error(number: int, message: str, hint: str) -> checks.Error:
    return checks.Error(message, hint=hint, id=f"django_phi_oidc.E{number:03}")


@register(Tags.security)
def check_export_folder(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E031: EXPORT_FOLDER can't be written, or is open to other accounts."""
    try:
        folder = conf.export_folder()
    except ImproperlyConfigured:
        # E002 tells of it.
        return []
    if folder is None or (os.access(folder, os.W_OK | os.X_OK) and not folder.stat().st_mode & 0o077):
        return []
    return [
        _error(
            31,
            "PHI_OIDC['EXPORT_FOLDER'] is not a folder that this account, and no other, can read and write.",
            hint="mkdir -m 700, as the account that runs the portal and its workers.",
        )
    ]
