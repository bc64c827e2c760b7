"""The retention key of a person is destroyed when all claims of the person are erased: also in backups, at once."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.claims import tasks
from django_phi_oidc.claims.disclosure import reveal, reveal_many
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import (
    destroy_unused_keys,
    scrub_due_claims,
    scrub_inactive_users,
    scrub_past_limit,
    scrub_sessions,
    scrub_user,
)
from django_phi_oidc.contrib.individual_rights.erasure import erase_person
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.retention_keys.key_destruction import DESTRUCTION_MARGIN
from django_phi_oidc.contrib.retention_keys.key_folder import RetentionKeyFolder
from django_phi_oidc.contrib.retention_keys.key_names import person_key_name
from django_phi_oidc.contrib.retention_keys.models import UnusedPersonKey
from django_phi_oidc.errors import HeldForLegalReasons, KeyMissing, Undecryptable
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.backups import back_up, restore
from tests.support.claims_fixtures import DAY, DECLARED, NOW, Person
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
CLAIMS = {"birthdate": "1990-05-17", "address": "Bern"}
OPENED = ['"Bern"', '"1990-05-17"']
Erase = Callable[[Person], Any]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, settings: Any) -> RetentionKeyFolder:
    return use_retention_keys(settings, tmp_path / "keys")


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with clock.override_clock(lambda: NOW):
        yield


def key_name(person: Person) -> str:
    return person_key_name(PairwiseSubject.objects.get(pk=person.subject.pk).retention_key_id)


def decrypted(person: Person) -> list[str | None]:
    """Return the values of the person's claims by name; None for one that can't be decrypted."""
    field: Any = StoredClaim._meta.get_field("value")

    def decrypt(claim: StoredClaim) -> str | None:
        try:
            value: str = field.decrypt(claim)
        except Undecryptable:
            return None
        return value

    return [decrypt(claim) for claim in StoredClaim.objects.filter(subject__uuid=person.subject.uuid).order_by("name")]


def key_events(subject: uuid.UUID) -> list[tuple[str, str, str]]:
    """Return action, key and outcome of the events about the person's retention keys, sorted."""
    flush()
    rows = AuditEvent.objects.filter(action__startswith="retention.", subject=str(subject))
    return sorted((row.action.partition(".")[2], json.loads(row.detail)["bucket"], row.outcome) for row in rows)


def restore_everything(path: Path) -> None:
    """Replace users, subjects and claims by those of the backup."""
    models: list[Any] = [get_user_model(), PairwiseSubject, StoredClaim]
    for model in (OIDCSession, LegalHold, *reversed(models)):
        model._base_manager.all()._raw_delete("default")
    for model in models:
        restore(path, model._meta.db_table)


def scrub_on_request(person: Person) -> None:
    scrub_user(person.user, origin=Origin(), now=NOW)


def erase(person: Person) -> None:
    erase_person(person.user, [person.subject], origin=Origin(), now=NOW)


def unlink(person: Person) -> None:
    person.subject.delete()


def delete_account(person: Person) -> None:
    person.user.delete()


def deactivate(person: Person) -> None:
    person.user.is_active = False
    person.user.save()


def scrub_deactivated(person: Person) -> None:
    with transaction.atomic():
        scrub_inactive_users([person.user.pk], origin=Origin(), now=NOW)


def end_session(person: Person) -> None:
    with transaction.atomic():
        assert scrub_sessions([person.session_id], origin=Origin(), now=NOW) == 1


def expire(person: Person) -> None:
    StoredClaim.objects.filter(subject=person.subject.pk, name="address").update(expires_at=NOW)
    assert scrub_due_claims(now=NOW) == 1


PATHS: dict[str, Erase] = {
    "on request": scrub_on_request,
    "the person is erased": erase,
    "the person is unlinked": unlink,
    "the account is deleted": delete_account,
    "the account is deactivated": deactivate,
    "the account was deactivated without a signal": scrub_deactivated,
}
OTHER_PATHS: dict[str, Erase] = {"the session ends": end_session, "a claim expires": expire, "nothing": lambda _: None}


