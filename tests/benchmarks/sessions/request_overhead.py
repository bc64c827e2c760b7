"""Overhead of middleware for a request of a signed-in user: `… request_overhead N STACK …`.

One process without sockets: the handlers of the stacks get the same requests in turns, N times, sync and async. The
result is a line of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import django

STACKS = ("bare", "phi_oidc", "mozilla", "auditlog")


def measure_requests(stacks: Sequence[str] = STACKS, *, batches: int) -> dict[str, dict[str, float]]:
    """Return the result of `middleware_stacks.measure` in a new process. The first stack must be the bare one."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sessions.settings"}
    command = [sys.executable, "-m", "tests.benchmarks.sessions.request_overhead", str(batches), *stacks]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, and print the result."""
    django.setup()
    stacks: Any = import_module("tests.benchmarks.sessions.middleware_stacks")
    print(json.dumps(stacks.measure(sys.argv[2:], batches=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
