"""Update an account's groups and flags from the claims of each sign-in. Only managed roles are
changed.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.views.decorators.debug import sensitive_variables

from ...access.role_events import build_role_events, collect_role_changes
from ...access.roles import ACCOUNT_FLAGS, Role
from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ..common.role_grants import change_roles, filter_groups
from .declaration import RoleRule, get_managed_roles
from .role_mapping import RoleOutcome, get_administrative_groups, map_roles

logger = logging.getLogger("django_phi_oidc.roles")

RolePlan = Mapping[Role, RoleOutcome]
CHANGES = {RoleOutcome.ADDED, RoleOutcome.REMOVED, RoleOutcome.LAST_ADMINISTRATOR}


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
    if missing := list_planned_groups(plan, RoleOutcome.GROUP_MISSING):
        names = ", ".join(map(ascii, missing))
        logger.error(
            "Provider %s: these groups do not exist and were not granted: %s.", provider, names
        )
    if CHANGES.isdisjoint(plan.values()):
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
            filter_groups(names).annotate(is_held=Exists(members)).values_list("name", "is_held")
        ):
            existing.add(Role("group", name))
            if is_held:
                held.add(Role("group", name))
    return frozenset(existing), frozenset(held)


def list_planned_groups(plan: RolePlan, outcome: RoleOutcome) -> list[str]:
    """Return the names of the groups with that outcome."""
    names = []
    for role in plan:
        if role.kind == "group" and plan[role] is outcome:
            names.append(role.name)
    return names


def _find_last_administrator_roles(
    user: Any, rules: Sequence[RoleRule], removed: Sequence[Role]
) -> Iterator[Role]:
    """Yield the removed roles that no other active account has. Flags count together: the admin
    requires both.
    """
    pk: Any = getattr(user, "pk", None)
    others = get_user_model()._base_manager.filter(is_active=True).exclude(pk=pk)
    flags = [role for role in removed if role.kind == "flag"]
    if flags and not others.filter(**get_held_flags(user)).exists():
        yield from flags
    for role in get_administrative_groups(rules).intersection(removed):
        if not others.filter(groups__name=role.name).exists():
            yield role


def get_held_flags(user: Any) -> dict[str, bool]:
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
        if outcome in CHANGES - {RoleOutcome.ADDED}:
            removed.add(role)
    lock_groups([role.name for role in get_administrative_groups(rules) & removed])
    accounts = Q(pk=user.pk)
    if any(role.kind == "flag" for role in removed):
        for flag in get_held_flags(user):
            accounts |= Q(is_active=True, **{flag: True})
    list(
        users._base_manager.filter(accounts)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk")
    )
    if flags := [role.name for role in get_managed_roles(rules) if role.kind == "flag"]:
        user.refresh_from_db(fields=flags)


def lock_groups(names: Sequence[str] | QuerySet[Any]) -> None:
    list(filter_groups(names).order_by("pk").select_for_update(no_key=True).values_list("pk"))


def _apply_plan(user: Any, plan: RolePlan) -> None:
    added = []
    removed = []
    for role, outcome in plan.items():
        if outcome is RoleOutcome.ADDED:
            added.append(role)
        elif outcome is RoleOutcome.REMOVED:
            removed.append(role)
    change_roles(user, added=added, removed=removed)