@pytest.mark.parametrize("path", [*PATHS, *OTHER_PATHS])
def test_g7_backup_opens_the_claims_of_another_person_and_not_those_of_the_erased_one(
    make_person: Callable[..., Person], tmp_path: Path, path: str
) -> None:
    hers, his = make_person(), make_person()
    for person in (hers, his):
        person.store(CLAIMS)
    back_up(tmp_path / "backup")
    (PATHS | OTHER_PATHS)[path](hers)
    tasks.scrub()
    restore_everything(tmp_path / "backup")
    assert decrypted(hers) == ([None, None] if path in PATHS else OPENED)
    assert decrypted(his) == OPENED
    assert reveal(his.actor(), his.user, "address", purpose="PATRQT") == "Bern"


@pytest.mark.parametrize("path", PATHS)
def test_g7_destruction_of_the_key_of_a_person_is_recorded(
    make_person: Callable[..., Person], keys: RetentionKeyFolder, path: str
) -> None:
    person = make_person()
    person.store(CLAIMS)
    subject, name = person.subject.uuid, key_name(person)
    PATHS[path](person)
    assert keys.get(name), "nothing goes to a vault inside a transaction"
    assert UnusedPersonKey.objects.get().subject_uuid == subject
    tasks.scrub()
    assert keys.get(name) is None
    assert key_events(subject) == [("key_destroyed", name, "success"), ("key_unused", name, "success")]
    assert not UnusedPersonKey.objects.exists()
    tasks.scrub()
    assert len(key_events(subject)) == 2


@pytest.mark.parametrize("command", [["scrub", "--user"], ["subject", "erase", "--yes", "--user"]], ids=" ".join)
def test_g7_command_destroys_the_key_at_once_or_fails(
    make_person: Callable[..., Person],
    keys: RetentionKeyFolder,
    settings: Any,
    tmp_path: Path,
    command: list[str],
) -> None:
    first, second = make_person(), make_person()
    names = []
    for person in (first, second):
        person.store(CLAIMS)
        names.append(key_name(person))
    call_command("phi_oidc", *command, first.user.get_username(), stdout=StringIO())
    assert [keys.get(name) is None for name in names] == [True, False]
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"retention": tmp_path / "away"})
    with pytest.raises(CommandError, match="could not be destroyed"):
        call_command("phi_oidc", *command, second.user.get_username(), stdout=StringIO())
    assert not StoredClaim.objects.filter(subject=second.subject.pk).exists()
    settings.PHI_OIDC = with_keys
    tasks.scrub()
    assert keys.get(names[1]) is None


def test_g7_erasure_that_is_rolled_back_destroys_nothing(person: Person, keys: RetentionKeyFolder) -> None:
    person.store(CLAIMS)
    with transaction.atomic():
        scrub_user(person.user, origin=Origin(), now=NOW)
        transaction.set_rollback(True)
    tasks.scrub()
    assert decrypted(person) == OPENED
    assert not UnusedPersonKey.objects.exists()


def test_g7_sign_in_after_an_erasure_uses_another_key(person: Person, keys: RetentionKeyFolder, tmp_path: Path) -> None:
    person.store(CLAIMS)
    name = key_name(person)
    back_up(tmp_path / "backup")
    scrub_on_request(person)
    person.store(CLAIMS)
    tasks.scrub()
    assert key_name(person) != name
    assert decrypted(person) == OPENED
    restore_everything(tmp_path / "backup")
    assert decrypted(person) == [None, None]
    # The row of the backup names the destroyed key. Another key gets that name, and does not open what was erased.
    assert key_name(person) == name
    person.store({"address": "Thun"})
    assert decrypted(person) == ['"Thun"', None]
    tasks.scrub()
    assert keys.get(name)
    assert not AuditEvent.objects.filter(action="alert.raised").exists()


def test_g7_unlinking_by_a_stale_instance_destroys_the_current_key(person: Person, keys: RetentionKeyFolder) -> None:
    person.store(CLAIMS)
    stale = PairwiseSubject.objects.get(pk=person.subject.pk)
    scrub_on_request(person)
    person.store(CLAIMS)
    name = key_name(person)
    assert person_key_name(stale.retention_key_id) != name
    stale.delete()
    tasks.scrub()
    assert keys.get(name) is None


def test_g7_hold_keeps_the_key_of_the_person_until_an_erasure_after_it(
    make_person: Callable[..., Person], keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    person = make_person()
    person.store(CLAIMS)
    name = key_name(person)
    back_up(tmp_path / "before")
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + DAY, origin=Origin(), now=NOW)
    back_up(tmp_path / "during")
    with pytest.raises(HeldForLegalReasons):
        scrub_on_request(person)
    tasks.scrub()
    assert decrypted(person) == OPENED
    assert keys.get(name)
    release_hold(hold.pk, origin=Origin(), now=NOW)
    assert decrypted(person) == OPENED
    scrub_on_request(person)
    later = NOW + DESTRUCTION_MARGIN
    with clock.override_clock(lambda: later):
        tasks.scrub()
    for path in ("before", "during"):
        restore_everything(tmp_path / path)
        assert decrypted(person) == [None, None]


