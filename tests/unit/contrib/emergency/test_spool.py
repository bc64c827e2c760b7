"""The spool: events are on disk before the permit, flushed once and in order, and alterations are detected."""

import json
import os
import random
import resource as limits
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connections

from django_phi_oidc.audit.events import Action, AuthenticatedEvent, NewEvent, Origin, build_event, compute_mac
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.storage import insert_events
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.contrib.emergency.spool import flush_spool, has_spooled_events, spool_event
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_log import NOW
from tests.support.audit_outage import audit_database_fails
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
CHILD = Path(__file__).with_name("spool_process.py")
KILLS = 12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def permit(number: int, **changed: Any) -> NewEvent:
    now = NOW + timedelta(seconds=number)
    origin = Origin(actor="7", request_id=f"request {number} “ü”")
    return NewEvent(action=Action.ACCESS_GRANTED, origin=origin, now=now, resource="Patient/7", **changed)


def spool(path: Path, *numbers: int) -> list[uuid.UUID]:
    return [spool_event(permit(number), path=path) for number in numbers]


def stored_ids() -> list[uuid.UUID]:
    """Return the ids of the events in the audit log without alerts, in order."""
    return list(AuditEvent.objects.exclude(action="alert.raised").order_by("id").values_list("id", flat=True))


def alerts() -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in AuditEvent.objects.filter(action="alert.raised").order_by("id")]


def altered_lines(path: Path) -> bytes:
    return path.with_name(f"{path.name}.altered").read_bytes()


def test_spooled_events_are_flushed_once_and_in_order(path: Path) -> None:
    ids = spool(path, 1, 2, 3)
    assert (stored_ids(), has_spooled_events(path), path.stat().st_mode & 0o777) == ([], True, 0o600)
    assert flush_spool(path, now=NOW) == 3
    assert (stored_ids(), has_spooled_events(path), alerts()) == (ids, False, [])
    assert flush_spool(path, now=NOW) == 0
    ids += spool(path, 4)
    assert flush_spool(path, now=NOW) == 1
    assert (stored_ids(), alerts()) == (ids, [])


def test_spool_is_unchanged_without_the_audit_database(path: Path) -> None:
    ids = spool(path, 1, 2)
    content = path.read_bytes()
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        flush_spool(path, now=NOW)
    assert path.read_bytes() == content
    flush_spool(path, now=NOW)
    assert stored_ids() == ids


def test_flush_after_a_killed_flush_writes_nothing_twice(path: Path) -> None:
    ids = spool(path, 1, 2)
    content = path.read_bytes()
    flush_spool(path, now=NOW)
    path.write_bytes(content)
    assert flush_spool(path, now=NOW) == 2
    assert (stored_ids(), has_spooled_events(path), alerts()) == (ids, False, [])


def test_only_one_process_flushes_and_writers_do_not_wait(path: Path) -> None:
    first = spool(path, 1)
    started, may_continue = threading.Event(), threading.Event()

    def wait_before_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        started.set()
        assert may_continue.wait(20)
        return execute(sql, params, many, context)

    def flush_slowly() -> None:
        try:
            with connections["phi_audit"].execute_wrapper(wait_before_statement):
                flush_spool(path, now=NOW)
        finally:
            connections.close_all()

    thread = threading.Thread(target=flush_slowly)
    thread.start()
    assert started.wait(20)
    assert flush_spool(path, now=NOW) == 0
    second = spool(path, 2)
    may_continue.set()
    thread.join()
    assert (stored_ids(), has_spooled_events(path)) == (first, True)
    flush_spool(path, now=NOW)
    assert (stored_ids(), has_spooled_events(path), alerts()) == (first + second, False, [])


def test_full_spool_refuses_until_it_is_flushed(path: Path) -> None:
    line = len(path.read_bytes()) if spool(path, 1) else 0
    spool_event(permit(2), path=path, max_bytes=2 * line)
    with pytest.raises(AuditUnavailable, match="full"):
        spool_event(permit(3), path=path, max_bytes=2 * line)
    assert len(path.read_bytes()) == 2 * line
    flush_spool(path, now=NOW)
    assert len(stored_ids()) == 2
    spool_event(permit(3), path=path, max_bytes=2 * line)


def test_full_disk_refuses_and_leaves_no_partial_line(path: Path) -> None:
    """Simulated by the file size limit of this process, which fails at the same place."""
    spool(path, 1)
    content = path.read_bytes()
    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        limits.setrlimit(limits.RLIMIT_FSIZE, (len(content) + 100, hard))
        with pytest.raises(AuditUnavailable):
            spool_event(permit(2), path=path)
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == content
    spool(path, 2)


