"""The one way to the value of a claim: policy, then the event, committed, then the value."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from .. import clock, conf
from ..access.policy import CLAIM_NOT_DECLARED, CLAIM_OF_SESSION, refuse_reveal
from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import Actor
from ..declarations import ClaimDeclaration
from ..errors import ClaimScrubbed, RevealRefused
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim

PERMISSION = "django_phi_oidc.reveal_storedclaim"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holding:
    """What the tables say of one claim of one person, before any of it is opened."""

    subject: PairwiseSubject | None
    row: StoredClaim | None
    """The row that answers, though its time may be over."""


def reveal(actor: Actor, user: AbstractBaseUser, name: str, *, purpose: str) -> Any:
    """Return the value of a declared claim of user, as the OP gave it, after the event that permits it is committed.

    None: the sign-in brought no such claim. purpose: HL7 PurposeOfUse code: the one that the claim was stored for and
    is still declared for, or PATRQT when actor is user. The claims of the actor's own session answer first, then those
    that outlive sessions; one that is held for a session is revealed in that session alone.
    Raises: RevealRefused, after its own event; AuditUnavailable before anything is opened; ClaimScrubbed when the
    time of what was held is over, erased or not; Undecryptable.
    """
    now = clock.now()
    declared = conf.claims().get(name)
    holding = _look_up(actor, user, name, now=now)
    refused = _refuse(actor, user, declared, holding, purpose)
    gone = refused is None and declared is not None and _is_gone(holding, declared, now=now)
    record(
        Action.ACCESS_DENIED if refused else Action.CLAIM_REVEALED,
        origin=actor.origin,
        now=now,
        outcome="failure" if refused or gone else "success",
        subject=str(holding.subject.uuid) if holding.subject else "",
        purpose=purpose,
        reason=refused or (ClaimScrubbed.code if gone else ""),
        detail={"claim": name},
    )
    if refused:
        raise RevealRefused(refused)
    if gone:
        raise ClaimScrubbed
    return _open(holding.row)


def _refuse(
    actor: Actor, user: AbstractBaseUser, declared: ClaimDeclaration | None, holding: _Holding, purpose: str
) -> str | None:
    if declared is None:
        return CLAIM_NOT_DECLARED
    # What was collected for one purpose is not used for another, whichever of the two changed.
    changed = holding.row is not None and holding.row.purpose != declared.purpose
    is_self = _is_self(actor, user)
    refused = refuse_reveal(
        declared_purpose="" if changed else declared.purpose,
        stated_purpose=purpose,
        is_self=is_self,
        permitted=is_self or _may_reveal(actor),
        has_session=bool(actor.origin.session),
    )
    if refused is None and not is_self and holding.row is None and declared.retention == "session":
        return CLAIM_OF_SESSION
    return refused


def _is_self(actor: Actor, user: AbstractBaseUser) -> bool:
    """An anonymous actor and an unsaved user have both no key, and are not the same person for that."""
    who = actor.user
    return bool(who.is_authenticated and who.is_active and who.pk is not None and who.pk == user.pk)


def _may_reveal(actor: Actor) -> bool:
    """A user model without permissions gives none."""
    has_perm = getattr(actor.user, "has_perm", None)
    return has_perm is not None and bool(has_perm(PERMISSION))


def _look_up(actor: Actor, user: AbstractBaseUser, name: str, *, now: datetime) -> _Holding:
    """One SELECT when a row answers, two when none does."""
    own = {actor.origin.session} if actor.origin.session else set()
    rows = list(
        StoredClaim.objects.filter(subject__user=user.pk, session__in=[NO_SESSION, *own], name=name)
        .select_related("subject")
        .order_by("-obtained_at")
    )
    if rows:
        row = _first_to_answer(rows, now=now)
        return _Holding(subject=row.subject, row=row)
    return _Holding(
        subject=PairwiseSubject.objects.filter(user=user.pk).order_by("-last_seen_at").first(),
        row=None,
    )


def _first_to_answer(rows: Sequence[StoredClaim], *, now: datetime) -> StoredClaim:
    """The session's own, then what is live, then the newest."""
    return min(rows, key=lambda row: (row.session == NO_SESSION, _is_over(row, now=now)))


def _is_gone(holding: _Holding, declared: ClaimDeclaration, *, now: datetime) -> bool:
    """Say whether the time of whatever was held is over.

    An erased row leaves nothing behind. What the latest sign-in brought would still be held until the retention after
    it has passed: no row before that means that it did not come, no row after that tells nothing but that.
    """
    if holding.row is not None:
        return _is_over(holding.row, now=now)
    if holding.subject is None or not isinstance(declared.retention, timedelta):
        return False
    return holding.subject.last_seen_at + declared.retention <= now


def _is_over(row: StoredClaim, *, now: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now


def _open(row: StoredClaim | None) -> Any:
    if row is None:
        return None
    field: Any = StoredClaim._meta.get_field("value")
    return json.loads(field.open(row))
