"""What an app needs, and tables of apps that were taken out of INSTALLED_APPS."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from django_phi_oidc.checks.installed_apps import check_classes_of_apps
from tests.support.temporary_databases import scratch_databases

REMOVED = """
import json, os, sys
from django.conf import settings
import tests.settings as project
settings.configure(**{
    **{name: getattr(project, name) for name in dir(project) if name.isupper()},
    "INSTALLED_APPS": [name for name in project.INSTALLED_APPS if name not in os.environ["WITHOUT"].split()],
})
import django
django.setup()
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
found = [message.id for message in run_checks(tags=["database"], databases=["default"])]
refused = []
for command in (["migrate"], ["phi_oidc", "apps"]):
    try:
        call_command(*command, verbosity=0, skip_checks=False)
    except (CommandError, SystemCheckError) as error:
        refused.append(str(error))
sys.stdout = sys.__stdout__
print(json.dumps([[name for name in found if name.endswith("E161")], refused]))
"""
FILL = """
import django
django.setup()
import datetime, uuid
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("migrate", verbosity=0, database="phi_audit")
from django_phi_oidc.contrib.legal_holds.models import LegalHold
LegalHold.objects.create(id=uuid.uuid4(), reason="Docket", placed_at=datetime.datetime.now(datetime.UTC), placed_by="1")
"""


def run(script: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_app_with_rows_that_is_taken_out_is_an_error_of_check_migrate_and_apps(tmp_path: Path) -> None:
    with scratch_databases(tmp_path) as environment:
        run(FILL, environment)
        removed: Any = json.loads(
            run(REMOVED, {**environment, "WITHOUT": "django_phi_oidc.contrib.legal_holds"}).splitlines()[-1]
        )
        empty: Any = json.loads(
            run(REMOVED, {**environment, "WITHOUT": "django_phi_oidc.contrib.siem"}).splitlines()[-1]
        )
    ids, (migrate, apps) = removed
    assert ids == ["django_phi_oidc.E161"]
    assert "phi_oidc_legal_holds_legalhold" in migrate
    assert "phi_oidc_legal_holds_legalhold" in apps
    assert empty == [[], []]


LOCAL_ACCOUNTS = "django_phi_oidc.contrib.local_accounts"


@pytest.mark.django_db
@pytest.mark.parametrize("setting", ["AUTHENTICATION_BACKENDS", "MIDDLEWARE"])
@pytest.mark.parametrize("is_installed", [True, False])
def test_class_of_an_app_that_is_not_installed_is_an_error(settings: Any, setting: str, is_installed: bool) -> None:
    apps = [name for name in settings.INSTALLED_APPS if name != LOCAL_ACCOUNTS]
    settings.INSTALLED_APPS = [*apps, LOCAL_ACCOUNTS] if is_installed else apps
    setattr(settings, setting, ["django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"])
    found = [message for message in check_classes_of_apps(None) if message.id == "django_phi_oidc.E162"]
    assert [setting in str(message.msg) for message in found] == ([] if is_installed else [True])
    assert all('INSTALLED_APPS += ["django_phi_oidc.contrib.local_accounts"]' in str(item.hint) for item in found)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (["django_phi_oidc.contrib.adoption", "django_phi_oidc.contrib.doctor"], []),
        (["django_phi_oidc.contrib.adoption"], ["django_phi_oidc.E160"]),
    ],
)
def test_app_without_another_that_it_needs_is_an_error(
    settings: Any, installed: list[str], expected: list[str]
) -> None:
    others = [name for name in settings.INSTALLED_APPS if not name.endswith((".adoption", ".doctor"))]
    settings.INSTALLED_APPS = [*others, *installed]
    assert [message.id for message in run_checks() if message.id and message.id.endswith("E160")] == expected