def test_symlink_or_missing_directory_is_refused(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.symlink_to(target)
    for wrong in (path, path.parent / "nowhere" / "spool"):
        with pytest.raises(AuditUnavailable):
            spool_event(permit(1), path=wrong)
    assert not target.exists()


def test_truncated_line_is_no_event_and_is_overwritten(path: Path) -> None:
    expected = spool(path, 1)
    whole = len(path.read_bytes())
    spool(path, 2)
    content = path.read_bytes()
    for end in range(whole, len(content), 7):
        path.write_bytes(content[:end])
        added = spool(path, 3)
        flush_spool(path, now=NOW)
        expected += added
        assert sorted(stored_ids()) == sorted(expected)
    path.write_bytes(content[: len(content) - 1])
    flush_spool(path, now=NOW)
    assert (sorted(stored_ids()), has_spooled_events(path), alerts()) == (sorted(expected), False, [])


def altered(name: str, lines: list[bytes]) -> list[bytes]:
    one, two, three = lines
    return {
        "the actor": [one, two.replace(b'"actor":"7"', b'"actor":"8"'), three],
        "the link": [one, b"0" * 64 + two[64:], three],
        "removed": [one, three],
        "moved": [two, one, three],
        "twice": [one, two, two, three],
        "inserted": [one, two, b"0" * 64 + b" {}", three],
        "not a line": [one, two, b"\xff\xfe", three],
        "the first": [two, three],
    }[name]


# The events with a valid MAC, which are moved all the same, and the number of altered lines.
ALTERED = {
    "the actor": ({1, 3}, 1),
    "the link": ({1, 2, 3}, 2),
    "removed": ({1, 3}, 1),
    "moved": ({1, 2, 3}, 3),
    "twice": ({1, 2, 3}, 1),
    "inserted": ({1, 2, 3}, 2),
    "not a line": ({1, 2, 3}, 2),
    "the first": ({2, 3}, 1),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_line_raises_an_alert_and_is_kept(name: str, path: Path) -> None:
    ids = dict(zip((1, 2, 3), spool(path, 1, 2, 3), strict=True))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in altered(name, lines)))
    flush_spool(path, now=NOW)
    expected, count = ALTERED[name]
    assert stored_ids() == [ids[number] for number in sorted(expected)]
    assert (alerts(), has_spooled_events(path)) == ([{"count": count, "rule": "spool_altered"}], False)
    assert len(altered_lines(path).splitlines()) == count
    spool(path, 4)
    flush_spool(path, now=NOW)
    assert len(alerts()) == 1


def test_line_under_a_removed_key_is_kept(path: Path, settings: Any) -> None:
    spool(path, 1)
    keys = django_settings.PHI_OIDC["KEYS"]["audit_mac"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": keys[1:]})
    flush_spool(path, now=NOW)
    assert (stored_ids(), alerts()) == ([], [{"count": 1, "rule": "spool_altered"}])
    path.write_bytes(altered_lines(path))
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": keys})
    flush_spool(path, now=NOW)
    assert len(stored_ids()) == 1


def test_added_key_does_not_break_the_chain(path: Path, settings: Any) -> None:
    keys = django_settings.PHI_OIDC["KEYS"]["audit_mac"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": keys[1:]})
    ids = spool(path, 1)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": keys})
    ids += spool(path, 2)
    flush_spool(path, now=NOW)
    assert (stored_ids(), alerts()) == (ids, [])


def test_event_whose_id_is_used_by_another_is_kept(path: Path) -> None:
    id_ = spool_event(permit(1), path=path)
    other = build_event(permit(2), id=id_, mac_key=keyring.get_keys("audit_mac")[0].id)
    insert_events([AuthenticatedEvent(other, compute_mac(other, keyring.get_keys("audit_mac")[0].material))])
    spool(path, 3)
    flush_spool(path, now=NOW)
    assert (len(stored_ids()), alerts()) == (2, [{"count": 1, "rule": "spool_altered"}])
    assert str(id_).encode() in altered_lines(path)


def test_sigkill_at_any_moment_loses_no_given_permit(path: Path) -> None:
    """A writer is killed repeatedly, while this process flushes."""
    printed: list[str] = []
    environment = {**child_environment(os.environ, django_settings.DATABASES), "PYTHONPATH": os.getcwd()}
    for number in range(KILLS):
        child = subprocess.Popen([sys.executable, CHILD, path], env=environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        printed.append(child.stdout.readline().strip())
        time.sleep(random.uniform(0, 0.05))
        if number % 3 == 2:
            flush_spool(path, now=NOW)
        child.kill()
        # The last line of the output may be truncated, too.
        printed += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
    assert len(printed) > KILLS
    flush_spool(path, now=NOW)
    stored = [str(id_) for id_ in stored_ids()]
    # One more per kill: on disk, but the process was killed before it printed the id.
    assert set(printed) <= set(stored)
    assert len(stored) <= len(printed) + KILLS
    assert (len(set(stored)), alerts(), has_spooled_events(path)) == (len(stored), [], False)


def test_drain_outbox_task_flushes_the_configured_spool(path: Path, settings: Any) -> None:
    ids = spool(path, 1, 2)
    drain_outbox()
    assert stored_ids() == []
    emergency = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["a@b.example"], "spool": path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": emergency}
    drain_outbox()
    assert (stored_ids(), has_spooled_events(path)) == (ids, False)


def test_audit_drain_command_flushes_the_spool_and_prints_the_number(path: Path, settings: Any) -> None:
    spool(path, 1, 2)
    emergency = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["a@b.example"], "spool": path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": emergency}
    out = StringIO()
    call_command("phi_oidc", "audit", "drain", stdout=out)
    assert out.getvalue() == "Moved: 2.\n"
    spool(path, 3)
    path.with_name("spool.lock").unlink()
    path.with_name("spool.lock").mkdir()
    with pytest.raises(CommandError, match="The spool cannot be read: IsADirectoryError"):
        call_command("phi_oidc", "audit", "drain", stdout=out)