def test_g7_hold_on_a_person_without_stored_claims_keeps_the_key(
    person: Person, keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    person.store(CLAIMS)
    name = key_name(person)
    StoredClaim.objects.all().delete()
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)
    with pytest.raises(HeldForLegalReasons):
        scrub_on_request(person)
    tasks.scrub()
    assert keys.get(name)
    release_hold(hold.pk, origin=Origin(), now=NOW)
    scrub_on_request(person)
    tasks.scrub()
    assert keys.get(name) is None


def test_g7_keys_that_cannot_be_destroyed_do_not_keep_the_others(person: Person, keys: RetentionKeyFolder) -> None:
    person.store(CLAIMS)
    name = key_name(person)
    stuck = [UnusedPersonKey(id=uuid.UUID(int=number), subject_uuid=uuid.uuid4()) for number in range(101)]
    UnusedPersonKey.objects.bulk_create(stuck)
    for row in stuck:
        path = keys._get_path(str(row))
        path.mkdir(parents=True)
    scrub_on_request(person)
    with pytest.raises(KeyMissing, match="101 of 102 unused retention keys"):
        destroy_unused_keys(now=NOW)
    assert keys.get(name) is None


def test_g7_deactivation_on_hold_keeps_what_is_held_and_reaches_older_backups(
    person: Person, keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    person.store(CLAIMS)
    back_up(tmp_path / "before")
    place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + DAY, origin=Origin(), now=NOW)
    deactivate(person)
    tasks.scrub()
    assert decrypted(person) == OPENED
    restore_everything(tmp_path / "before")
    assert decrypted(person) == [None, None]


def test_g7_held_claim_without_the_key_of_the_hold_keeps_the_key_of_the_person(
    person: Person, keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    """Its other key may come back: another folder was mounted when the hold was placed."""
    person.store(CLAIMS)
    name = key_name(person)
    (tmp_path / "keys" / "20261124-86400").rename(tmp_path / "away")
    place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + DAY, origin=Origin(), now=NOW)
    deactivate(person)
    tasks.scrub()
    assert decrypted(person) == [None, '"1990-05-17"']
    (tmp_path / "away").rename(tmp_path / "keys" / "20261124-86400")
    assert decrypted(person) == OPENED
    assert key_name(person) == name


def test_g7_erasure_is_finished_when_the_keys_are_back(
    person: Person, keys: RetentionKeyFolder, settings: Any, tmp_path: Path
) -> None:
    person.store(CLAIMS)
    name = key_name(person)
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"retention": tmp_path / "away"})
    scrub_on_request(person)
    with pytest.raises(KeyMissing):
        tasks.scrub()
    with pytest.raises(KeyMissing):
        person.store(CLAIMS)
    assert not StoredClaim.objects.exists()
    assert key_events(person.subject.uuid) == []
    settings.PHI_OIDC = with_keys
    tasks.scrub()
    assert key_events(person.subject.uuid) == [("key_destroyed", name, "success"), ("key_unused", name, "success")]


class CountingStore(RetentionKeyFolder):
    """A project's store that counts its calls."""

    calls: list[tuple[str, str]]

    def get(self, name: str) -> bytes | None:
        self.calls.append(("get", name))
        return super().get(name)

    def create(self, name: str) -> bytes:
        self.calls.append(("create", name))
        return super().create(name)


@contextmanager
def counted(settings: Any, folder: Path) -> Iterator[list[tuple[str, str]]]:
    store = CountingStore(folder)
    store.calls = []
    before, settings.PHI_OIDC = settings.PHI_OIDC, override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": store})
    yield store.calls
    settings.PHI_OIDC = before


def test_g7_sign_in_and_disclosure_request_each_key_once(
    make_person: Callable[..., Person], settings: Any, tmp_path: Path
) -> None:
    persons = [make_person() for _ in range(3)]
    claims = {**CLAIMS, "allergies": ["latex"]}
    names = [key_name(person) for person in persons]
    for person, name in zip(persons, names, strict=True):
        with counted(settings, tmp_path / "keys") as calls:
            person.store(claims)
        created = [key for call, key in calls if call == "create"]
        assert sorted(created) == ["20261124-86400", "20261124-session", name]
    with counted(settings, tmp_path / "keys") as calls:
        reveal_many(persons[0].actor(), [person.user for person in persons], ["address"], purpose="PATRQT")
    assert calls == [("get", "20261124-86400"), ("get", names[0])], "refused for the others"


