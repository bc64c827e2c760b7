"""The recipes of the page on custom user models, as one project with a unique e-mail address."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manual_blocks import block, commands
from tests.support.temporary_databases import scratch_databases

ROOT = Path(__file__).resolve().parents[3]
PAGE = "custom-user-models"
SETTINGS = f"""
from tests.integration.custom_accounts.settings import *

INSTALLED_APPS += ["clinic"]
MIDDLEWARE = list(MIDDLEWARE)
ROOT_URLCONF = "clinic.urls"
SESSION_TABLE = "django_session"
PHI_OIDC = {{**PHI_OIDC, "CLAIMS": dict(PHI_OIDC["CLAIMS"])}}
for name in ("given_name", "family_name"):
    PHI_OIDC["CLAIMS"][name] = {{"purpose": "HOPERAT", "basis": "names of staff", "retention": None}}
PHI_OIDC["CLAIMS"]["employee_number"] = PHI_OIDC["CLAIMS"]["given_name"]
{block(PAGE, "name")}
{block(PAGE, "mail")}
{block(PAGE, "processors")}
"""
URLS = """
from django.shortcuts import render
from django.urls import path
from tests.support.portal_urls import urlpatterns as portal

urlpatterns = [
    *portal,
    path("hello/", lambda request: render(request, "hello.html")),
    path("header/", lambda request: render(request, "header.html")),
]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Write the app `clinic` with the code of the page, and return its folder."""
    backends = [block(PAGE, name) for name in ("sealed", "staff", "address", "username")]
    (sentence,) = re.findall(r"`(\{\{ user\.person\.clear_name \}\})`", (ROOT / f"docs/how-to/{PAGE}.md").read_text())
    files = {
        "__init__.py": "",
        "settings.py": SETTINGS,
        "urls.py": URLS,
        "models.py": block(PAGE, "model"),
        "backends.py": "\n".join(backends),
        "context_processors.py": block(PAGE, "processor"),
        "templates/hello.html": block(PAGE, "hello.html"),
        "templates/header.html": sentence,
        "migrations/__init__.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "clinic" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.each_database
def test_recipes_of_the_page_work_as_described(project: Path) -> None:
    with scratch_databases(project) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "tests.docs.howto.recipes_process"],
            cwd=project,
            env={
                **environment,
                "DJANGO_SETTINGS_MODULE": "clinic.settings",
                "PYTHONPATH": f"{ROOT}:{project}",
                "TEST_USER_MODEL": "UniqueEmail",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    statuses = result.pop("statuses")
    assert [name for name, _, status in statuses if status != 302] == ["same number", "no number"]
    addresses = result.pop("addresses")
    assert [re.sub(r"phi_[a-z2-7]{26}@account\.invalid", "opaque", address) for address in addresses] == [
        *("amina.okafor@example.org", "opaque", "opaque"),
    ], "verified; of another account; not verified"
    assert result == {
        "anonymous": "",
        "revealed": "<p>Welcome, Amina Okafor-Lindqvist</p>",
        "purposes": ["PATRQT"],
        "plain sessions": 0,
        "sealed": ["Jonas Brandt", "Jonas Brandt"],
        "plain columns": 0,
        "copied before": [],
        "after the erasure": 0,
        "staff": ["Lena Haddad", ""],
        "numbers": ["N-17"],
        "refusals": ["account_not_saved", "account_not_saved"],
        "copied": [["family_name", "given_name"], ["email", "given_name"], ["employee_number"]],
    }


def test_settings_of_the_page_name_the_backend_of_the_recipe() -> None:
    names: dict[str, list[str]] = {}
    exec(block(PAGE, "backend"), names)
    (path,) = names["AUTHENTICATION_BACKENDS"]
    assert f"class {path.rpartition('.')[2]}(OIDCAuthenticationBackend)" in block(PAGE, "hook")


def test_command_of_the_page_is_the_one_that_was_run() -> None:
    assert commands(PAGE, "audit") == [
        ["python", "manage.py", "phi_oidc", "audit", "export", "--action", "claim.stored"]
    ]
