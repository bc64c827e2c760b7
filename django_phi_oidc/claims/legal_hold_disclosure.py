"""What a legal hold keeps, past its time too, for whoever may see that: policy, then the events, committed, then it."""

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .._internal import clock, request_secrets
from ..access.no_store import mark_response_private
from ..access.policy import PERMISSION_MISSING, PURPOSE_UNKNOWN, PURPOSES, SESSION_MISSING
from ..audit.events import Action, NewEvent
from ..audit.recorder import record_many
from ..audit.request_context import Actor
from ..errors import CiphertextInvalid, KeyUnknown, RevealRefused
from ..subjects.models import PairwiseSubject
from .legal_holds import is_on_legal_hold
from .models import StoredClaim

DISCLOSE_PERMISSION = "django_phi_oidc.disclose_legalhold"
NOT_HELD = "not_held"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """One claim as it was obtained."""

    name: str
    value: Any = field(repr=False)
    """As the OP gave it; None where no key opens it."""
    purpose: str
    obtained_at: datetime
    is_expired: bool
    """Its time is over, or a later sign-in has replaced it: but for the hold it would be erased."""
    is_undecryptable: bool


def disclose_held_claims(actor: Actor, subject_id: uuid.UUID, *, purpose: str) -> list[HeldClaim]:
    """Return all claims of a person whom a legal hold keeps, after an event for each is committed.

    purpose: HL7 PurposeOfUse code, as a rule HLEGAL: why it is looked at, whatever it was obtained for. The permission
    is one of its own, `disclose_legalhold`.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is opened.
    """
    now = clock.now()
    subject = PairwiseSubject.objects.filter(uuid=subject_id).first()
    refused = _find_refusal(actor, subject, purpose, now=now)
    rows = [] if refused or subject is None else list(StoredClaim.objects.filter(subject=subject.pk).order_by("pk"))
    told: dict[str, Any] = {
        "action": Action.ACCESS_DENIED if refused else Action.CLAIM_REVEALED,
        "origin": actor.origin,
        "now": now,
        "outcome": "failure" if refused else "success",
        "subject": str(subject.uuid) if subject else "",
        "purpose": purpose,
        "reason": refused or "legal_hold",
    }
    # A look at somebody of whom nothing is held is one, too.
    details = [{"claim": row.name} for row in rows] or [{}]
    record_many([NewEvent(**told, detail=detail) for detail in details])
    if refused:
        raise RevealRefused(refused)
    mark_response_private(actor.request)
    return [_decrypt_claim(row, now=now) for row in rows]


def _find_refusal(actor: Actor, subject: PairwiseSubject | None, purpose: str, *, now: datetime) -> str:
    has_perm = getattr(actor.user, "has_perm", None)
    if not actor.origin.session:
        return SESSION_MISSING
    if has_perm is None or not has_perm(DISCLOSE_PERMISSION):
        return PERMISSION_MISSING
    if purpose not in PURPOSES:
        return PURPOSE_UNKNOWN
    return "" if subject is not None and is_on_legal_hold(subject, now=now) else NOT_HELD


def _decrypt_claim(row: StoredClaim, *, now: datetime) -> HeldClaim:
    sealed: Any = StoredClaim._meta.get_field("value")
    try:
        value, is_undecryptable = json.loads(sealed.decrypt(row)), False
    except (KeyUnknown, CiphertextInvalid, ValueError):
        value, is_undecryptable = None, True
    request_secrets.register_secret(value, "claim", location="body")
    return HeldClaim(
        name=row.name,
        value=value,
        purpose=row.purpose,
        obtained_at=row.obtained_at,
        is_expired=row.expires_at is not None and row.expires_at <= now,
        is_undecryptable=is_undecryptable,
    )
