"""Processes and databases of the audit benchmarks."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.benchmarks.sign_in.measurement import _database as database
from tests.benchmarks.worker_protocol import read_line

__all__ = ["database", "environment_of", "process", "read_line"]


def environment_of(contender: str, url: str, name: str, *, apps: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the environment of a process: contender, URL of the server and name of the database.

    apps: of this package, besides the core and the audit log.
    """
    return {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.audit.settings",
        "BENCH_CONTENDER": contender,
        "BENCH_DATABASE_URL": url,
        "BENCH_DATABASE_NAME": name,
        "BENCH_APPS": " ".join(apps),
    }


@contextmanager
def process(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module with pipes for its input and output, and kill it at the end."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **environment}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()
