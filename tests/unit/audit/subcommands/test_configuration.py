"""`manage.py phi_oidc configuration`: what it prints and records, and the how-to page."""

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from django_phi_oidc import extensions
from django_phi_oidc.audit.configuration import read_configuration
from django_phi_oidc.audit.models import AuditEvent, RecordedConfiguration
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "how-to" / "configuration-changes.md").read_text()


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("phi_oidc", "configuration", *arguments, stdout=output)
    return output.getvalue()


def get_command(name: str) -> list[str]:
    match = re.search(rf"<!-- tested: {name} -->\n```console\n\$ python manage.py phi_oidc (.*)\n", PAGE)
    assert match
    return match[1].split()


def test_g15_show_prints_the_configuration_and_records_nothing(settings: Any) -> None:
    settings.SILENCED_SYSTEM_CHECKS = ["security.W001"]
    shown = json.loads(run("show", "--json"))
    registered = shown.pop("registered")
    assert shown == {
        "digest": read_configuration().digest,
        "warnings": list(read_configuration().warnings),
        "silenced": ["security.W001"],
    }
    warnings = ", ".join(read_configuration().warnings)
    lines = run("show").splitlines()
    assert lines[:3] == [f"digest: {shown['digest']}", f"warnings: {warnings}", "silenced: security.W001"]
    assert lines[3:] == [f"{name}: {', '.join(items)}" for name, items in registered.items()]
    assert not RecordedConfiguration.objects.exists()


def test_show_lists_what_runs_within_a_sign_in_in_its_order() -> None:
    registered = json.loads(run("show", "--json"))["registered"]
    assert registered["role_sources"] == ["django_phi_oidc.contrib.role_mapping.role_source.RoleRules"]
    for name, items in registered.items():
        assert len(items) == len(list(getattr(extensions, name))), name
    observers = [type(observer).__qualname__ for observer in extensions.sign_in_observers]
    assert [item.rpartition(".")[2] for item in registered["sign_in_observers"]] == observers
    assert "delegation_sources" not in registered


def test_g15_commands_of_the_page_record_and_list_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        call_command("phi_oidc", *get_command("record"), stdout=StringIO())
    event = AuditEvent.objects.get(action="configuration.changed")
    assert event.resource == "Configuration/web"
    exported = StringIO()
    call_command("phi_oidc", *get_command("export"), stdout=exported)
    assert [json.loads(line)["id"] for line in exported.getvalue().splitlines()] == [str(event.id)]


@pytest.mark.parametrize("component", ["worker", "two words", ""])
def test_g15_component_must_be_a_name_that_no_worker_uses(component: str) -> None:
    with pytest.raises(CommandError):
        run("record", component)
    assert not RecordedConfiguration.objects.exists()
    run("record", "web")
    assert RecordedConfiguration.objects.get().component == "web"


def test_g15_record_fails_without_the_database_or_a_key(settings: Any) -> None:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unavailable")

    with connection.execute_wrapper(fail), pytest.raises(CommandError, match="is not recorded: OperationalError"):
        run("record", "web")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    with pytest.raises(CommandError, match="audit_mac"):
        run("record", "web")


def test_g15_processes_with_equal_settings_have_equal_digests() -> None:
    digests = set()
    for seed in ("1", "2"):
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONHASHSEED": seed}
        command = [sys.executable, "-m", "django", "phi_oidc", "configuration", "show", "--json"]
        process = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60)
        digests.add(json.loads(process.stdout)["digest"])
    assert len(digests) == 1
