"""Subject keys come and go, and nobody is lost: what each is needed for, and the end of one that no longer is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet

from ..errors import KeyInUse
from ..subjects.models import PairwiseSubject, SubjectDigest

BATCH_SIZE = 10_000
"""Digests deleted in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyUsage:
    """What one key is to the persons in the tables."""

    id: str
    position: int | None
    """In the list, from 1; None: only rows name it."""
    digests: int
    persons_without_digest: int
    """Persons who have no digest under it."""
    dependent_persons: int
    """Persons whom nobody would know again without it."""
    removable: bool
    """Whether it may leave the list, or, having left it, be retired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyRingUsage:
    """What the list is to them."""

    persons: int
    unknown_persons: int
    """Persons who have no digest under any configured key: nobody knows them again as things stand."""
    keys: tuple[SubjectKeyUsage, ...]
    """Those of the list in its order, then those that only rows name."""


def get_subject_key_usage(configured_key_ids: Sequence[str]) -> SubjectKeyRingUsage:
    """Return what the keys with those ids, and all others that rows name, are needed for. Only counts are read:

    the digests by key, the persons, those without a configured key, and for each key those whom no other key knows.
    """
    counted = SubjectDigest.objects.order_by("key_id").values_list("key_id").annotate(count=Count("pk"))
    digests, persons = dict(counted), PairwiseSubject.objects.count()
    keys = []
    for key_id in [*configured_key_ids, *(key_id for key_id in digests if key_id not in configured_key_ids)]:
        others = [other for other in configured_key_ids if other != key_id]
        lost = _count_dependent_persons(key_id, others)
        keys.append(
            SubjectKeyUsage(
                id=key_id,
                position=configured_key_ids.index(key_id) + 1 if key_id in configured_key_ids else None,
                digests=digests.get(key_id, 0),
                persons_without_digest=max(persons - digests.get(key_id, 0), 0),
                dependent_persons=lost,
                removable=bool(others) and lost == 0,
            )
        )
    unknown = _exclude_subjects_with_keys(PairwiseSubject.objects.all(), configured_key_ids).count()
    return SubjectKeyRingUsage(persons=persons, unknown_persons=unknown, keys=tuple(keys))


def retire_subject_key(
    key_id: str,
    *,
    configured_key_ids: Sequence[str],
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Delete the digests under a key that is not configured any more; return how many there were.

    No person is lost, whatever happens meanwhile: a digest goes only while its subject has one under a configured key.
    Each batch is committed: killed at any point, the next run goes on. progress: told after each how many are gone.
    Raises: KeyInUse: before anything is deleted, when the key is configured or persons are known by it alone; at the
    end, when such persons came meanwhile.
    """
    if key_id in configured_key_ids:
        raise KeyInUse(f"Key {key_id} is configured: take it out of KEYS['subject'] on every server first.")
    _validate_no_dependent_persons(key_id, configured_key_ids)
    covered = Exists(SubjectDigest.objects.filter(subject=OuterRef("subject"), key_id__in=configured_key_ids))
    done = 0
    going = SubjectDigest.objects.filter(covered, key_id=key_id).order_by("pk")
    while found := dict(going.values_list("pk", "subject")[:batch_size]):
        with transaction.atomic():
            # Held, and looked at again: a server with another list may be retiring what covers them here.
            held = PairwiseSubject.objects.select_for_update().filter(pk__in=found.values()).order_by("pk")
            subjects = list(held.values_list("pk", flat=True))
            done += going.order_by().filter(pk__in=found, subject__in=subjects).delete()[0]
        progress(done)
    _validate_no_dependent_persons(key_id, configured_key_ids)
    return done


def _exclude_subjects_with_keys(
    subjects: QuerySet[PairwiseSubject], key_ids: Sequence[str]
) -> QuerySet[PairwiseSubject]:
    return subjects.exclude(Exists(SubjectDigest.objects.filter(subject=OuterRef("pk"), key_id__in=key_ids)))


def _count_dependent_persons(key_id: str, other_key_ids: Sequence[str]) -> int:
    """Return how many persons have a digest under key_id, and none under one of the others."""
    return _exclude_subjects_with_keys(PairwiseSubject.objects.filter(digests__key_id=key_id), other_key_ids).count()


def _validate_no_dependent_persons(key_id: str, configured_key_ids: Sequence[str]) -> None:
    if lost := _count_dependent_persons(key_id, configured_key_ids):
        raise KeyInUse(f"{lost} persons are known by key {key_id} alone: put it back, and keep it.")
