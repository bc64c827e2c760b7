"""The host project's app, installed and with its tables; two encryption keys."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.test import modify_settings

from django_phi_oidc.crypto import keyring
from tests.settings import key
from tests.support.phi_oidc_settings import override_phi_oidc

APP = "tests.unit.contrib.key_rotation.ward"
OLD, NEW = key("test encryption key of yesterday"), key("test encryption key of today")


@pytest.fixture
def ward(transactional_db: None) -> Iterator[Any]:
    """Return the models of the app."""
    with modify_settings(INSTALLED_APPS={"append": APP}):
        models = import_module(f"{APP}.models")
        with connection.schema_editor() as editor:
            for model in models.MODELS:
                editor.create_model(model)
        yield models
        with connection.schema_editor() as editor:
            for model in reversed(models.MODELS):
                editor.delete_model(model)


@pytest.fixture
def seal_under(settings: Any) -> Any:
    """Return a function that configures the encryption keys, newest first, and returns them."""

    def configure(*texts: str) -> tuple[keyring.SymmetricKey, ...]:
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": list(texts)})
        return keyring.get_keys("encryption")

    return configure
