"""The whole demo, as `make demo` starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from portal.demo import services
from portal.demo.story import STEPS

from tests.integration.example_project.conftest import ROOT

pytestmark = pytest.mark.sqlite
TOKEN = re.compile(r"eyJ[\w-]+\.|\b[ar]t_[\w-]{20,}|[?&](code|state)=")


def start(**variables: str) -> subprocess.Popen[str]:
    foreign = (*services.OURS, "PORT", "PYTHONUNBUFFERED")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "demo"],
        env={**environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def alive_under(var: Path) -> list[str]:
    """Return the command lines of processes that run in that demo's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"PORTAL_VAR_DIR={var}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def directory_of(demo: subprocess.Popen[str]) -> Path:
    """Return the directory of a running demo as soon as it has started a process in it."""
    parent = f"PPid:\t{demo.pid}\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes() if parent in (process / "status").read_text() else b""
            except OSError:
                continue
            if found := re.search(rb"(?:^|\0)PORTAL_VAR_DIR=([^\0]+)", variables):
                return Path(found[1].decode())
        time.sleep(0.05)
    raise TimeoutError("The demo started nothing.")


def directory_in(output: str) -> Path:
    return Path(re.search(r"Databases, queue and logs: (.+)", output)[1]).resolve()


def logs_of(output: str) -> str:
    """Return the last lines of each process of that demo: the next one takes its directory."""
    logs = sorted((directory_in(output) / "log").glob("*.log"))
    return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in logs)


def test_demo_without_a_terminal_tells_the_story_and_leaves_nothing_running() -> None:
    with start() as demo:
        output = demo.communicate(timeout=180)[0]
    assert demo.returncode == 0, output + logs_of(output)
    assert f"{len(STEPS)} of {len(STEPS)} steps held." in output
    assert "✗" not in output
    assert "login.refused    failure signature_invalid" in output
    assert not TOKEN.search(output)
    assert alive_under(directory_in(output)) == []


def test_demo_with_a_step_that_does_not_hold_says_so_and_ends_with_1() -> None:
    with start() as demo:
        leak = directory_of(demo) / "log" / "careless.log"
        leak.write_text("born 1984-03-09\n")
        output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1, output
    assert f"{len(STEPS) - 1} of {len(STEPS)} steps held." in output
    assert " 2 ✗ What the portal keeps of her is sealed" in output
    assert "her date of birth in careless.log" in output
    assert alive_under(directory_in(output)) == []


def test_demo_that_cannot_have_its_port_says_so_and_leaves_nothing_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, start(PORT=str(taken.getsockname()[1])) as demo:
        output = demo.communicate(timeout=120)[0]
    assert demo.returncode == 1
    assert "portal did not start" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_stops_its_processes(number: signal.Signals) -> None:
    with start() as demo:
        assert demo.stdout is not None
        output = ""
        while "✓" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        var = directory_of(demo)
        running = alive_under(var)
        demo.send_signal(number)
        rest: Any = demo.communicate(timeout=60)[0]
    assert demo.returncode == 128 + number, output + rest
    assert len(running) >= 4
    assert alive_under(var) == []
