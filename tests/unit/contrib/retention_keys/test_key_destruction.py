"""A retention key is destroyed when no claim needs it; then claims in backups cannot be decrypted."""

import json
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.log.verifier import VerificationSummary, verify_log
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.claims import tasks
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import (
    destroy_unused_keys,
    scrub_due_claims,
    scrub_sessions,
    scrub_user,
)
from django_phi_oidc.contrib.common.retention_key_folder import prepare_folder
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.retention_keys.key_destruction import DESTRUCTION_MARGIN
from django_phi_oidc.contrib.retention_keys.key_folder import RetentionKeyFolder
from django_phi_oidc.contrib.retention_keys.key_names import person_key_name
from django_phi_oidc.crypto import keyring
from django_phi_oidc.crypto.claim_keys import HOLD_PREFIX
from django_phi_oidc.errors import AuditUnavailable, KeyMissing, Undecryptable
from django_phi_oidc.extensions import retention_guards
from django_phi_oidc.fields import SealedTextField
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.audit_log import KEY, seal_now
from tests.support.backups import back_up, restore
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MIDNIGHT = NOW.replace(hour=0) + DAY
SESSION, ONE_DAY = "20261124-session", "20261124-86400"


@pytest.fixture
def keys(tmp_path: Path, settings: Any) -> RetentionKeyFolder:
    return use_retention_keys(settings, tmp_path)


def test_disabled_retention_keys_are_neither_created_nor_destroyed(make_person: Callable[..., Person]) -> None:
    make_person().store({"address": "Bern"})
    assert StoredClaim.objects.get().bucket == ""
    assert destroy_unused_keys(now=NOW + 10 * DAY) == []


def test_unused_key_is_destroyed_after_its_day(keys: RetentionKeyFolder, make_person: Callable[..., Person]) -> None:
    person = make_person()
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    with transaction.atomic():
        scrub_sessions([person.session_id], origin=person.origin(), now=NOW)
    assert destroy_unused_keys(now=MIDNIGHT + DESTRUCTION_MARGIN - timedelta(microseconds=1)) == [], (
        "another claim may be stored on this day"
    )
    assert destroy_unused_keys(now=MIDNIGHT + DESTRUCTION_MARGIN) == [SESSION]
    assert keys.names() == [ONE_DAY]
    assert scrub_due_claims(now=NOW + DAY) == 1
    assert destroy_unused_keys(now=NOW + DAY) == [ONE_DAY]
    assert destroy_unused_keys(now=NOW + DAY) == []
    events = AuditEvent.objects.filter(action="retention.key_destroyed").order_by("id")
    assert [event.detail for event in events] == [f'{{"bucket":"{SESSION}"}}', f'{{"bucket":"{ONE_DAY}"}}']


def test_margin_is_longer_than_a_sign_in_and_shorter_than_a_day() -> None:
    """The last claim of a day is committed minutes after it, and a key must not survive for days."""
    assert timedelta(minutes=30) <= DESTRUCTION_MARGIN < DAY


def test_key_of_an_ended_hold_is_destroyed(keys: RetentionKeyFolder, make_person: Callable[..., Person]) -> None:
    person, unknown = make_person(), f"{HOLD_PREFIX}{uuid.uuid4().hex}"
    keys.create(unknown)
    person.store({"address": "Bern"})
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=None, origin=person.origin(), now=NOW)
    name = f"{HOLD_PREFIX}{hold.pk.hex}"
    assert destroy_unused_keys(now=NOW + 10 * DAY) == [ONE_DAY], "no claim uses it any more"
    release_hold(hold.pk, origin=person.origin(), now=NOW)
    assert destroy_unused_keys(now=NOW) == [name]
    assert keys.names() == [ONE_DAY, unknown]
    with clock.override_clock(lambda: NOW):
        assert reveal(person.actor(), person.user, "address", purpose="PATRQT") is not None
    person.subject.refresh_from_db()
    key = person_key_name(person.subject.retention_key_id)
    person.subject.delete()
    assert LegalHold.objects.get().subject is None
    keys.create(name)
    assert destroy_unused_keys(now=NOW) == [name, key], "also for a hold of an erased person"


