"""The export of a person's data: complete, only of that person, and after its event."""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.contrib.individual_rights.accounting import create_accounting
from django_phi_oidc.contrib.individual_rights.export import PersonExport, export_person
from django_phi_oidc.contrib.individual_rights.recipients import remember_recipient
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.notices.devices import register_device
from django_phi_oidc.contrib.notices.notices import write_notices
from django_phi_oidc.errors import AuditUnavailable
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from django_phi_oidc.subjects.account_changes import AccountChange
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.subjects.pairwise import get_pairwise_id
from tests.settings import key
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import REASON as CANARY
from tests.support.emergency_access import allow, opened
from tests.support.emergency_access import declare as declare_emergency
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ACCESS_TOKEN, NOW, REFRESH_TOKEN, ScriptedOP, SignedIn

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
REASON = "Docket 26-117, of another person"


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Iterator[None]:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"pairwise": key("test pairwise key")})
    with clock.override_clock(lambda: NOW):
        yield


def export(person: SignedIn, *subjects: PairwiseSubject) -> PersonExport:
    chosen = subjects or (person.subject,)
    return export_person(person.user, chosen, claim_declarations=conf.claims(), origin=Origin(actor="7"), now=NOW)


def another_subject(person: SignedIn) -> PairwiseSubject:
    subject = PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=person.user, issuer="https://other", first_seen_at=NOW, last_seen_at=NOW
    )
    StoredClaim.objects.create(
        subject=subject, name="address", value='"Bern"', purpose="TREAT", obtained_at=NOW, expires_at=NOW
    )
    return subject


