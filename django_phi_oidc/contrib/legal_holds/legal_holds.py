"""Legal holds: while one is active, no path erases a stored claim of the person, or destroys the
key of that claim.

The deactivation of an account destroys the key of the person. Held claims have the key of the hold,
so they remain; the claims in backups that were made before the hold become undecryptable.
"""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Literal

from django.db import transaction
from django.db.models import Q, QuerySet

from ..._internal import randomness
from ...audit.events import Action, Origin
from ...audit.outbox import enqueue
from ...claims.models import FOREVER, NO_SESSION, StoredClaim
from ...crypto import claim_keys
from ...errors import CiphertextInvalid, KeyUnknown
from ...subjects.models import PairwiseSubject
from ..common.visible_text import has_visible_text
from .accounting_suspensions import (
    SUSPENDABLE_PURPOSES,
    AccountingSuspension,
    find_suspension_fault,
)
from .models import LegalHold


def place_hold(
    subject_id: uuid.UUID,
    *,
    reason: str,
    until: datetime | None,
    suspension: AccountingSuspension | None = None,
    origin: Origin,
    now: datetime,
) -> LegalHold:
    """Preserve all present and future claims of the subject, and return the hold.

    reason: free text, not recorded in the audit log. until: aware; None: until it is released.
    suspension: what the accounting of the person's disclosures leaves out while the hold is active.
    A concurrent erasure either finishes first or erases nothing of this person.
    Raises: ValueError without a reason, for an end in the past, or for a suspension that is not
    permitted; PairwiseSubject.DoesNotExist.
    """
    if not has_visible_text(reason):
        raise ValueError("A hold needs a reason.")
    if until is not None and until <= now:
        raise ValueError("The end of the hold is in the past.")
    if suspension is not None:
        fault = find_suspension_fault(suspension, hold_until=until, now=now)
        if fault:
            raise ValueError(fault)
    with transaction.atomic():
        subject = PairwiseSubject.objects.select_for_update(no_key=True).get(uuid=subject_id)
        hold = LegalHold(
            # The id contains the time: the key of a hold that was rolled back is not kept forever.
            id=randomness.uuid7(now),
            subject=subject,
            reason=reason.strip(),
            until=until,
            placed_at=now,
            placed_by=origin.actor,
        )
        detail: dict[str, Any] = {"until": until.isoformat() if until else ""}
        if suspension is not None:
            detail |= _add_suspension(hold, suspension)
        hold.save(force_insert=True)
        _enqueue_event(Action.HOLD_PLACED, hold, subject, detail, origin=origin, now=now)
        _apply_holds(subject, now=now)
    return hold


def release_hold(hold_id: uuid.UUID, *, origin: Origin, now: datetime) -> bool:
    """Release a hold, and return whether it was not released yet. Claims under no other hold are
    erased when expired.

    A suspension of the accounting is lifted with it.
    Raises: LegalHold.DoesNotExist.
    """
    with transaction.atomic():
        subject = (
            PairwiseSubject.objects.select_for_update(no_key=True).filter(holds=hold_id).first()
        )
        hold = LegalHold.objects.get(pk=hold_id)
        if subject is None or hold.released_at is not None:
            return False
        hold.released_at = now
        hold.released_by = origin.actor
        hold.save(update_fields=["released_at", "released_by"])
        # Also if the suspension has ended: while another one is active, the export must not show
        # this event.
        if hold.suspended_until:
            detail = {"suspended_until": hold.suspended_until.isoformat()}
        else:
            detail = {}

        _enqueue_event(Action.HOLD_RELEASED, hold, subject, detail, origin=origin, now=now)
        _apply_holds(subject, now=now)
    return True


def list_active_holds(*, now: datetime) -> QuerySet[LegalHold]:
    """Return the active holds, the oldest first."""
    active = Q(until=None) | Q(until__gt=now)
    return LegalHold.objects.filter(active, released_at=None).order_by("placed_at", "pk")


def find_suspended_purposes(user_pk: Any, *, now: datetime) -> dict[str, datetime]:
    """Return the purposes whose disclosures the accounting of the user leaves out now, with the end
    of each.
    """
    holds = list_active_holds(now=now).filter(subject__user=user_pk, suspended_until__gt=now)
    suspended: dict[str, datetime] = {}
    for until, purposes in holds.order_by("suspended_until").values_list(
        "suspended_until", "suspended_purposes"
    ):
        # The column may have been changed in the database, but the law only permits omitting
        # disclosures for these purposes.
        for purpose in SUSPENDABLE_PURPOSES:
            if until and purpose in purposes:
                suspended[purpose] = until
    return suspended


