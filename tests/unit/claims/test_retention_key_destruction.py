"""A retention key goes when no claim needs it, and then no backup can be read."""

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
from django_phi_oidc.audit.log.verifier import VerificationSummary, verify_log
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims import tasks
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.legal_holds import place_hold, release_hold
from django_phi_oidc.claims.models import LegalHold, StoredClaim
from django_phi_oidc.claims.retention import (
    DESTRUCTION_MARGIN,
    destroy_unused_keys,
    scrub_due_claims,
    scrub_sessions,
    scrub_user,
)
from django_phi_oidc.crypto import retention_keys
from django_phi_oidc.crypto.retention_keys import RetentionKeyFolder
from django_phi_oidc.errors import AuditUnavailable, KeyMissing, Undecryptable
from django_phi_oidc.fields import SealedTextField
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.audit_log import KEY, seal_now
from tests.support.backups import back_up, restore
from tests.support.claims_fixtures import DAY, NOW, Person

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MIDNIGHT = NOW.replace(hour=0) + DAY
SESSION, ONE_DAY = "20261124-session", "20261124-86400"


@pytest.fixture
def keys(tmp_path: Path, settings: Any) -> RetentionKeyFolder:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path}
    return RetentionKeyFolder(tmp_path)


def test_without_retention_keys_nothing_is_asked_and_none_is_made(make_person: Callable[..., Person]) -> None:
    make_person().store({"address": "Bern"})
    assert StoredClaim.objects.get().bucket == ""
    assert destroy_unused_keys(now=NOW + 10 * DAY) == []


def test_key_is_destroyed_when_its_day_is_over_and_no_claim_bears_it(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person = make_person()
    person.store({"birthdate": "1990-05-17", "address": "Bern"})
    with transaction.atomic():
        scrub_sessions([person.session_id], origin=person.origin(), now=NOW)
    assert destroy_unused_keys(now=MIDNIGHT + DESTRUCTION_MARGIN - timedelta(microseconds=1)) == [], (
        "another may come on this day"
    )
    assert destroy_unused_keys(now=MIDNIGHT + DESTRUCTION_MARGIN) == [SESSION]
    assert keys.names() == [ONE_DAY]
    assert scrub_due_claims(now=NOW + DAY) == 1
    assert destroy_unused_keys(now=NOW + DAY) == [ONE_DAY]
    assert destroy_unused_keys(now=NOW + DAY) == []
    told = AuditEvent.objects.filter(action="retention.key_destroyed").order_by("id")
    assert [event.detail for event in told] == [f'{{"bucket":"{SESSION}"}}', f'{{"bucket":"{ONE_DAY}"}}']


def test_margin_is_longer_than_any_sign_in_and_shorter_than_a_day() -> None:
    """Spec: the last claim of a day is committed minutes after it, and a key that lives on for days is no erasure."""
    assert timedelta(minutes=30) <= DESTRUCTION_MARGIN < DAY


def test_key_of_a_hold_is_destroyed_after_it_and_one_of_an_unknown_hold_is_not(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person, unknown = make_person(), retention_keys.hold_key_name(uuid.uuid4().hex)
    keys.create(unknown)
    person.store({"address": "Bern"})
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=None, origin=person.origin(), now=NOW)
    name = retention_keys.hold_key_name(hold.pk.hex)
    assert destroy_unused_keys(now=NOW + 10 * DAY) == [ONE_DAY], "nobody bears it any more"
    release_hold(hold.pk, origin=person.origin(), now=NOW)
    assert destroy_unused_keys(now=NOW) == [name]
    assert keys.names() == [ONE_DAY, unknown]
    with clock.override_clock(lambda: NOW):
        assert reveal(person.actor(), person.user, "address", purpose="PATRQT") is not None
    scrub_user(person.user, origin=person.origin(), now=NOW)
    person.subject.refresh_from_db()
    person.subject.delete()
    assert LegalHold.objects.get().subject is None
    keys.create(name)
    assert destroy_unused_keys(now=NOW) == [name], "of a hold whose person is gone, too"


def test_key_of_a_hold_that_was_rolled_back_is_destroyed_when_nobody_can_be_placing_it(
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


@pytest.mark.postgresql
def test_key_of_a_hold_that_ends_during_a_sign_in_outlives_it(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person, until, second = make_person(), NOW + DAY, timedelta(seconds=1)
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=until, origin=person.origin(), now=NOW)
    stored, go_on = threading.Event(), threading.Event()

    def sign_in() -> None:
        with transaction.atomic():
            person.store({"address": "Bern"}, now=until - second)
            stored.set()
            go_on.wait(10)
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        guest = pool.submit(sign_in)
        assert stored.wait(10)
        assert destroy_unused_keys(now=until + second) == []
        go_on.set()
        guest.result(10)
    assert _open(StoredClaim.objects.get()) == '"Bern"'
    scrub_due_claims(now=until + DAY)
    assert destroy_unused_keys(now=until + DESTRUCTION_MARGIN) == [retention_keys.hold_key_name(hold.pk.hex)]


def test_nothing_is_destroyed_that_the_trail_does_not_tell_of(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    make_person().store({"birthdate": "1990-05-17"})
    StoredClaim.objects.all().delete()
    with audit_database_away(), pytest.raises(AuditUnavailable):
        destroy_unused_keys(now=NOW + 2 * DAY)
    assert keys.names() == [SESSION]
    assert destroy_unused_keys(now=NOW + 2 * DAY) == [SESSION]


def test_keys_that_can_not_be_reached_keep_the_claims_from_nothing(
    keys: RetentionKeyFolder, make_person: Callable[..., Person], settings: Any, tmp_path: Path
) -> None:
    person = make_person()
    person.store({"address": "Bern"})
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = {**declared, "RETENTION_KEYS": tmp_path / "away"}
    with pytest.raises(KeyMissing):
        person.store({"address": "Thun"}, now=NOW + DAY)
    with clock.override_clock(lambda: NOW), pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "address", purpose="PATRQT")
    with clock.override_clock(lambda: NOW + DAY), pytest.raises(KeyMissing):
        tasks.scrub()
    assert not StoredClaim.objects.exists(), "it is erased all the same"
    settings.PHI_OIDC = {**declared, "RETENTION_KEYS": "no folder"}
    with pytest.raises(ImproperlyConfigured):
        tasks.scrub()
    settings.PHI_OIDC = declared
    with clock.override_clock(lambda: NOW + DAY):
        tasks.scrub()
    assert keys.names() == []


@pytest.mark.parametrize("is_used", [True, False], ids=["with retention keys", "without"])
def test_restored_backup_can_be_read_unless_its_keys_have_lapsed(
    make_person: Callable[..., Person], settings: Any, tmp_path: Path, is_used: bool
) -> None:
    if is_used:
        (tmp_path / "keys").mkdir()
        settings.PHI_OIDC = {**settings.PHI_OIDC, "RETENTION_KEYS": tmp_path / "keys"}
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
    assert StoredClaim.objects.count() == 2, "they are here again"
    values = [_open(row) for row in StoredClaim.objects.order_by("name")]
    assert values == ([None, None] if is_used else ['{"locality": "Bern"}', '"1990-05-17"'])
    with clock.override_clock(lambda: NOW):
        if is_used:
            with pytest.raises(Undecryptable):
                reveal(person.actor(), person.user, "address", purpose="PATRQT")
        else:
            assert reveal(person.actor(), person.user, "address", purpose="PATRQT") == {"locality": "Bern"}
    seal_now(at=NOW + 2 * DAY)
    tally = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=NOW + 2 * DAY, summary=tally)) == []
    assert AuditEvent.objects.filter(action="retention.key_destroyed").count() == (2 if is_used else 0)
    assert tally.tree_size == AuditEvent.objects.count() > 2


