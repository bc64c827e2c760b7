"""Give roles to an account, and take them away."""

from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.db.models import QuerySet

from ...access.roles import Role


def grant_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Give the account these roles and record the changes, in one transaction. Return the roles
    that it did not have.

    Raises: KeyMissing, DatabaseError, and then nothing is granted.
    """
    with transaction.atomic(using=router.db_for_write(get_user_model())):
        locked = _lock_account(user)
        held = list_held_roles(locked, roles)
        granted = []
        for role in roles:
            if role not in held:
                granted.append(role)
        change_roles(locked, added=granted, removed=())
    return granted


def withdraw_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Remove these roles from the account and record the changes, in one transaction. Return the
    roles that it had.
    """
    with transaction.atomic(using=router.db_for_write(get_user_model())):
        locked = _lock_account(user)
        held = list_held_roles(locked, roles)
        change_roles(locked, added=(), removed=held)
    return held


def list_held_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Return those of the roles that the account has."""
    held_roles = []
    for role in roles:
        if _has_role(user, role):
            held_roles.append(role)
    return held_roles


def list_missing_groups(roles: Sequence[Role]) -> list[str]:
    """Return the names of those roles that are groups which do not exist."""
    names = _list_names(roles, "group")
    if names:
        existing = set(filter_groups(names).values_list("name", flat=True))
    else:
        existing = set()

    missing_groups = []
    for name in names:
        if name not in existing:
            missing_groups.append(name)
    return missing_groups


def change_roles(user: Any, *, added: Sequence[Role], removed: Sequence[Role]) -> None:
    """Change the roles of the account, in the caller's transaction. Groups that do not exist are
    left out.
    """
    added_groups = _list_names(added, "group")
    removed_groups = _list_names(removed, "group")
    if added_groups or removed_groups:
        pks = dict(filter_groups([*added_groups, *removed_groups]).values_list("name", "pk"))
        # These calls send m2m_changed, which ends the person's other sessions if the project wants
        # that.
        if removed_groups:
            user.groups.remove(*(pks[name] for name in removed_groups if name in pks))
        if added_groups:
            user.groups.add(*(pks[name] for name in added_groups if name in pks))
    granted = _list_names(added, "flag")
    withdrawn = _list_names(removed, "flag")
    for flag in granted + withdrawn:
        setattr(user, flag, flag in granted)
    if granted or withdrawn:
        user.save(update_fields=granted + withdrawn)


def filter_groups(names: Sequence[str] | QuerySet[Any]) -> Any:
    """Return the groups with these names, of the model that the user model refers to."""
    return (
        get_user_model()
        ._meta.get_field("groups")
        .related_model._default_manager.filter(name__in=names)
    )


def _lock_account(user: Any) -> Any:
    return get_user_model()._base_manager.select_for_update(no_key=True).get(pk=user.pk)


def _has_role(user: Any, role: Role) -> bool:
    if role.kind == "group":
        return bool(user.groups.filter(name=role.name).exists())
    return bool(getattr(user, role.name))


def _list_names(roles: Sequence[Role], kind: str) -> list[str]:
    names = []
    for role in roles:
        if role.kind == kind:
            names.append(role.name)
    return names