def find_current_hold(subject: PairwiseSubject, *, now: datetime) -> LegalHold | None:
    """Return the active hold whose key encrypts claims of the subject. Requires: the caller has
    locked the subject's row.
    """
    return list_active_holds(now=now).filter(subject=subject.pk).first()


def find_hold_key_name(hold: LegalHold) -> str:
    """Return the name of the retention key of the hold; "" if retention keys are disabled."""
    if claim_keys.find_enabled_source() is None:
        return ""
    return f"{claim_keys.HOLD_PREFIX}{hold.pk.hex}"


def preserve_replaced_claims(
    subject: PairwiseSubject, names: Collection[str], *, now: datetime
) -> set[str]:
    """Preserve the claims that new ones are about to replace, as expired ones. Requires: an active
    hold.

    Return the names of those that cannot be decrypted, and so not be moved: they must not be
    replaced.
    """
    unmoved = set()
    for claim in StoredClaim.objects.filter(subject=subject.pk, session=NO_SESSION, name__in=names):
        claim.subject = subject
        # A random session id: nothing replaces the claim, and only the disclosure of held claims
        # finds it.
        if not _reencrypt_claim(claim, bucket=claim.bucket, session=randomness.uuid4()):
            unmoved.add(claim.name)
        StoredClaim.objects.filter(pk=claim.pk).update(expires_at=now)
    return unmoved


def _add_suspension(hold: LegalHold, suspension: AccountingSuspension) -> dict[str, Any]:
    """Set the columns of the suspension, and return its part of the detail of the event."""
    purposes = sorted(set(suspension.purposes))
    hold.suspended_until = suspension.until
    hold.suspended_purposes = purposes
    hold.agency = suspension.agency.strip()
    hold.oral_statement_at = suspension.oral_statement_at

    if suspension.oral_statement_at is None:
        statement = "written"
    else:
        statement = "oral"

    return {
        "suspended_until": suspension.until.isoformat(),
        "purposes": purposes,
        "statement": statement,
    }


def _apply_holds(subject: PairwiseSubject, *, now: datetime) -> None:
    """Set `held_until` and the keys of the subject and its claims. Requires: the subject's row is
    locked.
    """
    holds = list(list_active_holds(now=now).filter(subject=subject.pk))
    until = max((hold.until or FOREVER for hold in holds), default=None)
    PairwiseSubject.objects.filter(pk=subject.pk).update(held_until=until)

    hold = None
    if holds:
        hold = holds[0]

    for claim in StoredClaim.objects.filter(subject=subject.pk).order_by("pk").select_for_update():
        claim.subject = subject
        if claim_keys.find_enabled_source() is not None:
            retention: timedelta | Literal["session"] = "session"
            if claim.session == NO_SESSION and claim.expires_at is not None:
                # The server that marked the claim as expired may have a slower clock than the one
                # that obtained it.
                retention = max(claim.expires_at - claim.obtained_at, timedelta())

            if hold is None:
                bucket = claim_keys.find_day_key_name(now, retention)
            else:
                bucket = find_hold_key_name(hold)
            _reencrypt_claim(claim, bucket=bucket, session=claim.session)
        StoredClaim.objects.filter(pk=claim.pk).update(held_until=until)


def _reencrypt_claim(claim: StoredClaim, *, bucket: str, session: uuid.UUID) -> bool:
    """Encrypt the value with that key for that session. False: it cannot be decrypted, and stays
    unchanged.
    """
    if (claim.bucket, claim.session) == (bucket, session):
        return True
    field: Any = StoredClaim._meta.get_field("value")
    try:
        value = field.decrypt(claim)
    except (KeyUnknown, CiphertextInvalid):
        return False
    claim.bucket = bucket
    claim.session = session
    claim.value = value
    claim.save(update_fields=["bucket", "session", "value"])
    return True


def _enqueue_event(
    action: Action,
    hold: LegalHold,
    subject: PairwiseSubject,
    detail: dict[str, Any],
    *,
    origin: Origin,
    now: datetime,
) -> None:
    enqueue(
        action,
        origin=origin,
        now=now,
        subject=str(subject.uuid),
        resource=f"LegalHold/{hold.pk}",
        detail=detail,
    )
