"""A prepared folder of retention keys."""

from pathlib import Path
from typing import Any

from django_phi_oidc.contrib.common.retention_key_folder import prepare_folder
from django_phi_oidc.contrib.retention_keys.key_folder import RetentionKeyFolder
from tests.support.phi_oidc_settings import override_phi_oidc


def use_retention_keys(settings: Any, folder: Path) -> RetentionKeyFolder:
    """Prepare the folder and encrypt claims under its keys from now on."""
    prepare_folder(folder)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": folder})
    return RetentionKeyFolder(folder)
