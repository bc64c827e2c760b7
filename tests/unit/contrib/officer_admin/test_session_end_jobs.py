"""Jobs that end many sessions: the selection, the batches, killed workers, locked sessions, and the tokens."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.conf import settings as django_settings
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import schedule
from django_phi_oidc._internal import clock
from django_phi_oidc._internal.sql import limit_lock_waits
from django_phi_oidc.audit.events import Origin, parse_detail
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.contrib.officer_admin import session_end_jobs
from django_phi_oidc.contrib.officer_admin.models import SessionEndJob
from django_phi_oidc.contrib.officer_admin.session_end_jobs import (
    LEASE_DURATION,
    MAX_FAILURES,
    RETRY_DELAY,
    SessionSelection,
    TokenProgress,
    get_token_progress,
    resume_job,
    run_job,
    start_bulk_end,
)
from django_phi_oidc.contrib.officer_admin.tasks import run_session_end_jobs
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, TokenToRevoke
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.tasks import prune
from tests.support.celery_worker import eventually, worker
from tests.support.concurrent_transaction import transaction_beside
from tests.support.databases import child_environment
from tests.support.session_fixtures import NOW, ScriptedOP, SignedIn, answering, declaration, events

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SignIn = Callable[..., SignedIn]
OFFICER = Origin(actor="7", client_ip="2001:db8::1")
ALL = SessionSelection(provider="default")
time = [NOW]


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    time[0] = NOW
    with clock.override_clock(lambda: time[0]):
        yield


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_end_jobs, "BATCH_SIZE", 3)


def later(pause: timedelta) -> None:
    time[0] += pause


def start(selection: SessionSelection = ALL) -> SessionEndJob:
    return start_bulk_end(selection, reason="incident", origin=OFFICER, now=time[0])


def reload(job: SessionEndJob) -> SessionEndJob:
    return SessionEndJob.objects.get(pk=job.pk)


def live() -> set[Any]:
    return set(OIDCSession.objects.live().values_list("pk", flat=True))


@pytest.mark.parametrize("by", ["provider", "group", "user", "both", "before"])
def test_selected_sessions_are_ended_and_no_others(by: str, op: ScriptedOP, sign_in: SignIn) -> None:
    chosen, other = sign_in(), sign_in()
    group = Group.objects.create(name="Ward 7")
    chosen.user.groups.add(group)  # type: ignore[attr-defined]
    if by == "both":
        # A member of the group at another provider.
        other.user.groups.add(group)  # type: ignore[attr-defined]
    OIDCSession.objects.filter(pk=other.session.pk).update(provider="another")
    started_at = OIDCSession.objects.get(pk=other.session.pk).started_at
    OIDCSession.objects.filter(pk=chosen.session.pk).update(started_at=started_at - timedelta(microseconds=1))
    selection = {
        "provider": ALL,
        "group": SessionSelection(group=group.pk),
        "user": SessionSelection(user=str(chosen.user.pk)),
        "both": SessionSelection(group=group.pk, provider="default"),
        "before": SessionSelection(before=started_at.isoformat()),
    }[by]
    job = start(selection)
    assert (job.total, live()) == (1, {chosen.session.pk, other.session.pk})
    run_session_end_jobs()
    assert live() == {other.session.pk}
    assert (reload(job).state, reload(job).done, reload(job).lease_until) == ("done", 1, None)


def test_bulk_end_without_a_criterion_is_refused(op: ScriptedOP, sign_in: SignIn) -> None:
    sign_in()
    with pytest.raises(ValueError, match="criterion"):
        start(SessionSelection())
    assert (SessionEndJob.objects.count(), len(live())) == (0, 1)


def test_events_name_the_requester_and_the_person(op: ScriptedOP, sign_in: SignIn) -> None:
    person = sign_in()
    job = start(SessionSelection(user=str(person.user.pk)))
    run_session_end_jobs()
    drain_outbox()
    (requested,), (ended,) = events("session.end_requested"), events("session.ended")
    assert (requested.actor, requested.client_ip, requested.resource) == ("7", "2001:db8::1", f"user/{person.user.pk}")
    assert requested.reason == "incident"
    assert parse_detail(requested.detail) == {"job": str(job.pk), "people": 1, "scope": "user", "sessions": 1}
    assert (ended.actor, ended.client_ip, ended.session) == ("7", "2001:db8::1", str(person.session.pk))


def test_session_that_starts_later_is_not_ended(op: ScriptedOP, sign_in: SignIn) -> None:
    sign_in()
    job = start()
    later(timedelta(minutes=2))
    newer = sign_in()
    run_session_end_jobs()
    assert (live(), reload(job).state) == ({newer.session.pk}, "done")


def test_tokens_are_revoked_by_the_sweep_and_counted(op: ScriptedOP, sign_in: SignIn) -> None:
    sign_in(), sign_in()
    job = start()
    run_session_end_jobs()
    assert (op.asked, get_token_progress(job)) == ([], TokenProgress(waiting=4))
    op.answer = answering(503)
    sweep_revocations()
    waiting = get_token_progress(job)
    assert (waiting.waiting, waiting.revoked, sum(count for _, count in waiting.faults) > 0) == (4, 0, True)
    op.answer = answering(200)
    later(timedelta(hours=1))
    sweep_revocations()
    assert get_token_progress(job) == TokenProgress(revoked=4)


def test_tokens_from_before_a_renewal_count_for_the_job_that_ends_the_session(op: ScriptedOP, sign_in: SignIn) -> None:
    replaced = ReceivedToken(token_type_hint="refresh_token", value="replaced")
    for signed_in in (sign_in(), sign_in()):
        token = TokenToRevoke(token=replaced, provider="default", session_id=signed_in.session.pk)
        PendingRevocation.objects.queue([token], now=NOW + timedelta(hours=8))
    job = start(SessionSelection(user=str(signed_in.user.pk)))
    run_session_end_jobs()
    assert (len(live()), get_token_progress(job)) == (1, TokenProgress(waiting=3))


def test_budget_leaves_the_rest_to_the_next_run(op: ScriptedOP, sign_in: SignIn, small_batches: None) -> None:
    for _ in range(8):
        sign_in()
    job = start()
    for done in (3, 6):
        assert run_job(job.pk, clock=clock.now, budget_seconds=0)
        assert (reload(job).state, reload(job).done, reload(job).total, len(live())) == ("waiting", done, 8, 8 - done)
    assert run_job(job.pk, clock=clock.now, budget_seconds=0)
    assert (reload(job).state, reload(job).done, live()) == ("done", 8, set())
    assert not run_job(job.pk, clock=clock.now, budget_seconds=0)


def test_leased_job_is_skipped_until_its_lease_ends(op: ScriptedOP, sign_in: SignIn) -> None:
    sign_in()
    job = start()
    SessionEndJob.objects.update(state="running", attempts=1, lease_until=time[0] + LEASE_DURATION)
    later(LEASE_DURATION - timedelta(seconds=1))
    run_session_end_jobs()
    assert (reload(job).state, len(live())) == ("running", 1)
    later(timedelta(seconds=1))
    run_session_end_jobs()
    assert (reload(job).state, reload(job).attempts, live()) == ("done", 2, set())


def test_worker_that_lost_its_lease_ends_nothing_more(op: ScriptedOP, sign_in: SignIn, small_batches: None) -> None:
    for _ in range(5):
        sign_in()
    job = start()

    def steal_after_first_batch() -> datetime:
        if reload(job).done == 3:
            SessionEndJob.objects.update(attempts=9)
        return time[0]

    assert run_job(job.pk, clock=steal_after_first_batch, budget_seconds=60)
    assert (reload(job).done, len(live()), PendingRevocation.objects.count()) == (3, 2, 6)


def test_batches_take_the_same_number_of_queries_for_any_number_of_sessions(op: ScriptedOP, sign_in: SignIn) -> None:
    counts = []
    for number in (2, 6):
        for _ in range(number):
            sign_in()
        job = start()
        with CaptureQueriesContext(
            connection,
        ) as captured:
            run_job(job.pk, clock=clock.now, budget_seconds=60)
        counts.append(len(captured))
        assert live() == set()
    assert counts[0] == counts[1]
    assert counts[0] <= 40


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks the whole database")
def test_locked_session_is_retried_and_the_others_are_ended(op: ScriptedOP, sign_in: SignIn) -> None:
    locked, *_others = (sign_in() for _ in range(4))
    job = start()
    rows = OIDCSession.objects.filter(pk=locked.session.pk)
    with transaction_beside(lambda: rows.select_for_update().get()):
        with limit_lock_waits(0.2):
            run_job(job.pk, clock=clock.now, budget_seconds=60)
        assert live() == {locked.session.pk}
        assert (reload(job).state, reload(job).fault, reload(job).done) == ("waiting", "lock_timeout", 3)
        for _ in range(MAX_FAILURES - 1):
            later(RETRY_DELAY)
            with limit_lock_waits(0.2):
                run_job(job.pk, clock=clock.now, budget_seconds=60)
        assert reload(job).state == "failed"
    later(RETRY_DELAY)
    run_session_end_jobs()
    assert len(live()) == 1
    resume_job(job.pk)
    run_session_end_jobs()
    assert (live(), reload(job).state, reload(job).fault) == (set(), "done", "")


KILLED = """
import os, signal, sys, uuid, django
django.setup()
from datetime import timedelta
from django_phi_oidc.contrib.officer_admin import session_end_jobs
from tests.support.session_fixtures import NOW
session_end_jobs.BATCH_SIZE = 3
class Clock:
    calls = 0
    def __call__(self):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return NOW
