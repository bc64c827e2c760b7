"""Update an account's groups and flags from the claims of each sign-in. Only managed roles are
changed.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.signals import m2m_changed
from django.views.decorators.debug import sensitive_variables

from .._internal.app_labels import build_own_label_condition
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..config.roles import ACCOUNT_FLAGS, Role, RoleRule, get_managed_roles
from .role_events import build_role_events, collect_role_changes
from .role_mapping import RoleOutcome, get_administrative_groups, map_roles

logger = logging.getLogger("django_phi_oidc.roles")

RolePlan = Mapping[Role, RoleOutcome]
_CHANGES = {RoleOutcome.ADDED, RoleOutcome.REMOVED, RoleOutcome.LAST_ADMINISTRATOR}


@sensitive_variables("claims")
def sync_roles(
    user: Any,
    *,
    rules: Sequence[RoleRule],
    claims: Mapping[str, Any],
    provider: str,
    subject: str,
    origin: Origin,
    now: datetime,
) -> RolePlan:
    """Apply the rules to the user's roles and record the changes, in the caller's transaction.
    Return the plan.

    One SELECT if nothing changes, none if the rules name no group. Groups are found by name and
    never created; a missing group is logged. Requires: a transaction that has not written to any
    account's row, because this function locks several rows in order; and that the new session does
    not exist yet if role changes end sessions.
    """
    plan = plan_roles(user, rules=rules, claims=claims)
    if missing := list_role_names(plan, RoleOutcome.GROUP_MISSING):
        names = ", ".join(map(ascii, missing))
        logger.error(
            "Provider %s: these groups do not exist and were not granted: %s.", provider, names
        )
    if _CHANGES.isdisjoint(plan.values()):
        return plan
    _lock_rows(user, rules, plan)
    # A concurrent sign-in may have committed before the lock: plan again, from what is written now.
    plan = plan_roles(user, rules=rules, claims=claims)
    with collect_role_changes() as changes:
        _apply_plan(user, plan)
    events = list(
        build_role_events(changes, origin=origin, now=now, provider=provider, subject=subject)
    )
    if kept := [role.name for role in plan if plan[role] is RoleOutcome.LAST_ADMINISTRATOR]:
        detail = {"rule": "last_administrator", "roles": kept}
        events.append(
            NewEvent(
                action=Action.ALERT_RAISED,
                detail=detail,
                origin=origin,
                now=now,
                provider=provider,
                subject=subject,
            )
        )
    enqueue_many(events)
    return plan


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
    accounts = users.in_bulk(list(claims))
    first = _plan_many(accounts, rules, claims)
    if missing := sorted(
        {
            name
            for plan in first.values()
            for name in list_role_names(plan, RoleOutcome.GROUP_MISSING)
        }
    ):
        names = ", ".join(map(ascii, missing))
        logger.error(
            "Provider %s: these groups do not exist and were not granted: %s.", provider, names
        )
    changed = sorted(pk for pk, plan in first.items() if not _CHANGES.isdisjoint(plan.values()))
    alone = {pk for pk in changed if _needs_count_of_others(first[pk], rules)}
    for pk in (pk for pk in changed if pk in alone):
        sync_roles(
            accounts[pk],
            rules=rules,
            claims=claims[pk],
            subject="",
            provider=provider,
            origin=origin,
            now=now,
        )
    together = [pk for pk in changed if pk not in alone]
    list(
        users.filter(pk__in=together)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk")
    )
    # A concurrent sign-in may have committed before the lock: plan again, from what is written now.
    accounts = users.in_bulk(together)
    plans = _plan_many(accounts, rules, claims)
    for pk in [pk for pk in plans if _needs_count_of_others(plans[pk], rules)]:
        sync_roles(
            accounts[pk],
            rules=rules,
            claims=claims[pk],
            subject="",
            provider=provider,
            origin=origin,
            now=now,
        )
        del plans[pk]
    with collect_role_changes() as changes:
        _apply_group_plans(plans)
    enqueue_many(
        list(build_role_events(changes, subject="", provider=provider, origin=origin, now=now))
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
            Role("group", name) for name in _filter_groups(names).values_list("name", flat=True)
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
        role.name
        for plan in plans.values()
        for role, outcome in plan.items()
        if outcome in _CHANGES
    }
    if not names:
        return
    for group in _filter_groups(list(names)).order_by("pk"):
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


def grant_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Give the account these roles and record the changes, in one transaction. Return the roles
    that it did not have.

    Raises: KeyMissing, DatabaseError, and then nothing is granted.
    """
    return _change_roles(user, roles, RoleOutcome.ADDED)


