"""The URLs of SCIM cost nothing until a client sends the first request."""

import os
import subprocess
import sys

import pytest
from django.test import Client

CODE = """
import sys
import django
django.setup()
from importlib import import_module
import_module("django_phi_oidc.contrib.scim.urls")
print("scim2_models" in sys.modules)
"""


def test_start_of_a_process_does_not_import_scim2_models() -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "False"


@pytest.mark.django_db
@pytest.mark.urls("tests.unit.sessions.urls")
@pytest.mark.parametrize("method", ["get", "options"])
def test_endpoint_does_not_exist_if_no_provider_has_the_option(client: Client, method: str) -> None:
    for path in ("", "Users"):
        assert getattr(client, method)(f"/oidc/scim/v2/{path}", secure=True).status_code == 404
