"""The settings that keep an attack away from the project's data."""

from pathlib import Path
from typing import Any

from django.test import override_settings

from django_phi_oidc.contrib.retention_keys.key_store import get_store
from django_phi_oidc.testing.attack.environment_setup import _create_isolation_settings
from tests.support.phi_oidc_settings import override_phi_oidc

NAME = "20261124-86400"


def test_a4_attack_uses_a_prepared_folder_of_retention_keys_and_not_that_of_the_project(
    settings: Any, tmp_path: Path
) -> None:
    own, temporary = tmp_path / "own", tmp_path / "temporary"
    own.mkdir()
    temporary.mkdir()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": own})
    with override_settings(**_create_isolation_settings(temporary)):
        assert len(get_store().create(NAME)) == 32
    assert list(own.iterdir()) == []
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": None})
    del settings.PHI_OIDC["KEYS"]["retention"]
    assert "PHI_OIDC" not in _create_isolation_settings(temporary)
