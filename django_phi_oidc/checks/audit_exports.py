"""System checks of `AUDIT["exports"]`."""

import os
from typing import Any

from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ._messages import error


@register(Tags.security)
def check_export_folder(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E031: the folder is not writable, or other accounts can read it."""
    try:
        folder = conf.export_folder()
    except ImproperlyConfigured:  # E002 reports it
        return []
    if folder is None or (os.access(folder, os.W_OK | os.X_OK) and not folder.stat().st_mode & 0o077):
        return []
    message = "PHI_OIDC['AUDIT']['exports'] must be a folder that only this account can read and write."
    return [error(31, message, hint="mkdir -m 700, as the account that runs the portal and its workers.")]
