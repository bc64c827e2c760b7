"""From a verified (issuer, `sub`) to the one local account, found or made; never by e-mail or name."""

import base64
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, router, transaction
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from .._internal.sql import update
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..config.providers import ProviderDeclaration
from ..crypto.keyring import SymmetricKey
from ..errors import NotProvisioned, SubjectKeyMissing, SubjectTaken
from ..oidc.id_token import validate_pairwise_sub, validate_sub
from .identifiers import compute_subject_digest
from .invitations import revoke_activation_codes
from .models import ActivationCode, PairwiseSubject, SubjectDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedAccount:
    """A person who signed in; `created`: for the first time."""

    subject: PairwiseSubject
    user: AbstractBaseUser
    created: bool


def get_or_create_account(
    *,
    issuer: str,
    sub: str,
    keys: Sequence[SymmetricKey],
    create_user: Callable[[], AbstractBaseUser] | None,
    origin: Origin,
    provider: str,
    now: datetime,
) -> LinkedAccount:
    """Return the one account of (issuer, sub), whatever else signs in at the same time, here or on another server.

    Servers whose key lists share a key make one account: the shared key's digest is unique. create_user: makes the
    account of a first sign-in, inside the transaction that links it; None: first sign-ins are refused.
    One SELECT for a person who was here before, and an INSERT when a key was added since.
    Raises: SubjectKeyMissing, NotProvisioned.
    """
    digests = _compute_digests(issuer, sub, keys)
    if rows := _find_digests(issuer, digests):
        return _add_missing_digests(rows, digests)
    if create_user is None:
        raise NotProvisioned
    try:
        return _create_subject(issuer, digests, create_user, created=True, origin=origin, provider=provider, now=now)
    except IntegrityError:
        if rows := _query_digests(issuer, digests):
            return _add_missing_digests(rows, digests)
        raise


@sensitive_variables()
def link_existing_user(
    user: AbstractBaseUser,
    *,
    sub: str,
    provider: ProviderDeclaration,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    now: datetime,
) -> PairwiseSubject:
    """Link the person whom provider knows as sub to user, so that their first sign-in finds it; return the subject.

    In one transaction, with an event that names the actor of origin. Somebody who is linked already stays so: of two
    administrators at once, or one and the person's own first sign-in, one wins. A sub that no sign-in could bring is
    refused as the sign-in would be. A code for user that waits there is revoked: its letter lets nobody else in.
    Raises: SubjectTaken; SubjectKeyMissing; SubInvalid, SubNotPairwise; the user model's DoesNotExist.
    """
    validate_sub({"sub": sub})
    if provider.subject_type == "pairwise":
        validate_pairwise_sub({"sub": sub})
    digests = _compute_digests(provider.issuer, sub, keys)
    rows = _find_digests(provider.issuer, digests)
    if not rows:
        try:
            with transaction.atomic():
                # Before the link, as whoever redeems one does: the other way round they would wait for each other.
                codes = ActivationCode.objects.filter(user=user.pk, provider=provider.name)
                revoke_activation_codes(codes, reason="linked", origin=origin, now=now)
                return _create_subject(
                    provider.issuer,
                    digests,
                    lambda: get_user_model()._base_manager.get(pk=user.pk),
                    created=False,
                    origin=origin,
                    provider=provider.name,
                    now=now,
                ).subject
        except IntegrityError:
            rows = _query_digests(provider.issuer, digests)
            if not rows:
                raise
    raise SubjectTaken(rows[0].subject.user_id)


