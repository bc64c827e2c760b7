"""Map the claims of a sign-in to roles, as a function of plain values. No Django.

A managed role that no rule grants is removed. A claim that is missing has no values.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ...access.roles import Role
from .declaration import RoleRule, get_managed_roles


class RoleOutcome(StrEnum):
    """What a sign-in changes about a managed role."""

    ADDED = "added"
    REMOVED = "removed"
    KEPT = "kept"
    """A rule grants a role that the person has."""
    NOT_GRANTED = "not_given"
    """No rule grants it, and the person does not have it."""
    GROUP_MISSING = "missing"
    """A rule grants a group that does not exist."""
    LAST_ADMINISTRATOR = "last"
    """No rule grants it, but it is not removed: no other active administrator has it."""


def has_matching_value(rule: RoleRule, claims: Mapping[str, Any]) -> bool:
    """Return whether the claim equals, or as a list contains, one of the rule's values."""
    claim = claims.get(rule.claim)
    for name in rule.path:
        if isinstance(claim, Mapping):
            claim = claim.get(name)
        else:
            claim = None

    if isinstance(claim, list | tuple):
        values = claim
    else:
        values = [claim]

    keys = set()
    for value in values:
        if isinstance(value, str | int | float):
            keys.add(_get_comparison_key(value))
    return not keys.isdisjoint(map(_get_comparison_key, rule.values))


def map_roles(
    rules: Sequence[RoleRule],
    claims: Mapping[str, Any],
    *,
    held_roles: frozenset[Role],
    existing_roles: frozenset[Role],
) -> Mapping[Role, RoleOutcome]:
    """Return the outcome of each role that the rules manage.

    LAST_ADMINISTRATOR is not among the outcomes: only the database knows the other administrators.
    """
    granted = get_managed_roles([rule for rule in rules if has_matching_value(rule, claims)])

    def get_outcome(role: Role) -> RoleOutcome:
        if role not in granted:
            if role in held_roles:
                return RoleOutcome.REMOVED
            return RoleOutcome.NOT_GRANTED
        if role in held_roles:
            return RoleOutcome.KEPT

        if role in existing_roles:
            return RoleOutcome.ADDED
        return RoleOutcome.GROUP_MISSING

    return {role: get_outcome(role) for role in sorted(get_managed_roles(rules))}


def get_administrative_groups(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return the groups of the rules that also grant `is_staff` or `is_superuser`."""
    administrative_groups = set()
    for rule in rules:
        if rule.flags:
            for role in rule.roles:
                if role.kind == "group":
                    administrative_groups.add(role)
    return frozenset(administrative_groups)


def _get_comparison_key(value: str | float) -> tuple[bool, str | float]:
    """Distinguish True from 1, which are equal in Python."""
    return isinstance(value, bool), value
