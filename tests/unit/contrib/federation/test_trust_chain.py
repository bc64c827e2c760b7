"""Trust chains: each fault next to the valid chain. Spec: OpenID Federation 1.0 4, 6.2, 10.2."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from django_phi_oidc.contrib.federation.entity_statement import (
    EntityStatement,
    parse_entity_statement,
)
from django_phi_oidc.contrib.federation.errors import FederationCode
from django_phi_oidc.contrib.federation.trust_chain import (
    MAX_STATEMENTS,
    TrustChain,
    validate_trust_chain,
)
from django_phi_oidc.oidc.jwks import parse_jwks
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.error_codes import raises
from tests.support.federation import Entity, Federation


def collect(federation: Federation) -> list[EntityStatement]:
    """Return the statements from the provider over the intermediate to the trust anchor."""
    op, middle, anchor = federation.op, federation.middle, federation.anchor
    tokens = [
        federation.create_configuration(op),
        federation.create_subordinate_statement(middle, op),
        federation.create_subordinate_statement(anchor, middle),
        federation.create_configuration(anchor),
    ]
    return [parse_entity_statement(token) for token in tokens]


def validate(federation: Federation, statements: list[EntityStatement], **changes: Any) -> TrustChain:
    keys = parse_jwks(json.dumps(federation[federation.anchor].jwks).encode())
    arguments: dict[str, Any] = {
        "trust_anchor": federation.anchor,
        "trust_anchor_keys": keys,
        "entity_type": "openid_provider",
        "now": federation.now,
        "leeway": timedelta(seconds=30),
        **changes,
    }
    return validate_trust_chain(statements, **arguments)


def test_chain_has_the_metadata_and_the_earliest_expiry(federation: Federation, now: datetime) -> None:
    earliest = now + timedelta(hours=1)
    federation[federation.anchor].subordinates[federation.middle] = {"exp": earliest.timestamp()}
    chain = validate(federation, collect(federation))
    assert chain.entity_identifiers == (federation.op, federation.middle, federation.anchor)
    assert chain.expires_at == earliest
    assert [key.kid for key in chain.federation_keys.keys] == [federation[federation.op].key.kid]
    assert chain.metadata == federation[federation.op].metadata["openid_provider"]


def test_chain_without_intermediate_is_valid(federation: Federation) -> None:
    federation[federation.op].superiors = (federation.anchor,)
    federation[federation.anchor].subordinates[federation.op] = {}
    statements = [
        federation.create_configuration(federation.op),
        federation.create_subordinate_statement(federation.anchor, federation.op),
        federation.create_configuration(federation.anchor),
    ]
    chain = validate(federation, [parse_entity_statement(token) for token in statements])
    assert chain.entity_identifiers == (federation.op, federation.anchor)


Damage = Callable[[Federation], list[EntityStatement]]


def without(position: int) -> Damage:
    return lambda federation: [s for n, s in enumerate(collect(federation)) if n != position]


def swapped(federation: Federation) -> list[EntityStatement]:
    first, second, third, last = collect(federation)
    return [first, third, second, last]


def repeated(federation: Federation) -> list[EntityStatement]:
    first, second, third, last = collect(federation)
    return [first, second, second, third, last]


def reversed_order(federation: Federation) -> list[EntityStatement]:
    return collect(federation)[::-1]


def with_unnamed_superior(federation: Federation) -> list[EntityStatement]:
    federation[federation.op].superiors = (federation.anchor,)
    return collect(federation)


def with_further_configuration(federation: Federation) -> list[EntityStatement]:
    first, second, third, last = collect(federation)
    return [first, second, parse_entity_statement(federation.create_configuration(federation.middle)), third, last]


def with_mixed_issuers(federation: Federation) -> list[EntityStatement]:
    """Of another intermediate, about which the trust anchor's statement is not."""
    other = "https://fed.example/other"
    federation.entities[other] = Entity(other, (federation.anchor,), subordinates={federation.op: {}})
    federation[federation.op].superiors = (other,)
    first, _, third, last = collect(federation)
    return [first, parse_entity_statement(federation.create_subordinate_statement(other, federation.op)), third, last]


