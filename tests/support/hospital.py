"""A small hospital on a Tuesday morning: people with names, and rows for every page, as a reader expects to see them.

The pictures of the pages and the timed tasks use it. Everything is deterministic except keys.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.conf import providers
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.individual_rights.accounting_copies import store_copy
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.contrib.invitations.invitations import create_invitations
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.contrib.officer_admin.hourly_counts import update_counts
from django_phi_oidc.contrib.officer_admin.models import SessionEndJob
from django_phi_oidc.contrib.scim.models import SCIMClient, SCIMToken
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.crypto.keyring import get_keys
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from django_phi_oidc.sessions.sign_in_places import SignInPlace
from tests.support.audit_log import KEY, seal_now
from tests.support.person_page_fixtures import make_groups
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

TODAY = datetime(2026, 11, 24, 9, 40, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
STAFF = {
    "otto": ("Otto Weiss", "Privacy officer"),
    "sina": ("Sina Vogt", "Security officer"),
    "hanna": ("Hanna Lindqvist", "Help desk"),
    "lena": ("Lena Brandt", ""),
    "jonas": ("Jonas Okafor", ""),
    "mehmet": ("Mehmet Yılmaz", ""),
    "maria": ("Maria Theresia von und zu Hohenstein-Lichtenberg", ""),
}
"""User name → name, group."""
PATIENTS = {
    "amina": "Amina Keller",
    "tomasz": "Tomasz Nowak",
    "greta": "Greta Sørensen",
    "luca": "Luca Bianchi",
    "minh": "Nguyễn Thị Minh",
    "bogdana": "Bogdana Wiśniewska-Kowalczykówna",
}
NEWCOMERS = {"samuel": "Samuel Adeyemi", "eva": "Eva Horvat"}
"""Accounts without a sign-in."""
CLAIMS: dict[str, dict[str, Any]] = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check at sign-in", "retention": "session"},
    "allergies": {"purpose": "TREAT", "basis": "treatment", "retention": DAY},
    "address": {"purpose": "HOPERAT", "basis": "letters to the patient", "retention": timedelta(days=30)},
    "phone_number": {"purpose": "HOPERAT", "basis": "reminders of appointments", "retention": timedelta(days=90)},
}
AMINAS_REQUEST = "7b1de9c25a444f0c9d836f2a90c41e57"
FAULTS = ("state_expired", "state_missing", "provider_error", "transport_timeout", "code_missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """The people and rows of the hospital."""

    people: dict[str, SignedIn]
    """User name → user, subject and a live session."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Model name → the key of a row that its pages show."""

    @property
    def reference(self) -> str:
        """What Amina reads out from the page of her last refused sign-in."""
        return str(self.keys["auditevent"])

    def client(self, username: str) -> Client:
        """Return a client in the session of that person."""
        return self.people[username].client()

    def user(self, username: str) -> Any:
        return self.people[username].user

    def make_superuser(self, username: str) -> Client:
        """Let the person see every page, and return a client."""
        user = self.user(username)
        type(user)._default_manager.filter(pk=user.pk).update(is_superuser=True, is_staff=True)
        return self.client(username)


@pytest.fixture
def hospital(sign_in: Callable[..., SignedIn], op: Any, settings: Any, tmp_path: Path) -> Iterator[Hospital]:
    """Open the hospital. The clock stands still in it."""
    # A closed port: this collector refuses every connection.
    sinks = {
        "archive": {"type": "file", "format": "json", "path": str(tmp_path / "archive.log")},
        "splunk": {"type": "https", "url": "https://127.0.0.1:9/services/collector", "format": "json"},
    }
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation", "label": "Hospital ID"}
    settings.PHI_OIDC = override_phi_oidc(
        settings.PHI_OIDC,
        PROVIDERS={"default": default},
        CLAIMS=CLAIMS,
        BREAK_GLASS_ACCOUNTS=("emergency-desk",),
        EMERGENCY={"permissions": {"auth.view_user": "See a chart"}, "mail_to": ["otto@hospital.example"]},
        AUDIT_EXPORTS=tmp_path,
        SIEM=sinks,
        KEYS={"audit_public": [encode_verifier_key("phi-oidc-audit", KEY.public_key())]},
    )
    with clock.override_clock(lambda: TODAY):
        yield open_hospital(sign_in)


