"""Roles follow the claims of each sign-in: groups and flags that the rules manage are given and taken, no others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, Q
from django.views.decorators.debug import sensitive_variables

from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..config.roles import ACCOUNT_FLAGS, Role, RoleRule, get_managed_roles
from .role_mapping import RoleOutcome, get_administrative_groups, map_roles

logger = logging.getLogger("django_phi_oidc.roles")

RolePlan = Mapping[Role, RoleOutcome]
_DETAIL_KEYS = {("group", RoleOutcome.ADDED): "added", ("group", RoleOutcome.REMOVED): "removed"} | {
    ("flag", RoleOutcome.ADDED): "granted",
    ("flag", RoleOutcome.REMOVED): "withdrawn",
}
"""Of role.changed's detail."""


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
    """Make of the user's roles what the rules make of these claims, in the caller's transaction, and tell of it.

    One SELECT where nothing changes, none where the rules name no group. Groups are found by name and never made: of
    one that is not there the log tells. Requires: a transaction that has written to no account's row, for this locks
    several in order; and that the session which begins is not there yet, where a change of roles ends sessions.
    """
    planned = plan_roles(user, rules=rules, claims=claims)
    if missing := list_role_names(planned, RoleOutcome.GROUP_MISSING):
        logger.error("Provider %s: no such group, and nobody gets it: %s.", provider, ", ".join(map(ascii, missing)))
    if not _has_changes(planned):
        return planned
    _lock_rows(user, rules, planned)
    # Whoever was faster is done: what is planned now is what is written.
    planned = plan_roles(user, rules=rules, claims=claims)
    _apply_plan(user, planned)
    told: dict[str, Any] = {"origin": origin, "now": now, "provider": provider, "subject": subject}
    enqueue_many([*_create_change_events(planned, told), *_create_alert_events(planned, told)])
    return planned


@sensitive_variables("claims")
def plan_roles(user: Any, *, rules: Sequence[RoleRule], claims: Mapping[str, Any]) -> RolePlan:
    """Return what `grant` would do; nothing is written. user: None for somebody who has no account yet."""
    there, held = get_existing_and_held_roles(user, rules)
    planned = dict(map_roles(rules, claims, held_roles=held, existing_roles=there))
    for role in list(
        _find_last_administrator_roles(
            user, rules, [role for role, outcome in planned.items() if outcome is RoleOutcome.REMOVED]
        )
    ):
        planned[role] = RoleOutcome.LAST_ADMINISTRATOR
    return planned


def get_existing_and_held_roles(user: Any, rules: Sequence[RoleRule]) -> tuple[frozenset[Role], frozenset[Role]]:
    """Return which of the managed roles exist, and which the user has: one SELECT, or none."""
    flags = [role for role in get_managed_roles(rules) if role.kind == "flag"]
    there, held = set(flags), {role for role in flags if getattr(user, role.name, False)}
    if names := [role.name for role in get_managed_roles(rules) if role.kind == "group"]:
        users, pk = get_user_model(), _get_pk(user)
        groups = users._meta.get_field("groups").related_model._default_manager.filter(name__in=names)
        belongs = Exists(users._base_manager.filter(pk=pk, groups=OuterRef("pk")))
        for name, is_held in groups.annotate(is_held=belongs).values_list("name", "is_held"):
            there.add(Role("group", name))
            held |= {Role("group", name)} if is_held else set()
    return frozenset(there), frozenset(held)


def list_role_names(role_plan: RolePlan, outcome: RoleOutcome, kind: str = "group") -> list[str]:
    """Return the names of what has that outcome."""
    return [role.name for role in role_plan if role.kind == kind and role_plan[role] is outcome]


def _has_changes(role_plan: RolePlan) -> bool:
    return not {RoleOutcome.ADDED, RoleOutcome.REMOVED, RoleOutcome.LAST_ADMINISTRATOR}.isdisjoint(role_plan.values())