def _open(row: StoredClaim) -> str | None:
    field: SealedTextField = StoredClaim._meta.get_field("value")
    try:
        return field.decrypt(row)
    except Undecryptable:
        return None


def test_no_key_of_a_living_claim_is_destroyed_whatever_goes_on_beside_it(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    """Sign-ins, ends, holds, releases, scrubs and destructions, days on end, in several threads."""
    people = [make_person() for _ in range(6)]
    today = [NOW]
    over = threading.Event()
    # Half a day passes between what they do: nothing that a person does lasts longer than MARGIN.
    doing = [threading.Lock(), threading.Lock()]

    def now() -> datetime:
        return today[0]

    def live(seed: int) -> int:
        chance, done = random.Random(seed), 0
        while not over.wait(0.002):
            person, session = chance.choice(people[seed::2]), uuid.uuid4()
            with doing[seed]:
                person.store({"birthdate": "1990-05-17", "address": "Bern"}, session_id=session, now=now())
            if chance.random() < 0.5:
                with doing[seed]:
                    hold = place_hold(person.subject.uuid, reason="x", until=None, origin=person.origin(), now=now())
                if person not in people[:2]:
                    with doing[seed]:
                        release_hold(hold.pk, origin=person.origin(), now=now())
            if chance.random() < 0.7:
                with doing[seed], transaction.atomic():
                    scrub_sessions([session], origin=person.origin(), now=now())
            done += 1
        connections.close_all()
        return done

    def sweep() -> int:
        destroyed = 0
        try:
            for _ in range(30):
                scrub_due_claims(now=now())
                destroyed += len(destroy_unused_keys(now=now()))
                with doing[0], doing[1]:
                    today[0] += DAY / 2
                over.wait(0.02)
        finally:
            over.set()
            connections.close_all()
        return destroyed

    with ThreadPoolExecutor(3) as pool:
        lives = [pool.submit(live, seed) for seed in range(2)]
        destroyed = pool.submit(sweep).result(120)
        assert all(each.result(120) > 10 for each in lives)
    assert destroyed > 10
    assert StoredClaim.objects.filter(held_until=None).exists()
    assert StoredClaim.objects.exclude(held_until=None).exists()
    assert [row.pk for row in StoredClaim.objects.all() if _open(row) is None] == []


def test_keys_that_claims_bear_are_found_by_one_statement(
    keys: RetentionKeyFolder, make_person: Callable[..., Person]
) -> None:
    person = make_person()
    for day in range(20):
        person.store({"birthdate": "1990-05-17"}, session_id=uuid.uuid4(), now=NOW + day * DAY)
    with CaptureQueriesContext(connection) as context:
        assert destroy_unused_keys(now=NOW + 100 * DAY) == []
    assert len(context) == 1
    StoredClaim.objects.filter(bucket="20261130-session").delete()
    assert destroy_unused_keys(now=NOW + 100 * DAY) == ["20261130-session"]
    assert len(list(keys.names())) == 19
