"""The block of docs/how-to/third-party-login.md."""

from copy import deepcopy
from typing import Any

import pytest
from django.test import Client

from tests.support.manual_blocks import block

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]


def test_setting_permits_the_provider(settings: Any) -> None:
    names: dict[str, Any] = {"PHI_OIDC": deepcopy(settings.PHI_OIDC)}
    exec(block("third-party-login", "third-party-settings"), names)
    settings.PHI_OIDC = names["PHI_OIDC"]
    response = Client().get("/oidc/initiate/", {"iss": "https://op.example.test"}, secure=True)
    assert (response.status_code, response["Location"]) == (303, "/oidc/authenticate/")
