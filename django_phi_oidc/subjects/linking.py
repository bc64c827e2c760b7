"""Link a verified (issuer, `sub`) to one local account: never by a name or an e-mail address,
unless an app finds the existing account of a first sign-in.
"""

import base64
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import Error, IntegrityError, router, transaction
from django.db.models import Q, QuerySet
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from .._internal.sql import fetch, update
from ..audit.events import Action, Origin
from ..audit.outbox import enqueue
from ..config.providers import ProviderDeclaration
from ..crypto.keyring import SymmetricKey
from ..errors import (
    AccountNotSaved,
    EmailMatchRefused,
    NotProvisioned,
    PhiOidcError,
    SubjectAltered,
    SubjectKeyMissing,
    SubjectTaken,
)
from ..extensions import AccountMatch, account_observers
from ..oidc.id_token import validate_pairwise_sub, validate_sub
from .account_changes import AccountChange, report_changes
from .identifiers import compute_link_binding, compute_subject_digest
from .models import PairwiseSubject, SubjectDigest

SubjectDigests = Mapping[SymmetricKey, str]
"""The hexadecimal digest of one (issuer, `sub`) under each key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedAccount:
    """The linked subject and user."""

    subject: PairwiseSubject
    user: AbstractBaseUser
    created: bool
    """Whether this sign-in created the link."""
    is_new_user: bool = False
    """Whether this sign-in created the user, too."""


def get_or_create_account(
    *,
    issuer: str,
    sub: str,
    keys: Sequence[SymmetricKey],
    create_user: Callable[[], AbstractBaseUser] | None,
    account_match: AccountMatch | None = None,
    origin: Origin,
    provider: str,
    now: datetime,
) -> LinkedAccount:
    """Return the one account of (issuer, sub), also during concurrent sign-ins, here or on another
    server.

    Servers whose key lists share a key create one account, because that key's digest is unique.
    create_user: creates the user at a first sign-in, inside the transaction that links it; None:
    refuse it.
    account_match: may find an existing user for it instead.
    Takes one SELECT for a known person, and an INSERT if a key was added since.
    Raises: SubjectKeyMissing, if the person may be known under a key that this server lacks;
    NotProvisioned, or its subclass EmailMatchRefused; AccountNotSaved, if create_user or the
    database fails; SubjectAltered.
    """
    digests = compute_digests(issuer, sub, keys)
    if rows := _find_digests(issuer, digests):
        validate_bindings(rows, digests)
        return _add_missing_digests(rows, digests)
    try:
        if account_match is not None and (user_id := account_match.find_user_id()) is not None:
            get_user = partial(account_match.get_locked_user, user_id)
            return _create_subject(
                issuer,
                digests,
                get_user,
                created=False,
                method=account_match.method,
                origin=origin,
                provider=provider,
                now=now,
            )
        if create_user is None:
            raise NotProvisioned
        return _create_subject(
            issuer, digests, create_user, created=True, origin=origin, provider=provider, now=now
        )
    except Exception as error:
        if isinstance(error, PhiOidcError | PermissionDenied) and not isinstance(
            error, EmailMatchRefused
        ):
            raise
        # A concurrent sign-in of the same person may have created the account or the link.
        with suppress(Error):
            rows = _query_digests(issuer, digests)
        if not rows and isinstance(error, EmailMatchRefused):
            raise
        if not rows:
            raise AccountNotSaved from error
        validate_bindings(rows, digests)
        return _add_missing_digests(rows, digests)


@sensitive_variables()
def link_existing_user(
    user: AbstractBaseUser,
    *,
    sub: str,
    provider: ProviderDeclaration,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    now: datetime,
    is_code_locked: bool = False,
) -> PairwiseSubject:
    """Link the person with that sub to the user before their first sign-in, and return the subject.

    One transaction, with an event. An existing link is never changed: of two concurrent
    administrators, or one and the person's first sign-in, one wins. A sub that a sign-in would
    refuse is refused. The user's unused activation code for that provider is revoked, so that it
    cannot link another person.
    is_code_locked: a code of the user is locked, so the user must not be: create_invitations locks
    it before its codes.
    Raises: SubjectTaken; SubjectKeyMissing; SubInvalid, SubNotPairwise; the user model's
    DoesNotExist.
    """
    validate_linkable_sub(sub, provider=provider)
    digests = compute_digests(provider.issuer, sub, keys)
    rows = _find_digests(provider.issuer, digests)
    if not rows:
        try:
            with transaction.atomic():
                users = get_user_model()._base_manager.all()
                if not is_code_locked:
                    # A sign-in that is linked by its e-mail address must see this link, or be seen.
                    users.select_for_update(no_key=True, of=("self",)).get(pk=user.pk)
                # Before the link, as a code is redeemed: the reverse order of locks could deadlock.
                revoke_other_credentials([user.pk], provider=provider.name, origin=origin, now=now)
                get_user = partial(users.get, pk=user.pk)
                return _create_subject(
                    provider.issuer,
                    digests,
                    get_user,
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
def validate_linkable_sub(sub: str, *, provider: ProviderDeclaration) -> None:
    """Raises: SubInvalid, SubNotPairwise: a sub that a sign-in would refuse."""
    validate_sub({"sub": sub})
    if provider.subject_type == "pairwise":
        validate_pairwise_sub({"sub": sub})


@sensitive_variables()
def list_subject_digests(issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> list[str]:
    """Return the digests of (issuer, sub), also of a person who is not known here."""
    return list(compute_digests(issuer, sub, keys).values())


@sensitive_variables()
def list_subject_ids(*, issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> list[int]:
    """Return the subjects' keys: one, none, or two of servers without a common key. Raises:
    SubjectKeyMissing.

    NOT checked: the links to users. A logout ends the sessions of a subject in any case.
    """
    return [row.subject_id for row in _find_digests(issuer, compute_digests(issuer, sub, keys))]


@sensitive_variables()
def find_linked_subject(
    *, issuer: str, sub: str, keys: Sequence[SymmetricKey]
) -> PairwiseSubject | None:
    """Return the subject of (issuer, sub) with its user, by one SELECT, or None.

    Raises: SubjectKeyMissing, SubjectAltered.
    """
    digests = compute_digests(issuer, sub, keys)
    rows = _find_digests(issuer, digests)
    validate_bindings(rows, digests)

    if rows:
        return rows[0].subject
    return None


def mark_seen(subject: PairwiseSubject, *, now: datetime) -> None:
    """Set last_seen_at, lock the subject's row until the end of the transaction, and update the
    instance from it.

    Raises: PairwiseSubject.DoesNotExist if the subject was deleted meanwhile.
    """
    using = router.db_for_write(PairwiseSubject)
    # Not by the ORM: RETURNING saves a query at each sign-in. SQLite 3.38 to 3.40 return a wrong
    # value for the expression `held_until IS NOT NULL`, so return the column.
    returning = "held_until, retention_key_id"
    row = update(PairwiseSubject, subject.pk, using=using, returning=returning, last_seen_at=now)
    if row is None:
        raise PairwiseSubject.DoesNotExist
    # An erasure or a hold may have changed them since the row was read. From here on it cannot.
    held_until, key_id = row
    subject.retention_key_id = PairwiseSubject._meta.get_field("retention_key_id").to_python(key_id)
    subject.last_seen_at = now
    subject.held_until = None
    if held_until is not None:
        # Its form depends on the database.
        subject.refresh_from_db(fields=["held_until"])


def create_opaque_username() -> str:
    """Return a random user name: `phi_` and 26 base32 characters, which are 128 bits."""
    return "phi_" + base64.b32encode(randomness.token_bytes(16)).decode("ascii").rstrip("=").lower()


def compute_digests(issuer: str, sub: str, keys: Sequence[SymmetricKey]) -> SubjectDigests:
    """Return the digests of (issuer, sub) by key. Raises: SubjectKeyMissing without keys."""
    if not keys:
        raise SubjectKeyMissing
    digests = {}
    for key in keys:
        digests[key] = compute_subject_digest(key.material, issuer=issuer, sub=sub)
    return digests


def _find_digests(issuer: str, digests: SubjectDigests) -> Sequence[SubjectDigest]:
    """Return the person's stored digests. Raises: SubjectKeyMissing, if there may be some under an
    unknown key only.
    """
    if rows := _query_digests(issuer, digests):
        return rows
    if has_unknown_keys([key.id for key in digests]):
        # Another server may just have committed this person's digest, under a common key too.
        rows = _query_digests(issuer, digests)
        if not rows:
            raise SubjectKeyMissing
    return rows


def has_unknown_keys(key_ids: Sequence[str]) -> bool:
    """Return whether digests under other keys are stored.

    Look for key ids in the gaps between the known ones, by the index; NOT IN would read the whole
    table. This finds each unknown id under every collation.
    """
    ids = sorted(key_ids)
    gaps = Q(key_id__lt=ids[0]) | Q(key_id__gt=ids[-1])
    for lower, upper in itertools.pairwise(ids):
        gaps |= Q(key_id__gt=lower, key_id__lt=upper)
    return SubjectDigest.objects.filter(gaps).exists()


def _query_digests(issuer: str, digests: SubjectDigests) -> Sequence[SubjectDigest]:
    """Return the person's digests, oldest subject first: servers without a common key create
    several subjects.
    """
    # Compiled once: compiling it for each sign-in takes a tenth of the time of a sign-in.
    rows = fetch(
        _build_digest_query, [*digests.values(), issuer], using=router.db_for_read(SubjectDigest)
    )
    return sorted(rows, key=attrgetter("subject_id"))


def _build_digest_query(*digests_and_issuer: str) -> QuerySet[SubjectDigest]:
    *digests, issuer = digests_and_issuer
    return SubjectDigest.objects.filter(digest__in=digests, issuer=issuer).select_related(
        "subject__user"
    )


def validate_bindings(rows: Sequence[SubjectDigest], digests: SubjectDigests) -> None:
    """Raises: SubjectAltered if a digest, its subject or the user of the subject was exchanged in
    the database.
    """
    keys = {digest: key for key, digest in digests.items()}
    for row in rows:
        expected = _compute_binding(keys[row.digest], row.digest, row.subject)
        if not constant_time_compare(row.binding, expected):
            raise SubjectAltered


def _compute_binding(key: SymmetricKey, digest: str, subject: PairwiseSubject) -> str:
    uuid_text = str(subject.uuid)
    user_pk = str(subject.user_id)
    return compute_link_binding(
        key.material, subject_digest=digest, subject_uuid=uuid_text, user_pk=user_pk
    )


def _add_missing_digests(rows: Sequence[SubjectDigest], digests: SubjectDigests) -> LinkedAccount:
    """Return the known account, after adding digests under new keys. Raises: NotProvisioned if
    unlinked since.
    """
    subject = rows[0].subject
    stored = {row.digest for row in rows}
    missing = {}
    for key, digest in digests.items():
        if digest not in stored:
            missing[key] = digest
    try:
        insert_digests([(subject, missing)], ignore_conflicts=True)
    except IntegrityError as error:
        raise NotProvisioned from error
    return LinkedAccount(subject=subject, user=subject.user, created=False)


def _create_subject(
    issuer: str,
    digests: SubjectDigests,
    get_user: Callable[[], AbstractBaseUser],
    *,
    created: bool,
    method: str = "",
    now: datetime,
    **event_fields: Any,
) -> LinkedAccount:
    """Create the subject of that user with its digests. Raises: IntegrityError if the person was
    linked meanwhile.

    created: whether get_user creates the user. method: for the event, if it is not that of an
    administrator's link.
    """
    with transaction.atomic():
        user: Any = get_user()
        subject = PairwiseSubject.objects.create(
            uuid=randomness.uuid4(),
            user=user,
            issuer=issuer,
            first_seen_at=now,
            last_seen_at=now,
        )
        insert_digests([(subject, digests)])
        if not created:
            report_changes([user], AccountChange.LINKED, provider=event_fields["provider"], now=now)
        enqueue(
            Action.SUBJECT_LINKED,
            now=now,
            subject=str(subject.uuid),
            resource=f"user/{user.pk}",
            detail={"created": created, **({"method": method} if method else {})},
            **event_fields,
        )
    return LinkedAccount(subject=subject, user=user, created=True, is_new_user=created)


def insert_digests(
    digests_of_subjects: Sequence[tuple[PairwiseSubject, SubjectDigests]],
    *,
    ignore_conflicts: bool = False,
) -> None:
    """Store the digests of each subject, with their bindings.

    ignore_conflicts: accept that another server adds the same digests at the same time.
    """
    rows = []
    for subject, digests in digests_of_subjects:
        for key, digest in digests.items():
            rows.append(
                SubjectDigest(
                    subject=subject,
                    issuer=subject.issuer,
                    key_id=key.id,
                    digest=digest,
                    binding=_compute_binding(key, digest, subject),
                )
            )
    # Sorted, so that two transactions that insert the same ones cannot deadlock.
    rows.sort(key=attrgetter("digest"))
    SubjectDigest.objects.bulk_create(rows, ignore_conflicts=ignore_conflicts)


def revoke_other_credentials(
    user_pks: Sequence[Any], *, provider: str, origin: Origin, now: datetime
) -> None:
    """Revoke credentials with which another person could be linked to these accounts, which are
    about to be linked.
    """
    for observer in account_observers:
        observer.revoke_credentials(
            user_pks, provider=provider, reason="linked", origin=origin, now=now
        )
