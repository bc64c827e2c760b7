"""The spool: on the disk before anybody is let in, in the trail once and in order, and nobody alters it unnoticed."""

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
from django_phi_oidc.audit.spool import flush_spool, has_spooled_events, spool_event
from django_phi_oidc.audit.storage import insert_events
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_log import NOW
from tests.support.audit_outage import audit_database_fails
from tests.support.databases import child_environment

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


def put(path: Path, *numbers: int) -> list[uuid.UUID]:
    return [spool_event(permit(number), path=path) for number in numbers]


def trail() -> list[uuid.UUID]:
    """Return what the trail has, but for alerts, in its order."""
    return list(AuditEvent.objects.exclude(action="alert.raised").order_by("id").values_list("id", flat=True))


def alerts() -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in AuditEvent.objects.filter(action="alert.raised").order_by("id")]


def beside(path: Path) -> bytes:
    return path.with_name(f"{path.name}.altered").read_bytes()


def test_what_is_spooled_drains_once_and_in_order(path: Path) -> None:
    ids = put(path, 1, 2, 3)
    assert (trail(), has_spooled_events(path), path.stat().st_mode & 0o777) == ([], True, 0o600)
    assert flush_spool(path, now=NOW) == 3
    assert (trail(), has_spooled_events(path), alerts()) == (ids, False, [])
    assert flush_spool(path, now=NOW) == 0
    ids += put(path, 4)
    assert flush_spool(path, now=NOW) == 1
    assert (trail(), alerts()) == (ids, [])


def test_spool_stays_as_it_was_while_the_trail_is_away(path: Path) -> None:
    ids = put(path, 1, 2)
    content = path.read_bytes()
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        flush_spool(path, now=NOW)
    assert path.read_bytes() == content
    flush_spool(path, now=NOW)
    assert trail() == ids


def test_drain_that_was_killed_before_its_end_writes_nothing_twice(path: Path) -> None:
    ids = put(path, 1, 2)
    content = path.read_bytes()
    flush_spool(path, now=NOW)
    path.write_bytes(content)
    assert flush_spool(path, now=NOW) == 2
    assert (trail(), has_spooled_events(path), alerts()) == (ids, False, [])


def test_only_one_drains_and_those_who_write_are_not_held_up(path: Path) -> None:
    first = put(path, 1)
    held, go_on = threading.Event(), threading.Event()

    def slowly(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        held.set()
        assert go_on.wait(20)
        return execute(sql, params, many, context)

    def drain_slowly() -> None:
        try:
            with connections["phi_audit"].execute_wrapper(slowly):
                flush_spool(path, now=NOW)
        finally:
            connections.close_all()

    thread = threading.Thread(target=drain_slowly)
    thread.start()
    assert held.wait(20)
    assert flush_spool(path, now=NOW) == 0
    second = put(path, 2)
    go_on.set()
    thread.join()
    assert (trail(), has_spooled_events(path)) == (first, True)
    flush_spool(path, now=NOW)
    assert (trail(), has_spooled_events(path), alerts()) == (first + second, False, [])


def test_full_spool_refuses_and_one_that_was_drained_does_not(path: Path) -> None:
    line = len(path.read_bytes()) if put(path, 1) else 0
    spool_event(permit(2), path=path, max_bytes=2 * line)
    with pytest.raises(AuditUnavailable, match="full"):
        spool_event(permit(3), path=path, max_bytes=2 * line)
    assert len(path.read_bytes()) == 2 * line
    flush_spool(path, now=NOW)
    assert len(trail()) == 2
    spool_event(permit(3), path=path, max_bytes=2 * line)


def test_full_disk_refuses_and_leaves_no_half_a_line(path: Path) -> None:
    """A real one would be that of all other tests: a limit of this process's files fails in the same place."""
    put(path, 1)
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
    put(path, 2)


def test_file_that_is_a_link_or_in_no_folder_refuses(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.symlink_to(target)
    for wrong in (path, path.parent / "nowhere" / "spool"):
        with pytest.raises(AuditUnavailable):
            spool_event(permit(1), path=wrong)
    assert not target.exists()


def test_line_that_a_kill_cut_off_anywhere_is_no_event_and_in_nobodys_way(path: Path) -> None:
    kept = put(path, 1)
    whole = len(path.read_bytes())
    put(path, 2)
    content = path.read_bytes()
    for end in range(whole, len(content), 7):
        path.write_bytes(content[:end])
        added = put(path, 3)
        flush_spool(path, now=NOW)
        kept += added
        assert sorted(trail()) == sorted(kept)
    path.write_bytes(content[: len(content) - 1])
    flush_spool(path, now=NOW)
    assert (sorted(trail()), has_spooled_events(path), alerts()) == (sorted(kept), False, [])


def altered(name: str, lines: list[bytes]) -> list[bytes]:
    one, two, three = lines
    return {
        "the actor": [one, two.replace(b'"actor":"7"', b'"actor":"8"'), three],
        "the link": [one, b"0" * 64 + two[64:], three],
        "taken out": [one, three],
        "moved": [two, one, three],
        "twice": [one, two, two, three],
        "slipped in": [one, two, b"0" * 64 + b" {}", three],
        "no line at all": [one, two, b"\xff\xfe", three],
        "the first": [two, three],
    }[name]


# What is genuine by its own MAC is in the trail all the same; how many lines are told of.
ALTERED = {
    "the actor": ({1, 3}, 1),
    "the link": ({1, 2, 3}, 2),
    "taken out": ({1, 3}, 1),
    "moved": ({1, 2, 3}, 3),
    "twice": ({1, 2, 3}, 1),
    "slipped in": ({1, 2, 3}, 2),
    "no line at all": ({1, 2, 3}, 2),
    "the first": ({2, 3}, 1),
}


@pytest.mark.parametrize("name", ALTERED)
def test_line_that_was_altered_is_told_of_and_kept_beside(name: str, path: Path) -> None:
    ids = dict(zip((1, 2, 3), put(path, 1, 2, 3), strict=True))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in altered(name, lines)))
    flush_spool(path, now=NOW)
    kept, count = ALTERED[name]
    assert trail() == [ids[number] for number in sorted(kept)]
    assert (alerts(), has_spooled_events(path)) == ([{"count": count, "rule": "spool_altered"}], False)
    assert len(beside(path).splitlines()) == count
    put(path, 4)
    flush_spool(path, now=NOW)
    assert len(alerts()) == 1


