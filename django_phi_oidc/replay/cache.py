"""Mark identifiers such as `jti` or `state` as used, once across all processes."""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from django.db import IntegrityError, connections, router, transaction

from .._internal.inserts import insert
from .._internal.sql import delete_in_batches, durable
from .models import UsedIdentifier


def mark_used(kind: str, identifier: str, *, expires_at: datetime) -> bool:
    """Return True for the first call with this kind and identifier, once that is committed, and
    False for all others.

    expires_at: from then on the identifier is refused for its age, and its row may be deleted.
    Requires: no open transaction (RuntimeError), because a rollback would make the identifier
    usable again.
    """
    return _insert(kind, identifier, expires_at, frame=durable(router.db_for_write(UsedIdentifier)))


def mark_used_in_transaction(kind: str, identifier: str, *, expires_at: datetime) -> bool:
    """Do the same as `mark_used` in the caller's transaction: a rollback makes the identifier
    usable again.

    A concurrent call with the same identifier waits for the end of that transaction.
    Requires: an open transaction (RuntimeError).
    """
    using = router.db_for_write(UsedIdentifier)
    if not connections[using].in_atomic_block:
        raise RuntimeError(
            "Marking an identifier as used in a transaction needs an open transaction."
        )
    # A savepoint, because PostgreSQL refuses further statements of the caller after an
    # IntegrityError.
    return _insert(kind, identifier, expires_at, frame=transaction.atomic(using=using))


def was_used(kind: str, identifier: str) -> bool:
    """Say whether the identifier was used. Expired identifiers may be unknown."""
    return UsedIdentifier.objects.filter(digest=compute_digest(kind, identifier)).exists()


def remember(kind: str, identifiers: Collection[str], *, expires_at: datetime) -> None:
    """Remember the identifiers at least until that time; a later time is kept. Committed when this
    returns.

    Requires: no open transaction (RuntimeError).
    """
    with transaction.atomic(using=router.db_for_write(UsedIdentifier), durable=True):
        remember_in_transaction(kind, identifiers, expires_at=expires_at)


def remember_in_transaction(
    kind: str, identifiers: Collection[str], *, expires_at: datetime
) -> None:
    """Remember the identifiers at least until that time in the caller's transaction; a later time
    is kept.

    Requires: an open transaction, in which this process has written before (SQLite).
    """
    # Sorted, so that two calls with some of the same identifiers do not deadlock.
    digests = sorted(compute_digest(kind, identifier) for identifier in identifiers)
    rows = []
    for digest in digests:
        rows.append(UsedIdentifier(digest=digest, kind=kind, until=expires_at))
    UsedIdentifier.objects.bulk_create(rows, ignore_conflicts=True)
    UsedIdentifier.objects.filter(digest__in=digests, until__lt=expires_at).update(until=expires_at)


def is_remembered(kind: str, identifiers: Collection[str], *, until: datetime) -> bool:
    """Say whether any of the identifiers is remembered until that time or longer."""
    digests = [compute_digest(kind, identifier) for identifier in identifiers]
    # From the database that is written to: a replica may lack a row that was just committed.
    rows = UsedIdentifier.objects.using(router.db_for_write(UsedIdentifier))
    return rows.filter(digest__in=digests, until__gte=until).exists()


def find_remembered_kind(
    kinds: Sequence[str], identifiers: Collection[str], *, until: datetime
) -> str:
    """Return the first of the kinds by which one of the identifiers is remembered until that time
    or longer, or "".
    """
    digests = []
    for kind in kinds:
        for identifier in identifiers:
            digests.append(compute_digest(kind, identifier))
    using = router.db_for_write(UsedIdentifier)
    rows = UsedIdentifier.objects.using(using).filter(digest__in=digests, until__gte=until)
    found = set(rows.values_list("kind", flat=True))
    return next((kind for kind in kinds if kind in found), "")


def find_end_of_memory(kind: str, identifiers: Collection[str]) -> datetime | None:
    """Return until when one of the identifiers is remembered at most; None if none of them is."""
    digests = [compute_digest(kind, identifier) for identifier in identifiers]
    rows = UsedIdentifier.objects.using(router.db_for_write(UsedIdentifier)).filter(
        digest__in=digests
    )
    return rows.order_by("-until").values_list("until", flat=True).first()


def delete_expired(*, now: datetime, kept_kind: str = "") -> int:
    """Delete the identifiers that are refused for their age at now, except those of a kind; return
    how many.
    """
    return delete_in_batches(UsedIdentifier.objects.filter(until__lt=now).exclude(kind=kept_kind))


def _insert(
    kind: str, identifier: str, expires_at: datetime, *, frame: AbstractContextManager[None]
) -> bool:
    row = UsedIdentifier(digest=compute_digest(kind, identifier), kind=kind, until=expires_at)
    try:
        with frame:
            insert([row], using=router.db_for_write(UsedIdentifier))
    except IntegrityError:
        return False
    return True


def compute_digest(kind: str, identifier: str) -> str:
    """Return the digest that is stored of an identifier, hexadecimal."""
    # Kinds are constants of this package without a NUL, so two pairs never give the same text.
    return hashlib.sha256(f"{kind}\0{identifier}".encode()).hexdigest()