def test_key_of_a_rolled_back_hold_is_destroyed_after_the_margin(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person = make_person()
    person.store({"address": "Bern"})
    with transaction.atomic():
        place_hold(person.subject.uuid, reason="Docket 26-117", until=None, origin=person.origin(), now=NOW)
        transaction.set_rollback(True)
    (orphan,) = set(keys.names()) - {ONE_DAY}
    assert destroy_unused_keys(now=NOW + DESTRUCTION_MARGIN) == []
    assert destroy_unused_keys(now=NOW + DESTRUCTION_MARGIN + timedelta(milliseconds=1)) == [orphan]


@pytest.mark.parametrize(("is_installed", "destroyed"), [(True, 1), (False, 0)])
def test_process_without_a_guard_destroys_no_key_of_a_hold(
    is_installed: bool, destroyed: int, keys: RetentionKeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot know the holds that another process of the portal places."""
    if not is_installed:
        monkeypatch.setattr(retention_guards, "_items", [])
    keys.create(f"{HOLD_PREFIX}{uuid7(NOW - DAY).hex}")
    assert len(destroy_unused_keys(now=NOW)) == destroyed


@pytest.mark.postgresql
def test_key_of_a_hold_that_ends_during_a_sign_in_is_kept(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person, until, second = make_person(), NOW + DAY, timedelta(seconds=1)
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=until, origin=person.origin(), now=NOW)
    stored, resume = threading.Event(), threading.Event()

    def sign_in() -> None:
        with transaction.atomic():
            person.store({"address": "Bern"}, now=until - second)
            stored.set()
            resume.wait(10)
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sign_in)
        assert stored.wait(10)
        assert destroy_unused_keys(now=until + second) == []
        resume.set()
        future.result(10)
    assert _decrypt(StoredClaim.objects.get()) == '"Bern"'
    scrub_due_claims(now=until + DAY)
    assert destroy_unused_keys(now=until + DESTRUCTION_MARGIN) == [f"{HOLD_PREFIX}{hold.pk.hex}"]


def test_no_key_is_destroyed_without_its_event(keys: RetentionKeyFolder, make_person: Callable[..., Person]) -> None:
    make_person().store({"birthdate": "1990-05-17"})
    StoredClaim.objects.all().delete()
    with audit_database_away(), pytest.raises(AuditUnavailable):
        destroy_unused_keys(now=NOW + 2 * DAY)
    assert keys.names() == [SESSION]
    assert destroy_unused_keys(now=NOW + 2 * DAY) == [SESSION]


@pytest.mark.parametrize("away", ["missing", "empty"])
def test_a4_unavailable_keys_do_not_prevent_erasure(
    keys: RetentionKeyFolder, make_person: Callable[..., Person], settings: Any, tmp_path: Path, away: str
) -> None:
    (tmp_path / "empty").mkdir()
    person = make_person()
    person.store({"address": "Bern"})
    original = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(original, KEYS={"retention": tmp_path / away})
    with pytest.raises(KeyMissing):
        person.store({"address": "Thun"}, now=NOW + DAY)
    with clock.override_clock(lambda: NOW), pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "address", purpose="PATRQT")
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(KeyMissing):
        tasks.scrub()
    assert not StoredClaim.objects.exists(), "the claim is erased anyway"
    assert list((tmp_path / "empty").iterdir()) == [], "no new key is written to the wrong folder"
    assert list_key_events() == []
    settings.PHI_OIDC = override_phi_oidc(original, KEYS={"retention": "no folder"})
    with pytest.raises(ImproperlyConfigured):
        tasks.scrub()
    settings.PHI_OIDC = original
    with clock.override_clock(lambda: NOW + DAY):
        tasks.scrub()
    assert keys.names() == []


class StubbornStore(RetentionKeyFolder):
    """A project's store that does not destroy one of its keys."""

    kept = ""
    raises = True

    def destroy(self, name: str) -> None:
        if name != self.kept:
            super().destroy(name)
        elif self.raises:
            raise TimeoutError("the vault")


def list_key_events() -> list[tuple[str, str, str]]:
    """Return action, key and outcome of the events about retention keys, oldest first."""
    flush()
    rows = AuditEvent.objects.filter(action__startswith="retention.").order_by("id")
    return [(row.action.partition(".")[2], json.loads(row.detail)["bucket"], row.outcome) for row in rows]


@pytest.mark.parametrize("raises", [True, False], ids=["raises", "destroys nothing"])
def test_a5_key_that_cannot_be_destroyed_is_recorded_as_such_and_delays_no_other(
    tmp_path: Path, settings: Any, raises: bool
) -> None:
    names = [f"2026112{day}-session" for day in (1, 2, 3)]
    prepare_folder(tmp_path)
    store = StubbornStore(tmp_path)
    store.kept, store.raises = names[1], raises
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": store})
    for name in names:
        store.create(name)
    with pytest.raises(KeyMissing, match="1 of 3"):
        destroy_unused_keys(now=NOW + 2 * DAY)
    assert store.names() == [names[1]]
    recorded = list_key_events()
    assert sorted(recorded) == [
        ("key_destroyed", names[0], "success"),
        ("key_destroyed", names[1], "failure"),
        ("key_destroyed", names[2], "success"),
        *(("key_unused", name, "success") for name in names),
    ]
    alerts = AuditEvent.objects.filter(action="alert.raised", detail='{"rule":"retention_key_kept"}')
    assert alerts.count() == 1
    for minutes in (1, 30, 59):
        with pytest.raises(KeyMissing, match="1 of 1"):
            destroy_unused_keys(now=NOW + 2 * DAY + timedelta(minutes=minutes))
    assert list_key_events() == recorded
    with pytest.raises(KeyMissing):
        destroy_unused_keys(now=NOW + 2 * DAY + timedelta(minutes=61))
    assert len(list_key_events()) == len(recorded) + 2
    assert alerts.count() == 2
    store.kept = ""
    assert destroy_unused_keys(now=NOW + 2 * DAY + timedelta(minutes=62)) == [names[1]]
    assert list_key_events()[-1] == ("key_destroyed", names[1], "success")
    assert store.names() == []


def test_a5_forged_event_does_not_replace_the_event_before_a_destruction(
    keys: RetentionKeyFolder, settings: Any
) -> None:
    keys.create(SESSION)
    now = NOW + 2 * DAY
    fields = {"origin": Origin(), "now": now, "detail": {"bucket": SESSION}}
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": [keyring.generate_key()]})
    record("retention.key_unused", **fields)
    settings.PHI_OIDC = with_keys
    assert destroy_unused_keys(now=now) == [SESSION]
    assert sorted(action for action, _, _ in list_key_events()) == ["key_destroyed", "key_unused", "key_unused"]


@pytest.mark.parametrize("is_used", [True, False], ids=["with retention keys", "without"])
def test_restored_backup_is_undecryptable_after_key_destruction(
    make_person: Callable[..., Person], settings: Any, tmp_path: Path, is_used: bool
) -> None:
    if is_used:
        use_retention_keys(settings, tmp_path / "keys")
    person = make_person()
    person.store({"birthdate": "1990-05-17", "address": {"locality": "Bern"}})
    seal_now(at=NOW)
    back_up(tmp_path / "backup")
    with clock.override_clock(lambda: NOW + 2 * DAY):
        scrub_user(person.user, origin=person.origin(), now=NOW)
        tasks.scrub()
        flush()
    assert not StoredClaim.objects.exists()
    restore(tmp_path / "backup")
    assert StoredClaim.objects.count() == 2, "the claims are restored"
    values = [_decrypt(row) for row in StoredClaim.objects.order_by("name")]
    assert values == ([None, None] if is_used else ['{"locality": "Bern"}', '"1990-05-17"'])
    with clock.override_clock(lambda: NOW):
        if is_used:
            with pytest.raises(Undecryptable):
                reveal(person.actor(), person.user, "address", purpose="PATRQT")
        else:
            assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == {"locality": "Bern"}
    seal_now(at=NOW + 2 * DAY)
    summary = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=NOW + 2 * DAY, summary=summary)) == []
    assert AuditEvent.objects.filter(action="retention.key_destroyed").count() == (3 if is_used else 0)
    assert summary.tree_size == AuditEvent.objects.count() > 2


