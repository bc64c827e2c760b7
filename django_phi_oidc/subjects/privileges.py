"""The privileges by which a sign-in reaches the data of other persons."""

from typing import Any

from .._internal.app_labels import is_own_permission

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
