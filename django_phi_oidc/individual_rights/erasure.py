"""All that is held of a person goes at once, and the trail alone knows that there was something."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from ..access.emergency.lifecycle import close_emergencies
from ..access.emergency.models import CloseReason, EmergencyAccess
from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..claims.legal_holds import is_on_legal_hold
from ..claims.models import StoredClaim
from ..errors import HeldForLegalReasons
from ..sessions.models import OIDCSession
from ..subjects.invitations import revoke_activation_codes
from ..subjects.models import ActivationCode, PairwiseIdentifier, PairwiseSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureResult:
    """What is gone."""

    subject_uuids: tuple[uuid.UUID, ...]
    claim_count: int
    session_count: int
    identifier_count: int
    invitation_count: int


def erase_person(
    user: AbstractBaseUser, subjects: Sequence[PairwiseSubject], *, origin: Origin, now: datetime
) -> ErasureResult:
    """Erase what is held of these subjects of user, in one transaction, and return what that was.

    Live sessions end, claims are erased, and the subjects go with their digests, each with the events of that. After
    it the rows of the sessions; and, once the account is linked to nobody, what other systems know it by, and its
    invitations. An emergency that the person opened is closed, and stays: like the trail, it is about what they did
    with the records of others, and somebody reviews it. Tokens are revoked after the commit, as when somebody is
    unlinked. The account itself is the host project's to delete.
    Raises: HeldForLegalReasons, and then nothing was erased, of no subject.
    """
    with transaction.atomic():
        # Held, so that neither a sign-in nor a legal hold comes in between; but not its key, which the end of a session
        # looks at while it holds the session, that comes next here.
        keys = [subject.pk for subject in subjects]
        gone = list(PairwiseSubject.objects.select_for_update(no_key=True).filter(pk__in=keys).order_by("pk"))
        if any(is_on_legal_hold(subject, now=now) for subject in gone):
            raise HeldForLegalReasons
        # In the order in which the end of a session holds them, or the two could wait for each other.
        sessions = OIDCSession.objects.filter(subject__in=gone).order_by("pk").select_for_update()
        ended = list(sessions.values_list("pk", flat=True))
        names = _count_claims_by_name(gone)
        for subject in gone:
            subject.deleted_by = origin
            subject.delete()
        OIDCSession.objects.filter(pk__in=ended).delete()
        forgotten, identifiers, invitations = _erase_account_data(user, origin=origin, now=now)
        enqueue_many(_build_erasure_events(user, names, origin=origin, now=now))
    return ErasureResult(
        subject_uuids=tuple(names),
        claim_count=sum(counts.total() for counts in names.values()),
        session_count=len(ended) + forgotten,
        identifier_count=identifiers,
        invitation_count=invitations,
    )


def _count_claims_by_name(subjects: Sequence[PairwiseSubject]) -> dict[uuid.UUID, Counter[str]]:
    """Return how many claims of each name each subject has, and hold them."""
    found: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    claims = StoredClaim.objects.filter(subject__in=subjects).order_by("pk").select_for_update()
    for subject, name in claims.values_list("subject", "name"):
        found[subject][name] += 1
    return {subject.uuid: found[subject.pk] for subject in subjects}


def _erase_account_data(user: AbstractBaseUser, *, origin: Origin, now: datetime) -> tuple[int, int, int]:
    """Erase what is left of an account that is linked to nobody; return the numbers of sessions, identifiers and codes.

    A code that could still be redeemed is revoked before: else the person could come back by it, unasked.
    """
    if PairwiseSubject.objects.filter(user=user.pk).exists():
        return 0, 0, 0
    codes = ActivationCode.objects.filter(user=user.pk)
    revoke_activation_codes(codes, reason="erased", origin=origin, now=now)
    invitations, _ = codes.delete()
    opened = list(EmergencyAccess.objects.currently_open(now=now).filter(user=user.pk).values_list("pk", flat=True))
    close_emergencies(opened, CloseReason.ADMINISTRATOR, origin=origin, now=now)
    sessions, _ = OIDCSession.objects.filter(user=user.pk, subject=None, ended_at__isnull=False).delete()
    identifiers, _ = PairwiseIdentifier.objects.filter(user=user.pk).delete()
    return sessions, identifiers, invitations


def _build_erasure_events(
    user: AbstractBaseUser, claim_counts: Mapping[uuid.UUID, Counter[str]], *, origin: Origin, now: datetime
) -> list[NewEvent]:
    acts = []
    for subject, counts in claim_counts.items() or [("", Counter[str]())]:
        told = sorted(counts.items())
        for start in range(0, max(len(told), 1), MAX_ITEMS):
            some = told[start : start + MAX_ITEMS]
            acts.append(
                NewEvent(
                    action=Action.SUBJECT_ERASED,
                    origin=origin,
                    now=now,
                    subject=str(subject),
                    resource=f"user/{user.pk}",
                    detail={"claims": [name for name, _ in some], "counts": [count for _, count in some]},
                )
            )
    return acts
