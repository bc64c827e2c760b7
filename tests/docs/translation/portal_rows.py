"""A portal with each kind of row in each of its states. Its own texts are Cyrillic.

So no text of the host project and no data can be mistaken for an English text of the package.
"""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group

from django_phi_oidc import conf
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import SetAsideEvent
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.common.retention_key_folder import prepare_folder
from django_phi_oidc.contrib.emergency.models import CloseReason, EmergencyAccess, ReviewVerdict
from django_phi_oidc.contrib.individual_rights.accounting import create_accounting
from django_phi_oidc.contrib.invitations.invitations import create_invitations
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.contrib.officer_admin.models import SessionEndJob
from django_phi_oidc.contrib.scim.models import SCIMClient, SCIMToken
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from tests.support.audit_log import PEM, events, sealed
from tests.support.claims_fixtures import NOW, Person
from tests.support.disclosure_events import RESOURCES
from tests.support.emergency_access import OFFICER
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NAME, OF_SESSION, LABEL, WORD = "дата", "час", "Ведомство", "Дело"
PERMISSION = "portal.view_chart"
CLAIMS: dict[str, dict[str, Any]] = {
    NAME: {"purpose": "HOPERAT", "basis": WORD, "retention": DAY},
    OF_SESSION: {"purpose": "TREAT", "basis": WORD, "retention": "session"},
}


def declare(settings: Any, retention_keys: Path) -> None:
    """Declare all that has a page."""
    prepare_folder(retention_keys)
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation", "label": LABEL}
    settings.PHI_OIDC = override_phi_oidc(
        settings.PHI_OIDC,
        PROVIDERS={"1": {**default, "scim": {"subject": "invitation"}}, "2": {**default, "provisioning": "create"}},
        CLAIMS=CLAIMS,
        ROLES={"1": [{"claim": NAME, "values": [WORD], "groups": [WORD]}]},
        EMERGENCY={"permissions": {PERMISSION: WORD}, "mail_to": [OFFICER]},
        KEYS={"audit_signing": PEM, "retention": retention_keys},
        BREAK_GLASS_ACCOUNTS=["777"],
        PATIENT_RESOURCES=RESOURCES,
    )


def fill(patient: SignedIn) -> None:
    """Create the rows; those that belong to a person belong to the patient."""
    user: Any = patient.user
    user.username = "Пациент"
    user.save()
    user.groups.add(Group.objects.create(name=WORD), Group.objects.create(name=LABEL))
    _of_sessions(user)
    store_claims(patient)
    _of_codes(user)
    _of_emergencies(user)
    _of_alerts()
    _of_scim_clients()
    create_accounting(user, since=NOW - DAY, include_own=True, origin=Origin(), now=NOW).list_all()
    _of_the_trail(patient)


def _of_sessions(user: Any) -> None:
    OIDCSession.objects.update(provider="1", issuer="https://op.example.test")
    OIDCSession.objects.bulk_create(
        OIDCSession(
            id=uuid7(NOW),
            user=user,
            provider="1",
            started_at=NOW,
            last_seen_at=NOW,
            ended_at=NOW,
            end_reason=reason,
            session_key_digest=f"{number:064x}",
        )
        for number, reason in enumerate(EndReason.values)
    )
    PendingRevocation.objects.bulk_create(
        PendingRevocation(
            id=uuid7(NOW), provider="1", token_type_hint="access_token", status=status, due_at=NOW, created_at=NOW
        )
        for status in RevocationStatus.values
    )


def store_claims(patient: SignedIn) -> None:
    """Store two claims under an active hold, and one that has expired and is not erased."""
    StoredClaim.objects.all().delete()
    person = Person.__new__(Person)
    person.user, person.subject, person.session_id = patient.user, patient.subject, patient.session.pk
    person.store({NAME: WORD, OF_SESSION: WORD}, declared=CLAIMS)
    hold = place_hold(patient.subject.uuid, reason=WORD, until=NOW + DAY, origin=Origin(), now=NOW)
    release_hold(hold.pk, origin=Origin(), now=NOW)
    place_hold(patient.subject.uuid, reason=WORD, until=None, origin=Origin(), now=NOW)
    late = {"purpose": "TREAT", "obtained_at": NOW - DAY, "expires_at": NOW - 2 * HOUR}
    StoredClaim.objects.create(subject=patient.subject, session=uuid.uuid4(), name=NAME, value='""', **late)


def _of_codes(user: Any) -> None:
    over = {"key_id": "1", "digest": "1", "created_at": NOW, "created_by": "1", "expires_at": NOW}
    ActivationCode.objects.create(user=user, provider="2", **over)
    for ended in ({"redeemed_at": NOW}, {"revoked_at": NOW}, {}):
        invited(user)
        ActivationCode.objects.filter(pk=ActivationCode.objects.latest("pk").pk).update(**ended)


