"""Neither the web role nor a stopped process blocks the periodic tasks: every wait for a lock has a limit."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core import mail
from django.db import connections, transaction

from django_phi_oidc._internal import clock, periodic_task
from django_phi_oidc.audit.db_privileges import grant_statements
from django_phi_oidc.audit.log import sequencer
from django_phi_oidc.audit.models import AuditLeaf, AuditUnsealed
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.audit.tasks import seal as seal_task
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.claims.tasks import scrub
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.emergency.tasks import tend_emergencies
from django_phi_oidc.contrib.monitoring.alerts import AlertCandidate, raise_alert
from django_phi_oidc.contrib.monitoring.models import SecurityAlert
from django_phi_oidc.contrib.monitoring.tasks import watch
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.contrib.siem.tasks import deliver
from django_phi_oidc.errors import AuditUnavailable
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import end_expired_sessions, end_orphaned_sessions, sweep_revocations
from tests.integration.audit.log_assertions import assert_log_is_whole
from tests.support import emergency_access
from tests.support.audit_log import PEM, events
from tests.support.audit_tampering import CHECKPOINT, LEAF, NODE, QUEUE, sql
from tests.support.concurrent_transaction import transaction_beside
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ScriptedOP, SignedIn, op, sign_in  # noqa: F401 -- fixtures

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]
EVENT = "phi_oidc_audit_auditevent"
ADVISORY_LOCKS = (0x7068695F6F696463, 0x7068695F73637275)
"""The keys of the lock that sequencers once took, and of the lock of the scrubber."""
LIMIT_SECONDS = 20


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the waits, and let a statement that waits longer than any limit fail instead of blocking the run."""
    monkeypatch.setattr(periodic_task, "LOCK_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(sequencer, "LOCK_WAIT_SECONDS", 0.3)
    for alias in ("default", "phi_audit"):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{LIMIT_SECONDS}s'")
    yield
    for alias in ("default", "phi_audit"):
        connections[alias].close()


@pytest.fixture
def sink_file(settings: Any, tmp_path: Path, op: ScriptedOP) -> Path:
    """Declare a sink and the signing key, and return the sink's file."""
    path = tmp_path / "sink"
    sinks = {"file": {"type": "file", "path": path}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM}, SIEM=sinks)
    return path


@contextmanager
def web_role_session() -> Iterator[psycopg.Connection[Any]]:
    """Yield a session of another process, of the role that the manual gives to web processes."""
    role = f"phi_test_{secrets.token_hex(4)}"
    sql(f"CREATE ROLE {role} LOGIN")
    for statement in grant_statements(role, is_sealer=False):
        sql(statement)
    connections["phi_audit"].ensure_connection()
    parameters = connections["phi_audit"].get_connection_params()
    try:
        with psycopg.connect(**{name: parameters[name] for name in parameters if name in LIBPQ}) as session:
            session.execute(f"SET SESSION AUTHORIZATION {role}")
            session.commit()
            yield session
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


LIBPQ = ("host", "port", "user", "password", "dbname")


def expire(*sessions: SignedIn) -> None:
    """Make the sessions, and the claims of one day, expired."""
    now = clock.now()
    pks = [session.session.pk for session in sessions]
    day_ago = now - timedelta(days=1)
    OIDCSession.objects.filter(pk__in=pks).update(started_at=day_ago, last_seen_at=now, due_at=day_ago)
    StoredClaim.objects.exclude(expires_at=None).update(expires_at=now - timedelta(hours=1))


@pytest.mark.without_pooler("it sets the user of a session, which keeps locks")
def test_d5_web_role_that_keeps_all_its_locks_blocks_no_task(
    sink_file: Path,
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
) -> None:
    expire(sign_in())
    events(3, at=clock.now())
    with web_role_session() as session:
        for lock in ADVISORY_LOCKS:
            session.execute("SELECT pg_advisory_lock(%s)", [lock])
        session.execute(f"LOCK TABLE {EVENT} IN ROW EXCLUSIVE MODE")
        session.execute(f"LOCK TABLE {', '.join((LEAF, NODE, CHECKPOINT, QUEUE))} IN ACCESS SHARE MODE")
        for mode in ("ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
                session.execute(f"LOCK TABLE {QUEUE} IN {mode} MODE")
        for task in (end_expired_sessions, sweep_revocations, scrub, drain_outbox, seal_task, deliver, watch):
            task()
        assert session.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert not AuditUnsealed.objects.exclude(refused=True).exists() or AuditLeaf.objects.count() >= 3
    assert AuditLeaf.objects.count() >= 3
    assert not StoredClaim.objects.exists()
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}
    assert len(sink_file.read_text().splitlines()) >= 4


