"""The option `ROLES`: valid and invalid declarations."""

from typing import Any

import pytest

from django_phi_oidc.access.roles import Role
from django_phi_oidc.config.claims import parse_claim
from django_phi_oidc.contrib.role_mapping.declaration import (
    RoleRule,
    get_managed_roles,
    list_role_rule_faults,
    list_shared_roles,
    parse_role_rules,
)
from django_phi_oidc.errors import DeclarationInvalid

pytestmark = pytest.mark.sqlite
RULE = {"claim": "roles", "values": ["nurse"], "groups": ["clinicians"]}
CLAIM = {"purpose": "HOPERAT", "basis": "who works here", "retention": None}

VALID: dict[str, dict[str, Any]] = {
    "strings, numbers and booleans": {"values": ["nurse", 7, True]},
    "a path": {"path": ["portal", "roles"]},
    "no group, staff": {"groups": [], "is_staff": True},
    "no group, superuser": {"groups": [], "is_superuser": True},
    "a group of 150 characters": {"groups": ["g" * 150]},
}
INVALID: dict[str, dict[str, Any]] = {
    "a string for values": {"values": "nurse"},
    "no values": {"values": []},
    "an empty value": {"values": [""]},
    "a fraction": {"values": [0.5]},
    "None as a value": {"values": [None]},
    "a string for groups": {"groups": "clinicians"},
    "an empty group": {"groups": [""]},
    "a group of 151 characters": {"groups": ["g" * 151]},
    "a group with a line end": {"groups": ["a\nb"]},
    "no role": {"groups": []},
    "flags that are off": {"groups": [], "is_staff": False, "is_superuser": False},
    "a flag that is no boolean": {"is_staff": "yes"},
    "a claim that is no string": {"claim": 5},
    "an empty claim": {"claim": ""},
    "a string for the path": {"path": "roles"},
    "a path of numbers": {"path": [0]},
    "an unknown option": {"group": "clinicians"},
}


@pytest.mark.parametrize("change", VALID.values(), ids=VALID)
def test_valid_rule_is_parsed(change: dict[str, Any]) -> None:
    (rule,) = parse_role_rules("default", [{**RULE, **change}])
    for name, value in change.items():
        assert getattr(rule, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_wrong_rule_is_refused_with_its_index(change: dict[str, Any]) -> None:
    with pytest.raises(DeclarationInvalid, match=r"^ROLES\['default'\]\[1\]"):
        parse_role_rules("default", [RULE, {**RULE, **change}])


@pytest.mark.parametrize("raw", [RULE, "roles", None, [[]], [None]], ids=repr)
def test_value_that_is_no_list_of_dictionaries_is_refused(raw: Any) -> None:
    with pytest.raises(DeclarationInvalid):
        parse_role_rules("default", raw)


@pytest.mark.parametrize("needed", ["claim", "values"])
def test_rule_without_a_required_option_is_refused(needed: str) -> None:
    with pytest.raises(DeclarationInvalid, match=f"lacks {needed}"):
        parse_role_rules("default", [{name: value for name, value in RULE.items() if name != needed}])


def test_managed_roles_are_those_of_all_rules() -> None:
    rules = parse_role_rules("default", [RULE, {**RULE, "groups": ["b"], "is_staff": True}])
    assert get_managed_roles(rules) == {Role("group", "clinicians"), Role("group", "b"), Role("flag", "is_staff")}
    assert get_managed_roles(()) == frozenset()


def list_faults(rule: RoleRule, provider: str = "default", **claim: Any) -> list[str]:
    claims = {"roles": parse_claim("roles", {**CLAIM, **claim})}
    return list(
        list_role_rule_faults({provider: [rule]}, providers=["default"], claims=claims, protocol_claims=["amr"])
    )


def test_rules_that_can_never_match_are_reported() -> None:
    rule = parse_role_rules("default", [{**RULE, "path": ["portal"]}])[0]
    assert list_faults(rule) == list_faults(rule, members=["portal"]) == []
    assert "no such provider" in list_faults(rule, provider="other")[0]
    assert "path" in list_faults(rule, members=["roles"])[0]
    (plain,) = parse_role_rules("default", [RULE])
    assert list_faults(plain) == []
    assert "path" in list_faults(plain, members=["portal"])[0]
    for claim, word in (("amr", "token"), ("teams", "CLAIMS")):
        (fault,) = list_faults(parse_role_rules("default", [{**RULE, "claim": claim}])[0])
        assert word in fault


def test_shared_roles_are_those_of_several_providers() -> None:
    a, b = parse_role_rules("a", [RULE]), parse_role_rules("b", [RULE, {**RULE, "groups": ["b"]}])
    assert list(list_shared_roles({"a": a, "b": b})) == [(Role("group", "clinicians"), ("a", "b"))]
    assert (
        list(list_shared_roles({"a": a, "b": b[1:]}))
        == list(list_shared_roles({"a": a}))
        == list(list_shared_roles({}))
        == []
    )
