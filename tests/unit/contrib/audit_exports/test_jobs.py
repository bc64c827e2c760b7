"""Jobs run once, are retried after a killed worker, fail after three attempts, and are deleted after a day."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.conf import settings as django_settings

from django_phi_oidc import schedule
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.audit_exports.jobs import (
    LEASE_DURATION,
    MAX_ATTEMPTS,
    RETENTION_PERIOD,
    open_export_file,
    request_job,
)
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.audit_exports.tasks import work_trail_jobs
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.audit_tampering import EVENT, sql, without_triggers
from tests.support.celery_worker import eventually, worker
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
time = [NOW]


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Iterator[Path]:
    exports = tmp_path / "exports"
    exports.mkdir(mode=0o700)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=exports, KEYS={"audit_signing": PEM})
    time[0] = NOW + timedelta(seconds=30)
    with clock.override_clock(lambda: time[0]):
        yield exports


def export(export_format: str = "jsonl", **fields: Any) -> TrailJob:
    return request_job(TrailJob.EXPORT, asked_by="7", now=time[0], format=export_format, **fields)


def verification(by: str = "7") -> TrailJob:
    return request_job(TrailJob.VERIFICATION, asked_by=by, now=time[0])


def reload(job: TrailJob) -> TrailJob:
    return TrailJob.objects.get(pk=job.pk)


def later(pause: timedelta) -> datetime:
    time[0] += pause
    return time[0]


def test_export_is_a_private_file_that_is_downloaded_once(folder: Path) -> None:
    events(5)
    job = export(filters={"subject": "subject 1"})
    work_trail_jobs()
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (reload(job).state, reload(job).result, reload(job).done) == (TrailJob.DONE, {"events": 2}, 2)
    with open_export_file(job, folder=folder) as file:
        assert [json.loads(line)["subject"] for line in file] == ["subject 1"] * 2
    assert list(folder.iterdir()) == []
    with pytest.raises(LookupError):
        open_export_file(job, folder=folder)
    assert reload(job).state == TrailJob.TAKEN


def test_missing_file_is_not_opened(folder: Path) -> None:
    job = export()
    with pytest.raises(LookupError):
        open_export_file(job, folder=folder)
    work_trail_jobs()
    (file,) = folder.iterdir()
    file.unlink()
    with pytest.raises(LookupError):
        open_export_file(job, folder=folder)


@pytest.mark.parametrize("is_tampered", [False, True])
def test_verification_is_recorded_for_its_requester(is_tampered: bool) -> None:
    ids = sealed(3)
    if is_tampered:
        with without_triggers():
            sql(f"UPDATE {EVENT} SET reason = 'another' WHERE id = %s", ids[1])
    job = verification()
    work_trail_jobs()
    result = reload(job).result
    assert (reload(job).state, result["tree_size"], result["findings"]) == (TrailJob.DONE, 3, int(is_tampered))
    assert [str(ids[1]) in line for line in result["lines"]] == [True] * is_tampered
    (event,) = AuditEvent.objects.filter(action="audit.verified")
    assert (event.actor, event.outcome) == ("7", "failure" if is_tampered else "success")
    assert (reload(job).done, reload(job).total) == (3, 3)


def test_open_verification_is_shared() -> None:
    first = verification()
    assert verification(by="8").pk == first.pk
    assert export().pk != export().pk
    work_trail_jobs()
    assert verification(by="8").pk != first.pk


def test_leased_job_is_skipped_until_its_lease_ends() -> None:
    job = verification()
    TrailJob.objects.update(state=TrailJob.RUNNING, attempts=1, lease_until=time[0] + LEASE_DURATION)
    later(LEASE_DURATION - timedelta(seconds=1))
    work_trail_jobs()
    assert reload(job).state == TrailJob.RUNNING
    later(timedelta(seconds=1))
    work_trail_jobs()
    assert (reload(job).state, reload(job).attempts) == (TrailJob.DONE, 2)


def test_job_without_attempts_left_has_failed() -> None:
    job = verification()
    TrailJob.objects.update(state=TrailJob.RUNNING, attempts=MAX_ATTEMPTS, lease_until=time[0] + LEASE_DURATION)
    work_trail_jobs()
    assert reload(job).state == TrailJob.RUNNING
    later(LEASE_DURATION)
    work_trail_jobs()
    assert reload(job).state == TrailJob.FAILED


def test_failing_job_is_retried_and_then_marked_failed(settings: Any, folder: Path) -> None:
    job = verification()
    options = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(options, KEYS={"audit_mac": []})
    for _ in range(MAX_ATTEMPTS):
        work_trail_jobs()
        assert (reload(job).state, bool(reload(job).fault)) == (TrailJob.WAITING, True)
        later(timedelta(seconds=30))
    work_trail_jobs()
    assert reload(job).state == TrailJob.FAILED
    settings.PHI_OIDC = options
    work_trail_jobs()
    assert reload(job).state == TrailJob.FAILED


def test_export_of_an_unreadable_row_fails_at_once_without_a_file(folder: Path) -> None:
    ids = sealed(3)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET detail = 'no json' WHERE id = %s", ids[1])
    job = export()
    work_trail_jobs()
    assert (reload(job).state, reload(job).fault, list(folder.iterdir())) == (TrailJob.FAILED, "row_unreadable", [])


def test_export_without_a_declared_folder_is_reported(settings: Any) -> None:
    job = export()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT_EXPORTS=None)
    work_trail_jobs()
    assert reload(job).fault == "ImproperlyConfigured"


def test_jobs_and_their_files_are_deleted_after_a_day(folder: Path) -> None:
    job = export()
    work_trail_jobs()
    later(RETENTION_PERIOD - timedelta(seconds=1))
    work_trail_jobs()
    assert (reload(job).state, len(list(folder.iterdir()))) == (TrailJob.DONE, 1)
    later(timedelta(seconds=1))
    work_trail_jobs()
    assert (TrailJob.objects.count(), list(folder.iterdir())) == (0, [])


KILLED = """
import os, signal, sys, django
django.setup()
from datetime import timedelta
from pathlib import Path
from django_phi_oidc.contrib.audit_exports import jobs
from tests.support.audit_log import NOW
class Clock:
    calls = 0
    def __call__(self):
        self.calls += 1
        if self.calls == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return NOW + timedelta(seconds=30)