def test_line_under_a_key_that_left_the_list_is_kept_beside(path: Path, settings: Any) -> None:
    put(path, 1)
    keys = django_settings.PHI_OIDC["AUDIT_MAC_KEYS"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "AUDIT_MAC_KEYS": keys[1:]}
    flush_spool(path, now=NOW)
    assert (trail(), alerts()) == ([], [{"count": 1, "rule": "spool_altered"}])
    path.write_bytes(beside(path))
    settings.PHI_OIDC = {**settings.PHI_OIDC, "AUDIT_MAC_KEYS": keys}
    flush_spool(path, now=NOW)
    assert len(trail()) == 1


def test_key_that_was_added_does_not_break_the_chain(path: Path, settings: Any) -> None:
    keys = django_settings.PHI_OIDC["AUDIT_MAC_KEYS"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "AUDIT_MAC_KEYS": keys[1:]}
    ids = put(path, 1)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "AUDIT_MAC_KEYS": keys}
    ids += put(path, 2)
    flush_spool(path, now=NOW)
    assert (trail(), alerts()) == (ids, [])


def test_event_whose_id_the_trail_has_for_another_is_kept_beside(path: Path) -> None:
    id_ = spool_event(permit(1), path=path)
    other = build_event(permit(2), id=id_, mac_key=keyring.get_keys("AUDIT_MAC_KEYS")[0].id)
    insert_events([AuthenticatedEvent(other, compute_mac(other, keyring.get_keys("AUDIT_MAC_KEYS")[0].material))])
    put(path, 3)
    flush_spool(path, now=NOW)
    assert (len(trail()), alerts()) == (2, [{"count": 1, "rule": "spool_altered"}])
    assert str(id_).encode() in beside(path)


def test_sigkill_at_any_moment_loses_no_permit_that_was_given(path: Path) -> None:
    """A writer is killed, again and again; one that drains is at work meanwhile."""
    told: list[str] = []
    environment = {**child_environment(os.environ, django_settings.DATABASES), "PYTHONPATH": os.getcwd()}
    for number in range(KILLS):
        child = subprocess.Popen([sys.executable, CHILD, path], env=environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told.append(child.stdout.readline().strip())
        time.sleep(random.uniform(0, 0.05))
        if number % 3 == 2:
            flush_spool(path, now=NOW)
        child.kill()
        # A last line may be cut off on its way to us, too.
        told += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
    assert len(told) > KILLS
    flush_spool(path, now=NOW)
    found = [str(id_) for id_ in trail()]
    # One more for each kill: on the disk, and killed before it was told.
    assert set(told) <= set(found)
    assert len(found) <= len(told) + KILLS
    assert (len(set(found)), alerts(), has_spooled_events(path)) == (len(found), [], False)


def test_beat_drains_the_spool_that_the_settings_name(path: Path, settings: Any) -> None:
    ids = put(path, 1, 2)
    drain_outbox()
    assert trail() == []
    emergency = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["a@b.example"], "spool": path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": emergency}
    drain_outbox()
    assert (trail(), has_spooled_events(path)) == (ids, False)


def test_command_drains_the_spool_and_says_how_much(path: Path, settings: Any) -> None:
    put(path, 1, 2)
    emergency = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["a@b.example"], "spool": path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": emergency}
    out = StringIO()
    call_command("phi_oidc", "audit", "drain", stdout=out)
    assert out.getvalue() == "Moved: 2.\n"
    put(path, 3)
    path.with_name("spool.lock").unlink()
    path.with_name("spool.lock").mkdir()
    with pytest.raises(CommandError, match="The spool cannot be read: IsADirectoryError"):
        call_command("phi_oidc", "audit", "drain", stdout=out)
