"""Record each change of a role by the ORM, in the transaction of the change: no change is committed without its event.

NOT recorded, because Django sends no signal: `QuerySet.update`, `bulk_create`, `bulk_update`, fixtures, models of a
migration, and SQL.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connections, router, transaction
from django.db.models import Model, QuerySet
from django.db.models.signals import m2m_changed, pre_delete
from django.dispatch import receiver

from .role_events import RoleChange, record_role_changes

_FLAGS_OF_A_NEW_ACCOUNT: Mapping[str, bool] = {"is_active": True, "is_staff": False, "is_superuser": False}
_PERMISSION_KEYS = {True: "permissions_added", False: "permissions_removed"}


class _Assignments:
    """The table between accounts or groups (the holders), and their groups or permissions (the items)."""

    def __init__(self, holder_model: type[Model], field_name: str, *, holder: str) -> None:
        field: Any = holder_model._meta.get_field(field_name)
        self.through: type[Model] = field.remote_field.through
        self.holder_model, self.item_model = holder_model, field.related_model
        self._holder = holder
        self._holder_field, self._item_field = field.m2m_field_name(), field.m2m_reverse_field_name()
        is_group = field_name == "groups"
        self._keys = {True: "added", False: "removed"} if is_group else _PERMISSION_KEYS
        names = ("name",) if is_group else ("content_type__app_label", "codename")
        self._columns = (self._holder_field, *(f"{self._item_field}__{name}" for name in names))

    def list_changes(
        self, instance: Model, pk_set: Collection[Any] | None = None, *, reverse: bool, is_added: bool, using: str
    ) -> Iterator[RoleChange]:
        """Yield a change for each row of the instance. pk_set: only rows that refer to these on the other side.

        reverse: the instance is the item, and not the holder. Takes one SELECT.
        """
        own, other = self._holder_field, self._item_field
        if reverse:
            own, other = other, own
        rows: QuerySet[Any] = self.through._base_manager.using(using).filter(**{own: instance.pk})
        if pk_set is not None:
            rows = rows.filter(**{f"{other}__in": pk_set})
        for holder_pk, *names in rows.values_list(*self._columns):
            yield RoleChange(f"{self._holder}/{holder_pk}", self._keys[is_added], ".".join(names))


def _list_assignments() -> Iterator[_Assignments]:
    """Yield the tables of roles. A custom user model may have none, or another group model."""
    user_model, group_model = get_user_model(), Group
    for name in ("groups", "user_permissions"):
        if hasattr(user_model, name):
            yield (assignments := _Assignments(user_model, name, holder="user"))
            group_model = assignments.item_model if name == "groups" else group_model
    if hasattr(group_model, "permissions"):
        yield _Assignments(group_model, "permissions", holder="group")


_ASSIGNMENTS = {assignments.through: assignments for assignments in _list_assignments()}


@receiver(m2m_changed, dispatch_uid="django_phi_oidc.access.roles")
def record_assignments(
    *,
    sender: type[Model],
    instance: Model,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """Record what was added, or will be removed. Django has opened the transaction of the change."""
    is_added = action == "post_add"
    if sender not in _ASSIGNMENTS or not (is_added or action in ("pre_remove", "pre_clear")):
        return
    changes = _ASSIGNMENTS[sender].list_changes(instance, pk_set, reverse=reverse, is_added=is_added, using=using)
    record_role_changes(changes)


def record_deletion(*, instance: Model, using: str, **kwargs: Any) -> None:
    """Record what the holders of a group or permission lose. Django sends no signal for the rows that it deletes."""
    for assignments in _ASSIGNMENTS.values():
        for model, reverse in ((assignments.holder_model, False), (assignments.item_model, True)):
            if isinstance(instance, model):
                record_role_changes(assignments.list_changes(instance, reverse=reverse, is_added=False, using=using))


# Not for all senders: Django deletes rows one by one for a receiver.
for _model in {assignments.item_model for assignments in _ASSIGNMENTS.values()}:
    pre_delete.connect(record_deletion, sender=_model, dispatch_uid=f"django_phi_oidc.access.{_model._meta.label}")


def record_flag_changes(
    user_model: type[Model], *, lock_before: Callable[[Model, Collection[str] | None], None]
) -> None:
    """Record the changes of `is_active`, `is_staff` and `is_superuser` by each save of an account.

    In autocommit, Django sends no signal inside the transaction of a save. So the method of the class is replaced: it
    opens a transaction if a flag changes. A save that writes none of the flags takes no query for this, others one.
    lock_before: locks what has to be locked before the row of the account; called with the account and update_fields.
    """
    flags = [field.name for field in user_model._meta.concrete_fields if field.name in _FLAGS_OF_A_NEW_ACCOUNT]
    save_base = user_model.save_base

    def read_flags(account: Model, names: Collection[str], using: str, *, lock: bool = False) -> dict[str, bool]:
        rows = user_model._base_manager.using(using).filter(pk=account.pk)
        if lock:
            rows = rows.select_for_update(no_key=True)
        stored = None if account.pk is None else rows.values(*names).first()
        return {name: _FLAGS_OF_A_NEW_ACCOUNT[name] for name in names} if stored is None else dict(stored)

    @wraps(save_base)
    def save_base_with_event(self: Model, *args: Any, **kwargs: Any) -> None:
        update_fields = kwargs.get("update_fields")
        using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        names = [name for name in flags if update_fields is None or name in update_fields]
        new = {name: getattr(self, name) for name in names}
        in_transaction = connections[using].in_atomic_block
        is_checked = names and (in_transaction or read_flags(self, names, using) != new)
        with transaction.atomic(using=using) if is_checked and not in_transaction else nullcontext():
            lock_before(self, update_fields)
            old = read_flags(self, names, using, lock=True) if is_checked else new
            save_base(self, *args, **kwargs)
            if old != new:
                # Read again: an attribute may be an expression.
                record_role_changes(_list_flag_changes(self, old, read_flags(self, names, using)))

    user_model.save_base = save_base_with_event  # type: ignore[method-assign]  # of this one class


def _list_flag_changes(account: Model, old: Mapping[str, bool], new: Mapping[str, bool]) -> Iterator[RoleChange]:
    for name, is_set in new.items():
        if old[name] != is_set:
            yield RoleChange(f"user/{account.pk}", "granted" if is_set else "withdrawn", name)
