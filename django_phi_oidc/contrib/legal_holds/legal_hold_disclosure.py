"""Disclose the claims that a legal hold preserves, including expired ones: check, commit the
events, decrypt.
"""

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ... import conf
from ..._internal import clock, request_secrets
from ...access.decisions import has_permission
from ...access.no_store import add_notice, mark_response_private
from ...access.part2 import NOTICE, get_disclosure_detail
from ...access.policy import PERMISSION_MISSING, PURPOSE_UNKNOWN, SESSION_MISSING
from ...audit.events import Action, NewEvent
from ...audit.purposes import PURPOSES
from ...audit.recorder import record_many
from ...audit.request_context import Actor
from ...claims.models import StoredClaim
from ...claims.retention_limits import get_expiry
from ...errors import CiphertextInvalid, KeyUnknown, RevealRefused
from ...extensions import disclosure_observers
from ...subjects.models import PairwiseSubject
from ..common.declared_refusal import find_declared_refusal

DISCLOSE_PERMISSION = "phi_oidc_legal_holds.disclose_legalhold"
NOT_HELD = "not_held"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """One claim as it was obtained."""

    name: str
    value: Any = field(repr=False)
    """As the provider sent it; None if it is refused, or no key decrypts it."""
    purpose: str
    obtained_at: datetime
    is_expired: bool
    """It is expired, or a later sign-in has replaced it: without the hold it would be erased."""
    is_undecryptable: bool = False
    is_refused: bool = False
    """The actor may not reveal claims of its category, or its label needs a consent."""
    notice: str = ""
    """The text to show with the value, for a claim with a label. Spec: 42 CFR 2.32."""


def disclose_held_claims(
    actor: Actor, subject_id: uuid.UUID, *, purpose: str, consent: str = ""
) -> list[HeldClaim]:
    """Return all claims of a person on legal hold, after an event for each is committed.

    purpose: the HL7 PurposeOfUse code of this disclosure, usually HLEGAL; it need not be the
    declared one. Requires the separate permission `disclose_legalhold`, and for a claim with a
    category that of the category. consent: the reference to the person's consent or the court
    order, for claims with a label. Without these, the claim is refused and has no value.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is decrypted.
    """
    now = clock.now()
    subject = PairwiseSubject.objects.filter(uuid=subject_id).first()
    refusal = _find_refusal(actor, subject, purpose, now=now)
    event = NewEvent(
        action=Action.CLAIM_REVEALED,
        origin=actor.origin,
        now=now,
        outcome="success",
        subject=str(subject.uuid) if subject else "",
        purpose=purpose,
        reason="legal_hold",
        detail={},
    )
    if refusal or subject is None:
        record_many([_refuse(event, refusal)])
        raise RevealRefused(refusal)

    rows = list(
        StoredClaim.objects.filter(subject=subject.pk).select_related("subject").order_by("pk")
    )
    for observe in disclosure_observers:
        observe(actor.user, now=now)
    declared = conf.claims()
    refusals = {}
    labelled = set()
    for row in rows:
        declaration = declared.get(row.name)
        refusals[row.pk] = find_declared_refusal(
            actor.user, declaration, row.subject, consent=consent
        )
        if declaration and declaration.label and not refusals[row.pk]:
            labelled.add(row.pk)

    label_detail = get_disclosure_detail(consent, has_response=actor.request is not None)
    events = []
    for row in rows:
        detail: dict[str, Any] = {"claim": row.name}
        if row.pk in labelled:
            detail |= label_detail
        claim_event = event._replace(detail=detail)
        reason = refusals[row.pk]
        if reason:
            claim_event = _refuse(claim_event, reason)
        events.append(claim_event)
    # A disclosure without claims is recorded, too.
    record_many(events or [event])
    mark_response_private(actor.request)
    if labelled:
        add_notice(actor.request)
    claims = []
    for row in rows:
        notice = ""
        if row.pk in labelled:
            notice = NOTICE
        is_refused = bool(refusals[row.pk])
        claims.append(_build_claim(row, is_refused=is_refused, notice=notice, now=now))
    return claims


def _refuse(event: NewEvent, reason: str) -> NewEvent:
    return event._replace(action=Action.ACCESS_DENIED, outcome="failure", reason=reason)


def _find_refusal(
    actor: Actor, subject: PairwiseSubject | None, purpose: str, *, now: datetime
) -> str:
    if not actor.origin.session:
        return SESSION_MISSING
    if not has_permission(actor.user, DISCLOSE_PERMISSION, subject):
        return PERMISSION_MISSING
    if purpose not in PURPOSES:
        return PURPOSE_UNKNOWN

    if subject is not None and subject.is_held(now=now):
        return ""
    return NOT_HELD


def _build_claim(row: StoredClaim, *, is_refused: bool, notice: str, now: datetime) -> HeldClaim:
    value = None
    is_undecryptable = False
    if not is_refused:
        encrypted: Any = StoredClaim._meta.get_field("value")
        try:
            row.validate_owner(row.subject.user_id)
            value = json.loads(encrypted.decrypt(row))
        except (KeyUnknown, CiphertextInvalid, ValueError):
            is_undecryptable = True
        request_secrets.register_secret(value, "claim", location="body")
    return HeldClaim(
        name=row.name,
        value=value,
        purpose=row.purpose,
        obtained_at=row.obtained_at,
        is_expired=get_expiry(row, conf.claims().get(row.name)) <= now,
        is_undecryptable=is_undecryptable,
        is_refused=is_refused,
        notice=notice,
    )