def open_hospital(sign_in: Callable[..., SignedIn]) -> Hospital:
    """Create the people, eight months of events, and rows for every page."""
    make_groups()
    staff = {name: _admit(sign_in, name, label, group) for name, (label, group) in STAFF.items()}
    patients = {name: _admit(sign_in, name, label) for name, label in PATIENTS.items()}
    users: Any = type(staff["otto"].user)._default_manager
    for name, label in NEWCOMERS.items():
        users.create_user(name, **_names(label))
    hospital = Hospital(people={**staff, **patients})
    for name in ("lena", "jonas", "mehmet"):
        hospital.user(name).user_permissions.add(Permission.objects.get(codename="open_emergencyaccess"))
    _record_the_past(hospital)
    _vary_sessions(hospital)
    hospital.keys.update(
        user=hospital.user("amina").pk,
        pairwisesubject=hospital.people["amina"].subject.pk,
        oidcsession=hospital.people["amina"].session.pk,
        lost_phone=OIDCSession.objects.get(platform="iPhone").pk,
        **_queue_revocations(hospital),
        **_hold(hospital),
        **_invite(hospital, users),
        **_connect(),
        **_declare_emergencies(hospital),
        **_raise_alerts(hospital),
        **_ask_for_files(hospital),
    )
    amina = AuditEvent.objects.filter(action=Action.LOGIN_REFUSED, request_id=AMINAS_REQUEST).get()
    hospital.keys.update(auditevent=amina.pk, auditcheckpoint=AuditCheckpoint.objects.latest("tree_size").pk)
    _deliver()
    for _ in range(2):
        # On a slow machine the first run stops at its limit of time, and the second one continues.
        update_counts(now=TODAY)
    return hospital


def _names(label: str) -> dict[str, str]:
    first, _, last = label.partition(" ")
    return {"first_name": first, "last_name": last}


def _admit(sign_in: Callable[..., SignedIn], username: str, label: str, group: str = "") -> SignedIn:
    # Recent enough for pages that require a recent sign-in.
    person = sign_in(auth_time=TODAY - MINUTE, place=SignInPlace("Firefox", "Windows", f"10.20.{len(username)}.0/24"))
    user: Any = person.user
    user.username, user.email = username, f"{username}@hospital.example"
    user.first_name, user.last_name = _names(label).values()
    user.is_staff = bool(group)
    user.save()
    if group:
        user.groups.add(Group.objects.get(name=group))
    type(person.subject)._base_manager.filter(pk=person.subject.pk).update(
        first_seen_at=TODAY - 300 * DAY, last_seen_at=TODAY - MINUTE
    )
    StoredClaim.objects.filter(subject=person.subject).delete()
    if username in PATIENTS:
        _store_claims(person)
    return person


def _store_claims(person: SignedIn) -> None:
    ends = {"birthdate": None, "allergies": TODAY + 14 * HOUR, "address": TODAY + 21 * DAY, "phone_number": TODAY + DAY}
    for name, expires_at in ends.items():
        StoredClaim.objects.create(
            subject=person.subject,
            name=name,
            value='"Bundesgasse 3, Bern"',
            purpose=str(CLAIMS[name]["purpose"]),
            obtained_at=TODAY - HOUR,
            expires_at=expires_at,
            **({} if expires_at else {"session": person.session.pk}),
        )


def _origin(person: SignedIn, *, address: str = "", request_id: str = "") -> Origin:
    client_ip = address or f"10.20.{person.user.pk % 8}.{40 + person.user.pk % 200}"
    return Origin(str(person.user.pk), str(person.session.pk), client_ip, request_id or uuid7(TODAY).hex)


