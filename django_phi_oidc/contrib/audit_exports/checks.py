"""System checks of the options `AUDIT_EXPORTS` and `AUDIT["tiles"]`."""

import os
from typing import Any

from django.conf import settings
from django.core.checks import Tags

from ..._internal.check_messages import Messages, error, register_check
from ...audit import conf as audit_conf
from . import conf


@register_check(Tags.security)
def check_export_folder(**kwargs: Any) -> Messages:
    """E031: the folder is not writable, or other accounts can read it."""
    folder = conf.export_folder()
    if folder and not (os.access(folder, os.W_OK | os.X_OK) and not folder.stat().st_mode & 0o077):
        message = (
            "PHI_OIDC['AUDIT_EXPORTS'] must be a folder that only this account can read and write."
        )

        if folder.exists():
            command = f"chmod 700 {folder}"
        else:
            command = f"mkdir -p -m 700 {folder}"

        yield error(
            31, message, hint=f"As the account that runs the portal and its workers: {command}"
        )


@register_check(Tags.security)
def check_tiles(**kwargs: Any) -> Messages:
    """E142: the storage of the tiles is not declared."""
    declared = audit_conf.tiles()
    if isinstance(declared, str) and declared not in settings.STORAGES:
        message = f"PHI_OIDC['AUDIT']['tiles'] is {declared!r}, which STORAGES does not have."
        yield error(
            142, message, hint="A folder is a pathlib.Path; a text is the name of one of STORAGES."
        )
