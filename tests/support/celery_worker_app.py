"""The app of a Celery worker in a separate process: `celery -A tests.support.celery_worker_app worker`."""

import os
import signal
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import triggers
from django_phi_oidc.schedule import beat_schedule
from tests.support.kill_points import watch

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    beat_schedule=beat_schedule(interval_seconds=float(os.environ.get("TEST_BEAT_SECONDS", "1"))),
    beat_schedule_filename=os.environ["TEST_BEAT_FILE"],
    task_ignore_result=True,
    # Its queue is named only after the worker, so another test would receive it.
    worker_enable_remote_control=False,
)
app.autodiscover_tasks()


def now_of_file() -> datetime:
    """Return the time in a file, or the system time while the file is empty."""
    text = Path(os.environ["TEST_CLOCK_FILE"]).read_text()
    return datetime.fromisoformat(text) if text else clock._get_system_time()


def reach(point: str) -> None:
    """Kill this process at the point in TEST_KILL_AT; `COMMIT on default 2` is the second one of that name."""
    passed[point] += 1
    if f"{point} {passed[point]}" == os.environ["TEST_KILL_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)


passed: Counter[str] = Counter()
# The test runner dropped the triggers that forbid to flush the tables.
flushed_tables = triggers.allow_deletion()
flushed_tables.__enter__()
if "TEST_CLOCK_FILE" in os.environ:
    file_clock = clock.override_clock(now_of_file)
    file_clock.__enter__()
if "TEST_KILL_AT" in os.environ:

    @worker_ready.connect
    def start_watching(**kwargs: Any) -> None:
        watch(reach)