def test_export_contains_all_data_of_the_person_and_none_of_others(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    person, other = sign_in(), sign_in()
    get_pairwise_id(other.user, "lab.example.test")
    value = get_pairwise_id(person.user, "billing.example.test")
    hold = place_hold(person.subject.uuid, reason=REASON, until=NOW + timedelta(days=2), origin=Origin(), now=NOW)
    end_session(person.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    document = export(person).document
    (subject,) = document["subjects"]
    at, until = "2026-11-24T12:00:00+00:00", "2026-11-26T12:00:00+00:00"
    assert (document["exported_at"], document["redisclosure_notice"]) == (at, None)
    assert document["account"] == {"id": str(person.user.pk), "username": person.user.get_username()}
    assert (subject["uuid"], subject["issuer"]) == (str(person.subject.uuid), "https://op")
    assert (subject["first_seen_at"], subject["last_seen_at"]) == (at, at)
    held = {"purpose": "TREAT", "label": None, "obtained_at": at, "held_until": until, "value": "a value"}
    assert subject["claims"] == [
        # Declared for another purpose today, whose legal basis does not apply to this claim.
        {"name": "address", "basis": None, "expires_at": "2026-11-25T12:00:00+00:00", **held},
        {"name": "birthdate", "basis": "identity check at sign-in", "expires_at": at, **held},
    ]
    assert subject["holds"] == [{"placed_at": at, "until": until, "released_at": None}]
    assert document["sessions"] == [
        {
            "id": str(person.session.pk),
            "subject": str(person.subject.uuid),
            "provider": "default",
            "issuer": "https://op",
            "started_at": at,
            "last_seen_at": at,
            "ended_at": at,
            "end_reason": "logout",
            "auth_time": at,
            "acr": None,
            "browser": None,
            "platform": None,
            "network": None,
            "id_token": {},
            "tokens": [],
            "to_revoke": ["access token (may contain claims)", "refresh token"],
        }
    ]
    assert document["identifiers"] == [{"sector": "billing.example.test", "value": value}]
    assert document["unreadable"] == []
    text = json.dumps(document)
    secrets = (ACCESS_TOKEN, REFRESH_TOKEN, "sid-1", person.django_key, person.session.session_key_digest, REASON)
    strange = (str(other.subject.uuid), other.user.get_username(), "lab.example.test", str(hold.pk))
    assert [actual for actual in (*secrets, *strange) if actual in text] == []


def test_export_contains_disclosures_and_its_own_event(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    person, other = sign_in(), sign_in()
    for number, each in enumerate((person, other)):
        looked = NewEvent(
            action=Action.CLAIM_REVEALED,
            origin=Origin(actor=f"doctor {number}"),
            now=NOW - timedelta(hours=1),
            subject=str(each.subject.uuid),
            purpose="TREAT",
            detail={"claim": "birthdate"},
        )
        record_many([looked])
    (subject,) = export(person).document["subjects"]
    looked_at, exported = subject["events"]
    row = AuditEvent.objects.get(actor="doctor 0")
    assert looked_at == {
        "id": str(row.id),
        "occurred_at": "2026-11-24T11:00:00+00:00",
        "action": "claim.revealed",
        "outcome": "success",
        "purpose": "TREAT",
        "actor": "doctor 0",
        "claims": ["birthdate"],
    }
    assert (exported["action"], exported["actor"]) == ("subject.exported", "7")


def test_export_records_the_claim_names_before_it_decrypts_a_claim(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    person = sign_in()
    keys, requested_at, recorded = settings.PHI_OIDC["KEYS"]["encryption"], [], []

    def source() -> Any:
        requested_at.append(clock.now())
        recorded.append(AuditEvent.objects.filter(action="subject.exported").count())
        return keys

    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": source})
    export(person)
    # The ID Tokens are opened before, for the names of their claims.
    assert recorded == [0, 1, 1]
    (event,) = AuditEvent.objects.filter(action="subject.exported")
    assert (event.subject, event.actor, event.purpose) == (str(person.subject.uuid), "7", "PATRQT")
    assert (event.resource, json.loads(event.detail)) == (
        f"user/{person.user.pk}",
        {"claims": ["address", "birthdate"]},
    )
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        export(person)
    assert len(requested_at) == 4, "no stored claim was opened"


def test_export_records_all_of_many_claim_names(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    """The list of an event has at most 64 items."""
    person = sign_in()
    for number in range(63):
        StoredClaim.objects.create(
            subject=person.subject,
            session=NO_SESSION,
            name=f"claim {number:02}",
            value="1",
            purpose="TREAT",
            obtained_at=NOW,
            expires_at=NOW,
        )
    (subject,) = export(person).document["subjects"]
    assert len(subject["claims"]) == 65
    recorded = [json.loads(event.detail) for event in AuditEvent.objects.filter(action="subject.exported")]
    assert sorted(name for detail in recorded for name in detail["claims"]) == [
        item["name"] for item in subject["claims"]
    ]
    assert not any("sanitized" in detail for detail in recorded)


def test_export_lists_undecryptable_claims_and_has_the_rest(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    person = sign_in()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_storedclaim SET value = 'damaged' WHERE name = 'birthdate'")
    exported = export(person)
    address, birthdate = exported.document["subjects"][0]["claims"]
    assert (address["value"], "value" in birthdate, birthdate["name"]) == ("a value", False, "birthdate")
    assert exported.unreadable_items == ("claim birthdate",)
    assert exported.document["unreadable"] == ["claim birthdate"]


def test_export_contains_each_subject_and_sessions_of_deleted_links(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    person = sign_in()
    second = another_subject(person)
    third = another_subject(person)
    OIDCSession.objects.filter(pk=person.session.pk).update(subject=third)
    third.delete()
    document = export(person, person.subject, second).document
    named = [[item["uuid"], *(claim["name"] for claim in item["claims"])] for item in document["subjects"]]
    assert named == [[str(person.subject.uuid), "address"], [str(second.uuid), "address"]]
    assert [(item["subject"], item["end_reason"]) for item in document["sessions"]] == [(None, "subject_unlinked")]
    recorded = AuditEvent.objects.filter(action="subject.exported").values_list("subject", flat=True)
    assert set(recorded) == {str(person.subject.uuid), str(second.uuid)}
    (alone,) = export(person, second).document["subjects"]
    assert alone["uuid"] == str(second.uuid)


def test_export_executes_as_many_selects_for_three_subjects_as_for_one(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    person = sign_in()
    more = [another_subject(person) for _ in range(2)]
    release_hold(
        place_hold(more[0].uuid, reason=REASON, until=None, origin=Origin(), now=NOW).pk, origin=Origin(), now=NOW
    )
    flush()
    counts = []
    for subjects in ([person.subject], [person.subject, *more]):
        with CaptureQueriesContext(connection) as asked:
            export(person, *subjects)
        counts.append(len([query for query in asked if query["sql"].startswith("SELECT")]))
    # Suspensions, claims, holds, sessions, revocations, browsers, networks, identifiers, invitations, emergencies,
    # names, SCIM users, accountings and notices.
    assert counts == [14, 14]


def test_g12_export_contains_notices_and_known_browsers(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    person, other = sign_in(), sign_in()
    for each, name in ((person, "ada"), (other, "bea")):
        each.user.email = f"{name}@example.org"  # type: ignore[attr-defined]
        register_device(each.user, name, now=NOW)
        write_notices([each.user], AccountChange.NEW_DEVICE, provider="default", now=NOW)
    document, at = export(person).document, "2026-11-24T12:00:00+00:00"
    notice = {"kind": "new_device", "provider": "default", "occurred_at": at, "sent_at": None}
    assert document["notices"] == [{**notice, "address": "ada@example.org"}]
    assert document["devices"] == [{"first_used_at": at, "last_used_at": at}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [key("another key")]})
    assert export(person).document["notices"] == [notice]
    assert any(item.startswith("address of notice") for item in export(person).unreadable_items)


def test_g9_export_contains_stored_names_and_accountings(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    person, other = sign_in(), sign_in()
    for each, name in ((person, "Ada"), (other, "Bea")):
        each.user.first_name = name  # type: ignore[attr-defined]
        remember_recipient(each.user, now=NOW)
        create_accounting(each.user, since=NOW, include_own=False, origin=Origin(), now=NOW).list_all()
    document, at = export(person).document, "2026-11-24T12:00:00+00:00"
    assert document["recipient_names"] == [{"since": at, "name": "Ada", "roles": []}]
    digest = hashlib.sha256(b"").hexdigest()
    assert document["accountings"] == [{"first_given_at": at, "last_given_at": at, "count": 0, "sha256": digest}]


def test_export_contains_emergency_accesses_without_the_patient(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    person, other = sign_in(), sign_in()
    declare_emergency(settings)
    for item in (person, other):
        item.user = allow(item.user, "open_emergencyaccess")
    row = opened(person.user, "Patient/4711", now=NOW)
    opened(other.user, "Patient/4712", now=NOW)
    document = export(person).document
    assert document["emergencies"] == [
        {
            "id": str(row.pk),
            "is_local": False,
            "permissions": row.permissions,
            "purpose": "ETREAT",
            "opened_at": "2026-11-24T12:00:00+00:00",
            "expires_at": "2026-11-24T13:00:00+00:00",
            "closed_at": None,
            "close_reason": None,
            "reviewed_at": None,
            "verdict": None,
        }
    ]
    assert not any(word in json.dumps(document) for word in ("4711", "4712", CANARY))


def test_f7_claims_of_a_moved_subject_are_not_exported(sign_in: Callable[..., SignedIn]) -> None:
    person, other = sign_in(), sign_in()
    subject = another_subject(other)
    assert '"Bern"' in json.dumps(export(other, subject).document)
    PairwiseSubject.objects.filter(pk=subject.pk).update(user=person.user)
    exported = export(person, subject)
    assert "Bern" not in json.dumps(exported.document)
    assert "claim address" in exported.unreadable_items
