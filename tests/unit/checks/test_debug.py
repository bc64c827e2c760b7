"""The checks of development settings, in a test run of the project: Django's test runner turns DEBUG off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
from tests.settings import *

DEBUG = {debug}
PROVIDER = {{**PHI_OIDC["PROVIDERS"]["default"], "issuer": "http://127.0.0.1:9", "allow_loopback_http": True}}
PHI_OIDC = {{**PHI_OIDC, "PROVIDERS": {{"default": PROVIDER}}}}
"""
SCRIPT = """
import django
django.setup()
from django.conf import settings
settings.DEBUG = False
from django.core.checks import run_checks
print(*(message.id for message in run_checks(tags=["security"])))
"""


@pytest.mark.parametrize("debug", [True, False])
def test_allow_loopback_http_is_an_error_unless_the_project_sets_debug(debug: bool, tmp_path: Path) -> None:
    (tmp_path / "project_settings.py").write_text(SETTINGS.format(debug=debug))
    folders = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))
    environment = {**os.environ, "PYTHONPATH": folders, "DJANGO_SETTINGS_MODULE": "project_settings"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert ("phi_oidc.E006" in run.stdout) is not debug
