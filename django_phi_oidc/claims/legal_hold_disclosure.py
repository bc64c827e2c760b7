"""Disclose the claims that a legal hold preserves, including expired ones: check, commit the events, decrypt."""

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import conf
from .._internal import clock, request_secrets
from ..access.no_store import mark_response_private
from ..access.policy import PERMISSION_MISSING, PURPOSE_UNKNOWN, PURPOSES, SESSION_MISSING
from ..access.recipients import remember_recipient
from ..audit.events import Action, NewEvent
from ..audit.recorder import record_many
from ..audit.request_context import Actor
from ..errors import CiphertextInvalid, KeyUnknown, RevealRefused
from ..subjects.models import PairwiseSubject
from .legal_holds import is_on_legal_hold
from .models import StoredClaim
from .retention_limits import get_expiry

DISCLOSE_PERMISSION = "django_phi_oidc.disclose_legalhold"
NOT_HELD = "not_held"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """One claim as it was obtained."""

    name: str
    value: Any = field(repr=False)
    """As the provider sent it; None if no key decrypts it."""
    purpose: str
    obtained_at: datetime
    is_expired: bool
    """It is expired, or a later sign-in has replaced it: without the hold it would be erased."""
    is_undecryptable: bool


def disclose_held_claims(actor: Actor, subject_id: uuid.UUID, *, purpose: str) -> list[HeldClaim]:
    """Return all claims of a person on legal hold, after an event for each is committed.

    purpose: the HL7 PurposeOfUse code of this disclosure, usually HLEGAL; it need not be the declared one. Requires the
    separate permission `disclose_legalhold`.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is decrypted.
    """
    now = clock.now()
    subject = PairwiseSubject.objects.filter(uuid=subject_id).first()
    refusal = _find_refusal(actor, subject, purpose, now=now)
    claims = StoredClaim.objects.select_related("subject").order_by("pk")
    rows = [] if refusal or subject is None else list(claims.filter(subject=subject.pk))
    event = NewEvent(
        action=Action.ACCESS_DENIED if refusal else Action.CLAIM_REVEALED,
        origin=actor.origin,
        now=now,
        outcome="failure" if refusal else "success",
        subject=str(subject.uuid) if subject else "",
        purpose=purpose,
        reason=refusal or "legal_hold",
        detail={},
    )
    if not refusal:
        remember_recipient(actor.user, now=now)
    # A disclosure without claims is recorded, too.
    record_many([event._replace(detail={"claim": row.name}) for row in rows] or [event])
    if refusal:
        raise RevealRefused(refusal)
    mark_response_private(actor.request)
    return [_decrypt_claim(row, now=now) for row in rows]


def _find_refusal(actor: Actor, subject: PairwiseSubject | None, purpose: str, *, now: datetime) -> str:
    if not actor.origin.session:
        return SESSION_MISSING
    if not getattr(actor.user, "has_perm", lambda permission: False)(DISCLOSE_PERMISSION):
        return PERMISSION_MISSING
    if purpose not in PURPOSES:
        return PURPOSE_UNKNOWN
    return "" if subject is not None and is_on_legal_hold(subject, now=now) else NOT_HELD


def _decrypt_claim(row: StoredClaim, *, now: datetime) -> HeldClaim:
    encrypted: Any = StoredClaim._meta.get_field("value")
    try:
        row.validate_owner(row.subject.user_id)
        value, is_undecryptable = json.loads(encrypted.decrypt(row)), False
    except (KeyUnknown, CiphertextInvalid, ValueError):
        value, is_undecryptable = None, True
    request_secrets.register_secret(value, "claim", location="body")
    return HeldClaim(
        name=row.name,
        value=value,
        purpose=row.purpose,
        obtained_at=row.obtained_at,
        is_expired=get_expiry(row, conf.claims().get(row.name)) <= now,
        is_undecryptable=is_undecryptable,
    )
