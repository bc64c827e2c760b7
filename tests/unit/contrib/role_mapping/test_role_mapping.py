"""Which rules match, and the outcome of each managed role."""

from typing import Any

import pytest

from django_phi_oidc.access.roles import Role
from django_phi_oidc.contrib.role_mapping.declaration import RoleRule
from django_phi_oidc.contrib.role_mapping.role_mapping import (
    RoleOutcome,
    get_administrative_groups,
    has_matching_value,
    map_roles,
)

pytestmark = pytest.mark.sqlite


def rule(*values: Any, path: tuple[str, ...] = (), **changes: Any) -> RoleRule:
    return RoleRule(
        **{"claim": "roles", "values": values or ("nurse",), "path": path, "groups": ("clinicians",), **changes}
    )


MATCHING: dict[str, tuple[RoleRule, Any]] = {
    "a string": (rule(), "nurse"),
    "one of several values": (rule("physician", "nurse"), "nurse"),
    "in a list": (rule(), ["clerk", "nurse"]),
    "in a list with other types": (rule(), [None, {"nurse": 1}, ["nurse"], "nurse"]),
    "a number": (rule(7), 7),
    "a whole number as JSON may write it": (rule(7), 7.0),
    "true": (rule(True), True),
    "false": (rule(False), False),
    "zero": (rule(0), [0]),
    "a member": (rule(path=("roles",)), {"roles": ["nurse"]}),
    "a member of a member": (rule(path=("portal", "roles")), {"portal": {"roles": "nurse"}}),
}
NOT_MATCHING: dict[str, tuple[RoleRule, Any]] = {
    "another case": (rule(), "Nurse"),
    "a space": (rule(), "nurse "),
    "several in one string": (rule(), "clerk nurse"),
    "a part": (rule(), "nurses"),
    "an empty list": (rule(), []),
    "null": (rule(), None),
    "an object": (rule(), {"nurse": True}),
    "a list in a list": (rule(), [["nurse"]]),
    "a string for a number": (rule(7), "7"),
    "a number for a string": (rule("7"), 7),
    "true for one": (rule(1), True),
    "one for true": (rule(True), 1),
    "zero for false": (rule(False), 0),
    "a fraction": (rule(7), 7.5),
    "not a number": (rule(7), float("nan")),
    "no path to a member": (rule(), {"roles": "nurse"}),
    "a path into a string": (rule(path=("roles",)), "nurse"),
    "a path into a list": (rule(path=("roles",)), [{"roles": "nurse"}]),
    "a missing member": (rule(path=("portal", "roles")), {"portal": {}}),
}


@pytest.mark.parametrize(("rule_", "value"), MATCHING.values(), ids=MATCHING)
def test_value_of_the_claim_matches(rule_: RoleRule, value: Any) -> None:
    assert has_matching_value(rule_, {"roles": value})
    assert not has_matching_value(rule_, {"teams": value}), "another claim"


@pytest.mark.parametrize(("rule_", "value"), NOT_MATCHING.values(), ids=NOT_MATCHING)
def test_similar_value_does_not_match(rule_: RoleRule, value: Any) -> None:
    assert not has_matching_value(rule_, {"roles": value})


@pytest.mark.parametrize(
    ("value", "is_held", "exists", "outcome"),
    [
        ("nurse", False, True, RoleOutcome.ADDED),
        ("nurse", True, True, RoleOutcome.KEPT),
        ("nurse", False, False, RoleOutcome.GROUP_MISSING),
        ("clerk", True, True, RoleOutcome.REMOVED),
        ("clerk", False, True, RoleOutcome.NOT_GRANTED),
        ("clerk", False, False, RoleOutcome.NOT_GRANTED),
    ],
)
def test_granted_roles_are_added_and_others_removed(
    value: str, is_held: bool, exists: bool, outcome: RoleOutcome
) -> None:
    role, foreign = Role("group", "clinicians"), Role("group", "unmanaged")
    held = frozenset([foreign, *([role] if is_held else [])])
    existing = frozenset([foreign, *([role] if exists else [])])
    assert map_roles([rule()], {"roles": value}, held_roles=held, existing_roles=existing) == {role: outcome}


def test_missing_claim_removes_all_managed_roles() -> None:
    rules = [rule(is_staff=True), rule("clerk", groups=("b",))]
    held = frozenset([Role("group", "b"), Role("flag", "is_staff")])
    assert map_roles(rules, {}, held_roles=held, existing_roles=held) == {
        Role("flag", "is_staff"): RoleOutcome.REMOVED,
        Role("group", "b"): RoleOutcome.REMOVED,
        Role("group", "clinicians"): RoleOutcome.NOT_GRANTED,
    }


def test_role_granted_by_one_of_two_rules_is_added() -> None:
    role = Role("group", "clinicians")
    outcomes = map_roles(
        [rule(), rule("physician")], {"roles": "physician"}, held_roles=frozenset(), existing_roles=frozenset([role])
    )
    assert outcomes == {role: RoleOutcome.ADDED}


def test_administrative_groups_are_those_granted_with_a_flag() -> None:
    rules = [rule(), rule(groups=("admins",), is_superuser=True), rule(groups=("desk",), is_staff=True)]
    assert get_administrative_groups(rules) == {Role("group", "admins"), Role("group", "desk")}
