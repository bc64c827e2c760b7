"""Rotate subject keys: what each key is needed for, and the removal of unused ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet

from ...subjects.models import PairwiseSubject, SubjectDigest
from .errors import KeyInUse

BATCH_SIZE = 10_000
"""Digests deleted in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyUsage:
    """How many persons depend on one key."""

    id: str
    position: int | None
    """In the key list, from 1; None: only rows refer to the key."""
    digests: int
    persons_without_digest: int
    dependent_persons: int
    """Persons who can be recognized only by this key."""
    removable: bool
    """Whether the key may be removed from the list, or retired after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyRingUsage:
    """The usage of all subject keys."""

    persons: int
    unknown_persons: int
    """Persons without a digest under a configured key: they can't be recognized now."""
    keys: tuple[SubjectKeyUsage, ...]
    """The configured keys in their order, then keys that only rows refer to."""


def get_subject_key_usage(configured_key_ids: Sequence[str]) -> SubjectKeyRingUsage:
    """Return the usage of the configured keys and of all keys that rows refer to. Only counts are
    read.
    """
    counted = (
        SubjectDigest.objects.order_by("key_id").values_list("key_id").annotate(count=Count("pk"))
    )
    digests = dict(counted)
    persons = PairwiseSubject.objects.count()
    key_ids = list(configured_key_ids)
    for key_id in digests:
        if key_id not in configured_key_ids:
            key_ids.append(key_id)
    keys = []
    for key_id in key_ids:
        others = []
        for other in configured_key_ids:
            if other != key_id:
                others.append(other)
        dependent = _count_dependent_persons(key_id, others)

        position = None
        if key_id in configured_key_ids:
            position = configured_key_ids.index(key_id) + 1

        keys.append(
            SubjectKeyUsage(
                id=key_id,
                position=position,
                digests=digests.get(key_id, 0),
                persons_without_digest=max(persons - digests.get(key_id, 0), 0),
                dependent_persons=dependent,
                removable=bool(others) and dependent == 0,
            )
        )
    unknown = _exclude_with_keys(PairwiseSubject.objects.all(), configured_key_ids).count()
    return SubjectKeyRingUsage(persons=persons, unknown_persons=unknown, keys=tuple(keys))


def retire_subject_key(
    key_id: str,
    *,
    configured_key_ids: Sequence[str],
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Delete the digests of a key that is no longer configured; return how many there were.

    No person becomes unknown, even with concurrent changes: a digest is deleted only while its
    subject has one under a configured key. Each batch is committed, so a killed run can be
    continued. progress: called after each batch with the number of deleted digests.
    Raises: KeyInUse: before any deletion, if the key is configured or persons depend on it; at the
    end, if such persons were added meanwhile.
    """
    deletable = find_deletable_digests(key_id, configured_key_ids=configured_key_ids)
    done = 0
    while batch := dict(deletable.values_list("pk", "subject")[:batch_size]):
        with transaction.atomic():
            # Locked and checked again: a server with another list may be retiring the key that
            # covers them here.
            locked = (
                PairwiseSubject.objects.select_for_update()
                .filter(pk__in=batch.values())
                .order_by("pk")
            )
            subjects = list(locked.values_list("pk", flat=True))
            done += deletable.order_by().filter(pk__in=batch, subject__in=subjects).delete()[0]
        progress(done)
    _validate_no_dependent_persons(key_id, configured_key_ids)
    return done


def find_deletable_digests(
    key_id: str, *, configured_key_ids: Sequence[str]
) -> QuerySet[SubjectDigest]:
    """Return the digests that `retire_subject_key` deletes. Raises: KeyInUse, as it does before any
    deletion.
    """
    if key_id in configured_key_ids:
        raise KeyInUse(
            f"Key {key_id} is configured: remove it from KEYS['subject'] on every server first."
        )
    _validate_no_dependent_persons(key_id, configured_key_ids)
    covered = Exists(
        SubjectDigest.objects.filter(subject=OuterRef("subject"), key_id__in=configured_key_ids)
    )
    return SubjectDigest.objects.filter(covered, key_id=key_id).order_by("pk")


def _exclude_with_keys(
    subjects: QuerySet[PairwiseSubject], key_ids: Sequence[str]
) -> QuerySet[PairwiseSubject]:
    return subjects.exclude(
        Exists(SubjectDigest.objects.filter(subject=OuterRef("pk"), key_id__in=key_ids))
    )


def _count_dependent_persons(key_id: str, other_key_ids: Sequence[str]) -> int:
    return _exclude_with_keys(
        PairwiseSubject.objects.filter(digests__key_id=key_id), other_key_ids
    ).count()


def _validate_no_dependent_persons(key_id: str, configured_key_ids: Sequence[str]) -> None:
    if count := _count_dependent_persons(key_id, configured_key_ids):
        raise KeyInUse(
            f"{count} persons can be recognized only by key "
            f"{key_id}: add it to KEYS['subject'] again."
        )
