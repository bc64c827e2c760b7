"""ROLES is taken as it should be, and refused when one thing about it is wrong."""

from typing import Any

import pytest

from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.config.roles import (
    Role,
    RoleRule,
    get_managed_roles,
    list_role_rule_faults,
    list_shared_roles,
    parse_role_rules,
)
from django_phi_oidc.errors import DeclarationInvalid

pytestmark = pytest.mark.sqlite
RULE = {"claim": "roles", "values": ["nurse"], "groups": ["clinicians"]}
KEPT = {"purpose": "HOPERAT", "basis": "who works here", "retention": None}

GOOD: dict[str, dict[str, Any]] = {
    "texts, numbers and booleans": {"values": ["nurse", 7, True]},
    "a path": {"path": ["portal", "roles"]},
    "no group, staff": {"groups": [], "is_staff": True},
    "no group, superuser": {"groups": [], "is_superuser": True},
    "a group of 150 characters": {"groups": ["g" * 150]},
}
BAD: dict[str, dict[str, Any]] = {
    "a text for values": {"values": "nurse"},
    "no values": {"values": []},
    "an empty value": {"values": [""]},
    "a fraction": {"values": [0.5]},
    "None as a value": {"values": [None]},
    "a text for groups": {"groups": "clinicians"},
    "an empty group": {"groups": [""]},
    "a group of 151 characters": {"groups": ["g" * 151]},
    "a group with a line end": {"groups": ["a\nb"]},
    "nothing given": {"groups": []},
    "flags that are off": {"groups": [], "is_staff": False, "is_superuser": False},
    "a flag of no boolean": {"is_staff": "yes"},
    "a claim of no text": {"claim": 5},
    "an empty claim": {"claim": ""},
    "a text for the path": {"path": "roles"},
    "a path of numbers": {"path": [0]},
    "an option that nobody knows": {"group": "clinicians"},
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_rule_is_taken(change: dict[str, Any]) -> None:
    (rule,) = parse_role_rules("default", [{**RULE, **change}])
    for name, value in change.items():
        assert getattr(rule, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_rule_with_one_thing_wrong_is_refused_by_its_place(change: dict[str, Any]) -> None:
    with pytest.raises(DeclarationInvalid, match=r"^ROLES\['default'\]\[1\]"):
        parse_role_rules("default", [RULE, {**RULE, **change}])


@pytest.mark.parametrize("raw", [RULE, "roles", None, [[]], [None]], ids=repr)
def test_what_is_no_list_of_dictionaries_is_refused(raw: Any) -> None:
    with pytest.raises(DeclarationInvalid):
        parse_role_rules("default", raw)


@pytest.mark.parametrize("needed", ["claim", "values"])
def test_rule_that_lacks_something_is_refused(needed: str) -> None:
    with pytest.raises(DeclarationInvalid, match=f"lacks {needed}"):
        parse_role_rules("default", [{name: value for name, value in RULE.items() if name != needed}])


def test_managed_is_what_any_rule_can_give() -> None:
    rules = parse_role_rules("default", [RULE, {**RULE, "groups": ["b"], "is_staff": True}])
    assert get_managed_roles(rules) == {Role("group", "clinicians"), Role("group", "b"), Role("flag", "is_staff")}
    assert get_managed_roles(()) == frozenset()


def found(rule: RoleRule, provider: str = "default", **claim: Any) -> list[str]:
    claims = {"roles": parse_claim("roles", {**KEPT, **claim})}
    return list(
        list_role_rule_faults({provider: [rule]}, providers=["default"], claims=claims, protocol_claims=["amr"])
    )


def test_faults_name_what_can_never_match_and_nothing_else() -> None:
    rule = parse_role_rules("default", [{**RULE, "path": ["portal"]}])[0]
    assert found(rule) == found(rule, members=["portal"]) == []
    assert "no such provider" in found(rule, provider="other")[0]
    assert "path" in found(rule, members=["roles"])[0]
    (plain,) = parse_role_rules("default", [RULE])
    assert found(plain) == []
    assert "path" in found(plain, members=["portal"])[0]
    for claim, word in (("amr", "token"), ("teams", "CLAIMS")):
        (fault,) = found(parse_role_rules("default", [{**RULE, "claim": claim}])[0])
        assert word in fault


def test_shared_names_the_roles_of_several_providers_alone() -> None:
    a, b = parse_role_rules("a", [RULE]), parse_role_rules("b", [RULE, {**RULE, "groups": ["b"]}])
    assert list(list_shared_roles({"a": a, "b": b})) == [(Role("group", "clinicians"), ("a", "b"))]
    assert (
        list(list_shared_roles({"a": a, "b": b[1:]}))
        == list(list_shared_roles({"a": a}))
        == list(list_shared_roles({}))
        == []
    )