def looped(federation: Federation) -> list[EntityStatement]:
    """The intermediate and another entity are superiors of each other."""
    other = "https://fed.example/other"
    federation.entities[other] = Entity(other, subordinates={federation.middle: {}})
    federation[federation.middle].subordinates[other] = {}
    first, second, third, last = collect(federation)
    to_other = parse_entity_statement(federation.create_subordinate_statement(other, federation.middle))
    back = parse_entity_statement(federation.create_subordinate_statement(federation.middle, other))
    return [first, second, to_other, back, third, last]


def too_long(federation: Federation) -> list[EntityStatement]:
    first, second, third, last = collect(federation)
    return [first, second, *[third] * (MAX_STATEMENTS - 2), last]


@pytest.mark.parametrize(
    "damage",
    [
        *map(without, range(4)),
        *(swapped, repeated, reversed_order, with_unnamed_superior, with_further_configuration),
        *(with_mixed_issuers, looped, too_long),
    ],
    ids=lambda damage: damage.__qualname__.partition(".")[0],
)
def test_statements_that_are_no_chain_are_refused(federation: Federation, damage: Damage) -> None:
    validate(federation, collect(federation))
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        validate(federation, damage(federation))


def test_chain_to_another_trust_anchor_is_refused(federation: Federation) -> None:
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        validate(federation, collect(federation), trust_anchor="https://other.example")


@pytest.mark.parametrize("position", range(4))
def test_statement_signed_by_another_key_breaks_the_chain(federation: Federation, position: int) -> None:
    genuine = collect(federation)
    validate(federation, genuine)
    signers = (federation.op, federation.middle, federation.anchor, federation.anchor)
    entity = federation[signers[position]]
    kid, entity.key = entity.key.kid, create_signing_key("ES256")
    claims = dict(genuine[position].claims)
    forged = parse_entity_statement(federation.sign(entity, claims, kid=kid))
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        validate(
            federation,
            [*genuine[:position], forged, *genuine[position + 1 :]],
            trust_anchor_keys=genuine[3].keys,
        )


def test_provider_with_other_keys_than_its_superior_states_is_refused(federation: Federation) -> None:
    """An attacker who serves the entity configuration, but has no key that a superior knows."""
    genuine = collect(federation)
    federation[federation.op].key = create_signing_key("ES256")
    forged = parse_entity_statement(federation.create_configuration(federation.op))
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        validate(federation, [forged, *genuine[1:]])


def test_trust_anchor_with_other_keys_than_the_declared_ones_is_refused(federation: Federation) -> None:
    federation[federation.anchor].key, declared = create_signing_key("ES256"), federation[federation.anchor].jwks
    statements = collect(federation)
    validate(federation, statements)
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        validate(federation, statements, trust_anchor_keys=parse_jwks(json.dumps(declared).encode()))


@pytest.mark.parametrize("position", range(4))
def test_expired_statement_breaks_the_chain(federation: Federation, now: datetime, position: int) -> None:
    expired = {"exp": (now - timedelta(seconds=30)).timestamp()}
    if position in (0, 3):
        federation[federation.op if position == 0 else federation.anchor].configuration = expired
    else:
        superior, subject = [(federation.middle, federation.op), (federation.anchor, federation.middle)][position - 1]
        federation[superior].subordinates[subject] = expired
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        validate(federation, collect(federation))
    validate(federation, collect(federation), now=now - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("is_anchor", "constraints", "is_valid"),
    [
        (True, {"max_path_length": 1}, True),
        (True, {"max_path_length": 0}, False),
        (False, {"max_path_length": 0}, True),
        (False, {"max_path_length": -1}, False),
        (True, {"max_path_length": "1"}, False),
        (True, {"max_path_length": True}, False),
        (True, [], False),
        (True, {"unknown": 1}, True),
        (True, {"naming_constraints": {"permitted": ["fed.example"]}}, True),
        (True, {"naming_constraints": {"permitted": [".fed.example"]}}, False),
        (True, {"naming_constraints": {"permitted": [".example"]}}, True),
        (True, {"naming_constraints": {"permitted": [".EXAMPLE"]}}, True),
        (True, {"naming_constraints": {"permitted": ["example"]}}, False),
        (True, {"naming_constraints": {"permitted": []}}, False),
        (True, {"naming_constraints": {"excluded": [".other.example"]}}, True),
        (True, {"naming_constraints": {"excluded": ["fed.example"], "permitted": [".example"]}}, False),
        (False, {"naming_constraints": {"excluded": ["fed.example"]}}, False),
        (True, {"naming_constraints": []}, False),
        (True, {"naming_constraints": {"excluded": "fed.example"}}, False),
        (True, {"allowed_entity_types": ["openid_provider"]}, True),
        (True, {"allowed_entity_types": ["openid_relying_party"]}, False),
        (False, {"allowed_entity_types": []}, False),
        (True, {"allowed_entity_types": "openid_provider"}, False),
    ],
    ids=str,
)
def test_constraints_of_each_superior_are_enforced(
    federation: Federation, is_anchor: bool, constraints: Any, is_valid: bool
) -> None:
    """Section 6.2."""
    superior, subject = (federation.anchor, federation.middle) if is_anchor else (federation.middle, federation.op)
    federation[superior].subordinates[subject] = {"constraints": constraints}
    if is_valid:
        validate(federation, collect(federation))
    else:
        with raises(FederationCode.TRUST_CHAIN_INVALID):
            validate(federation, collect(federation))


