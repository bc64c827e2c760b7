"""All that is held of a person, in one document: they may ask for it, and for who looked at it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..access.models import EmergencyAccess
from ..access.policy import PATIENT_REQUEST
from ..audit.browsing import Filters, RowUnreadable, each
from ..audit.events import MAX_ITEMS, Act, Action, Origin
from ..audit.models import AuditEvent
from ..audit.recording import record_many
from ..claims.models import LegalHold, StoredClaim
from ..declarations import ClaimDeclaration
from ..errors import KeyRingError
from ..subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject
from .models import OIDCSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is held of a person, and what of it could not be read: it is named in the document too."""

    document: Mapping[str, Any] = field(repr=False)
    unreadable: tuple[str, ...]


@sensitive_variables()
def export_person(
    user: AbstractBaseUser,
    subjects: Sequence[PairwiseSubject],
    *,
    declared: Mapping[str, ClaimDeclaration],
    origin: Origin,
    now: datetime,
) -> Exported:
    """Return what is held of these subjects of user, of values that JSON has, after the events that it was given out.

    Every claim that is stored, one whose time is over too, for it is held; sessions without tokens and keys; legal
    holds without their reason, which is about others as well; what the trail tells of the person, which names who
    looked; what other systems know the account by; its invitations; and which emergencies the person opened, without
    the record and the reason, which are about somebody else. As many SELECTs for ten subjects as for one,
    but of the trail, which is read a thousand events at a time.
    Raises: AuditUnavailable, and then nothing was opened.
    """
    claims = list(StoredClaim.objects.filter(subject__in=subjects).order_by("name", "obtained_at"))
    record_many(list(_acts(user, subjects, claims, origin=origin, now=now)))
    unreadable: list[str] = []
    holds = list(LegalHold.objects.filter(subject__in=subjects).order_by("placed_at"))
    uuids = {subject.pk: str(subject.uuid) for subject in subjects}
    # Of a link that was deleted, a session has its account left.
    theirs = Q(subject__in=subjects) | Q(user=user.pk, subject=None)
    document = {
        "exported_at": _at(now),
        "account": {"id": str(user.pk), "username": user.get_username()},
        "subjects": [
            {
                "uuid": str(subject.uuid),
                "issuer": subject.issuer,
                "first_seen_at": _at(subject.first_seen_at),
                "last_seen_at": _at(subject.last_seen_at),
                "claims": [
                    _claim(claim, declared.get(claim.name), unreadable)
                    for claim in claims
                    if claim.subject_id == subject.pk
                ],
                "holds": [_hold(hold) for hold in holds if hold.subject_id == subject.pk],
                "events": list(_events(subject, unreadable)),
            }
            for subject in subjects
        ],
        "sessions": [
            _session(session, uuids) for session in OIDCSession.objects.filter(theirs).order_by("started_at", "pk")
        ],
        "identifiers": [
            {"sector": identifier.sector, "value": identifier.value}
            for identifier in PairwiseIdentifier.objects.filter(user=user.pk).order_by("sector")
        ],
        "invitations": [_invitation(code) for code in ActivationCode.objects.filter(user=user.pk).order_by("pk")],
        "emergencies": [
            _emergency(row)
            for row in EmergencyAccess.objects.filter(actor=str(user.pk)).defer("reason", "note").order_by("pk")
        ],
        "unreadable": unreadable,
    }
    return Exported(document=document, unreadable=tuple(unreadable))


def _acts(
    user: AbstractBaseUser,
    subjects: Sequence[PairwiseSubject],
    claims: Sequence[StoredClaim],
    *,
    origin: Origin,
    now: datetime,
) -> Iterator[Act]:
    """Yield what is to be told: of each subject all names of its claims; of an account without, that alone."""
    told = [
        (str(subject.uuid), sorted({claim.name for claim in claims if claim.subject_id == subject.pk}))
        for subject in subjects
    ]
    for subject_id, its in told or [("", [])]:
        for start in range(0, max(len(its), 1), MAX_ITEMS):
            yield Act(
                action=Action.SUBJECT_EXPORTED,
                origin=origin,
                now=now,
                subject=subject_id,
                purpose=PATIENT_REQUEST,
                resource=f"user/{user.pk}",
                detail={"claims": its[start : start + MAX_ITEMS]},
            )


@sensitive_variables()
def _claim(claim: StoredClaim, declared: ClaimDeclaration | None, unreadable: list[str]) -> dict[str, Any]:
    """Return a claim, opened; one that can't be opened has no value, and is named among what is unreadable."""
    sealed: Any = StoredClaim._meta.get_field("value")
    told = {
        "name": claim.name,
        "purpose": claim.purpose,
        # That of another purpose says nothing of why this one is held.
        "basis": declared.basis if declared and declared.purpose == claim.purpose else None,
        "obtained_at": _at(claim.obtained_at),
        "expires_at": _at(claim.expires_at),
        "held_until": _at(claim.held_until),
    }
    try:
        return {**told, "value": json.loads(sealed.open(claim))}
    except (KeyRingError, ValueError):
        unreadable.append(f"claim {claim.name}")
        return told


def _hold(hold: LegalHold) -> dict[str, Any]:
    return {
        "placed_at": _at(hold.placed_at),
        "until": _at(hold.until),
        "released_at": _at(hold.released_at),
    }


def _session(session: OIDCSession, uuids: Mapping[int, str]) -> dict[str, Any]:
    return {
        "id": str(session.pk),
        "subject": None if session.subject_id is None else uuids[session.subject_id],
        "provider": session.provider,
        "issuer": session.issuer,
        "started_at": _at(session.started_at),
        "last_seen_at": _at(session.last_seen_at),
        "ended_at": _at(session.ended_at),
        "end_reason": session.end_reason or None,
        "auth_time": _at(session.auth_time),
        "acr": session.acr or None,
    }


def _invitation(code: ActivationCode) -> dict[str, Any]:
    """Who made it is not told: that is about somebody else."""
    return {
        "provider": code.provider,
        "created_at": _at(code.created_at),
        "expires_at": _at(code.expires_at),
        "redeemed_at": _at(code.redeemed_at),
        "revoked_at": _at(code.revoked_at),
    }


def _emergency(row: EmergencyAccess) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "permissions": row.permissions,
        "purpose": row.purpose,
        "opened_at": _at(row.opened_at),
        "expires_at": _at(row.expires_at),
        "closed_at": _at(row.closed_at),
        "close_reason": row.close_reason or None,
        "reviewed_at": _at(row.reviewed_at),
        "verdict": row.verdict or None,
    }


def _events(subject: PairwiseSubject, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what the trail tells of the subject; where a row of it was altered to what is no event, what is before."""
    try:
        for event in each(Filters(subject=str(subject.uuid))):
            yield _event(event)
    except RowUnreadable:
        unreadable.append(f"events of subject {subject.uuid}")


def _event(event: AuditEvent) -> dict[str, Any]:
    try:
        detail = json.loads(event.detail)
    except ValueError:
        detail = {}
    return {
        "id": str(event.id),
        "occurred_at": _at(event.occurred_at),
        "action": event.action,
        "outcome": event.outcome,
        "purpose": event.purpose,
        "actor": event.actor,
        "claims": detail.get("claims", [detail["claim"]] if "claim" in detail else []),
    }


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
