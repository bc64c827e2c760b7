"""Erasure of a person: only an intact audit log remains, and the person is new at the next sign-in."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections, transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.sequencer import append_all_to_log
from django_phi_oidc.audit.log.verifier import VerificationSummary, verify_log
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import destroy_unused_keys
from django_phi_oidc.contrib.common.accounting_suspension_sources import accounting_suspensions
from django_phi_oidc.contrib.common.personal_data_sources import personal_data_sources
from django_phi_oidc.contrib.individual_rights.erasure import ErasureResult, erase_person, preview_erasure
from django_phi_oidc.contrib.individual_rights.export import export_person
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.retention_keys.key_names import person_key_name
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import HeldForLegalReasons
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.subjects.linking import mark_seen
from django_phi_oidc.subjects.models import PairwiseIdentifier, PairwiseSubject, SubjectDigest
from django_phi_oidc.subjects.pairwise import get_pairwise_id
from tests.settings import key
from tests.support import subject_linking as persons
from tests.support.audit_log import KEY
from tests.support.emergency_access import allow, opened
from tests.support.emergency_access import declare as declare_emergency
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    django_session_exists,
    events,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
OFFICER = Origin(actor="7")
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Iterator[None]:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"pairwise": key("test pairwise key")})
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def known(sign_in: Callable[..., SignedIn]) -> Callable[[], SignedIn]:
    """Return a function that signs a person in who has a pairwise identifier and a known `sub`."""

    def make() -> SignedIn:
        person = sign_in()
        get_pairwise_id(person.user, "billing.example.test")
        for number, each in enumerate(keyring.get_keys("subject")):
            SubjectDigest.objects.create(
                subject=person.subject,
                issuer="https://op",
                key_id=each.id,
                digest=f"{person.subject.pk:060}{number:04}",
            )
        return person

    return make


def erase(person: SignedIn, *subjects: PairwiseSubject) -> ErasureResult:
    return erase_person(person.user, subjects or (person.subject,), origin=OFFICER, now=NOW)


def what_is_held() -> dict[str, set[Any]]:
    """Return the owners of the existing rows."""
    return {
        "subjects": set(PairwiseSubject.objects.values_list("user", flat=True)),
        "claims": set(StoredClaim.objects.values_list("subject__user", flat=True)),
        "digests": set(SubjectDigest.objects.values_list("subject__user", flat=True)),
        "sessions": set(OIDCSession.objects.values_list("user", flat=True)),
        "identifiers": set(PairwiseIdentifier.objects.values_list("user", flat=True)),
    }


def of(*users: Any) -> dict[str, set[Any]]:
    """Return the expected rows when they belong to these users, each with all kinds of data."""
    return {kind: {user.pk for user in users} for kind in what_is_held()}


def test_erasure_deletes_everything_of_the_person_and_nothing_of_others(
    op: ScriptedOP, known: Callable[[], SignedIn]
) -> None:
    person, other = known(), known()
    ended = OIDCSession.objects.get(pk=person.session.pk)
    ended.pk, ended.session_key, ended.id_token, ended.access_token, ended.refresh_token = uuid.uuid4(), *[None] * 4
    ended.save(force_insert=True)
    end_session(ended.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    erased = erase(person)
    assert erased == ErasureResult(
        subject_uuids=(person.subject.uuid,),
        claim_count=2,
        session_count=2,
        identifier_count=1,
        further_counts={"invitations": 0},
    )
    assert what_is_held() == of(other.user)
    assert not django_session_exists(person.django_key)
    assert django_session_exists(other.django_key)
    assert get_user_model().objects.filter(pk=person.user.pk).exists(), "the account is the host project's"
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert not PendingRevocation.objects.exclude(status="done").exists()


def test_erasure_records_names_counts_and_the_actor(op: ScriptedOP, known: Callable[[], SignedIn]) -> None:
    person = known()
    erase(person)
    (event,) = events(Action.SUBJECT_ERASED)
    assert (event.actor, event.subject) == ("7", str(person.subject.uuid))
    assert event.resource == f"user/{person.user.pk}"
    assert json.loads(event.detail) == {"claims": ["address", "birthdate"], "counts": [1, 1]}
    for action in (Action.SESSION_ENDED, Action.SUBJECT_UNLINKED):
        (event,) = events(action)
        assert (event.actor, event.subject) == ("7", str(person.subject.uuid))


def another_subject(person: SignedIn) -> PairwiseSubject:
    """Link the same account to another provider."""
    return PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=person.user, issuer="https://other", first_seen_at=NOW, last_seen_at=NOW
    )


def test_erasure_under_a_legal_hold_changes_nothing(op: ScriptedOP, known: Callable[[], SignedIn]) -> None:
    person = known()
    free = another_subject(person)
    hold = place_hold(person.subject.uuid, reason="Docket 26-117", until=NOW + DAY, origin=Origin(), now=NOW)
    before = what_is_held()
    with pytest.raises(HeldForLegalReasons):
        erase(person, free, person.subject)
    assert what_is_held() == before
    assert PairwiseSubject.objects.count() == 2, "what nothing keeps is not erased by half"
    assert OIDCSession.objects.get().ended_at is None
    assert events(Action.SUBJECT_ERASED) == []
    with clock.override_clock(lambda: NOW + DAY):
        erase_person(person.user, [free, person.subject], origin=OFFICER, now=NOW + DAY)
    assert what_is_held() == of()
    assert LegalHold.objects.get(pk=hold.pk).subject is None
    assert len(events(Action.SUBJECT_ERASED)) == 2


def test_erasure_of_one_subject_keeps_the_other_and_the_pairwise_identifiers(
    op: ScriptedOP, known: Callable[[], SignedIn]
) -> None:
    person = known()
    second = another_subject(person)
    erased = erase(person)
    assert (erased.identifier_count, PairwiseIdentifier.objects.count()) == (0, 1)
    assert list(PairwiseSubject.objects.all()) == [second]
    erased = erase(person, second)
    assert (erased.claim_count, erased.session_count, erased.identifier_count) == (0, 0, 1)
    assert not PairwiseIdentifier.objects.exists()
    claims_by_subject = {event.subject: json.loads(event.detail)["claims"] for event in events(Action.SUBJECT_ERASED)}
    assert claims_by_subject == {str(person.subject.uuid): ["address", "birthdate"], str(second.uuid): []}


def test_erasure_and_export_without_further_apps(
    op: ScriptedOP, known: Callable[[], SignedIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    person = known()
    monkeypatch.setattr(personal_data_sources, "_items", [])
    monkeypatch.setattr(accounting_suspensions, "_items", [])
    preview = preview_erasure(person.user, [person.subject], now=NOW)
    exported = export_person(person.user, [person.subject], claim_declarations={}, origin=OFFICER, now=NOW)
    assert {"account", "subjects", "sessions", "identifiers"} <= exported.document.keys()
    assert exported.document.keys().isdisjoint({"emergencies", "invitations", "notices", "provisioned"})
    erased = erase(person)
    assert erased == preview
    assert erased.further_counts == {}
    assert what_is_held() == of()


def test_erasure_of_an_unlinked_account_erases_the_rest(op: ScriptedOP, known: Callable[[], SignedIn]) -> None:
    person = known()
    person.subject.delete()
    assert (OIDCSession.objects.count(), PairwiseIdentifier.objects.count()) == (1, 1)
    erased = erase_person(person.user, [], origin=OFFICER, now=NOW)
    assert erased == ErasureResult(
        subject_uuids=(), claim_count=0, session_count=1, identifier_count=1, further_counts={"invitations": 0}
    )
    assert (OIDCSession.objects.count(), PairwiseIdentifier.objects.count()) == (0, 0)
    (event,) = events(Action.SUBJECT_ERASED)
    assert (event.subject, event.resource) == ("", f"user/{person.user.pk}")


def test_erasure_that_is_rolled_back_changes_and_records_nothing(op: ScriptedOP, known: Callable[[], SignedIn]) -> None:
    person = known()
    before = what_is_held()
    with transaction.atomic():
        erase(person)
        transaction.set_rollback(True)
    assert what_is_held() == before
    assert OIDCSession.objects.get().ended_at is None
    assert (op.asked, events(Action.SUBJECT_ERASED), events(Action.SESSION_ENDED)) == ([], [], [])


def test_audit_log_verifies_after_an_erasure(op: ScriptedOP, known: Callable[[], SignedIn]) -> None:
    person = known()
    end_session(person.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    sealed = sum(done.event_count for done in append_all_to_log(key=KEY, clock=clock.now))
    erase(person)
    sealed += sum(done.event_count for done in append_all_to_log(key=KEY, clock=clock.now))
    tally = VerificationSummary()
    assert list(verify_log(keys=[KEY.public_key()], now=NOW, summary=tally)) == []
    assert (tally.events, sealed) == (sealed, len(events_of(person)))


def events_of(person: SignedIn) -> list[Any]:
    """Return the events about the person."""
    return [
        event
        for action in Action
        for event in events(action)
        if event.subject == str(person.subject.uuid) or event.session == str(person.session.pk)
    ]


def test_erased_person_is_new_at_the_next_sign_in(op: ScriptedOP) -> None:
    first = persons.sign_in(keyring.get_keys("subject"))
    same = persons.sign_in(keyring.get_keys("subject"))
    assert (same.created, same.subject.uuid) == (False, first.subject.uuid)
    erase_person(first.user, [first.subject], origin=OFFICER, now=NOW)
    again = persons.sign_in(keyring.get_keys("subject"))
    assert again.created
    assert again.subject.uuid != first.subject.uuid
    assert again.user != first.user


def test_retention_keys_of_erased_claims_are_destroyed_by_the_schedule(
    op: ScriptedOP, known: Callable[[], SignedIn], settings: Any, tmp_path: Path
) -> None:
    keys = use_retention_keys(settings, tmp_path)
    person = known()
    claim = StoredClaim.objects.get(name="address")
    claim.bucket, claim.value = "20261124-86400", '"Bern"'
    claim.save()
    key_name = person_key_name(person.subject.retention_key_id)
    assert keys.get(key_name)
    erase(person)
    assert destroy_unused_keys(now=NOW) == [key_name], "another sign-in may use today's key"
    assert keys.get(key_name) is None
    assert destroy_unused_keys(now=NOW + DAY) == ["20261124-86400"]
    assert keys.names() == []


def test_erasure_waits_for_a_concurrent_sign_in_and_erases_its_session(
    op: ScriptedOP, known: Callable[[], SignedIn]
) -> None:
    person = known()
    holding, go_on = threading.Event(), threading.Event()

    def sign_in_again() -> None:
        try:
            with transaction.atomic():
                mark_seen(person.subject, now=NOW)
                holding.set()
                go_on.wait(0.3)
                twin = OIDCSession.objects.get(pk=person.session.pk)
                twin.pk, twin.session_key, twin.id_token, twin.access_token, twin.refresh_token = (
                    uuid.uuid4(),
                    *[None] * 4,
                )
                twin.save(force_insert=True)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(sign_in_again)
        assert holding.wait(10)
        erased = erase(person)
        opening.result(10)
    assert erased.session_count == 2
    assert what_is_held() == of()
    with pytest.raises(PairwiseSubject.DoesNotExist):
        mark_seen(person.subject, now=NOW)


def test_erasure_and_the_end_of_the_same_sessions_do_not_deadlock(
    op: ScriptedOP, known: Callable[[], SignedIn]
) -> None:
    people = [known() for _ in range(6)]
    start = threading.Barrier(2)

    def run(act: Callable[[SignedIn], Any]) -> None:
        try:
            for person in people:
                start.wait(10)
                act(person)
        finally:
            connections.close_all()

    def leave(person: SignedIn) -> None:
        end_session(person.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)

    with ThreadPoolExecutor(2) as pool:
        for item in [pool.submit(run, act) for act in (erase, leave)]:
            item.result(60)
    assert what_is_held() == of()
    assert len(events(Action.SESSION_ENDED)) == len(events(Action.SUBJECT_ERASED)) == 6


def test_erasure_closes_the_emergency_access_of_the_person_and_keeps_it_for_review(
    op: ScriptedOP, known: Callable[[], SignedIn], settings: Any
) -> None:
    person, other = known(), known()
    declare_emergency(settings)
    rows = [opened(allow(item.user, "open_emergencyaccess"), "Patient/7", now=NOW) for item in (person, other)]
    erase(person)
    for row in rows:
        row.refresh_from_db()
    assert [(row.close_reason, row.reviewed_at) for row in rows] == [("administrator", None), ("", None)]
    person.user.delete()
    rows[0].refresh_from_db()
    assert (rows[0].user, rows[0].actor == "") == (None, False)
    assert [event.reason for event in events("emergency.closed")] == ["administrator"]
