"""Update the groups and flags of the accounts whose SCIM groups change, many at once."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, router, transaction
from django.db.models.signals import m2m_changed
from django.views.decorators.debug import sensitive_variables

from ..._internal.app_labels import build_own_label_condition
from ...access.role_events import build_role_events, collect_role_changes
from ...access.roles import Role
from ...audit.events import Origin
from ...audit.outbox import enqueue_many
from ..common.role_grants import filter_groups
from ..role_mapping.declaration import RoleRule, get_managed_roles
from ..role_mapping.role_mapping import RoleOutcome, get_administrative_groups, map_roles
from ..role_mapping.role_sync import (
    CHANGES,
    RolePlan,
    get_held_flags,
    list_planned_groups,
    lock_groups,
    sync_roles,
)

logger = logging.getLogger("django_phi_oidc.roles")


@sensitive_variables("claims")
def sync_roles_of_many(
    claims: Mapping[Any, Mapping[str, Any]],
    *,
    rules: Sequence[RoleRule],
    provider: str,
    origin: Origin,
    now: datetime,
) -> None:
    """Apply the rules to the roles of several accounts, as `sync_roles` does. claims: by the key of
    the account.

    Groups are added and removed by a fixed number of queries. An account whose flags change, or
    which loses a group that also gives a flag, is updated by itself: the last administrator keeps
    the role.
    Requires: as of `sync_roles`. Sessions that the change of a group ends are revoked by the sweep.
    """
    users = get_user_model()._base_manager
    sync_alone = partial(
        sync_roles, rules=rules, subject="", provider=provider, origin=origin, now=now
    )
    accounts = users.in_bulk(list(claims))
    first = _plan_many(accounts, rules, claims)
    _log_missing_groups(first.values(), provider=provider)

    together = []
    for pk in sorted(first):
        if CHANGES.isdisjoint(first[pk].values()):
            continue
        if _needs_count_of_others(first[pk], rules):
            sync_alone(accounts[pk], claims=claims[pk])
        else:
            together.append(pk)

    # Evaluated for its locks.
    list(
        users.filter(pk__in=together)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk")
    )
    # A concurrent sign-in may have committed before the lock: plan again, from what is written now.
    accounts = users.in_bulk(together)
    plans = {}
    for pk, plan in _plan_many(accounts, rules, claims).items():
        if _needs_count_of_others(plan, rules):
            sync_alone(accounts[pk], claims=claims[pk])
        else:
            plans[pk] = plan
    with collect_role_changes() as changes:
        _apply_group_plans(plans)
    enqueue_many(
        list(build_role_events(changes, subject="", provider=provider, origin=origin, now=now))
    )


def _log_missing_groups(plans: Iterable[RolePlan], *, provider: str) -> None:
    missing = set()
    for plan in plans:
        missing.update(list_planned_groups(plan, RoleOutcome.GROUP_MISSING))
    if missing:
        names = ", ".join(map(ascii, sorted(missing)))
        logger.error(
            "Provider %s: these groups do not exist and were not granted: %s.", provider, names
        )


def _plan_many(
    accounts: Mapping[Any, Any], rules: Sequence[RoleRule], claims: Mapping[Any, Any]
) -> dict[Any, RolePlan]:
    """Return the plan of each account by its key, without the outcome LAST_ADMINISTRATOR, with two
    SELECTs.
    """
    existing = set()
    for role in get_managed_roles(rules):
        if role.kind == "flag":
            existing.add(role)
    held = {
        pk: {role for role in existing if getattr(account, role.name, False)}
        for pk, account in accounts.items()
    }
    if names := [role.name for role in get_managed_roles(rules) if role.kind == "group"]:
        existing |= {
            Role("group", name) for name in filter_groups(names).values_list("name", flat=True)
        }
        rows = get_user_model()._base_manager.filter(pk__in=accounts, groups__name__in=names)
        for pk, name in rows.values_list("pk", "groups__name"):
            held[pk].add(Role("group", name))
    return {
        pk: map_roles(
            rules, claims[pk], held_roles=frozenset(held[pk]), existing_roles=frozenset(existing)
        )
        for pk in accounts
    }


def _needs_count_of_others(plan: RolePlan, rules: Sequence[RoleRule]) -> bool:
    """Return whether a flag changes, or a group that also gives one is removed."""
    lost = set()
    for role, outcome in plan.items():
        if outcome is RoleOutcome.REMOVED:
            lost.add(role)
    gained = set()
    for role, outcome in plan.items():
        if outcome is RoleOutcome.ADDED:
            gained.add(role)
    return any(role.kind == "flag" for role in lost | gained) or not lost.isdisjoint(
        get_administrative_groups(rules)
    )


def _apply_group_plans(plans: Mapping[Any, RolePlan]) -> None:
    """Add the accounts to groups, and remove them: two or three queries for each group."""
    names = {
        role.name for plan in plans.values() for role, outcome in plan.items() if outcome in CHANGES
    }
    if not names:
        return
    for group in filter_groups(list(names)).order_by("pk"):
        role = Role("group", group.name)
        removed = set()
        for pk, plan in plans.items():
            if plan.get(role) is RoleOutcome.REMOVED:
                removed.add(pk)
        if removed:
            _remove_members(group, removed)
        added = set()
        for pk, plan in plans.items():
            if plan.get(role) is RoleOutcome.ADDED:
                added.add(pk)
        if added:
            _add_members(group, added)


def _remove_members(group: Any, user_pks: set[Any]) -> None:
    through, group_id, user_id = _get_membership_columns()
    using = router.db_for_write(through, instance=group)
    with transaction.atomic(using=using, savepoint=False):
        _send_members_changed("pre_remove", group, user_pks, using=using)
        rows = through._base_manager.using(using)
        rows.filter(**{group_id: group.pk, f"{user_id}__in": user_pks}).delete()
        _send_members_changed("post_remove", group, user_pks, using=using)


def _add_members(group: Any, user_pks: set[Any]) -> None:
    through, group_id, user_id = _get_membership_columns()
    using = router.db_for_write(through, instance=group)
    with transaction.atomic(using=using, savepoint=False):
        rows = through._base_manager.using(using)
        found = rows.filter(**{group_id: group.pk, f"{user_id}__in": user_pks})
        missing = user_pks - set(found.values_list(user_id, flat=True))
        _send_members_changed("pre_add", group, missing, using=using)
        rows.bulk_create(
            [through(**{group_id: group.pk, user_id: pk}) for pk in missing],
            # Another process may have added one meanwhile.
            ignore_conflicts=connections[using].features.supports_ignore_conflicts,
        )
        _send_members_changed("post_add", group, missing, using=using)


def _get_membership_columns() -> tuple[Any, str, str]:
    """Return the table between accounts and groups, and the names of its columns for the two.

    The relation's manager from a group to its accounts cannot be used: the user model's manager may
    leave accounts out, and a group may have no accessor (`related_name="+"`).
    """
    field: Any = get_user_model()._meta.get_field("groups")
    through = field.remote_field.through
    group_id = through._meta.get_field(field.m2m_reverse_field_name()).attname
    user_id = through._meta.get_field(field.m2m_field_name()).attname
    return through, group_id, user_id


def _send_members_changed(action: str, group: Any, user_pks: set[Any], *, using: str) -> None:
    """Send the signal that `add()` and `remove()` of a relation send, as in `_apply_plan`."""
    users = get_user_model()
    m2m_changed.send(
        sender=users._meta.get_field("groups").remote_field.through,
        action=action,
        instance=group,
        reverse=True,
        model=users,
        pk_set=user_pks,
        using=using,
    )


def lock_sole_roles(user_pk: Any) -> list[Role]:
    """Return the flags, and the groups with permissions of this app, that no other active account
    has.

    Empty if the account is inactive. Its groups, and then the accounts with the same roles, are
    locked in order, as by `sync_roles`: of two administrators who are deactivated at the same time,
    one is the last. Requires: a transaction that has not written to any account.
    """
    users = get_user_model()._base_manager
    user: Any = users.filter(pk=user_pk, is_active=True).first()
    if user is None:
        return []
    held = [Role("flag", flag) for flag in get_held_flags(user)]
    if hasattr(user, "groups"):
        lock_groups(user.groups.values("name"))
        groups = user.groups.filter(
            build_own_label_condition("permissions__content_type__app_label")
        ).distinct()
        for name in groups.order_by("name").values_list("name", flat=True):
            held.append(Role("group", name))
    conditions = {}
    for role in held:
        conditions[role] = {role.name: True} if role.kind == "flag" else {"groups__name": role.name}
    pks: set[Any] = set()
    for condition in conditions.values():
        pks |= {*users.filter(is_active=True, **condition).values_list("pk", flat=True)}
    if pks:
        list(
            users.filter(pk__in=pks).order_by("pk").select_for_update(no_key=True).values_list("pk")
        )
    others = users.filter(is_active=True).exclude(pk=user_pk)
    return [
        role for role, condition in conditions.items() if not others.filter(**condition).exists()
    ]