@contextmanager
def stopped_seal(point: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `audit seal` in a process, which is stopped at that point inside the block."""
    environment = child_environment(os.environ, django_settings.DATABASES)
    command = [sys.executable, "-m", "tests.integration.stopped_seal_process", point, PEM]
    process = subprocess.Popen(command, env=environment)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "The process ended without reaching that point."
        yield process
    finally:
        process.kill()
        process.wait()


POINTS = ("the middle of what is copied out", "the middle of what is copied in", "COMMIT on phi_audit")


@pytest.mark.parametrize("point", POINTS)
def test_d5_stopped_seal_process_blocks_no_other_task_and_is_ended(
    point: str,
    sink_file: Path,
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SECURITY_CONTACTS=["security@example.org"])
    expire(sign_in())
    ids = events(5, at=clock.now() - timedelta(minutes=6))
    with stopped_seal(point) as process:
        with pytest.raises(AuditUnavailable, match="Another process"):
            seal_task()
        for task in (end_expired_sessions, sweep_revocations, scrub, drain_outbox, deliver, watch):
            task()
        assert not StoredClaim.objects.exists()
        assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}
        assert SecurityAlert.objects.filter(kind="sealing_lag").exclude(notified_at=None).exists()
        assert [message.to for message in mail.outbox] == [["security@example.org"]]
        assert AuditLeaf.objects.count() == 0

        monkeypatch.setattr(sequencer, "STALLED_AFTER", timedelta(0))
        monkeypatch.setattr(sequencer, "LOCK_WAIT_SECONDS", float(LIMIT_SECONDS))
        seal_task()
        assert set(ids) <= set(AuditLeaf.objects.values_list("event_id", flat=True))
        os.kill(process.pid, signal.SIGCONT)
        # In the middle of a COPY, libpq does not always notice that its session has ended.
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        assert process.returncode != 0
    deliver()
    assert len(sink_file.read_text().splitlines()) > 5
    assert_log_is_whole()


def test_d5_sequencer_that_works_is_not_ended(sink_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events(1)
    with stopped_seal(POINTS[2]) as process:
        for _ in range(2):
            with pytest.raises(AuditUnavailable):
                seal_task()
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0
    assert AuditLeaf.objects.count() == 1


@pytest.mark.parametrize("model", [OIDCSession, StoredClaim])
def test_d5_session_that_another_transaction_locks_does_not_keep_the_others_alive(
    model: Any,
    sink_file: Path,
    sign_in: Callable[..., SignedIn],
) -> None:
    sessions = [sign_in() for _ in range(3)]
    expire(*sessions)
    locked = sessions[1].session.pk
    rows = model.objects.filter(**{"pk" if model is OIDCSession else "session": locked})
    with transaction_beside(lambda: list(rows.select_for_update())):
        assert end_expired_sessions() == 2
        assert list(OIDCSession.objects.live().values_list("pk", flat=True)) == [locked]
    assert end_expired_sessions() == 1


def test_d5_locked_session_that_is_not_yet_over_does_not_keep_the_others_alive(
    sink_file: Path, sign_in: Callable[..., SignedIn]
) -> None:
    active, idle = sign_in(), sign_in()
    expire(idle)
    OIDCSession.objects.filter(pk=active.session.pk).update(due_at=clock.now() - timedelta(days=2))
    with transaction_beside(lambda: list(OIDCSession.objects.filter(pk=active.session.pk).select_for_update())):
        assert end_expired_sessions() == 1
    assert end_expired_sessions() == 0
    assert OIDCSession.objects.live().get().due_at > clock.now()


def test_d5_claim_of_an_inactive_account_that_was_locked_is_erased_by_the_next_run(
    sink_file: Path,
    sign_in: Callable[..., SignedIn],
) -> None:
    person = sign_in()
    claim = StoredClaim.objects.get(session=NO_SESSION)
    # Without a signal.
    type(person.user)._default_manager.filter(pk=person.user.pk).update(is_active=False)
    with transaction_beside(lambda: StoredClaim.objects.select_for_update().get(pk=claim.pk)):
        end_orphaned_sessions()
        assert StoredClaim.objects.filter(pk=claim.pk).exists()
    end_orphaned_sessions()
    assert not StoredClaim.objects.exists()
    assert OIDCSession.objects.get(pk=person.session.pk).end_reason == "user_inactive"


def test_d5_revocation_that_another_transaction_locks_does_not_hold_up_the_others(
    sink_file: Path,
    sign_in: Callable[..., SignedIn],
) -> None:
    expire(sign_in(), sign_in())
    end_expired_sessions()
    first = PendingRevocation.objects.order_by("due_at", "pk").first()
    assert PendingRevocation.objects.filter(status="pending").count() == 4
    with transaction_beside(lambda: PendingRevocation.objects.select_for_update().get(pk=first.pk)):
        sweep_revocations()
        assert list(PendingRevocation.objects.filter(status="pending").values_list("pk", flat=True)) == [first.pk]
    sweep_revocations()
    assert not PendingRevocation.objects.filter(status="pending").exists()


def test_d5_sink_whose_cursor_another_transaction_locks_does_not_hold_up_the_others(
    settings: Any, sink_file: Path, tmp_path: Path
) -> None:
    sinks = {name: {"type": "file", "path": tmp_path / name, "lag_alert": 60} for name in ("first", "second")}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM=sinks)
    events(2)
    seal_task()
    SinkCursor.objects.create(name="first", due_at=clock.now())
    with transaction_beside(lambda: SinkCursor.objects.select_for_update().get(name="first")):
        deliver()
        assert not (tmp_path / "first").exists()
        assert len((tmp_path / "second").read_text().splitlines()) == 3
    deliver()
    assert len((tmp_path / "first").read_text().splitlines()) >= 3


def test_d5_alert_that_another_transaction_locks_does_not_hold_up_the_others(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SECURITY_CONTACTS=["security@example.org"])
    now = clock.now()
    with transaction.atomic():
        for kind in ("token_forged", "refusal_burst"):
            raise_alert(AlertCandidate(kind=kind, first_seen=now, last_seen=now), now=now)
    with transaction_beside(lambda: SecurityAlert.objects.select_for_update().get(kind="token_forged")):
        watch()
        assert list(SecurityAlert.objects.filter(notified_at=None).values_list("kind", flat=True)) == ["token_forged"]
    watch()
    assert [message.subject for message in mail.outbox] == ["1 security alert of the portal"] * 2


def test_d5_emergency_that_another_transaction_locks_does_not_hold_up_the_mails_of_others(
    settings: Any,
    sign_in: Callable[..., SignedIn],
) -> None:
    emergency_access.declare(settings)
    users = [emergency_access.allow(sign_in().user, "open_emergencyaccess") for _ in range(2)]
    first, second = (emergency_access.opened(user, "Patient/1") for user in users)
    hour_ago = clock.now() - timedelta(hours=1)
    EmergencyAccess.objects.filter(pk=first.pk).update(opened_at=hour_ago, expires_at=hour_ago + timedelta(minutes=1))
    with transaction_beside(lambda: EmergencyAccess.objects.select_for_update().get(pk=first.pk)):
        tend_emergencies()
        assert list(EmergencyAccess.objects.filter(alerted_at=None).values_list("pk", flat=True)) == [first.pk]
    tend_emergencies()
    assert len(mail.outbox) == 2
    assert EmergencyAccess.objects.get(pk=first.pk).close_reason == "expired"
    assert EmergencyAccess.objects.get(pk=second.pk).closed_at is None