def _decrypt(row: StoredClaim) -> str | None:
    field: SealedTextField = StoredClaim._meta.get_field("value")
    try:
        return field.decrypt(row)
    except Undecryptable:
        return None


def test_no_key_in_use_is_destroyed_under_concurrency(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    """Sign-ins, session ends, holds, releases, erasures and key destruction over many days, in several threads."""
    people = [make_person() for _ in range(6)]
    today = [NOW]
    is_done = threading.Event()
    # The clock advances by half a day between actions, never during one: no action exceeds DESTRUCTION_MARGIN.
    locks = [threading.Lock(), threading.Lock()]

    def now() -> datetime:
        return today[0]

    def use_claims(seed: int) -> int:
        rng, rounds = random.Random(seed), 0
        while not is_done.wait(0.01):
            person, session = rng.choice(people[seed::2]), uuid.uuid4()
            with locks[seed]:
                person.store({"birthdate": "1990-05-17", "address": "Bern"}, session_id=session, now=now())
            if rng.random() < 0.5:
                with locks[seed]:
                    hold = place_hold(person.subject.uuid, reason="x", until=None, origin=person.origin(), now=now())
                if person not in people[:2]:
                    with locks[seed]:
                        release_hold(hold.pk, origin=person.origin(), now=now())
            if rng.random() < 0.7:
                with locks[seed], transaction.atomic():
                    scrub_sessions([session], origin=person.origin(), now=now())
            rounds += 1
        connections.close_all()
        return rounds

    def erase_and_destroy() -> int:
        destroyed = 0
        try:
            for _ in range(40):
                scrub_due_claims(now=now())
                destroyed += len(destroy_unused_keys(now=now()))
                with locks[0], locks[1]:
                    today[0] += DAY / 2
                is_done.wait(0.02)
        finally:
            is_done.set()
            connections.close_all()
        return destroyed

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(use_claims, seed) for seed in range(2)]
        destroyed = pool.submit(erase_and_destroy).result(120)
        assert all(future.result(120) > 10 for future in futures)
    assert destroyed > 10
    assert StoredClaim.objects.filter(held_until=None).exists()
    assert StoredClaim.objects.exclude(held_until=None).exists()
    assert [row.pk for row in StoredClaim.objects.all() if _decrypt(row) is None] == []


def test_keys_in_use_are_found_by_one_statement(keys: RetentionKeyFolder, make_person: Callable[..., Person]) -> None:
    person = make_person()
    for day in range(20):
        person.store({"birthdate": "1990-05-17"}, session_id=uuid.uuid4(), now=NOW + day * DAY)
    with CaptureQueriesContext(connection) as context:
        assert destroy_unused_keys(now=NOW + 100 * DAY) == []
    assert len(context) == 2, "one for days and holds, one for erased persons"
    StoredClaim.objects.filter(bucket="20261130-session").delete()
    assert destroy_unused_keys(now=NOW + 100 * DAY) == ["20261130-session"]
    assert len(list(keys.names())) == 19
