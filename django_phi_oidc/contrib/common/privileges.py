"""The privileges that give access to the data of other persons."""

from collections.abc import Collection, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from ..._internal.app_labels import is_own_permission

SUPERUSER = "superuser"
STAFF = "staff"
"""Privileges that are no permissions."""


def list_privileges(user: Any) -> list[str]:
    """Return the privileges by which a sign-in as user reaches the data of others, sorted.

    These are all permissions of superusers and staff, and the permissions of this package of all
    users, such as those to reveal claims and to open emergencies. Others do not count: patients
    have permissions of their own.
    """
    permissions: set[str] = getattr(user, "get_all_permissions", set)()
    if getattr(user, "is_superuser", False):
        return [SUPERUSER]
    if getattr(user, "is_staff", False):
        return sorted({STAFF, *permissions})
    return sorted(name for name in permissions if is_own_permission(name))


def has_more_privileges(user: Any, actor: Any) -> bool:
    """Return whether user has privileges that actor lacks: an actor who invites or links user could
    sign in as user.
    """
    if getattr(actor, "is_superuser", False):
        return False
    return (
        not {*list_privileges(user)} - {STAFF} <= getattr(actor, "get_all_permissions", frozenset)()
    )


def find_more_privileged(users_by_id: Mapping[Any, Any], actor: Any) -> set[Any]:
    """Return the keys of the users for which `has_more_privileges` is true, with a few statements
    for all.
    """
    if getattr(actor, "is_superuser", False):
        return set()
    own: Collection[str] = getattr(actor, "get_all_permissions", frozenset)()
    privileges_by_id = list_privileges_of_all(users_by_id)
    more_privileged = set()
    for pk, privileges in privileges_by_id.items():
        if not {*privileges} - {STAFF} <= {*own}:
            more_privileged.add(pk)
    return more_privileged


def list_privileges_of_all(users_by_id: Mapping[Any, Any]) -> dict[Any, list[str]]:
    """Return the privileges by primary key, with one statement for all users without a group or
    permission.
    """
    model = get_user_model()
    names = []
    for name in ("groups", "user_permissions"):
        if hasattr(model, name):
            names.append(name)

    has_any = Q(pk__in=[])
    for name in names:
        has_any |= Q(**{f"{name}__isnull": False})

    holders = set(
        model._base_manager.filter(has_any, pk__in=users_by_id).values_list("pk", flat=True)
    )

    privileges = {}
    for pk, user in users_by_id.items():
        is_privileged = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
        if pk in holders or is_privileged:
            privileges[pk] = list_privileges(user)
        else:
            privileges[pk] = []
    return privileges