session_end_jobs.run_job(uuid.UUID(sys.argv[1]), clock=Clock(), budget_seconds=60)
"""


def test_next_worker_continues_the_job_of_a_killed_one(op: ScriptedOP, sign_in: SignIn) -> None:
    for _ in range(8):
        sign_in()
    job = start()
    environment = child_environment(os.environ, django_settings.DATABASES)
    command = [sys.executable, "-c", KILLED, str(job.pk)]
    done = subprocess.run(command, env=environment, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (reload(job).state, reload(job).done, len(live())) == ("running", 3, 5)
    later(LEASE_DURATION)
    run_session_end_jobs()
    assert (reload(job).state, reload(job).done, live()) == ("done", 8, set())
    assert get_token_progress(job).total == 16
    drain_outbox()
    assert len(events("session.ended")) == 8


def test_celery_worker_ends_the_sessions_and_revokes_their_tokens(
    op: ScriptedOP, sign_in: SignIn, tmp_path: Path
) -> None:
    with clock.override_clock(clock._get_system_time):
        for _ in range(3):
            sign_in()
        job = start_bulk_end(ALL, reason="incident", origin=OFFICER, now=clock.now())
        queue = tmp_path / "queue"
        queue.mkdir()
        broker = json.dumps({name: str(queue) for name in ("data_folder_in", "data_folder_out", "control_folder")})
        options = {"PROVIDERS": {"default": declaration(op)}}
        with worker("filesystem://", options, tmp_path, TEST_BROKER_OPTIONS=broker):
            assert eventually(lambda: reload(job).state == "done")
            assert eventually(lambda: get_token_progress(job).revoked == 6)
    assert (live(), len(op.asked)) == (set(), 6)


def test_old_jobs_are_deleted_by_prune(settings: Any) -> None:
    job = start()
    prune()
    assert reload(job).total == 0
    later(timedelta(days=400))
    prune()
    assert SessionEndJob.objects.count() == 0


def test_task_is_registered_and_scheduled() -> None:
    assert "phi_oidc.run_session_end_jobs" in current_app.tasks
    assert "phi_oidc.run_session_end_jobs" in schedule.beat_schedule()
