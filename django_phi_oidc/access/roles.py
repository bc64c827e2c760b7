"""What the claims of a sign-in make of somebody's roles, as a function of plain values. No Django.

What no rule gives, a managed role is taken for: a claim that did not come has no values.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from ..role_rules import Role, RoleRule, managed


class Outcome(StrEnum):
    """What a sign-in does about a managed role."""

    ADDED = "added"
    REMOVED = "removed"
    KEPT = "kept"
    """A rule gives what the person has."""
    NOT_GIVEN = "not_given"
    """No rule gives what the person does not have."""
    MISSING = "missing"
    """A rule gives a group that does not exist."""
    LAST = "last"
    """No rule gives it, and it stays: without it nobody active would be left to administer."""


def matches(rule: RoleRule, claims: Mapping[str, Any]) -> bool:
    """Say whether one of the rule's values is the claim's, or is in the list that the claim is."""
    came = {_key(value) for value in _values(rule, claims) if isinstance(value, str | int | float)}
    return not came.isdisjoint(map(_key, rule.values))


def decide(
    rules: Sequence[RoleRule], claims: Mapping[str, Any], *, held: frozenset[Role], there: frozenset[Role]
) -> Mapping[Role, Outcome]:
    """Return what becomes of each role that the rules manage. held: the person has it; there: it exists.

    LAST is not among the outcomes: who else administers, only the database knows.
    """
    wanted = managed([rule for rule in rules if matches(rule, claims)])
    return {role: _outcome(role, wanted=wanted, held=held, there=there) for role in sorted(managed(rules))}


def administrative(rules: Sequence[RoleRule]) -> frozenset[Role]:
    """Return the groups that come with `is_staff` or `is_superuser`."""
    return frozenset(role for rule in rules if rule.flags for role in rule.roles if role.kind == "group")


def _outcome(role: Role, *, wanted: frozenset[Role], held: frozenset[Role], there: frozenset[Role]) -> Outcome:
    if role in wanted:
        return Outcome.KEPT if role in held else Outcome.ADDED if role in there else Outcome.MISSING
    return Outcome.REMOVED if role in held else Outcome.NOT_GIVEN


def _values(rule: RoleRule, claims: Mapping[str, Any]) -> Iterator[Any]:
    value = claims.get(rule.claim)
    for name in rule.path:
        value = value.get(name) if isinstance(value, Mapping) else None
    yield from value if isinstance(value, list | tuple) else [value]


def _key(value: str | float) -> tuple[bool, str | float]:
    """To Python, True is 1."""
    return isinstance(value, bool), value