@sensitive_variables()
def list_subject_ids(*, issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> list[int]:
    """Return the primary keys of the subjects of (issuer, sub): one, as a rule, and none when nobody is known so.

    Two, where servers without a common key made them. Raises: SubjectKeyMissing, when nobody can be told to be unknown.
    """
    return [row.subject_id for row in _find_digests(issuer, _compute_digests(issuer, sub, keys))]


@sensitive_variables()
def find_linked_subject(*, issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> PairwiseSubject | None:
    """Return the subject of (issuer, sub), with its user, by one SELECT; None when nobody is linked so.

    Nothing is written: neither that they were seen, nor a digest under a newer key.
    Raises: SubjectKeyMissing, when nobody can be told to be unknown.
    """
    rows = _find_digests(issuer, _compute_digests(issuer, sub, keys))
    return rows[0].subject if rows else None


def mark_seen(subject: PairwiseSubject, *, now: datetime) -> None:
    """Note that the person was seen, and hold the row of the subject until the caller's transaction ends.

    A legal hold of theirs is known on the instance then.
    Raises: PairwiseSubject.DoesNotExist when the person was deleted meanwhile.
    """
    using = router.db_for_write(PairwiseSubject)
    held = update(PairwiseSubject, subject.pk, using=using, returning="held_until IS NOT NULL", last_seen_at=now)
    if held is None:
        raise PairwiseSubject.DoesNotExist
    # A hold may have come or gone since the row was read; from here on none does.
    subject.last_seen_at, subject.held_until = now, None
    if held:
        subject.refresh_from_db(fields=["held_until"])


def create_opaque_username() -> str:
    """Return a user name that tells nothing: `phi_` and 26 base32 characters, 128 random bits."""
    return "phi_" + base64.b32encode(randomness.token_bytes(16)).decode("ascii").rstrip("=").lower()


def _compute_digests(issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> Mapping[str, str]:
    """Return the digests of (issuer, sub) by key id. Raises: SubjectKeyMissing when there is no key."""
    if not keys:
        raise SubjectKeyMissing
    return {key.id: compute_subject_digest(key.material, issuer=issuer, sub=sub) for key in keys}


def _find_digests(issuer: str, digests: Mapping[str, str]) -> Sequence[SubjectDigest]:
    """Return what is held of the person; nothing only when they are new for certain. Raises: SubjectKeyMissing."""
    rows = _query_digests(issuer, digests)
    if not rows and _has_unknown_key(digests):
        # The digest under the unknown key may be this very person's, committed by another server a moment ago.
        rows = _query_digests(issuer, digests)
        if not rows:
            raise SubjectKeyMissing
    return rows


def _query_digests(issuer: str, digests: Mapping[str, str]) -> Sequence[SubjectDigest]:
    """Return the person's digests.

    Two subjects can bear digests of one person only after servers without a common key made them: the older is it.
    """
    found = SubjectDigest.objects.filter(issuer=issuer, digest__in=digests.values())
    return sorted(found.select_related("subject__user"), key=lambda row: row.subject_id)


def _add_missing_digests(rows: Sequence[SubjectDigest], digests: Mapping[str, str]) -> LinkedAccount:
    """Return the person who was here before, with a digest under each key from now on.

    Raises: NotProvisioned when they were unlinked since rows were read.
    """
    subject = rows[0].subject
    present = {row.digest for row in rows}
    missing = {key_id: digest for key_id, digest in digests.items() if digest not in present}
    try:
        _insert_digests(subject, missing, ignore_conflicts=True)
    except IntegrityError as error:
        raise NotProvisioned from error
    return LinkedAccount(subject=subject, user=subject.user, created=False)


def _create_subject(
    issuer: str,
    digests: Mapping[str, str],
    get_user: Callable[[], AbstractBaseUser],
    *,
    created: bool,
    origin: Origin,
    provider: str,
    now: datetime,
) -> LinkedAccount:
    """Make the subject of that user and all its digests, or nothing. created: whether get_user makes the account.

    Raises: IntegrityError when somebody was faster, after that transaction is committed.
    """
    with transaction.atomic():
        user: Any = get_user()
        subject = PairwiseSubject.objects.create(
            uuid=uuid.UUID(bytes=randomness.token_bytes(16), version=4),
            user=user,
            issuer=issuer,
            first_seen_at=now,
            last_seen_at=now,
        )
        _insert_digests(subject, digests, ignore_conflicts=False)
        enqueue(
            Action.SUBJECT_LINKED,
            origin=origin,
            now=now,
            subject=str(subject.uuid),
            provider=provider,
            resource=f"user/{user.pk}",
            detail={"created": created},
        )
    return LinkedAccount(subject=subject, user=user, created=created)


def _insert_digests(subject: PairwiseSubject, digests: Mapping[str, str], *, ignore_conflicts: bool) -> None:
    """Insert digests in the order of their text: two transactions that insert the same ones can't deadlock.

    again: another server may be adding the same ones to this subject, which is as good.
    """
    SubjectDigest.objects.bulk_create(
        [
            SubjectDigest(subject=subject, issuer=subject.issuer, key_id=key_id, digest=digest)
            for key_id, digest in sorted(digests.items(), key=lambda item: item[1])
        ],
        ignore_conflicts=ignore_conflicts,
    )


def _has_unknown_key(known_digests: Mapping[str, str]) -> bool:
    """Say whether any row bears a key id that is not among known.

    The gaps between the known ids are looked up in the index; "not in" would read the whole table. No gap is missed,
    whatever the database's collation.
    """
    ids = sorted(known_digests)
    gaps = Q(key_id__lt=ids[0]) | Q(key_id__gt=ids[-1])
    for lower, upper in itertools.pairwise(ids):
        gaps |= Q(key_id__gt=lower, key_id__lt=upper)
    return SubjectDigest.objects.filter(gaps).exists()