def withdraw_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Remove these roles from the account and record the changes, in one transaction. Return the
    roles that it had.
    """
    return _change_roles(user, roles, RoleOutcome.REMOVED)


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
    held = [Role("flag", flag) for flag in _get_held_flags(user)]
    if hasattr(user, "groups"):
        _lock_groups(user.groups.values("name"))
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


def list_held_roles(user: Any, roles: Sequence[Role]) -> list[Role]:
    """Return those of the roles that the account has."""
    held_roles = []
    for role in roles:
        if _has_role(user, role):
            held_roles.append(role)
    return held_roles


def _change_roles(user: Any, roles: Sequence[Role], outcome: RoleOutcome) -> list[Role]:
    users = get_user_model()
    with transaction.atomic(using=router.db_for_write(users)):
        locked = users._base_manager.select_for_update(no_key=True).get(pk=user.pk)
        held = list_held_roles(locked, roles)

        if outcome is RoleOutcome.REMOVED:
            changed = held
        else:
            changed = []
            for role in roles:
                if role not in held:
                    changed.append(role)

        _apply_plan(locked, dict.fromkeys(changed, outcome))
    return changed


def list_missing_groups(roles: Sequence[Role]) -> list[str]:
    """Return the names of those roles that are groups which do not exist."""
    names = []
    for role in roles:
        if role.kind == "group":
            names.append(role.name)
    if names:
        existing = set(_filter_groups(names).values_list("name", flat=True))
    else:
        existing = set()

    missing_groups = []
    for name in names:
        if name not in existing:
            missing_groups.append(name)
    return missing_groups


@sensitive_variables("claims")
def plan_roles(user: Any, *, rules: Sequence[RoleRule], claims: Mapping[str, Any]) -> RolePlan:
    """Return what `sync_roles` would do, without writing. user: None for a person without an
    account.
    """
    existing, held = get_existing_and_held_roles(user, rules)
    plan = dict(map_roles(rules, claims, held_roles=held, existing_roles=existing))
    removed = [role for role, outcome in plan.items() if outcome is RoleOutcome.REMOVED]
    for role in _find_last_administrator_roles(user, rules, removed):
        plan[role] = RoleOutcome.LAST_ADMINISTRATOR
    return plan


def get_existing_and_held_roles(
    user: Any, rules: Sequence[RoleRule]
) -> tuple[frozenset[Role], frozenset[Role]]:
    """Return which of the managed roles exist, and which the user has, with at most one SELECT."""
    flags = []
    for role in get_managed_roles(rules):
        if role.kind == "flag":
            flags.append(role)
    existing = set(flags)
    held = set()
    for role in flags:
        if getattr(user, role.name, False):
            held.add(role)
    if names := [role.name for role in get_managed_roles(rules) if role.kind == "group"]:
        pk: Any = getattr(user, "pk", None)
        members = get_user_model()._base_manager.filter(pk=pk, groups=OuterRef("pk"))
        for name, is_held in (
            _filter_groups(names).annotate(is_held=Exists(members)).values_list("name", "is_held")
        ):
            existing.add(Role("group", name))
            if is_held:
                held.add(Role("group", name))
    return frozenset(existing), frozenset(held)


def list_role_names(plan: RolePlan, outcome: RoleOutcome, kind: str = "group") -> list[str]:
    """Return the names of the roles with that outcome."""
    role_names = []
    for role in plan:
        if role.kind == kind and plan[role] is outcome:
            role_names.append(role.name)
    return role_names


def _find_last_administrator_roles(
    user: Any, rules: Sequence[RoleRule], removed: Sequence[Role]
) -> Iterator[Role]:
    """Yield the removed roles that no other active account has. Flags count together: the admin
    requires both.
    """
    pk: Any = getattr(user, "pk", None)
    others = get_user_model()._base_manager.filter(is_active=True).exclude(pk=pk)
    flags = [role for role in removed if role.kind == "flag"]
    if flags and not others.filter(**_get_held_flags(user)).exists():
        yield from flags
    for role in get_administrative_groups(rules).intersection(removed):
        if not others.filter(groups__name=role.name).exists():
            yield role


def _has_role(user: Any, role: Role) -> bool:
    return bool(
        user.groups.filter(name=role.name).exists()
        if role.kind == "group"
        else getattr(user, role.name)
    )


def _filter_groups(names: Sequence[str] | QuerySet[Any]) -> Any:
    return (
        get_user_model()
        ._meta.get_field("groups")
        .related_model._default_manager.filter(name__in=names)
    )


def _get_held_flags(user: Any) -> dict[str, bool]:
    held_flags: dict[str, bool] = {}
    for flag in ACCOUNT_FLAGS:
        if getattr(user, flag, False):
            held_flags[flag] = True
    return held_flags


def _lock_rows(user: Any, rules: Sequence[RoleRule], plan: RolePlan) -> None:
    """Lock what the decision depends on, always in the same order: groups, then accounts, each by
    primary key.

    If two administrators would lose the last roles at the same time, one of them keeps them.
    """
    users = get_user_model()
    removed = set()
    for role, outcome in plan.items():
        if outcome in _CHANGES - {RoleOutcome.ADDED}:
            removed.add(role)
    _lock_groups([role.name for role in get_administrative_groups(rules) & removed])
    accounts = Q(pk=user.pk)
    if any(role.kind == "flag" for role in removed):
        for flag in _get_held_flags(user):
            accounts |= Q(is_active=True, **{flag: True})
    list(
        users._base_manager.filter(accounts)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk")
    )
    if flags := [role.name for role in get_managed_roles(rules) if role.kind == "flag"]:
        user.refresh_from_db(fields=flags)


def _lock_groups(names: Sequence[str] | QuerySet[Any]) -> None:
    list(_filter_groups(names).order_by("pk").select_for_update(no_key=True).values_list("pk"))


def _apply_plan(user: Any, plan: RolePlan) -> None:
    added = list_role_names(plan, RoleOutcome.ADDED)
    removed = list_role_names(plan, RoleOutcome.REMOVED)
    if added or removed:
        pks = dict(_filter_groups([*added, *removed]).values_list("name", "pk"))
        # These calls send m2m_changed, which ends the person's other sessions if the project wants
        # that.
        if removed:
            user.groups.remove(*(pks[name] for name in removed if name in pks))
        if added:
            user.groups.add(*(pks[name] for name in added if name in pks))
    granted = list_role_names(plan, RoleOutcome.ADDED, "flag")
    withdrawn = list_role_names(plan, RoleOutcome.REMOVED, "flag")
    for flag in granted + withdrawn:
        setattr(user, flag, flag in granted)
    if granted or withdrawn:
        user.save(update_fields=granted + withdrawn)
