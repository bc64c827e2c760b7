"""What the claims of a sign-in make of somebody's roles, as a function of plain values. No Django.

What no rule gives, a managed role is taken for: a claim that did not come has no values.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from ..config.roles import Role, RoleRule, get_managed_roles


class RoleOutcome(StrEnum):
    """What a sign-in does about a managed role."""

    ADDED = "added"
    REMOVED = "removed"
    KEPT = "kept"
    """A rule gives what the person has."""
    NOT_GRANTED = "not_given"
    """No rule gives what the person does not have."""
    GROUP_MISSING = "missing"
    """A rule gives a group that does not exist."""
    LAST_ADMINISTRATOR = "last"
    """No rule gives it, and it stays: without it nobody active would be left to administer."""


def has_matching_value(rule: RoleRule, claims: Mapping[str, Any]) -> bool:
    """Say whether one of the rule's values is the claim's, or is in the list that the claim is."""
    came = {
        _get_comparison_key(value) for value in _list_claim_values(rule, claims) if isinstance(value, str | int | float)
    }
    return not came.isdisjoint(map(_get_comparison_key, rule.values))


def map_roles(
    rules: Sequence[RoleRule],
    claims: Mapping[str, Any],
    *,
    held_roles: frozenset[Role],
    existing_roles: frozenset[Role],
) -> Mapping[Role, RoleOutcome]:
    """Return what becomes of each role that the rules manage. held: the person has it; there: it exists.

    LAST is not among the outcomes: who else administers, only the database knows.
    """
    wanted = get_managed_roles([rule for rule in rules if has_matching_value(rule, claims)])
    return {
        role: _get_outcome(role, granted_roles=wanted, held_roles=held_roles, existing_roles=existing_roles)
        for role in sorted(get_managed_roles(rules))
    }


def get_administrative_groups(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return the groups that come with `is_staff` or `is_superuser`."""
    return frozenset(role for rule in rules if rule.flags for role in rule.roles if role.kind == "group")


def _get_outcome(
    role: Role, *, granted_roles: frozenset[Role], held_roles: frozenset[Role], existing_roles: frozenset[Role]
) -> RoleOutcome:
    if role in granted_roles:
        return (
            RoleOutcome.KEPT
            if role in held_roles
            else RoleOutcome.ADDED
            if role in existing_roles
            else RoleOutcome.GROUP_MISSING
        )
    return RoleOutcome.REMOVED if role in held_roles else RoleOutcome.NOT_GRANTED


def _list_claim_values(rule: RoleRule, claims: Mapping[str, Any]) -> Iterator[Any]:
    value = claims.get(rule.claim)
    for name in rule.path:
        value = value.get(name) if isinstance(value, Mapping) else None
    yield from value if isinstance(value, list | tuple) else [value]


def _get_comparison_key(value: str | float) -> tuple[bool, str | float]:
    """To Python, True is 1."""
    return isinstance(value, bool), value
