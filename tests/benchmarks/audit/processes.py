"""The processes and databases of the trail's benchmarks."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.benchmarks.sign_in.measurement import _database as database
from tests.benchmarks.worker_protocol import line_of

__all__ = ["database", "environment_of", "line_of", "process"]


def environment_of(contender: str, url: str, name: str) -> Mapping[str, str]:
    """Return what tells a process whom it works for, and where: the server's URL and the database's name."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.audit.settings",
        "BENCH_CONTENDER": contender,
        "BENCH_DATABASE_URL": url,
        "BENCH_DATABASE_NAME": name,
    }


@contextmanager
def process(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours, to be written to and read from, and see to its end."""
    command = [sys.executable, "-m", module, *arguments]
    given = {**os.environ, **environment}
    with subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()
