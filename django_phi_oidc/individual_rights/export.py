"""All that is held of a person, in one document: they may ask for it, and for who looked at it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..access.emergency.models import EmergencyAccess
from ..access.policy import PATIENT_REQUEST
from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.models import AuditEvent
from ..audit.recorder import record_many
from ..audit.search import EventFilters, RowUnreadable, iterate_events
from ..claims.models import LegalHold, StoredClaim
from ..config.claims import ClaimDeclaration
from ..errors import KeyRingError
from ..sessions.models import OIDCSession
from ..subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonExport:
    """What is held of a person, and what of it could not be read: it is named in the document too."""

    document: Mapping[str, Any] = field(repr=False)
    unreadable_items: tuple[str, ...]


@sensitive_variables()
def export_person(
    user: AbstractBaseUser,
    subjects: Sequence[PairwiseSubject],
    *,
    claim_declarations: Mapping[str, ClaimDeclaration],
    origin: Origin,
    now: datetime,
) -> PersonExport:
    """Return what is held of these subjects of user, of values that JSON has, after the events that it was given out.

    Every claim that is stored, one whose time is over too, for it is held; sessions without tokens and keys; legal
    holds without their reason, which is about others as well; what the trail tells of the person, which names who
    looked; what other systems know the account by; its invitations; and which emergencies the person opened, without
    the record and the reason, which are about somebody else. As many SELECTs for ten subjects as for one,
    but of the trail, which is read a thousand events at a time.
    Raises: AuditUnavailable, and then nothing was opened.
    """
    claims = list(StoredClaim.objects.filter(subject__in=subjects).order_by("name", "obtained_at"))
    record_many(list(_build_export_events(user, subjects, claims, origin=origin, now=now)))
    unreadable: list[str] = []
    holds = list(LegalHold.objects.filter(subject__in=subjects).order_by("placed_at"))
    uuids = {subject.pk: str(subject.uuid) for subject in subjects}
    # Of a link that was deleted, a session has its account left.
    theirs = Q(subject__in=subjects) | Q(user=user.pk, subject=None)
    document = {
        "exported_at": _format_datetime(now),
        "account": {"id": str(user.pk), "username": user.get_username()},
        "subjects": [
            {
                "uuid": str(subject.uuid),
                "issuer": subject.issuer,
                "first_seen_at": _format_datetime(subject.first_seen_at),
                "last_seen_at": _format_datetime(subject.last_seen_at),
                "claims": [
                    _serialize_claim(claim, claim_declarations.get(claim.name), unreadable)
                    for claim in claims
                    if claim.subject_id == subject.pk
                ],
                "holds": [_serialize_legal_hold(hold) for hold in holds if hold.subject_id == subject.pk],
                "events": list(_iter_events(subject, unreadable)),
            }
            for subject in subjects
        ],
        "sessions": [
            _serialize_session(session, uuids)
            for session in OIDCSession.objects.filter(theirs).order_by("started_at", "pk")
        ],
        "identifiers": [
            {"sector": identifier.sector, "value": identifier.value}
            for identifier in PairwiseIdentifier.objects.filter(user=user.pk).order_by("sector")
        ],
        "invitations": [
            _serialize_invitation(code) for code in ActivationCode.objects.filter(user=user.pk).order_by("pk")
        ],
        "emergencies": [
            _serialize_emergency_access(row)
            for row in EmergencyAccess.objects.filter(actor=str(user.pk)).defer("reason", "note").order_by("pk")
        ],
        "unreadable": unreadable,
    }
    return PersonExport(document=document, unreadable_items=tuple(unreadable))


def _build_export_events(
    user: AbstractBaseUser,
    subjects: Sequence[PairwiseSubject],
    claims: Sequence[StoredClaim],
    *,
    origin: Origin,
    now: datetime,
) -> Iterator[NewEvent]:
    """Yield what is to be told: of each subject all names of its claims; of an account without, that alone."""
    told = [
        (str(subject.uuid), sorted({claim.name for claim in claims if claim.subject_id == subject.pk}))
        for subject in subjects
    ]
    for subject_id, its in told or [("", [])]:
        for start in range(0, max(len(its), 1), MAX_ITEMS):
            yield NewEvent(
                action=Action.SUBJECT_EXPORTED,
                origin=origin,
                now=now,
                subject=subject_id,
                purpose=PATIENT_REQUEST,
                resource=f"user/{user.pk}",
                detail={"claims": its[start : start + MAX_ITEMS]},
            )


@sensitive_variables()
def _serialize_claim(
    claim: StoredClaim, declaration: ClaimDeclaration | None, unreadable_items: list[str]
) -> dict[str, Any]:
    """Return a claim, opened; one that can't be opened has no value, and is named among what is unreadable."""
    sealed: Any = StoredClaim._meta.get_field("value")
    told = {
        "name": claim.name,
        "purpose": claim.purpose,
        # That of another purpose says nothing of why this one is held.
        "basis": declaration.basis if declaration and declaration.purpose == claim.purpose else None,
        "obtained_at": _format_datetime(claim.obtained_at),
        "expires_at": _format_datetime(claim.expires_at),
        "held_until": _format_datetime(claim.held_until),
    }
    try:
        return {**told, "value": json.loads(sealed.decrypt(claim))}
    except (KeyRingError, ValueError):
        unreadable_items.append(f"claim {claim.name}")
        return told


