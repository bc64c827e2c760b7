"""Record each change of a role by the ORM, in the transaction of the change: no change is committed
without its event.

NOT recorded, because Django sends no signal: `QuerySet.update`, `bulk_create`, `bulk_update`,
`QuerySet.delete` of the tables between accounts, groups and permissions, fixtures, models of a
migration, and SQL.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from inspect import signature
from itertools import chain
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connections, router, transaction
from django.db.models import Model, QuerySet
from django.db.models.signals import class_prepared, m2m_changed, pre_delete
from django.dispatch import receiver

from .role_events import RoleChange, record_role_changes

_FLAGS_OF_A_NEW_ACCOUNT: Mapping[str, bool] = {
    "is_active": True,
    "is_staff": False,
    "is_superuser": False,
}
_PERMISSION_KEYS = {True: "permissions_added", False: "permissions_removed"}


class _Assignments:
    """The table between accounts or groups (the holders), and their groups or permissions (the
    items).
    """

    def __init__(self, holder_model: type[Model], field_name: str, *, holder: str) -> None:
        field: Any = holder_model._meta.get_field(field_name)
        self.through: type[Model] = field.remote_field.through
        self.holder_model = holder_model
        self.item_model = field.related_model
        self.holder = holder
        self._holder_field, self._item_field = (
            field.m2m_field_name(),
            field.m2m_reverse_field_name(),
        )
        is_group = field_name == "groups"
        if is_group:
            self._keys = {True: "added", False: "removed"}
        else:
            self._keys = _PERMISSION_KEYS

        names: tuple[str, ...]
        if is_group:
            names = ("name",)
        else:
            names = ("content_type__app_label", "codename")

        self._columns = (self._holder_field, *(f"{self._item_field}__{name}" for name in names))

    def list_changes(
        self,
        instance: Model,
        pk_set: Collection[Any] | None = None,
        *,
        reverse: bool,
        is_added: bool,
        using: str,
    ) -> Iterator[RoleChange]:
        """Yield a change for each row of the instance. pk_set: only rows that refer to these on the
        other side.

        reverse: the instance is the item, and not the holder. Takes one SELECT.
        """
        own = self._holder_field
        other = self._item_field
        if reverse:
            own, other = other, own
        rows: QuerySet[Any] = self.through._base_manager.using(using).filter(**{own: instance.pk})
        if pk_set is not None:
            rows = rows.filter(**{f"{other}__in": pk_set})
        for values in rows.values_list(*self._columns):
            yield self.describe(values, is_added=is_added)

    def read_row(self, pk: Any, using: str, *, lock: bool = False) -> tuple[Any, ...] | None:
        """Return the key of the row's holder and the names of its item; None if there is no such
        row.
        """
        rows: QuerySet[Any] = self.through._base_manager.using(using).filter(pk=pk)
        # Locked without the other tables of the columns.
        if pk is None or (
            lock and not rows.select_for_update(no_key=True).values_list("pk").first()
        ):
            return None
        return rows.values_list(*self._columns).first()

    def describe(self, values: tuple[Any, ...], *, is_added: bool) -> RoleChange:
        """Return the change that corresponds to a row with these values that is added or
        removed.
        """
        holder_pk, *names = values
        return RoleChange(f"{self.holder}/{holder_pk}", self._keys[is_added], ".".join(names))


def _list_assignments() -> Iterator[_Assignments]:
    """Yield the tables of roles. A custom user model may have none, or another group model."""
    user_model = get_user_model()
    group_model = Group
    for name in ("groups", "user_permissions"):
        if hasattr(user_model, name):
            yield (assignments := _Assignments(user_model, name, holder="user"))
            if name == "groups":
                group_model = assignments.item_model
    if hasattr(group_model, "permissions"):
        yield _Assignments(group_model, "permissions", holder="group")


_ASSIGNMENTS = {assignments.through: assignments for assignments in _list_assignments()}
_ITEM_MODELS = {assignments.item_model for assignments in _ASSIGNMENTS.values()}
ROLE_MODELS: tuple[type[Model], ...] = (
    get_user_model(),
    Group,
    Permission,
    *_ITEM_MODELS,
    *_ASSIGNMENTS,
)
"""The models whose rows are privileges: accounts, groups, permissions, and the tables between
them.
"""


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
    """Record what was added, or will be removed. Django has opened the transaction of the
    change.
    """
    is_added = action == "post_add"
    if sender not in _ASSIGNMENTS or not (is_added or action in ("pre_remove", "pre_clear")):
        return
    changes = _ASSIGNMENTS[sender].list_changes(
        instance, pk_set, reverse=reverse, is_added=is_added, using=using
    )
    record_role_changes(changes)


def record_row_changes(*, after_change: Callable[[Collection[Any]], None]) -> None:
    """Record what `save()` and `delete()` of one row of these tables change, for example by an
    inline of the admin.

    Django sends no signal for such a row. The methods of a relation (`add()`, `remove()`, `set()`,
    `clear()`) call neither of the two.
    after_change: called in the transaction, with the keys of the accounts whose groups or
    permissions changed.
    """
    for assignments in _ASSIGNMENTS.values():
        _record_row_changes_of(assignments, after_change)


def _record_row_changes_of(
    assignments: _Assignments, after_change: Callable[[Collection[Any]], None]
) -> None:
    save_base = assignments.through.save_base
    delete = assignments.through.delete

    @contextmanager
    def record_change(row: Model, using: str | None) -> Iterator[None]:
        using = using or router.db_for_write(type(row), instance=row)
        with transaction.atomic(using=using, savepoint=False):
            old = assignments.read_row(row.pk, using, lock=True)
            yield
            # delete() has set the key to None.
            new = assignments.read_row(row.pk, using)
            if old == new:
                return
            versions = []
            for values, is_added in ((old, False), (new, True)):
                if values:
                    versions.append((values, is_added))
            record_role_changes(
                assignments.describe(values, is_added=is_added) for values, is_added in versions
            )
            if assignments.holder == "user":
                after_change({values[0] for values, _ in versions})

    @wraps(save_base)
    def save_base_with_event(self: Model, *args: Any, **kwargs: Any) -> None:
        with record_change(self, kwargs.get("using")):
            save_base(self, *args, **kwargs)

    @wraps(delete)
    def delete_with_event(self: Model, using: str | None = None, keep_parents: bool = False) -> Any:
        with record_change(self, using):
            return delete(self, using, keep_parents)

    assignments.through.save_base = save_base_with_event  # type: ignore[method-assign]  # of this one class
    assignments.through.delete = delete_with_event  # type: ignore[method-assign]


def record_deletion(*, instance: Model, using: str, **kwargs: Any) -> None:
    """Record the rows that are deleted with an account, group or permission: Django sends no signal
    for them.
    """
    lost: list[Iterator[RoleChange]] = []
    if isinstance(instance, get_user_model()):
        lost.append(_list_lost_flags(instance, using))
    for assignments in _ASSIGNMENTS.values():
        for model, reverse in ((assignments.holder_model, False), (assignments.item_model, True)):
            if isinstance(instance, model):
                lost.append(
                    assignments.list_changes(instance, reverse=reverse, is_added=False, using=using)
                )
    record_role_changes(chain.from_iterable(lost))


@receiver(class_prepared, dispatch_uid="django_phi_oidc.access.proxies")
def observe_deletions(*, sender: type[Model], **kwargs: Any) -> None:
    """Connect `record_deletion` for accounts, groups, permissions, and their proxies, which are
    senders of their own.

    A receiver for all senders would make Django delete the rows of every model one by one.
    """
    if sender._meta.concrete_model in {get_user_model(), *_ITEM_MODELS}:
        pre_delete.connect(
            record_deletion, sender=sender, dispatch_uid="django_phi_oidc.access.deletions"
        )


for _model in apps.get_models():
    observe_deletions(sender=_model)


def record_flag_changes(
    user_model: type[Model],
    *,
    lock_before: Callable[[Model, Collection[str] | None], None],
    watched: Collection[str] = (),
    after_change: Callable[[Model, Mapping[str, Any], Mapping[str, Any]], None],
) -> None:
    """Record the changes of `is_active`, `is_staff` and `is_superuser` by each save of an account.

    In autocommit, Django sends no signal inside the transaction of a save. So methods of the class
    are replaced: a save that writes a flag or a watched field is in a transaction, and takes one
    SELECT, others no query.
    lock_before: locks what has to be locked before the row of the account; called with the account
    and update_fields.
    watched: further fields. after_change: called in the transaction with the account, and the old
    and new values of the flags and watched fields, if some of them have changed; not for a new
    account.
    """
    save_base = user_model.save_base
    save_table = user_model._save_table  # type: ignore[attr-defined]
    save_signature = signature(save_table)

    @wraps(save_base)
    def save_base_in_transaction(self: Model, *args: Any, **kwargs: Any) -> None:
        update_fields = kwargs.get("update_fields")
        using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        is_written = bool(_list_flags(user_model, update_fields, watched=watched))
        is_transaction_needed = is_written and not connections[using].in_atomic_block
        with transaction.atomic(using=using) if is_transaction_needed else nullcontext():
            lock_before(self, update_fields)
            save_base(self, *args, **kwargs)

    # After the receivers of pre_save, which may change the flags of the instance, or save the
    # account themselves.
    @wraps(save_table)
    def save_table_with_event(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = save_signature.bind(self, *args, **kwargs).arguments
        model = call["cls"]
        using = call["using"]
        fields = call.get("update_fields")

        if not call.get("raw"):
            names = _list_flags(model, fields, watched=watched, local=True)
        else:
            names = []

        if not names:
            return save_table(self, *args, **kwargs)
        new = {name: getattr(self, name) for name in names}
        row = _find_flags(model, self._get_pk_val(model._meta), names, using, lock=True)
        old = row or {name: _FLAGS_OF_A_NEW_ACCOUNT.get(name) for name in names}
        result = save_table(self, *args, **kwargs)
        if old != new:
            # Read again: an attribute may be an expression.
            pk = self._get_pk_val(model._meta)
            new = _find_flags(model, pk, names, using) or old
            record_role_changes(_list_flag_changes(pk, old, new))
            if row and old != new:
                after_change(self, old, new)
        return result

    user_model.save_base = save_base_in_transaction  # type: ignore[method-assign]  # of this one class
    user_model._save_table = save_table_with_event  # type: ignore[attr-defined]


def _list_flags(
    model: type[Model],
    update_fields: Collection[str] | None,
    *,
    watched: Collection[str] = (),
    local: bool = False,
) -> list[str]:
    """Return the flags and watched fields that a save of these fields writes.

    local: to the table of this model, without its parents.
    """
    if local:
        fields = model._meta.local_concrete_fields
    else:
        fields = model._meta.concrete_fields

    names = []
    for field in fields:
        if field.name in _FLAGS_OF_A_NEW_ACCOUNT or field.name in watched:
            names.append(field.name)
    flags = []
    for name in names:
        if update_fields is None or name in update_fields:
            flags.append(name)
    return flags


def _find_flags(
    model: type[Model], pk: Any, names: Collection[str], using: str, *, lock: bool = False
) -> dict[str, Any] | None:
    """Return the stored values, or None if there is no row."""
    rows = model._base_manager.using(using).filter(pk=pk)
    if lock:
        rows = rows.select_for_update(no_key=True)

    if pk is not None:
        return rows.values(*names).first()
    return None


def _list_lost_flags(account: Model, using: str) -> Iterator[RoleChange]:
    """Yield the flags that are withdrawn if the account is deleted, without `is_active`, which
    every account has.
    """
    names = []
    for name in _list_flags(get_user_model(), None):
        if not _FLAGS_OF_A_NEW_ACCOUNT[name]:
            names.append(name)
    flags = _find_flags(get_user_model(), account.pk, names, using, lock=True) or {}
    return _list_flag_changes(account.pk, flags, dict.fromkeys(flags, False))


def _list_flag_changes(
    pk: Any, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[RoleChange]:
    for name, is_set in new.items():
        if name in _FLAGS_OF_A_NEW_ACCOUNT and old[name] != is_set:
            yield RoleChange(f"user/{pk}", "granted" if is_set else "withdrawn", name)
