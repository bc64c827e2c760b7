"""Find users by what people write in a CSV file: a user name, `pk:VALUE` or `uuid:SUBJECT_UUID`."""

import uuid
from collections.abc import Collection, Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from ...subjects.models import PairwiseSubject

PK_PREFIX = "pk:"
UUID_PREFIX = "uuid:"


def find_users(references: Collection[str]) -> dict[str, Any]:
    """Return the users by reference, by at most three SELECTs. References to no user or to several
    are left out.

    As in the commands, a text without a prefix is a user name, and a text that names two users is
    ambiguous: in projects where users choose their names, one could be `pk:1`.
    """
    model = get_user_model()
    users_by_name: dict[str, list[Any]] = {}
    names = {reference for reference in references if reference and reference.isprintable()}
    if names:
        for user in model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}):
            users_by_name.setdefault(user.get_username(), []).append(user)

    found: dict[str, list[Any]] = {}
    for name, users in users_by_name.items():
        if name in names:
            found[name] = users
    for reference, user in (*_find_by_pk(references), *_find_by_uuid(references)):
        if user not in found.setdefault(reference, []):
            found[reference].append(user)
    return {reference: users[0] for reference, users in found.items() if len(users) == 1}


def _find_by_pk(references: Collection[str]) -> list[tuple[str, Any]]:
    model = get_user_model()
    pks = {}
    for reference in references:
        if reference.startswith(PK_PREFIX):
            try:
                pks[reference] = model._meta.pk.to_python(reference.removeprefix(PK_PREFIX))
                model._meta.pk.run_validators(pks[reference])
            except ValidationError:
                pks.pop(reference, None)

    if pks:
        users = model._default_manager.in_bulk(list(pks.values()))
    else:
        users = {}

    return [(reference, users[pk]) for reference, pk in pks.items() if pk in users]


def _find_by_uuid(references: Collection[str]) -> list[tuple[str, Any]]:
    uuids = {}
    for reference in references:
        if reference.startswith(UUID_PREFIX):
            try:
                uuids[reference] = uuid.UUID(reference.removeprefix(UUID_PREFIX))
            except ValueError:
                continue

    subjects: Iterable[PairwiseSubject]
    if uuids:
        subjects = PairwiseSubject.objects.filter(uuid__in=set(uuids.values())).select_related(
            "user"
        )
    else:
        subjects = ()

    users = {subject.uuid: subject.user for subject in subjects}
    return [(reference, users[value]) for reference, value in uuids.items() if value in users]
