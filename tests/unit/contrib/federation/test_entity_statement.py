"""Entity statements and signed key sets: each fault next to the valid one. Spec: OpenID Federation 1.0 3, 5.2.1.1."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.contrib.federation.entity_statement import (
    build_entity_configuration_url,
    build_subordinate_statement_request,
    parse_entity_statement,
    parse_signed_jwks,
    process_statement_response,
    verify_entity_statement,
)
from django_phi_oidc.contrib.federation.errors import FederationCode
from django_phi_oidc.errors import Code, MetadataError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.jwks import parse_jwks
from django_phi_oidc.testing.mock_provider import corrupt_signature, create_signing_key
from tests.support.error_codes import raises
from tests.support.federation import Federation

LEEWAY = timedelta(seconds=30)
OMITTED = "omitted"
KEY = create_signing_key("ES256")
CLAIMS = ["iss", "sub", "iat", "exp", "jwks", "metadata", "authority_hints", "crit", "constraints", "trust_marks"]
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.just("keys"),
    lambda items: st.lists(items) | st.dictionaries(st.text() | st.just("keys"), items),
    max_leaves=5,
)


def change(claims: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**claims, **changes}.items() if value is not OMITTED}


@pytest.mark.parametrize(
    ("identifier", "url"),
    [
        ("https://op.example", "https://op.example/.well-known/openid-federation"),
        ("https://op.example/", "https://op.example/.well-known/openid-federation"),
        ("https://op.example:8443/a/b", "https://op.example:8443/a/b/.well-known/openid-federation"),
    ],
)
def test_entity_configuration_is_below_the_entity_identifier(identifier: str, url: str) -> None:
    assert build_entity_configuration_url(identifier) == url


@pytest.mark.parametrize("endpoint", ["https://ta.example/fetch", "https://ta.example/fetch?tenant=1"])
def test_request_for_a_subordinate_statement_names_issuer_and_subject(endpoint: str) -> None:
    request = build_subordinate_statement_request(endpoint, iss="https://ta.example", sub="https://op.example/a")
    separator = "&" if "?" in endpoint else "?"
    assert request.url == f"{endpoint}{separator}iss=https%3A%2F%2Fta.example&sub=https%3A%2F%2Fop.example%2Fa"
    assert request.method == "GET"


def test_statements_of_a_federation_are_parsed(federation: Federation, now: datetime) -> None:
    configuration = parse_entity_statement(federation.create_configuration(federation.op))
    assert configuration.is_configuration
    assert configuration.iss == configuration.sub == federation.op
    assert configuration.issued_at == now
    assert configuration.expires_at == now + timedelta(hours=12)
    assert configuration.find_metadata("openid_provider") is not None
    assert configuration.find_metadata("openid_relying_party") is None
    statement = parse_entity_statement(federation.create_subordinate_statement(federation.middle, federation.op))
    assert not statement.is_configuration
    assert [key.kid for key in statement.keys.keys] == [federation[federation.op].key.kid]


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "entity-statement"},
        {"typ": "jwk-set+jwt"},
        {"kid": None},
        {"kid": ""},
        {"crit": ["exp"]},
        {"trust_chain": []},
        {"peer_trust_chain": []},
    ],
    ids=str,
)
def test_statement_with_a_wrong_header_is_refused(federation: Federation, header: dict[str, Any]) -> None:
    entity, claims = federation[federation.op], federation.build_configuration(federation.op)
    parse_entity_statement(federation.sign(entity, claims))
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_entity_statement(federation.sign(entity, claims, **header))


@pytest.mark.parametrize("is_configuration", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": OMITTED},
        {"sub": OMITTED},
        {"iss": 1},
        {"iss": "op.example"},
        {"sub": "https://op.example?x=1"},
        {"sub": "https://op.example#x"},
        {"sub": "https://me@op.example"},
        {"iat": OMITTED},
        {"exp": OMITTED},
        {"exp": "tomorrow"},
        {"iat": True},
        {"jwks": OMITTED},
        {"jwks": []},
        {"jwks": {"keys": {}}},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": ["x"]}},
        {"jwks": {"keys": [{"kty": "EC"}]}},
        {"jwks": {"keys": [{"kty": "EC", "kid": "a"}, {"kty": "EC", "kid": "a"}]}},
        {"metadata": []},
        {"metadata": {"openid_provider": []}},
        {"metadata": {"openid_provider": {"issuer": None}}},
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"aud": "https://rp.example"},
        {"trust_anchor": "https://ta.example"},
    ],
    ids=str,
)
def test_statement_with_one_wrong_claim_is_refused(
    federation: Federation, changes: dict[str, Any], is_configuration: bool
) -> None:
    signer = federation.op if is_configuration else federation.middle
    claims = federation.build_configuration(signer)
    if not is_configuration:
        claims = federation.build_subordinate_statement(signer, federation.op)
    parse_entity_statement(federation.sign(federation[signer], claims))
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_entity_statement(federation.sign(federation[signer], change(claims, changes)))


@pytest.mark.parametrize(
    ("claim", "value", "in_configuration"),
    [
        ("authority_hints", ["https://ta.example"], True),
        ("trust_anchor_hints", ["https://ta.example"], True),
        ("trust_mark_issuers", {}, True),
        ("trust_mark_owners", {}, True),
        ("metadata_policy", {}, False),
        ("constraints", {}, False),
        ("source_endpoint", "https://ta.example/fetch", False),
    ],
)
def test_claim_of_the_other_kind_of_statement_is_refused(
    federation: Federation, claim: str, value: Any, in_configuration: bool
) -> None:
    op, middle = federation[federation.op], federation[federation.middle]
    configuration = federation.sign(op, {**federation.build_configuration(op.identifier), claim: value})
    claims = federation.build_subordinate_statement(middle.identifier, op.identifier)
    statement = federation.sign(middle, {**claims, claim: value})
    accepted, refused = (configuration, statement) if in_configuration else (statement, configuration)
    assert parse_entity_statement(accepted).claims[claim] == value
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_entity_statement(refused)


@pytest.mark.parametrize("hints", [[], "https://ta.example", [1], ["ta.example"]])
def test_authority_hints_are_a_list_of_entity_identifiers(federation: Federation, hints: Any) -> None:
    claims = federation.build_configuration(federation.op)
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_entity_statement(federation.sign(federation[federation.op], {**claims, "authority_hints": hints}))


@pytest.mark.parametrize("critical", [["regexp"], ["one_of"], [], None])
def test_critical_policy_operator_is_refused(federation: Federation, critical: Any) -> None:
    """Section 6.1.3.2. No operator but the standard ones is supported, and those must not be listed."""
    middle = federation[federation.middle]
    claims = federation.build_subordinate_statement(middle.identifier, federation.op)
    claims["metadata_policy"] = {"openid_provider": {"issuer": {"regexp": "^https://"}}}
    parse_entity_statement(federation.sign(middle, claims))
    with raises(FederationCode.METADATA_POLICY_ERROR):
        parse_entity_statement(federation.sign(middle, {**claims, "metadata_policy_crit": critical}))


@pytest.mark.parametrize(
    ("issued_after", "expires_after", "is_valid"),
    [(0, 1, True), (30, 60, True), (31, 60, False), (-60, -29, True), (-60, -30, False)],
)
def test_statement_is_valid_from_its_issue_to_its_expiry_with_leeway(
    federation: Federation, now: datetime, issued_after: int, expires_after: int, is_valid: bool
) -> None:
    seconds = now.timestamp()
    times = {"iat": seconds + issued_after, "exp": seconds + expires_after}
    entity = federation[federation.op]
    token = federation.sign(entity, {**federation.build_configuration(federation.op), **times})
    statement = parse_entity_statement(token)
    if is_valid:
        verify_entity_statement(statement, keys=statement.keys, now=now, leeway=LEEWAY)
    else:
        with raises(FederationCode.ENTITY_STATEMENT_INVALID):
            verify_entity_statement(statement, keys=statement.keys, now=now, leeway=LEEWAY)


def test_statement_signed_by_another_key_is_refused(federation: Federation, now: datetime) -> None:
    entity = federation[federation.op]
    token = federation.create_configuration(federation.op)
    keys = parse_entity_statement(token).keys
    verify_entity_statement(parse_entity_statement(token), keys=keys, now=now, leeway=LEEWAY)
    claims = federation.build_configuration(federation.op)
    kid, entity.key = entity.key.kid, create_signing_key("ES256")
    for forged in (
        corrupt_signature(token),
        federation.sign(entity, claims),
        federation.sign(entity, claims, kid=kid),
        federation.sign(entity, claims, alg="none"),
        federation.sign(entity, claims, alg="HS256", kid=kid),
    ):
        with raises(FederationCode.ENTITY_STATEMENT_INVALID):
            verify_entity_statement(parse_entity_statement(forged), keys=keys, now=now, leeway=LEEWAY)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 200, FederationCode.ENTITY_STATEMENT_INVALID),
        (b"\xff", 200, FederationCode.ENTITY_STATEMENT_INVALID),
        (b"", 200, FederationCode.ENTITY_STATEMENT_INVALID),
        (None, 404, FederationCode.TRUST_CHAIN_INVALID),
    ],
)
def test_response_without_the_statement_is_refused(
    federation: Federation, body: bytes | None, status: int, code: Code
) -> None:
    valid = federation.create_configuration(federation.op).encode()
    response = TransportResponse(status=status, headers={}, body=valid if body is None else body)
    with raises(code):
        process_statement_response(response, iss=federation.op, sub=federation.op)


@given(st.binary())
def test_any_other_response_is_refused_without_another_error(body: bytes) -> None:
    response = TransportResponse(status=200, headers={}, body=body)
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        process_statement_response(response, iss="https://op.example", sub="https://op.example")


@given(st.dictionaries(st.sampled_from(CLAIMS), JSON))
def test_any_claims_are_refused_without_another_error(claims: dict[str, Any]) -> None:
    federation = Federation("https://fed.example", now=datetime(2026, 11, 24, tzinfo=UTC), key=KEY)
    entity = federation[federation.op]
    token = federation.sign(entity, {**federation.build_configuration(federation.op), **claims})
    with suppress(MetadataError):
        parse_entity_statement(token)


def test_statement_of_another_issuer_or_subject_is_not_the_requested_one(federation: Federation) -> None:
    token = federation.create_subordinate_statement(federation.middle, federation.op)
    response = TransportResponse(status=200, headers={}, body=f"{token}\n".encode())
    process_statement_response(response, iss=federation.middle, sub=federation.op)
    for iss, sub in ((federation.anchor, federation.op), (federation.middle, federation.anchor)):
        with raises(FederationCode.ENTITY_STATEMENT_INVALID):
            process_statement_response(response, iss=iss, sub=sub)


def sign_jwks(federation: Federation, claims: dict[str, Any], **header: Any) -> bytes:
    header = {"typ": "jwk-set+jwt", **header}
    return federation.sign(federation[federation.op], claims, **header).encode()


def build_jwks(federation: Federation) -> dict[str, Any]:
    return {"iss": federation.op, "sub": federation.op, "keys": [federation.token_key.public_jwk()]}


def parse_jwks_of(federation: Federation, body: bytes, now: datetime) -> list[str | None]:
    keys = parse_jwks(json.dumps(federation[federation.op].jwks).encode())
    found = parse_signed_jwks(body, entity_identifier=federation.op, keys=keys, now=now, leeway=LEEWAY)
    return [key.kid for key in found.keys]


@pytest.mark.parametrize("typ", ["jwk-set+jwt", "application/jwk-set+jwt", "jwk-set+json"])
def test_signed_keys_are_those_that_the_federation_key_has_signed(
    federation: Federation, now: datetime, typ: str
) -> None:
    body = sign_jwks(federation, build_jwks(federation), typ=typ)
    assert parse_jwks_of(federation, body, now) == [federation.token_key.kid]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": OMITTED},
        {"sub": "https://other.example"},
        {"exp": 0},
        {"exp": "never"},
        {"iat": 2**33},
    ],
    ids=str,
)
def test_signed_set_with_one_wrong_claim_is_refused(
    federation: Federation, now: datetime, changes: dict[str, Any]
) -> None:
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_jwks_of(federation, sign_jwks(federation, change(build_jwks(federation), changes)), now)


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": "entity-statement+jwt"}, {"typ": None}, {"kid": None}])
def test_signed_set_of_another_type_is_refused(federation: Federation, now: datetime, header: dict[str, Any]) -> None:
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_jwks_of(federation, sign_jwks(federation, build_jwks(federation), **header), now)


def test_signed_set_signed_by_another_key_is_refused(federation: Federation, now: datetime) -> None:
    middle = federation[federation.middle]
    forged = federation.sign(middle, build_jwks(federation), typ="jwk-set+jwt").encode()
    with raises(FederationCode.ENTITY_STATEMENT_INVALID):
        parse_jwks_of(federation, forged, now)
    assert parse_jwks_of(federation, sign_jwks(federation, build_jwks(federation)), now)


def test_signed_set_without_keys_is_refused(federation: Federation, now: datetime) -> None:
    with raises(Code.METADATA_INVALID):
        parse_jwks_of(federation, sign_jwks(federation, change(build_jwks(federation), {"keys": OMITTED})), now)
