"""Commands to a measuring process, one per line, and its results in JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import django

Command = Callable[..., dict[str, Any]]


def run_commands(commands: Mapping[str, Command]) -> None:
    """Run the commands on standard input, a name and numbers per line, until it ends."""
    django.setup()
    for line in sys.stdin:
        name, *numbers = line.split()
        print(json.dumps(commands[name](*map(int, numbers))), flush=True)


def command_runner(running: subprocess.Popen[str]) -> Command:
    """Return a function that sends a command to the process and returns the result."""
    return lambda *command: send_command(running, *command)()


def send_command(running: subprocess.Popen[str], *command: object) -> Callable[[], dict[str, Any]]:
    """Send a command, and return a function that waits for its result."""
    assert running.stdin is not None
    running.stdin.write(" ".join(map(str, command)) + "\n")
    running.stdin.flush()
    return lambda: dict(json.loads(read_line(running)))


def read_line(running: subprocess.Popen[str]) -> str:
    """Return the next output line of the process."""
    assert running.stdout is not None
    return running.stdout.readline()


def peak_memory() -> int:
    """Return the peak memory of this process in bytes. Spec: proc(5)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
