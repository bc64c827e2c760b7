"""Which rules match, and what becomes of each role that they manage."""

from typing import Any

import pytest

from django_phi_oidc.access.roles import Outcome, administrative, decide, matches
from django_phi_oidc.role_rules import Role, RoleRule

pytestmark = pytest.mark.sqlite


def rule(*values: Any, path: tuple[str, ...] = (), **changes: Any) -> RoleRule:
    return RoleRule(
        **{"claim": "roles", "values": values or ("nurse",), "path": path, "groups": ("clinicians",), **changes}
    )


MATCHING: dict[str, tuple[RoleRule, Any]] = {
    "a text": (rule(), "nurse"),
    "one of several values": (rule("physician", "nurse"), "nurse"),
    "in a list": (rule(), ["clerk", "nurse"]),
    "in a list beside what is no value": (rule(), [None, {"nurse": 1}, ["nurse"], "nurse"]),
    "a number": (rule(7), 7),
    "a whole number as JSON may write it": (rule(7), 7.0),
    "true": (rule(True), True),
    "false": (rule(False), False),
    "zero": (rule(0), [0]),
    "a member": (rule(path=("roles",)), {"roles": ["nurse"]}),
    "a member of a member": (rule(path=("portal", "roles")), {"portal": {"roles": "nurse"}}),
}
OTHER: dict[str, tuple[RoleRule, Any]] = {
    "another case": (rule(), "Nurse"),
    "a space": (rule(), "nurse "),
    "several in one text": (rule(), "clerk nurse"),
    "a part": (rule(), "nurses"),
    "an empty list": (rule(), []),
    "null": (rule(), None),
    "an object": (rule(), {"nurse": True}),
    "a list in a list": (rule(), [["nurse"]]),
    "a text for a number": (rule(7), "7"),
    "a number for a text": (rule("7"), 7),
    "true for one": (rule(1), True),
    "one for true": (rule(True), 1),
    "zero for false": (rule(False), 0),
    "a fraction": (rule(7), 7.5),
    "not a number": (rule(7), float("nan")),
    "no path to a member": (rule(), {"roles": "nurse"}),
    "a path into a text": (rule(path=("roles",)), "nurse"),
    "a path into a list": (rule(path=("roles",)), [{"roles": "nurse"}]),
    "a member that is not there": (rule(path=("portal", "roles")), {"portal": {}}),
}


@pytest.mark.parametrize(("rule_", "value"), MATCHING.values(), ids=MATCHING)
def test_matches_a_value_of_the_claim(rule_: RoleRule, value: Any) -> None:
    assert matches(rule_, {"roles": value})
    assert not matches(rule_, {"teams": value}), "another claim"


@pytest.mark.parametrize(("rule_", "value"), OTHER.values(), ids=OTHER)
def test_matches_nothing_that_is_merely_like_it(rule_: RoleRule, value: Any) -> None:
    assert not matches(rule_, {"roles": value})


@pytest.mark.parametrize(
    ("value", "is_held", "is_there", "outcome"),
    [
        ("nurse", False, True, Outcome.ADDED),
        ("nurse", True, True, Outcome.KEPT),
        ("nurse", False, False, Outcome.MISSING),
        ("clerk", True, True, Outcome.REMOVED),
        ("clerk", False, True, Outcome.NOT_GIVEN),
        ("clerk", False, False, Outcome.NOT_GIVEN),
    ],
)
def test_decide_gives_what_a_rule_gives_and_takes_the_rest(
    value: str, is_held: bool, is_there: bool, outcome: Outcome
) -> None:
    role, foreign = Role("group", "clinicians"), Role("group", "of somebody else's")
    held = frozenset([foreign, *([role] if is_held else [])])
    there = frozenset([foreign, *([role] if is_there else [])])
    assert decide([rule()], {"roles": value}, held=held, there=there) == {role: outcome}


def test_decide_takes_all_when_the_claim_did_not_come() -> None:
    rules = [rule(is_staff=True), rule("clerk", groups=("b",))]
    held = frozenset([Role("group", "b"), Role("flag", "is_staff")])
    assert decide(rules, {}, held=held, there=held) == {
        Role("flag", "is_staff"): Outcome.REMOVED,
        Role("group", "b"): Outcome.REMOVED,
        Role("group", "clinicians"): Outcome.NOT_GIVEN,
    }


def test_role_that_one_of_two_rules_gives_is_given() -> None:
    role = Role("group", "clinicians")
    decided = decide([rule(), rule("physician")], {"roles": "physician"}, held=frozenset(), there=frozenset([role]))
    assert decided == {role: Outcome.ADDED}


def test_administrative_are_the_groups_that_come_with_a_flag() -> None:
    rules = [rule(), rule(groups=("admins",), is_superuser=True), rule(groups=("desk",), is_staff=True)]
    assert administrative(rules) == {Role("group", "admins"), Role("group", "desk")}
