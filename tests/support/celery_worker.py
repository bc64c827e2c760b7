"""A Celery worker in a separate process, with the databases of the running test."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from django_phi_oidc._internal import randomness
from tests.support.databases import child_environment

PATIENCE_SECONDS = 60.0
LOG_CHARACTERS = 10_000


@contextmanager
def worker(
    broker: str,
    phi_oidc: Mapping[str, Any],
    folder: Path,
    *,
    name: str = "worker",
    beat: bool = True,
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that logs to `<name>.log`.

    environment: variables for `portal_process_settings` and `tests.support.celery_worker_app`.
    """
    environment = {
        **child_environment(os.environ, settings.DATABASES),
        "DJANGO_SETTINGS_MODULE": "tests.support.portal_process_settings",
        "TEST_PHI_OIDC": json.dumps(phi_oidc),
        "TEST_BROKER_URL": broker,
        "TEST_QUEUE": f"test-{randomness.token_b64url(6)}",
        "TEST_BEAT_FILE": str(folder / f"{name}.beat"),
        **environment,
    }
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.support.celery_worker_app",
        "worker",
        *(["-B"] if beat else []),
    ]
    command += ["--pool", "solo", "--loglevel", "DEBUG", "--hostname", f"{name}@%h"]
    command += ["--without-mingle", "--without-gossip", "--without-heartbeat"]
    path = folder / f"{name}.log"
    path.unlink(missing_ok=True)
    # Append mode, because a test writes to the file too.
    with path.open("a") as log:
        # A new session, to kill beat together with its worker. A graceful shutdown takes seconds.
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        except BaseException:
            # pytest shows it with the failure, and deletes the folder later.
            print(path.read_text(errors="replace")[-LOG_CHARACTERS:], file=sys.stderr)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def eventually(holds: Callable[[], bool]) -> bool:
    """Return whether the condition becomes true within PATIENCE_SECONDS."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.05)
    return True