jobs.run_next_job(clock=Clock(), folder=Path(sys.argv[1]), hostname="here")
"""


def test_export_of_a_killed_worker_is_done_by_the_next_one(folder: Path) -> None:
    events(2500)
    job = export()
    environment = child_environment(os.environ, django_settings.DATABASES)
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, env=environment, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (reload(job).state, reload(job).done) == (TrailJob.RUNNING, 1000)
    later(LEASE_DURATION)
    work_trail_jobs()
    assert reload(job).result == {"events": 2500}
    with open_export_file(job, folder=folder) as file:
        assert sum(1 for _ in file) == 2500
    later(RETENTION_PERIOD)
    work_trail_jobs()
    assert list(folder.iterdir()) == []


def test_celery_worker_runs_the_scheduled_task(folder: Path, tmp_path: Path) -> None:
    sealed(3)
    now = clock._get_system_time()
    job = request_job(TrailJob.EXPORT, asked_by="7", now=now, format="csv")
    queue = tmp_path / "queue"
    queue.mkdir()
    broker = json.dumps({name: str(queue) for name in ("data_folder_in", "data_folder_out", "control_folder")})
    options = {"AUDIT_EXPORTS": str(folder)}
    with worker("filesystem://", options, tmp_path, TEST_BROKER_OPTIONS=broker):
        assert eventually(lambda: reload(job).state == TrailJob.DONE)
    (file,) = folder.iterdir()
    assert len(file.read_text().splitlines()) >= 4


def test_task_is_registered_and_scheduled() -> None:
    assert "phi_oidc.work_trail_jobs" in current_app.tasks
    assert "phi_oidc.work_trail_jobs" in schedule.beat_schedule()