def _find_last_administrator_roles(
    user: Any, rules: Sequence[RoleRule], removed_roles: Sequence[Role]
) -> Iterator[Role]:
    """Yield what of removed nobody else who is active has; flags count together, for the admin asks for both."""
    others = get_user_model()._base_manager.filter(is_active=True).exclude(pk=_get_pk(user))
    flags = [role for role in removed_roles if role.kind == "flag"]
    if flags and not others.filter(**_get_held_flags(user)).exists():
        yield from flags
    for role in get_administrative_groups(rules).intersection(removed_roles):
        if not others.filter(groups__name=role.name).exists():
            yield role


def _get_pk(user: Any) -> Any:
    return getattr(user, "pk", None)


def _get_held_flags(user: Any) -> dict[str, bool]:
    return {flag: True for flag in ACCOUNT_FLAGS if getattr(user, flag, False)}


def _lock_rows(user: Any, rules: Sequence[RoleRule], role_plan: RolePlan) -> None:
    """Lock what the decision rests on, in one order for everybody: groups, then accounts, each by primary key.

    Of two administrators who lose the last roles at one moment, one is the last.
    """
    users, at_stake = get_user_model(), {RoleOutcome.REMOVED, RoleOutcome.LAST_ADMINISTRATOR}
    taken = {role for role, outcome in role_plan.items() if outcome in at_stake}
    if names := [role.name for role in get_administrative_groups(rules) & taken]:
        groups = users._meta.get_field("groups").related_model._default_manager.filter(name__in=names)
        list(groups.order_by("pk").select_for_update(no_key=True).values_list("pk"))
    whose = Q(pk=user.pk)
    if any(role.kind == "flag" for role in taken):
        for flag in _get_held_flags(user):
            whose |= Q(is_active=True, **{flag: True})
    list(users._base_manager.filter(whose).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    if flags := [role.name for role in get_managed_roles(rules) if role.kind == "flag"]:
        user.refresh_from_db(fields=flags)


def _apply_plan(user: Any, role_plan: RolePlan) -> None:
    added, removed = list_role_names(role_plan, RoleOutcome.ADDED), list_role_names(role_plan, RoleOutcome.REMOVED)
    if added or removed:
        groups = user.groups.model._default_manager.filter(name__in=[*added, *removed])
        pks = dict(groups.values_list("name", "pk"))
        # Signals follow, by which the person's other sessions end where the project says so.
        if removed:
            user.groups.remove(*(pks[name] for name in removed if name in pks))
        if added:
            user.groups.add(*(pks[name] for name in added if name in pks))
    granted, withdrawn = (
        list_role_names(role_plan, RoleOutcome.ADDED, "flag"),
        list_role_names(role_plan, RoleOutcome.REMOVED, "flag"),
    )
    for flag in granted + withdrawn:
        setattr(user, flag, flag in granted)
    if granted or withdrawn:
        user.save(update_fields=granted + withdrawn)


def _create_change_events(role_plan: RolePlan, event_fields: Mapping[str, Any]) -> Iterator[NewEvent]:
    """Yield what changed: one event, or more where an event's lists could not hold all names."""
    changed = [(key, role.name) for role in role_plan if (key := _DETAIL_KEYS.get((role.kind, role_plan[role])))]
    for start in range(0, len(changed), MAX_ITEMS):
        detail: dict[str, list[str]] = {}
        for key, name in changed[start : start + MAX_ITEMS]:
            detail.setdefault(key, []).append(name)
        yield NewEvent(action=Action.ROLE_CHANGED, detail=detail, **event_fields)


def _create_alert_events(role_plan: RolePlan, event_fields: Mapping[str, Any]) -> Iterator[NewEvent]:
    if kept := [role.name for role in role_plan if role_plan[role] is RoleOutcome.LAST_ADMINISTRATOR]:
        yield NewEvent(action=Action.ALERT_RAISED, detail={"rule": "last_administrator", "roles": kept}, **event_fields)
