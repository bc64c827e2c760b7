"""Erase the data of a person in one transaction; only the audit log shows that there was any. Spec:
GDPR 17.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from ...audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...audit.request_context import use_origin
from ...claims.models import StoredClaim
from ...errors import HeldForLegalReasons
from ...sessions.models import OIDCSession
from ...subjects.models import PairwiseIdentifier, PairwiseSubject
from ..common.personal_data_sources import personal_data_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureResult:
    """How many rows were erased."""

    subject_uuids: tuple[uuid.UUID, ...]
    claim_count: int
    session_count: int
    identifier_count: int
    further_counts: Mapping[str, int]
    """The rows of other apps, by their name in the result, such as "invitations"."""


def erase_person(
    user: AbstractBaseUser, subjects: Sequence[PairwiseSubject], *, origin: Origin, now: datetime
) -> ErasureResult:
    """Erase the data of these subjects of user in one transaction and return the counts.

    Live sessions end, claims are erased, and the subjects are deleted with their digests, each with
    its events. Then the session rows are deleted and, if the account has no link left, its pairwise
    identifiers and the rows of other apps. Tokens are revoked after the commit, as for an unlinked
    account. The account itself is deleted by the host project.
    Raises: HeldForLegalReasons, and then nothing was erased of any subject.
    """
    with transaction.atomic():
        # Locked, so that no concurrent sign-in or legal hold is added. no_key: ending a session
        # reads the subject's key while it locks the session, and the sessions are locked next.
        pks = [subject.pk for subject in subjects]
        locked = list(
            PairwiseSubject.objects.select_for_update(no_key=True).filter(pk__in=pks).order_by("pk")
        )
        if any(subject.is_held(now=now) for subject in locked):
            raise HeldForLegalReasons
        for source in personal_data_sources:
            source.erase_before_unlinking(user)
        # Locked in the same order as at the end of a session, to prevent a deadlock.
        sessions = OIDCSession.objects.filter(subject__in=locked).order_by("pk").select_for_update()
        session_ids = list(sessions.values_list("pk", flat=True))
        counts = {subject.pk: Counter[str]() for subject in locked}
        claims = StoredClaim.objects.filter(subject__in=locked).order_by("pk").select_for_update()
        for subject_id, name in claims.values_list("subject", "name"):
            counts[subject_id][name] += 1
        claim_counts = {subject.uuid: counts[subject.pk] for subject in locked}
        with use_origin(lambda: origin):
            for subject in locked:
                subject.delete()
        OIDCSession.objects.filter(pk__in=session_ids).delete()
        further_counts = _get_zero_counts()
        unlinked_sessions = 0
        identifiers = 0
        if not PairwiseSubject.objects.filter(user=user.pk).exists():
            for source in personal_data_sources:
                further_counts.update(source.erase_account(user, origin=origin, now=now))
            unlinked_sessions, _ = OIDCSession.objects.filter(
                user=user.pk, subject=None, ended_at__isnull=False
            ).delete()
            identifiers, _ = PairwiseIdentifier.objects.filter(user=user.pk).delete()
        enqueue_many(list(_build_erasure_events(user, claim_counts, origin=origin, now=now)))
    return ErasureResult(
        subject_uuids=tuple(claim_counts),
        claim_count=sum(counts.total() for counts in claim_counts.values()),
        session_count=len(session_ids) + unlinked_sessions,
        identifier_count=identifiers,
        further_counts=further_counts,
    )


def preview_erasure(
    user: AbstractBaseUser, subjects: Sequence[PairwiseSubject], *, now: datetime
) -> ErasureResult:
    """Return what `erase_person` would erase. Raises: HeldForLegalReasons."""
    if any(subject.is_held(now=now) for subject in subjects):
        raise HeldForLegalReasons
    pks = [subject.pk for subject in subjects]
    counted = [OIDCSession.objects.filter(subject__in=pks)]
    identifiers = PairwiseIdentifier.objects.none()
    further_counts = _get_zero_counts()
    if not PairwiseSubject.objects.filter(user=user.pk).exclude(pk__in=pks).exists():
        counted.append(
            OIDCSession.objects.filter(user=user.pk, subject=None, ended_at__isnull=False)
        )
        identifiers = PairwiseIdentifier.objects.filter(user=user.pk)
        for source in personal_data_sources:
            further_counts.update(source.count_account(user))
    return ErasureResult(
        subject_uuids=tuple(subject.uuid for subject in subjects),
        claim_count=StoredClaim.objects.filter(subject__in=pks).count(),
        session_count=sum(sessions.count() for sessions in counted),
        identifier_count=identifiers.count(),
        further_counts=further_counts,
    )


def _get_zero_counts() -> dict[str, int]:
    zero_counts = {}
    for source in personal_data_sources:
        for name in source.erased_names:
            zero_counts[name] = 0
    return zero_counts


def _build_erasure_events(
    user: AbstractBaseUser,
    claim_counts: Mapping[uuid.UUID, Counter[str]],
    *,
    origin: Origin,
    now: datetime,
) -> Iterator[NewEvent]:
    for subject, counts in claim_counts.items() or [("", Counter[str]())]:
        counted = sorted(counts.items())
        for start in range(0, max(len(counted), 1), MAX_ITEMS):
            batch = dict(counted[start : start + MAX_ITEMS])
            yield NewEvent(
                action=Action.SUBJECT_ERASED,
                origin=origin,
                now=now,
                subject=str(subject),
                resource=f"user/{user.pk}",
                detail={"claims": list(batch), "counts": list(batch.values())},
            )