def test_g7_keys_of_persons_take_no_query(person: Person, settings: Any) -> None:
    with CaptureQueriesContext(connection) as with_keys:
        person.store(CLAIMS)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": None})
    with CaptureQueriesContext(connection) as without_keys:
        person.store(CLAIMS)
    assert len(with_keys) == len(without_keys)


@contextmanager
def process_of(activity: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run an activity of `person_key_process` on the databases of this test."""
    connections.close_all()
    environment = child_environment(os.environ, django_settings.DATABASES)
    environment["PYTHONPATH"] = str(Path(__file__).parents[4])
    script = Path(__file__).with_name("person_key_process.py")
    command = [sys.executable, str(script), activity, str(folder), json.dumps(declared_claims()), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def declared_claims() -> dict[str, Any]:
    return {name: {**raw, "retention": "session"} for name, raw in DECLARED.items()}


def test_g7_killed_erasure_is_finished_or_has_erased_nothing(
    make_person: Callable[..., Person], keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    persons = [make_person() for _ in range(75)]
    for person in persons:
        person.store(CLAIMS)
    names = {person: key_name(person) for person in persons}
    with process_of(
        "erase", tmp_path / "keys", *(f"{person.user.pk},{names[person]}" for person in persons)
    ) as process:
        results = [line.split() for line in process.communicate(timeout=120)[0].splitlines()]
    statuses = [int(status) for status, _ in results]
    assert (process.returncode, statuses[-1], set(statuses[:-1])) == (0, 0, {-signal.SIGKILL})
    has_key = {person: has_key == "1" for person, (_, has_key) in zip(persons, results, strict=False)}
    erased = [person for person in has_key if not StoredClaim.objects.filter(subject=person.subject.pk).exists()]
    unfinished = [person for person in erased if has_key[person]]
    assert 2 < len(unfinished) < len(erased) < len(has_key), (
        "killed before the erasure, after it, after the destruction"
    )
    tasks.scrub()
    assert not UnusedPersonKey.objects.exists()
    for person, name in names.items():
        if person in erased:
            assert keys.get(name) is None
            recorded = [action for action, _, _ in key_events(person.subject.uuid)]
            assert recorded in (["key_destroyed", "key_unused"], ["key_destroyed", "key_unused", "key_unused"])
        else:
            assert decrypted(person) == OPENED
            assert key_events(person.subject.uuid) == []


def test_g7_no_claim_is_stored_under_a_key_that_a_concurrent_erasure_destroys(
    person: Person, keys: RetentionKeyFolder, tmp_path: Path
) -> None:
    subject, erasures, erased = str(person.subject.uuid), 0, 0
    with (
        process_of("sign_in", tmp_path / "keys", subject) as first,
        process_of("sign_in", tmp_path / "keys", subject) as second,
    ):
        while first.poll() is None or second.poll() is None:
            erased += scrub_user(person.user, origin=Origin(), now=NOW)
            erasures += 1
            destroy_unused_keys(now=NOW)
            undecryptable = [value for value in decrypted_in_one_query(person) if value is None]
            assert undecryptable == []
        stored = [int(process.communicate()[0]) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert erasures > 10
    assert min(stored) > 10
    assert 0 < erased <= sum(stored)
    destroy_unused_keys(now=NOW)
    assert None not in decrypted(person)
    assert len(list((tmp_path / "keys").glob("person/*/*"))) <= 1


def decrypted_in_one_query(person: Person) -> list[str | None]:
    """Return the values as of one moment: the subject is locked, so that no erasure is between query and key."""
    with transaction.atomic():
        PairwiseSubject.objects.select_for_update(no_key=True).get(pk=person.subject.pk)
        return decrypted(person)


def test_g7_shortened_declaration_leaves_the_key_of_the_person(
    person: Person, keys: RetentionKeyFolder, settings: Any
) -> None:
    person.store(CLAIMS)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {}}
    now: datetime = NOW + 2 * DAY
    assert scrub_past_limit(now=now) == 2
    destroy_unused_keys(now=now)
    assert keys.get(key_name(person))