def test_entity_without_the_requested_type_is_refused(federation: Federation) -> None:
    validate(federation, collect(federation))
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        validate(federation, collect(federation), entity_type="openid_relying_party")
    # A superior cannot make an entity one of a type that it does not declare.
    metadata = {"metadata": {"openid_relying_party": {}}}
    federation[federation.middle].subordinates[federation.op] = metadata
    with raises(FederationCode.TRUST_CHAIN_INVALID):
        validate(federation, collect(federation), entity_type="openid_relying_party")


def test_immediate_superior_replaces_metadata_and_then_all_policies_apply(federation: Federation) -> None:
    """Sections 3.1.1 (metadata), 6.1.4."""
    federation[federation.middle].subordinates[federation.op] = {
        "metadata": {"openid_provider": {"subject_types_supported": ["public", "pairwise"], "contacts": ["a"]}},
        "metadata_policy": {"openid_provider": {"subject_types_supported": {"subset_of": ["pairwise"]}}},
    }
    federation[federation.anchor].subordinates[federation.middle] = {
        # Only of the intermediate itself, so without effect on the provider.
        "metadata": {"openid_provider": {"issuer": "https://other.example"}},
        "metadata_policy": {"openid_provider": {"contacts": {"add": ["b"]}}},
    }
    metadata = validate(federation, collect(federation)).metadata
    assert metadata["subject_types_supported"] == ["pairwise"]
    assert metadata["contacts"] == ["a", "b"]
    assert metadata["issuer"] == federation.op


def test_metadata_that_violate_a_policy_are_refused(federation: Federation) -> None:
    policy = {"openid_provider": {"subject_types_supported": {"superset_of": ["ephemeral"]}}}
    federation[federation.anchor].subordinates[federation.middle] = {"metadata_policy": policy}
    with raises(FederationCode.METADATA_POLICY_ERROR):
        validate(federation, collect(federation))
    federation[federation.op].metadata["openid_provider"]["subject_types_supported"].append("ephemeral")
    validate(federation, collect(federation))


def test_intermediate_cannot_relax_the_policy_of_the_trust_anchor(federation: Federation) -> None:
    policies = [{"openid_provider": {"subject_types_supported": {"value": value}}} for value in (["a"], ["b"])]
    federation[federation.anchor].subordinates[federation.middle] = {"metadata_policy": policies[0]}
    federation[federation.middle].subordinates[federation.op] = {"metadata_policy": policies[1]}
    with raises(FederationCode.METADATA_POLICY_ERROR):
        validate(federation, collect(federation))


def test_trust_mark_types_are_those_that_the_subject_states(federation: Federation) -> None:
    marks: list[Any] = [{"trust_mark_type": "https://a", "trust_mark": "x"}, {"id": "https://b"}, {}, "x"]
    federation[federation.op].configuration = {"trust_marks": marks}
    assert validate(federation, collect(federation)).trust_mark_types == ("https://a", "https://b")
    federation[federation.op].configuration = {"trust_marks": "x"}
    assert validate(federation, collect(federation)).trust_mark_types == ()
