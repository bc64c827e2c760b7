"""The complete demo, started as by `make demo`."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from portal.demo import services
from portal.demo.browser import Browser
from portal.demo.story import STEPS

from django_phi_oidc.testing.mock_provider import demo_accounts, demo_staff
from tests.integration.example_project.conftest import ROOT

pytestmark = pytest.mark.sqlite
TOKEN = re.compile(r"eyJ[\w-]+\.|\b[ar]t_[\w-]{20,}|[?&](code|state)=")


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the demo a directory that no other demo uses afterwards."""
    monkeypatch.setenv("DEMO_PARENT", str(tmp_path))


def start_demo(*, terminal: int | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start the demo. terminal: a file descriptor for its input and output, instead of a pipe."""
    prefixes = (*services.VARIABLE_PREFIXES, "PORT", "PYTHONUNBUFFERED", "ONCE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "demo"],
        env={**environ, "PORTAL_VAR_DIR": environ["DEMO_PARENT"], **variables},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_terminal(descriptor: int, until: str) -> str:
    """Return the output of a process up to and including a text, or up to its end."""
    output = b""
    # On Linux, a terminal that no process has open any more is an error and not an end of file.
    with suppress(OSError):
        while until.encode() not in output and (part := os.read(descriptor, 4096)):
            output += part
    return output.decode()


def list_processes(var: Path) -> list[str]:
    """Return the command lines of the processes of the demo in that directory."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"PORTAL_VAR_DIR={var}\0".encode() in (process / "environ").read_bytes():
                command_lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return command_lines


def wait_for_directory(demo: subprocess.Popen[str]) -> Path:
    """Return the directory of a running demo after it has started a process."""
    parent = f"PPid:\t{demo.pid}\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes() if parent in (process / "status").read_text() else b""
            except OSError:
                continue
            if match := re.search(rb"(?:^|\0)PORTAL_VAR_DIR=([^\0]+)", variables):
                return Path(match[1].decode())
        time.sleep(0.05)
    raise TimeoutError("The demo did not start a process.")


def parse_directory(output: str) -> Path:
    return Path(re.search(r"Databases, queue and logs: (.+)", output)[1]).resolve()


def read_logs(output: str) -> str:
    """Return the last log lines of each process."""
    logs = sorted((parse_directory(output) / "log").glob("*.log"))
    return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in logs)


def run_command(*words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT.parent), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_evidence_is_verified_elsewhere(var: Path, folder: Path) -> None:
    """Write the evidence of a demo that has ended; verify it without the portal's settings, keys and databases."""
    portal = {"PORTAL_VAR_DIR": str(var), "DJANGO_DEBUG": "1", "PHI_CLAIMS_JSON": json.dumps(services.CLAIMS)}
    manage, file = (ROOT / "manage.py", "phi_oidc"), folder / "evidence.json"
    written = run_command(*manage, "evidence", "--output", file, **portal)
    assert written.returncode == 0, written.stderr
    key = run_command(*manage, "audit", "checkpoint", "--public-key", **portal).stdout.strip()
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "django_phi_oidc", "django_phi_oidc.audit"]
    apps.append("django_phi_oidc.contrib.evidence")
    (folder / "auditor_settings.py").write_text(f"INSTALLED_APPS = {apps}\n")
    verify = ("-m", "django", "phi_oidc", "evidence", "verify", file, "--public-key", key)
    auditor = {"DJANGO_SETTINGS_MODULE": "auditor_settings", "PYTHONPATH": f"{folder}:{ROOT.parent}"}
    accepted = run_command(*verify, **auditor)
    assert accepted.returncode == 0, accepted.stderr
    assert "events, its signature is valid" in accepted.stdout
    file.write_text(file.read_text().replace("phi_oidc", "phi-oidc", 1))
    refused = run_command(*verify, **auditor)
    assert (refused.returncode, refused.stdout) == (1, "")


def test_demo_without_a_terminal_runs_all_steps_and_stops_all_processes(tmp_path: Path) -> None:
    with start_demo() as demo:
        output = demo.communicate(timeout=180)[0]
    assert demo.returncode == 0, output + read_logs(output)
    assert f"{len(STEPS)} of {len(STEPS)} steps passed." in output
    assert "✗" not in output
    assert "login.refused    failure signature_invalid" in output
    assert not TOKEN.search(output)
    assert list_processes(parse_directory(output)) == []
    assert_evidence_is_verified_elsewhere(parse_directory(output), tmp_path)


def test_demo_on_a_terminal_ends_with_addresses_accounts_and_first_clicks_and_serves() -> None:
    terminal, inside = pty.openpty()
    with start_demo(terminal=inside) as demo:
        os.close(inside)
        output = read_terminal(terminal, "Press Ctrl-C to stop.")
        guide = output.partition("steps passed.")[2]
        portal = re.search(r"^Portal +(http://\S+)\s*$", guide, re.MULTILINE)
        assert portal, output
        for account in (*demo_accounts(), *demo_staff()):
            assert re.search(rf"{account.username} +password {account.password} +\w", guide), guide
        assert "Click “See my details”" in guide
        assert Browser().open(portal[1]).status == 200
        demo.send_signal(signal.SIGINT)
        read_terminal(terminal, "\0")
        assert demo.wait(timeout=60) == 0
    os.close(terminal)


def test_demo_with_a_failed_step_reports_it_and_exits_with_1() -> None:
    with start_demo() as demo:
        leaked = wait_for_directory(demo) / "log" / "careless.log"
        leaked.write_text("born 1984-03-09\n")
        output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1, output
    assert f"{len(STEPS) - 1} of {len(STEPS)} steps passed." in output
    assert " 2 ✗ Stored data is encrypted" in output
    assert "her date of birth in careless.log" in output
    assert list_processes(parse_directory(output)) == []


def test_demo_with_an_occupied_port_reports_it_and_exits_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, start_demo(PORT=str(listener.getsockname()[1])) as demo:
        output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1
    assert "portal did not start" in output


@pytest.fixture
def ignored_sigint() -> Iterator[None]:
    """Ignore SIGINT in this process and in the processes that it starts, as in a background job of a script."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, handler)


def assert_signal_stops_demo(signal_number: signal.Signals) -> None:
    """Send the signal after the first step, and assert the exit code and that all processes stop."""
    with start_demo() as demo:
        assert demo.stdout is not None
        output = ""
        while "✓" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        var = wait_for_directory(demo)
        running = list_processes(var)
        demo.send_signal(signal_number)
        rest: Any = demo.communicate(timeout=60)[0]
    assert demo.returncode == 128 + signal_number, output + rest
    assert len(running) >= 4
    assert list_processes(var) == []


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_stops_its_processes(signal_number: signal.Signals) -> None:
    assert_signal_stops_demo(signal_number)


@pytest.mark.usefixtures("ignored_sigint")
def test_demo_that_inherits_an_ignored_sigint_can_be_interrupted() -> None:
    assert_signal_stops_demo(signal.SIGINT)