def _serialize_legal_hold(hold: LegalHold) -> dict[str, Any]:
    return {
        "placed_at": _format_datetime(hold.placed_at),
        "until": _format_datetime(hold.until),
        "released_at": _format_datetime(hold.released_at),
    }


def _serialize_session(session: OIDCSession, subject_uuids: Mapping[int, str]) -> dict[str, Any]:
    return {
        "id": str(session.pk),
        "subject": None if session.subject_id is None else subject_uuids[session.subject_id],
        "provider": session.provider,
        "issuer": session.issuer,
        "started_at": _format_datetime(session.started_at),
        "last_seen_at": _format_datetime(session.last_seen_at),
        "ended_at": _format_datetime(session.ended_at),
        "end_reason": session.end_reason or None,
        "auth_time": _format_datetime(session.auth_time),
        "acr": session.acr or None,
    }


def _serialize_invitation(code: ActivationCode) -> dict[str, Any]:
    """Who made it is not told: that is about somebody else."""
    return {
        "provider": code.provider,
        "created_at": _format_datetime(code.created_at),
        "expires_at": _format_datetime(code.expires_at),
        "redeemed_at": _format_datetime(code.redeemed_at),
        "revoked_at": _format_datetime(code.revoked_at),
    }


def _serialize_emergency_access(row: EmergencyAccess) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "permissions": row.permissions,
        "purpose": row.purpose,
        "opened_at": _format_datetime(row.opened_at),
        "expires_at": _format_datetime(row.expires_at),
        "closed_at": _format_datetime(row.closed_at),
        "close_reason": row.close_reason or None,
        "reviewed_at": _format_datetime(row.reviewed_at),
        "verdict": row.verdict or None,
    }


def _iter_events(subject: PairwiseSubject, unreadable_items: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what the trail tells of the subject; where a row of it was altered to what is no event, what is before."""
    try:
        for event in iterate_events(EventFilters(subject=str(subject.uuid))):
            yield _serialize_event(event)
    except RowUnreadable:
        unreadable_items.append(f"events of subject {subject.uuid}")


def _serialize_event(event: AuditEvent) -> dict[str, Any]:
    try:
        detail = json.loads(event.detail)
    except ValueError:
        detail = {}
    return {
        "id": str(event.id),
        "occurred_at": _format_datetime(event.occurred_at),
        "action": event.action,
        "outcome": event.outcome,
        "purpose": event.purpose,
        "actor": event.actor,
        "claims": detail.get("claims", [detail["claim"]] if "claim" in detail else []),
    }


def _format_datetime(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