def invited(user: Any) -> str:
    """Return a new code of user's."""
    given = {"provider": conf.providers()["1"], "key": keyring.get_keys("subject")[0], "lifetime": DAY}
    (made,) = create_invitations([user.pk], **given, origin=Origin(), now=NOW)
    return made.code


def _of_emergencies(user: Any) -> None:
    over: dict[str, Any] = {"closed_at": NOW, "close_reason": CloseReason.EXPIRED}
    # Not the primary key of an account: none reviews its own emergency access.
    reviewed = {**over, "reviewed_at": NOW, "reviewed_by": "0", "note": WORD}
    for given in (
        {"is_local": True},
        *({**over, "close_reason": reason} for reason in CloseReason.values),
        *({**reviewed, "verdict": verdict} for verdict in ReviewVerdict.values),
    ):
        EmergencyAccess.objects.create(
            id=uuid7(NOW),
            user=user,
            actor=str(user.pk),
            resource="Patient/7",
            permissions=[PERMISSION],
            purpose="ETREAT",
            reason=WORD,
            opened_at=NOW,
            expires_at=NOW + HOUR,
            **given,
        )


def _of_scim_clients() -> None:
    states = ((None, DAY), (None, -DAY), (None, DAY), (NOW, DAY), (NOW, DAY))
    for number, (revoked_at, lifetime) in enumerate(states):
        fields: Any = {"provider": "1", "created_at": NOW, "created_by": "1", "revoked_at": revoked_at}
        client = SCIMClient.objects.create(name=f"{WORD}-{number}", **fields)
        times: Any = {"created_at": NOW, "expires_at": NOW + lifetime, "last_used_at": NOW if number else None}
        SCIMToken.objects.create(client=client, digest=str(number), **times)


def _of_alerts() -> None:
    for number, severity in enumerate(("info", "warning", "critical")):
        for acknowledged_at in (None, NOW):
            SecurityAlert.objects.create(
                kind="token_forged",
                key=str(number),
                severity=severity,
                count=3,
                first_seen=NOW,
                last_seen=NOW,
                acknowledged_at=acknowledged_at,
            )
    for lifted_at in (None, NOW):
        AlertMute.objects.create(
            kind="token_forged", key="9", until=NOW + DAY, note=WORD, muted_at=NOW, lifted_at=lifted_at
        )


def _of_the_trail(patient: SignedIn) -> None:
    SetAsideEvent.objects.create(event_id=uuid7(NOW), reader="outbox", error="1", set_aside_at=NOW, tried_at=NOW)
    events(
        1,
        action=Action.AUDIT_VERIFIED,
        detail={"tree_size": 3, "findings": 0},
        subject="",
        origin=Origin(),
        at=NOW - 2 * HOUR,
    )
    sealed(
        2,
        action=Action.LOGIN_SUCCEEDED,
        detail={"claims": [NAME]},
        at=NOW - HOUR,
        subject=str(patient.subject.uuid),
    )
    events(
        1, action=Action.LOGIN_REFUSED, outcome="failure", reason="state_unknown", detail={}, subject="", at=NOW - HOUR
    )
    result = {"tree_size": 3, "waiting": 0, "findings": 2, "kinds": ["event_altered"], "lines": ["1"], "events": 2}
    for number, state in enumerate(SessionEndJob.State):
        selection = (
            {"before": NOW.isoformat()}
            if number
            else {"user": str(patient.user.pk), "provider": "1", "group": 1, "before": NOW.isoformat()}
        )
        fault = ("", "lock_timeout", "event_altered")[number % 3]
        fields = {"requested_by": "1", "requested_at": NOW - HOUR, "done": 1 + number, "total": 5, "fault": fault}
        SessionEndJob.objects.create(id=uuid7(NOW), selection=selection, state=state, **fields)
    for kind in (TrailJob.EXPORT, TrailJob.VERIFICATION):
        for state in (TrailJob.WAITING, TrailJob.RUNNING, TrailJob.DONE, TrailJob.FAILED, TrailJob.TAKEN):
            for more in ({}, {"fault": "event_altered", "total": 5, "attempts": 1}):
                TrailJob.objects.create(
                    id=uuid7(NOW),
                    kind=kind,
                    asked_by="1",
                    asked_at=NOW - HOUR,
                    format="csv" if kind == TrailJob.EXPORT else "",
                    state=state,
                    result=result if state == TrailJob.DONE else {},
                    **more,
                )