def _record_the_past(hospital: Hospital) -> None:
    """Record March, and the thirty days until today; yesterday had far more refusals than other days."""
    chance = random.Random(7)
    events = [event for number in range(31) for event in _day(hospital, chance, MARCH + number * DAY, refusals=1)]
    for number in range(30, 0, -1):
        day = (TODAY - number * DAY).replace(hour=0, minute=0)
        events += _day(hospital, chance, day, refusals=26 if number == 1 else chance.randint(0, 3))
    events += _looks_at_amina(hospital)
    events += [
        event for event in _day(hospital, chance, TODAY.replace(hour=0, minute=0), refusals=2) if event.now < TODAY
    ]
    amina = hospital.people["amina"]
    refused: dict[str, Any] = {"outcome": "failure", "provider": "default", "detail": {"stage": "callback"}}
    events.append(
        NewEvent(
            Action.LOGIN_REFUSED,
            # A refused sign-in has no actor: the provider's answer was not accepted.
            origin=Origin("", "", "198.51.100.23", AMINAS_REQUEST),
            now=TODAY - 12 * MINUTE,
            reason="state_expired",
            **refused,
        )
    )
    events.append(
        NewEvent(
            Action.LOGIN_SUCCEEDED,
            origin=_origin(amina, address="198.51.100.23"),
            now=TODAY - 11 * MINUTE,
            subject=str(amina.subject.uuid),
            provider="default",
            detail={},
        )
    )
    record_many(sorted(events, key=lambda event: event.now))
    seal_now(at=TODAY - 2 * MINUTE)
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    verified = {"tree_size": size, "events": size, "findings": 0}
    record_many([NewEvent(Action.AUDIT_VERIFIED, origin=Origin(), now=TODAY - MINUTE, detail=verified)])


def _day(hospital: Hospital, chance: random.Random, day: datetime, *, refusals: int) -> Iterator[NewEvent]:
    staff = [hospital.people[name] for name in ("lena", "jonas", "mehmet", "maria")]
    patients = [hospital.people[name] for name in PATIENTS if name != "amina"]
    for person in chance.sample([*staff, *patients], 6):
        at = day + timedelta(seconds=chance.randrange(6 * 3600, 20 * 3600))
        who: dict[str, Any] = {"origin": _origin(person), "provider": "default", "subject": str(person.subject.uuid)}
        yield NewEvent(Action.LOGIN_SUCCEEDED, now=at, detail={"claims": ["address", "birthdate"]}, **who)
        if person in staff:
            seen = chance.choice(patients)
            look: dict[str, Any] = {"origin": _origin(person), "subject": str(seen.subject.uuid), "purpose": "TREAT"}
            yield NewEvent(Action.CLAIM_REVEALED, now=at + 3 * MINUTE, detail={"claim": "allergies"}, **look)
        ended = at + chance.randint(10, 90) * MINUTE
        yield NewEvent(Action.SESSION_ENDED, now=ended, reason="idle_timeout", detail={"tokens": 1}, **who)
        fields: dict[str, Any] = {"hint": "refresh_token", "attempts": 1, "status": "done"}
        yield NewEvent(Action.TOKEN_REVOKED, now=ended, detail=fields, **who)
    for _ in range(refusals):
        at = day + timedelta(seconds=chance.randrange(7 * 3600, 19 * 3600))
        origin = Origin("", "", f"203.0.113.{chance.randrange(1, 250)}", uuid7(at).hex)
        refused: dict[str, Any] = {"outcome": "failure", "provider": "default", "reason": chance.choice(FAULTS)}
        yield NewEvent(Action.LOGIN_REFUSED, origin=origin, now=at, detail={"stage": "callback"}, **refused)


def _looks_at_amina(hospital: Hospital) -> Iterator[NewEvent]:
    """Yield disclosures of Amina's data in October."""
    subject = str(hospital.people["amina"].subject.uuid)
    for number, name in enumerate(("lena", "lena", "jonas", "mehmet", "lena", "maria")):
        look: dict[str, Any] = {"origin": _origin(hospital.people[name]), "subject": subject, "purpose": "TREAT"}
        at = datetime(2026, 10, 5, 8, 15, tzinfo=UTC) + number * (4 * DAY + 97 * MINUTE)
        if number % 2:
            yield NewEvent(Action.ACCESS_GRANTED, now=at, resource="Chart/amina", detail={}, **look)
        else:
            yield NewEvent(Action.CLAIM_REVEALED, now=at, detail={"claim": "birthdate"}, **look)


