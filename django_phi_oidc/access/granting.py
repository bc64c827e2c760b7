"""Roles follow the claims of each sign-in: groups and flags that the rules manage are given and taken, no others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, Q
from django.views.decorators.debug import sensitive_variables

from ..audit.events import MAX_ITEMS, Act, Action, Origin
from ..audit.outbox import enqueue_many
from ..role_rules import FLAGS, Role, RoleRule, managed
from .roles import Outcome, administrative, decide

logger = logging.getLogger("django_phi_oidc.roles")

Plan = Mapping[Role, Outcome]
_KEYS = {("group", Outcome.ADDED): "added", ("group", Outcome.REMOVED): "removed"} | {
    ("flag", Outcome.ADDED): "granted",
    ("flag", Outcome.REMOVED): "withdrawn",
}
"""Of role.changed's detail."""


@sensitive_variables("claims")
def grant(
    user: Any,
    *,
    rules: Sequence[RoleRule],
    claims: Mapping[str, Any],
    provider: str,
    subject: str,
    origin: Origin,
    now: datetime,
) -> Plan:
    """Make of the user's roles what the rules make of these claims, in the caller's transaction, and tell of it.

    One SELECT where nothing changes, none where the rules name no group. Groups are found by name and never made: of
    one that is not there the log tells. Requires: a transaction that has written to no account's row, for this locks
    several in order; and that the session which begins is not there yet, where a change of roles ends sessions.
    """
    planned = plan(user, rules=rules, claims=claims)
    if missing := names_of(planned, Outcome.MISSING):
        logger.error("Provider %s: no such group, and nobody gets it: %s.", provider, ", ".join(map(ascii, missing)))
    if not _is_change(planned):
        return planned
    _hold(user, rules, planned)
    # Whoever was faster is done: what is planned now is what is written.
    planned = plan(user, rules=rules, claims=claims)
    _apply(user, planned)
    told: dict[str, Any] = {"origin": origin, "now": now, "provider": provider, "subject": subject}
    enqueue_many([*_changes(planned, told), *_alerts(planned, told)])
    return planned


@sensitive_variables("claims")
def plan(user: Any, *, rules: Sequence[RoleRule], claims: Mapping[str, Any]) -> Plan:
    """Return what `grant` would do; nothing is written. user: None for somebody who has no account yet."""
    there, held = look_up(user, rules)
    planned = dict(decide(rules, claims, held=held, there=there))
    for role in list(_last(user, rules, [role for role, outcome in planned.items() if outcome is Outcome.REMOVED])):
        planned[role] = Outcome.LAST
    return planned


def look_up(user: Any, rules: Sequence[RoleRule]) -> tuple[frozenset[Role], frozenset[Role]]:
    """Return which of the managed roles exist, and which the user has: one SELECT, or none."""
    flags = [role for role in managed(rules) if role.kind == "flag"]
    there, held = set(flags), {role for role in flags if getattr(user, role.name, False)}
    if names := [role.name for role in managed(rules) if role.kind == "group"]:
        users, pk = get_user_model(), _pk_of(user)
        groups = users._meta.get_field("groups").related_model._default_manager.filter(name__in=names)
        belongs = Exists(users._base_manager.filter(pk=pk, groups=OuterRef("pk")))
        for name, is_held in groups.annotate(is_held=belongs).values_list("name", "is_held"):
            there.add(Role("group", name))
            held |= {Role("group", name)} if is_held else set()
    return frozenset(there), frozenset(held)


def names_of(planned: Plan, outcome: Outcome, kind: str = "group") -> list[str]:
    """Return the names of what has that outcome."""
    return [role.name for role in planned if role.kind == kind and planned[role] is outcome]


def _is_change(planned: Plan) -> bool:
    return not {Outcome.ADDED, Outcome.REMOVED, Outcome.LAST}.isdisjoint(planned.values())


def _last(user: Any, rules: Sequence[RoleRule], removed: Sequence[Role]) -> Iterator[Role]:
    """Yield what of removed nobody else who is active has; flags count together, for the admin asks for both."""
    others = get_user_model()._base_manager.filter(is_active=True).exclude(pk=_pk_of(user))
    flags = [role for role in removed if role.kind == "flag"]
    if flags and not others.filter(**_flags_of(user)).exists():
        yield from flags
    for role in administrative(rules).intersection(removed):
        if not others.filter(groups__name=role.name).exists():
            yield role


def _pk_of(user: Any) -> Any:
    return getattr(user, "pk", None)


def _flags_of(user: Any) -> dict[str, bool]:
    return {flag: True for flag in FLAGS if getattr(user, flag, False)}


def _hold(user: Any, rules: Sequence[RoleRule], planned: Plan) -> None:
    """Lock what the decision rests on, in one order for everybody: groups, then accounts, each by primary key.

    Of two administrators who lose the last roles at one moment, one is the last.
    """
    users, at_stake = get_user_model(), {Outcome.REMOVED, Outcome.LAST}
    taken = {role for role, outcome in planned.items() if outcome in at_stake}
    if names := [role.name for role in administrative(rules) & taken]:
        groups = users._meta.get_field("groups").related_model._default_manager.filter(name__in=names)
        list(groups.order_by("pk").select_for_update(no_key=True).values_list("pk"))
    whose = Q(pk=user.pk)
    if any(role.kind == "flag" for role in taken):
        for flag in _flags_of(user):
            whose |= Q(is_active=True, **{flag: True})
    list(users._base_manager.filter(whose).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    if flags := [role.name for role in managed(rules) if role.kind == "flag"]:
        user.refresh_from_db(fields=flags)


def _apply(user: Any, planned: Plan) -> None:
    added, removed = names_of(planned, Outcome.ADDED), names_of(planned, Outcome.REMOVED)
    if added or removed:
        groups = user.groups.model._default_manager.filter(name__in=[*added, *removed])
        pks = dict(groups.values_list("name", "pk"))
        # Signals follow, by which the person's other sessions end where the project says so.
        if removed:
            user.groups.remove(*(pks[name] for name in removed if name in pks))
        if added:
            user.groups.add(*(pks[name] for name in added if name in pks))
    granted, withdrawn = names_of(planned, Outcome.ADDED, "flag"), names_of(planned, Outcome.REMOVED, "flag")
    for flag in granted + withdrawn:
        setattr(user, flag, flag in granted)
    if granted or withdrawn:
        user.save(update_fields=granted + withdrawn)


def _changes(planned: Plan, told: Mapping[str, Any]) -> Iterator[Act]:
    """Yield what changed: one event, or more where an event's lists could not hold all names."""
    changed = [(key, role.name) for role in planned if (key := _KEYS.get((role.kind, planned[role])))]
    for start in range(0, len(changed), MAX_ITEMS):
        detail: dict[str, list[str]] = {}
        for key, name in changed[start : start + MAX_ITEMS]:
            detail.setdefault(key, []).append(name)
        yield Act(action=Action.ROLE_CHANGED, detail=detail, **told)


def _alerts(planned: Plan, told: Mapping[str, Any]) -> Iterator[Act]:
    if kept := [role.name for role in planned if planned[role] is Outcome.LAST]:
        yield Act(action=Action.ALERT_RAISED, detail={"rule": "last_administrator", "roles": kept}, **told)
