"""Link many persons to users with a few statements."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...config.providers import ProviderDeclaration
from ...crypto.keyring import SymmetricKey
from ...errors import SubjectKeyMissing, SubjectTaken
from ...subjects.account_changes import AccountChange, report_changes
from ...subjects.linking import (
    compute_digests,
    has_unknown_keys,
    insert_digests,
    revoke_other_credentials,
    validate_bindings,
)
from ...subjects.models import PairwiseSubject, SubjectDigest


@sensitive_variables()
def link_existing_users(
    users: Mapping[str, AbstractBaseUser],
    *,
    provider: ProviderDeclaration,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    now: datetime,
) -> dict[str, PairwiseSubject]:
    """Link each person to a user, or none, as `link_existing_user` does, with a few statements for
    all. Return the subjects by sub.

    users: by the sub of the person; each user once. A user with a link at that provider is refused:
    another person would get access to the same record. Subs are not validated.
    Raises: SubjectTaken, also for such a user; SubjectKeyMissing; IntegrityError if one was linked
    at the same time; the user model's DoesNotExist.
    """
    digests = {}
    for sub in users:
        digests[sub] = compute_digests(provider.issuer, sub, keys)
    pks = [user.pk for user in users.values()]
    with transaction.atomic():
        model = get_user_model()
        # The same order of locks as in create_invitations: users, then codes, then links.
        rows = (
            model._base_manager.select_for_update(no_key=True, of=("self",))
            .filter(pk__in=pks)
            .order_by("pk")
        )
        locked = {user.pk: user for user in rows}
        if len(locked) < len(set(pks)):
            raise model.DoesNotExist
        if linked := PairwiseSubject.objects.filter(user__in=pks, issuer=provider.issuer).first():
            raise SubjectTaken(linked.user_id)
        if taken := find_linked_subjects(users, issuer=provider.issuer, keys=keys):
            raise SubjectTaken(next(iter(taken.values())).user_id)
        revoke_other_credentials(pks, provider=provider.name, origin=origin, now=now)
        subjects = {}
        for sub, user in users.items():
            subjects[sub] = PairwiseSubject(
                uuid=randomness.uuid4(),
                user=locked[user.pk],
                issuer=provider.issuer,
                first_seen_at=now,
                last_seen_at=now,
            )
        PairwiseSubject.objects.bulk_create(subjects.values())
        insert_digests([(subjects[sub], digests[sub]) for sub in users])
        report_changes(list(locked.values()), AccountChange.LINKED, provider=provider.name, now=now)
        events = []
        for subject in subjects.values():
            event = NewEvent(
                action=Action.SUBJECT_LINKED,
                origin=origin,
                now=now,
                subject=str(subject.uuid),
                provider=provider.name,
                resource=f"user/{subject.user_id}",
                detail={"created": False},
            )
            events.append(event)
        enqueue_many(events)
    return subjects


@sensitive_variables()
def find_linked_subjects(
    subs: Collection[str], *, issuer: str, keys: Sequence[SymmetricKey]
) -> dict[str, PairwiseSubject]:
    """Return the subjects of those of the subs that are linked, by sub, with at most two SELECTs.

    Raises: SubjectKeyMissing, SubjectAltered.
    """
    digests = {}
    sub_by_digest = {}
    for sub in subs:
        digests[sub] = compute_digests(issuer, sub, keys)
        for digest in digests[sub].values():
            sub_by_digest[digest] = sub

    rows_by_sub: dict[str, list[SubjectDigest]] = {}
    rows = SubjectDigest.objects.filter(digest__in=sub_by_digest, issuer=issuer).select_related(
        "subject"
    )
    for row in rows.order_by("subject_id"):
        rows_by_sub.setdefault(sub_by_digest[row.digest], []).append(row)
    for sub, found in rows_by_sub.items():
        validate_bindings(found, digests[sub])
    if len(rows_by_sub) < len(digests) and has_unknown_keys([key.id for key in keys]):
        raise SubjectKeyMissing
    return {sub: found[0].subject for sub, found in rows_by_sub.items()}