def _vary_sessions(hospital: Hospital) -> None:
    """Give the sessions other ages; add older ones that ended, each for another reason, and Amina's lost phone."""
    for number, person in enumerate(hospital.people.values()):
        times = {
            "auth_time": TODAY - MINUTE,
            "started_at": TODAY - (11 + 17 * number) * MINUTE,
            "last_seen_at": TODAY - number * MINUTE,
        }
        OIDCSession.objects.filter(pk=person.session.pk).update(**times)
    reasons = [reason for reason in EndReason if reason.value][:8]
    for number, reason in enumerate([*reasons, ""]):
        person = hospital.people["amina" if not reason else list(PATIENTS)[number % len(PATIENTS)]]
        started_at = TODAY - (2 if not reason else 20 + number) * HOUR
        OIDCSession.objects.create(
            id=uuid7(started_at),
            user_id=person.user.pk,
            subject=person.subject,
            provider="default",
            issuer=person.session.issuer,
            started_at=started_at,
            last_seen_at=started_at + 40 * MINUTE,
            ended_at=started_at + 55 * MINUTE if reason else None,
            end_reason=reason,
            **({} if reason else {"browser": "Safari", "platform": "iPhone", "network": "198.51.100.0/24"}),
        )


def _queue_revocations(hospital: Hospital) -> dict[str, Any]:
    states = [
        ("pending", 3, "transport_timeout"),
        ("pending", 0, ""),
        ("done", 1, ""),
        ("refused", 9, "invalid_client"),
    ]
    rows = [
        PendingRevocation.objects.create(
            id=uuid7(TODAY),
            provider="default",
            session=hospital.people["tomasz"].session.pk,
            token="a token" if status == "pending" else None,
            token_type_hint="refresh_token",
            status=status,
            attempts=attempts,
            last_fault=fault,
            due_at=TODAY + 22 * MINUTE,
            created_at=TODAY - 3 * HOUR,
            finished_at=None if status == "pending" else TODAY - HOUR,
        )
        for status, attempts, fault in states
    ]
    by = {"requested_by": str(hospital.user("sina").pk), "requested_at": TODAY - 4 * HOUR}
    job = SessionEndJob.objects.create(
        id=uuid7(TODAY - 4 * HOUR), selection={"provider": "default"}, state="done", done=118, total=120, **by
    )
    PendingRevocation.objects.filter(pk__in=[row.pk for row in rows]).update(end_job=job.pk)
    return {"pendingrevocation": rows[0].pk, "sessionendjob": job.pk}


def _hold(hospital: Hospital) -> dict[str, Any]:
    by = _origin(hospital.people["otto"])
    old = place_hold(
        hospital.people["luca"].subject.uuid, reason="Docket 26-98", until=None, origin=by, now=TODAY - 40 * DAY
    )
    release_hold(old.pk, origin=by, now=TODAY - 12 * DAY)
    subject = hospital.people["greta"].subject.uuid
    hold = place_hold(subject, reason="Docket 26-117", until=TODAY + 90 * DAY, origin=by, now=TODAY - 2 * DAY)
    claim = StoredClaim.objects.filter(subject=hospital.people["amina"].subject, name="address").get()
    overdue = StoredClaim.objects.filter(subject=hospital.people["minh"].subject, name="phone_number")
    overdue.update(expires_at=TODAY - 3 * HOUR)
    with transaction.atomic():
        store_copy(str(hospital.user("tomasz").pk), ["{}", "{}"], now=TODAY - 5 * DAY)
    return {"legalhold": hold.pk, "storedclaim": claim.pk, "accountingcopy": AccountingCopy.objects.get().pk}


def _connect() -> dict[str, Any]:
    client = SCIMClient.objects.create(name="directory", provider="default", created_at=TODAY - 40 * DAY)
    times = {"created_at": TODAY - 40 * DAY, "expires_at": TODAY + 325 * DAY, "last_used_at": TODAY - 2 * MINUTE}
    SCIMToken.objects.create(client=client, digest="0" * 64, **times)
    return {"scimclient": client.pk}


def _invite(hospital: Hospital, users: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"provider": providers()["default"], "key": get_keys("subject")[0], "lifetime": 3 * DAY}
    invited = users.get(username="samuel")
    create_invitations([invited.pk], **fields, origin=_origin(hospital.people["hanna"]), now=TODAY - HOUR)
    return {"activationcode": ActivationCode.objects.get(user=invited).pk}


