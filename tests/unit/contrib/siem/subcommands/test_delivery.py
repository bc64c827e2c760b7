import json
import re
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.siem.models import SinkCursor
from tests.support.manual_blocks import block, commands
from tests.support.sealed_events import NOW, seal
from tests.unit.contrib.siem.test_tasks import declare

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture(autouse=True)
def _after_the_sealing() -> Iterator[None]:
    with clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        yield


def run(*arguments: str) -> str:
    stdout = StringIO()
    call_command("phi_oidc", "delivery", *arguments, stdout=stdout, skip_checks=True)
    return stdout.getvalue()


def run_with_fault(*arguments: str) -> tuple[str, str]:
    """Return output and error of a run that must fail."""
    stdout = StringIO()
    with pytest.raises(CommandError) as fault:
        call_command("phi_oidc", "delivery", *arguments, stdout=stdout, skip_checks=True)
    return stdout.getvalue(), str(fault.value)


@pytest.fixture
def missing_folder(settings: Any, tmp_path: Path) -> Path:
    """Return a missing folder that the sink needs."""
    folder = tmp_path / "missing"
    declare(settings, archive={"type": "file", "path": folder / "log"})
    return folder


def test_status_without_sinks() -> None:
    assert run("status") == "No sinks are declared.\n"
    assert run("status", "--json") == ""


def test_status_shows_the_lag_and_its_reason(missing_folder: Path) -> None:
    seal(3)
    with pytest.raises(CommandError, match="Not all events were delivered to archive"):
        run("deliver")
    output, fault = run_with_fault("status", "--json")
    status = json.loads(output)
    assert fault == "Broken sinks: archive (failing)."
    values = {
        name: status[name] for name in ("sink", "type", "format", "tree_size", "behind", "last_fault", "attempts")
    }
    assert values == {
        "sink": "archive",
        "type": "file",
        "format": "json",
        "tree_size": 0,
        "behind": 3,
        "last_fault": "file_unwritable",
        "attempts": 1,
    }
    assert status["lag_seconds"] > 0 or status["behind"]
    assert status["problems"] == ["failing"]
    assert "3 behind" in run_with_fault("status")[0]
    missing_folder.mkdir()
    run("deliver")
    assert json.loads(run("status", "--json"))["problems"] == []


def test_status_fails_for_a_sink_that_lacks_events_for_too_long(missing_folder: Path) -> None:
    missing_folder.mkdir()
    seal(3)
    # No worker runs, so nothing sets the flag of the cursor.
    assert json.loads(run("status", "--json"))["problems"] == []
    with clock.override_clock(lambda: NOW + timedelta(minutes=5, seconds=1)):
        output, fault = run_with_fault("status", "--json")
        assert json.loads(output)["problems"] == ["late"]
        assert fault == "Broken sinks: archive (late)."
        run("deliver")
        assert json.loads(run("status", "--json"))["problems"] == []


def test_page_shows_the_printed_status(settings: Any) -> None:
    declare(
        settings,
        siem={"type": "syslog", "format": "cef", "host": "siem.example"},
        splunk={"type": "https", "url": "https://splunk.example/"},
    )
    size = seal(3)
    SinkCursor.objects.create(name="siem", due_at=clock.now(), tree_size=size, checkpoint_size=size)
    SinkCursor.objects.create(name="splunk", due_at=clock.now(), attempts=4, last_fault="transport_unreachable")
    ((_, _, _, *words),) = commands("siem", "status")
    expected = block("siem", "status").partition("\n")[2]
    output, fault = run_with_fault(*words[1:])
    assert re.sub(r"\d+", "N", f"{output}CommandError: {fault}\n") == re.sub(r"\d+", "N", expected)


def test_deliver_ignores_the_back_off(missing_folder: Path) -> None:
    seal(3)
    with pytest.raises(CommandError):
        run("deliver")
    missing_folder.mkdir()
    assert run("deliver") == "archive: 4 delivered.\n"
    assert run("status").startswith("archive (file, json): 3 events")
    assert SinkCursor.objects.get().checkpoint_size == 3


def test_deliver_with_an_invalid_declaration_names_the_option(settings: Any) -> None:
    declare(settings, siem={"type": "smoke"})
    with pytest.raises(CommandError, match=r"'SIEM'\]\['siem'\]\['type'\]"):
        run("deliver")
    with pytest.raises(CommandError, match=r"'SIEM'\]\['siem'\]\['type'\]"):
        run("status")
