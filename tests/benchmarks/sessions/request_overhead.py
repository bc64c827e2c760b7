"""What middleware adds to a request of somebody who is signed in: `… requesting N STACK …`.

One process, no socket: each stack's handler gets the same requests in its turn, N times, sync and async, and the answer
is a line of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import django

STACKS = ("bare", "ours", "mozilla", "auditlog")


def measure_requesting(stacks: Sequence[str] = STACKS, *, batches: int) -> dict[str, dict[str, float]]:
    """Return what each stack takes, by a process of its own, as `stacks.measure` tells it. First: the bare one."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sessions.settings"}
    command = [sys.executable, "-m", "tests.benchmarks.sessions.request_overhead", str(batches), *stacks]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, and print what came of it."""
    django.setup()
    stacks: Any = import_module("tests.benchmarks.sessions.middleware_stacks")
    print(json.dumps(stacks.measure(sys.argv[2:], batches=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