def _declare_emergencies(hospital: Hospital) -> dict[str, Any]:
    keys = []
    otto = str(hospital.user("otto").pk)
    review: dict[str, Any] = {"reviewed_by": otto, "reviewed_at": TODAY - 14 * DAY, "verdict": "justified"}
    review["note"] = "Confirmed by the ward."
    for name, ago, reason in (
        ("lena", 9 * DAY, "Unconscious after a fall. Is there an allergy?"),
        ("jonas", 3 * DAY, "Severe bleeding, blood group unknown."),
        ("mehmet", 20 * MINUTE, "Seizure in the waiting room."),
        ("lena", 15 * DAY, "Anaphylaxis, medication list needed."),
    ):
        person, opened_at = hospital.people[name], TODAY - ago
        row = EmergencyAccess.objects.create(
            id=uuid7(opened_at),
            user_id=person.user.pk,
            actor=str(person.user.pk),
            resource="Chart/amina",
            permissions=["auth.view_user"],
            purpose="ETREAT",
            reason=reason,
            opened_at=opened_at,
            expires_at=opened_at + HOUR,
            **(review if ago == 15 * DAY else {}),
        )
        seen: dict[str, Any] = {
            "subject": str(hospital.people["amina"].subject.uuid),
            "resource": "Chart/amina",
            "purpose": "ETREAT",
        }
        detail = {"emergency": str(row.pk)}
        at = opened_at + 4 * MINUTE
        record_many([NewEvent(Action.ACCESS_GRANTED, origin=_origin(person), now=at, detail=detail, **seen)])
        keys.append(row.pk)
    return {"emergencyaccess": keys[0]}


def _raise_alerts(hospital: Hospital) -> dict[str, Any]:
    rows = [
        SecurityAlert.objects.create(
            kind=kind,
            key=key,
            severity=severity,
            count=count,
            first_seen=TODAY - ago,
            last_seen=TODAY - ago / 2,
            acknowledged_at=TODAY - HOUR if note else None,
            acknowledged_by=str(hospital.user("sina").pk) if note else "",
            note=note,
        )
        for kind, key, severity, count, ago, note in (
            ("refusal_burst", "203.0.113.77", "warning", 26, 22 * HOUR, ""),
            ("delivery_lag", "splunk", "warning", 1, 50 * HOUR, ""),
            ("replay", "203.0.113.9", "critical", 3, 30 * HOUR, "A drill of the security team."),
        )
    ]
    by = {"muted_at": TODAY - DAY, "muted_by": str(hospital.user("sina").pk)}
    note = "The scanner of the hospital, each Tuesday."
    mute = AlertMute.objects.create(kind="refusal_burst", key="10.20.0.9", until=TODAY + DAY, note=note, **by)
    AlertMute.objects.create(kind="replay", until=TODAY - HOUR, note="Load test.", **by)
    return {"securityalert": rows[0].pk, "alertmute": mute.pk}


def _ask_for_files(hospital: Hospital) -> dict[str, Any]:
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    by: dict[str, Any] = {"asked_by": str(hospital.user("otto").pk), "asked_at": TODAY - 15 * MINUTE}
    result = {"tree_size": size, "waiting": 1, "findings": 0}
    TrailJob.objects.create(
        id=uuid7(TODAY), kind="verification", state="done", done=size, total=size, result=result, **by
    )
    job = TrailJob.objects.create(
        id=uuid7(TODAY), kind="export", state="running", format="jsonl", done=3_000, total=12_000, **by
    )
    return {"trailjob": job.pk}


def _deliver() -> None:
    """One collector has everything; the other one refuses connections since two days."""
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    SinkCursor.objects.create(
        name="archive", tree_size=size, checkpoint_size=size, due_at=TODAY, delivered_at=TODAY - MINUTE
    )
    SinkCursor.objects.create(
        name="splunk",
        tree_size=size - 90,
        checkpoint_size=0,
        attempts=41,
        due_at=TODAY + 9 * MINUTE,
        last_fault="transport_unreachable",
        delivered_at=TODAY - 50 * HOUR,
        lagging=True,
    )
