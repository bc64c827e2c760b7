"""Metadata policies: the examples of the specification, and each rule with its violation. Spec: Federation 1.0 6.1."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.contrib.federation.errors import FederationCode
from django_phi_oidc.contrib.federation.metadata_policy import (
    OPERATORS,
    apply_policy,
    merge_policies,
)
from django_phi_oidc.errors import MetadataError
from tests.support.error_codes import raises

RP, OP = "openid_relying_party", "openid_provider"
MISSING = "missing"


def merge(*policies: dict[str, Any]) -> Any:
    """Return the merged policy of one parameter."""
    return merge_policies({RP: {"p": policy}} for policy in policies)[RP]["p"]


def apply(policy: dict[str, Any], value: Any, *, name: str = "p") -> Any:
    """Return the parameter after the policy; MISSING if it is absent."""
    metadata = {} if value is MISSING else {name: value}
    resolved = apply_policy(metadata, policy=merge_policies([{RP: {name: policy}}])[RP])
    return resolved.get(name, MISSING)


def test_example_of_a_relying_party_resolves_as_in_the_specification() -> None:
    """Section 6.1.5."""
    anchor = {
        "grant_types": {
            "default": ["authorization_code"],
            "subset_of": ["authorization_code", "refresh_token"],
            "superset_of": ["authorization_code"],
        },
        "token_endpoint_auth_method": {
            "one_of": ["private_key_jwt", "self_signed_tls_client_auth"],
            "essential": True,
        },
        "token_endpoint_auth_signing_alg": {"one_of": ["PS256", "ES256"]},
        "subject_type": {"value": "pairwise"},
        "contacts": {"add": ["helpdesk@federation.example.org"]},
    }
    intermediate = {
        "grant_types": {"subset_of": ["authorization_code"]},
        "token_endpoint_auth_method": {"one_of": ["self_signed_tls_client_auth"]},
        "contacts": {"add": ["helpdesk@org.example.org"]},
    }
    merged = merge_policies([{RP: anchor}, {RP: intermediate}])[RP]
    assert merged == {
        "grant_types": {
            "default": ["authorization_code"],
            "superset_of": ["authorization_code"],
            "subset_of": ["authorization_code"],
        },
        "token_endpoint_auth_method": {"one_of": ["self_signed_tls_client_auth"], "essential": True},
        "token_endpoint_auth_signing_alg": {"one_of": ["PS256", "ES256"]},
        "subject_type": {"value": "pairwise"},
        "contacts": {"add": ["helpdesk@federation.example.org", "helpdesk@org.example.org"]},
    }
    metadata = {
        "redirect_uris": ["https://rp.example.org/callback"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "self_signed_tls_client_auth",
        "contacts": ["rp_admins@rp.example.org"],
        # Set by the intermediate, as metadata of its immediate subordinate.
        "sector_identifier_uri": "https://org.example.org/sector-ids.json",
        "policy_uri": "https://org.example.org/policy.html",
    }
    assert apply_policy(metadata, policy=merged) == {
        **metadata,
        "grant_types": ["authorization_code"],
        "subject_type": "pairwise",
        "contacts": ["rp_admins@rp.example.org", "helpdesk@federation.example.org", "helpdesk@org.example.org"],
    }


def test_example_of_a_provider_resolves_as_in_the_specification() -> None:
    """Appendix A.2: edugain.geant.org, swamid.se and umu.se about op.umu.se."""
    edugain = {"contacts": {"add": ["ops@edugain.geant.org"]}}
    swamid = {
        "id_token_signing_alg_values_supported": {"subset_of": ["RS256", "ES256", "ES384", "ES512"]},
        "token_endpoint_auth_methods_supported": {"subset_of": ["client_secret_jwt", "private_key_jwt"]},
        "userinfo_signing_alg_values_supported": {"subset_of": ["ES256", "ES384", "ES512"]},
    }
    umu = {
        "contacts": {"add": ["ops@swamid.se"]},
        "organization_name": {"value": "University of Umeå"},
        "subject_types_supported": {"value": ["pairwise"]},
        "token_endpoint_auth_methods_supported": {
            "default": ["private_key_jwt"],
            "subset_of": ["private_key_jwt", "client_secret_jwt"],
            "superset_of": ["private_key_jwt"],
        },
    }
    metadata = {
        "issuer": "https://op.umu.se",
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "response_types_supported": ["code", "code id_token", "token"],
        "subject_types_supported": ["pairwise", "public"],
        "token_endpoint_auth_methods_supported": [
            *("client_secret_post", "client_secret_basic", "client_secret_jwt", "private_key_jwt")
        ],
    }
    resolved = apply_policy(metadata, policy=merge_policies([{OP: edugain}, {OP: swamid}, {OP: umu}])[OP])
    assert {name: sorted(value) if isinstance(value, list) else value for name, value in resolved.items()} == {
        "issuer": "https://op.umu.se",
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "response_types_supported": ["code", "code id_token", "token"],
        "subject_types_supported": ["pairwise"],
        "token_endpoint_auth_methods_supported": ["client_secret_jwt", "private_key_jwt"],
        "organization_name": "University of Umeå",
        "contacts": ["ops@edugain.geant.org", "ops@swamid.se"],
    }


@pytest.mark.parametrize("essential", [True, False])
@pytest.mark.parametrize(("value", "resolved"), [(["a", "e"], ["a"]), (["d", "e"], []), (MISSING, MISSING)])
def test_essential_and_subset_of_are_combined_as_in_the_table_of_the_specification(
    essential: bool, value: Any, resolved: Any
) -> None:
    """Section 6.1.3.1.8."""
    policy = {"essential": essential, "subset_of": ["a", "b", "c"]}
    if essential and value is MISSING:
        with raises(FederationCode.METADATA_POLICY_ERROR):
            apply(policy, value)
    else:
        assert apply(policy, value) == resolved


@pytest.mark.parametrize(
    ("policy", "value", "resolved"),
    [
        ({"value": "x"}, "y", "x"),
        ({"value": "x"}, MISSING, "x"),
        ({"value": None}, "y", MISSING),
        ({"value": False}, True, False),
        ({"add": ["b", "c"]}, ["a", "b"], ["a", "b", "c"]),
        ({"add": ["b"]}, MISSING, ["b"]),
        ({"default": "x"}, MISSING, "x"),
        ({"default": "x"}, "y", "y"),
        ({"one_of": ["x", "y"]}, "y", "y"),
        ({"one_of": ["x", "y"]}, MISSING, MISSING),
        ({"superset_of": ["a"]}, ["b", "a"], ["b", "a"]),
        ({"superset_of": ["a"]}, MISSING, MISSING),
        ({"essential": True}, {"an": "object"}, {"an": "object"}),
        ({"essential": False}, MISSING, MISSING),
        ({"value": ["a"], "add": ["a"], "subset_of": ["a", "b"], "superset_of": ["a"]}, ["z"], ["a"]),
        ({"default": ["a"], "add": ["b"]}, MISSING, ["b"]),
        ({"regexp": "^x$"}, "y", "y"),
    ],
)
def test_operator_changes_the_parameter(policy: dict[str, Any], value: Any, resolved: Any) -> None:
    """Section 6.1.3.1. The last one is no standard operator, and is ignored."""
    assert apply(policy, value) == resolved


@pytest.mark.parametrize(
    ("policy", "violating", "complying"),
    [
        ({"one_of": ["x"]}, "y", "x"),
        ({"one_of": ["x"]}, ["x"], "x"),
        ({"one_of": [1]}, True, 1),
        ({"superset_of": ["a", "b"]}, ["a"], ["a", "b"]),
        ({"superset_of": ["a"]}, "a", ["a"]),
        ({"subset_of": ["a"]}, "a", ["a"]),
        ({"add": ["a"]}, "a", ["a"]),
        ({"essential": True}, MISSING, "x"),
    ],
)
def test_parameter_that_violates_the_policy_is_refused(policy: dict[str, Any], violating: Any, complying: Any) -> None:
    with raises(FederationCode.METADATA_POLICY_ERROR):
        apply(policy, violating)
    assert apply(policy, complying) == complying


@pytest.mark.parametrize(
    ("superior", "subordinate", "merged"),
    [
        ({"value": "x"}, {"value": "x"}, {"value": "x"}),
        ({"value": ["a", "b"]}, {"value": ["b", "a"]}, {"value": ["a", "b"]}),
        ({"value": ["a"]}, {"subset_of": ["a", "b"]}, {"value": ["a"], "subset_of": ["a", "b"]}),
        ({"add": ["a"]}, {"add": ["b", "a"]}, {"add": ["a", "b"]}),
        ({"default": 1}, {"default": 1}, {"default": 1}),
        ({"one_of": ["a", "b"]}, {"one_of": ["b", "c"]}, {"one_of": ["b"]}),
        ({"subset_of": ["a", "b"]}, {"subset_of": ["c"]}, {"subset_of": []}),
        ({"superset_of": ["a"]}, {"superset_of": ["b"]}, {"superset_of": ["a", "b"]}),
        ({"essential": True}, {"essential": False}, {"essential": True}),
        ({"essential": False}, {"essential": True}, {"essential": True}),
        ({"default": "a"}, {"one_of": ["a"]}, {"default": "a", "one_of": ["a"]}),
    ],
)
def test_policies_of_two_superiors_are_merged(
    superior: dict[str, Any], subordinate: dict[str, Any], merged: dict[str, Any]
) -> None:
    """Section 6.1.3.1 (operator value merge), 6.1.4.1."""
    assert merge(superior, subordinate) == merged


@pytest.mark.parametrize(
    ("superior", "subordinate"),
    [
        ({"value": "x"}, {"value": "y"}),
        ({"value": 1}, {"value": True}),
        ({"default": "x"}, {"default": "y"}),
        ({"one_of": ["a"]}, {"one_of": ["b"]}),
        ({"one_of": ["a"]}, {"value": "b"}),
        ({"value": ["a"]}, {"add": ["b"]}),
        ({"value": ["a", "b"]}, {"subset_of": ["a"]}),
        ({"value": ["a"]}, {"superset_of": ["a", "b"]}),
        ({"value": None}, {"essential": True}),
        ({"value": None}, {"default": "x"}),
        ({"subset_of": ["a"]}, {"add": ["b"]}),
        ({"subset_of": ["a"]}, {"superset_of": ["b"]}),
        ({"one_of": ["a"]}, {"subset_of": ["a"]}),
        ({"one_of": ["a"]}, {"superset_of": ["a"]}),
        ({"one_of": ["a"]}, {"add": ["a"]}),
        ({"value": "a"}, {"subset_of": ["a"]}),
    ],
)
def test_policies_that_contradict_each_other_are_refused(superior: dict[str, Any], subordinate: dict[str, Any]) -> None:
    for policies in ((superior, subordinate), (subordinate, superior)):
        with raises(FederationCode.METADATA_POLICY_ERROR):
            merge(*policies)
    assert merge(superior) == superior
    assert merge(subordinate) == subordinate


@pytest.mark.parametrize("operator", ["add", "one_of", "subset_of", "superset_of"])
@pytest.mark.parametrize("operand", ["a", None, {"a": 1}, [None], True])
def test_operand_that_is_no_list_is_refused(operator: str, operand: Any) -> None:
    assert merge({operator: ["a"]}) == {operator: ["a"]}
    with raises(FederationCode.METADATA_POLICY_ERROR):
        merge({operator: operand})


@pytest.mark.parametrize("policy", [{"essential": "true"}, {"essential": 1}, {"default": None}])
def test_operand_of_a_wrong_type_is_refused(policy: dict[str, Any]) -> None:
    with raises(FederationCode.METADATA_POLICY_ERROR):
        merge(policy)


@pytest.mark.parametrize("claim", [None, [], "x", {RP: []}, {RP: {"p": []}}, {RP: {"p": "x"}}])
def test_policy_that_is_no_object_is_refused(claim: Any) -> None:
    with raises(FederationCode.METADATA_POLICY_ERROR):
        merge_policies([claim])
    assert merge_policies([{}, {RP: {}}, {RP: {"p": {}}}]) == {RP: {"p": {}}}


def test_policy_of_another_entity_type_has_no_effect_but_must_be_valid() -> None:
    assert merge_policies([{OP: {"p": {"value": 1}}}, {RP: {"p": {"value": 2}}}]) == {
        OP: {"p": {"value": 1}},
        RP: {"p": {"value": 2}},
    }
    with raises(FederationCode.METADATA_POLICY_ERROR):
        merge_policies([{OP: {"p": {"add": "x"}}}, {RP: {}}])


def test_scope_is_processed_as_a_list_and_remains_a_string() -> None:
    """Section 6.1.3.1.8."""
    assert apply({"subset_of": ["openid", "email"]}, "openid profile email", name="scope") == "openid email"
    assert apply({"default": ["openid", "email"]}, MISSING, name="scope") == "openid email"
    assert apply({"value": "openid"}, "openid email", name="scope") == "openid"
    with raises(FederationCode.METADATA_POLICY_ERROR):
        apply({"superset_of": ["openid"]}, "email openid2", name="scope")


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda items: st.lists(items) | st.dictionaries(st.text(), items),
    max_leaves=5,
)
POLICY = st.dictionaries(st.sampled_from(["p", "scope"]), st.dictionaries(st.sampled_from(OPERATORS), JSON) | JSON)


@given(POLICY, POLICY, st.dictionaries(st.sampled_from(["p", "scope"]), JSON))
def test_any_policy_and_metadata_are_applied_or_refused_without_another_error(
    superior: Any, subordinate: Any, metadata: dict[str, Any]
) -> None:
    with suppress(MetadataError):
        apply_policy(metadata, policy=merge_policies([{RP: superior}, {RP: subordinate}])[RP])


def test_message_contains_a_plain_name_only() -> None:
    for name, shown in (("jwks_uri", "jwks_uri"), ("x\n\x1b[2J", "a parameter"), ("x" * 65, "a parameter")):
        with raises(FederationCode.METADATA_POLICY_ERROR) as refused:
            apply({"essential": True}, MISSING, name=name)
        assert str(refused.value) == f"Metadata policy of {shown}: it is essential, and missing."


def test_order_of_application_is_that_of_the_specification() -> None:
    assert OPERATORS == ("value", "add", "default", "one_of", "subset_of", "superset_of", "essential")
