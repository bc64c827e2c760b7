"""Cost of a page that comes half a minute after the last one: `… page_cost ROUNDS STACK …`.

One process without sockets, and PostgreSQL. The stacks get their requests in turns. The result is a line of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import django

from tests.benchmarks.sign_in.measurement import _database as database

STACKS = ("bare", "phi_oidc", "mozilla")


def measure_pages(stacks: Sequence[str] = STACKS, *, url: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the result of `page_stacks.measure` in a new process. url: of the PostgreSQL server."""
    with database(url) as name:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.sessions.settings",
            "BENCH_DATABASE_URL": url,
            "BENCH_DATABASE_NAME": name,
        }
        command = [sys.executable, "-m", "tests.benchmarks.sessions.page_cost", str(rounds), *stacks]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, and print the result."""
    django.setup()
    stacks: Any = import_module("tests.benchmarks.sessions.page_stacks")
    print(json.dumps(stacks.measure(sys.argv[2:], rounds=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
