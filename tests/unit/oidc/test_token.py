"""R5. Spec: RFC 6749 4.1.3, 5.1, 5.2; Core 3.1.3."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, TokenError, TokenResponseError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.refresh import process_refresh_response
from django_phi_oidc.oidc.token import (
    ReceivedToken,
    TokenResponse,
    build_token_request,
    extract_received_tokens,
    list_accepted_token_types,
    process_token_response,
)
from tests.support.encrypted_tokens import ENCRYPTION_KEYS, encrypt_token
from tests.support.error_codes import raises

MEMBERS = {"access_token": "at", "token_type": "Bearer", "id_token": "a.b.c", "expires_in": 300, "refresh_token": "rt"}
ABSENT = object()
MakeResponse = Callable[..., TransportResponse]
Declare = Callable[..., ProviderDeclaration]


def members(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**MEMBERS, **changes}.items() if value is not ABSENT}


def test_build_token_request_names_the_declared_resource(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    """RFC 8707 2.2."""
    sent = {}
    for resource in ("", "https://api.example/fhir"):
        request = build_token_request(
            metadata=metadata,
            declaration=declare(resource=resource),
            code="c",
            redirect_uri="https://rp.example/cb",
            code_verifier="v",
            freshness=freshness,
        )
        sent[resource] = parse_qs((request.body or b"").decode()).get("resource")
    assert sent == {"": None, "https://api.example/fhir": ["https://api.example/fhir"]}


def test_build_token_request_code_is_only_in_the_body(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness
) -> None:
    request = build_token_request(
        metadata=metadata,
        declaration=declare(),
        code="c/1",
        redirect_uri="https://rp.example/cb?a=b",
        code_verifier="v",
        freshness=freshness,
    )
    assert (request.method, request.url) == ("POST", metadata.token_endpoint)
    assert parse_qs((request.body or b"").decode(), strict_parsing=True) == {
        "grant_type": ["authorization_code"],
        "code": ["c/1"],
        "redirect_uri": ["https://rp.example/cb?a=b"],
        "code_verifier": ["v"],
    }
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Authorization"].startswith("Basic ")


Row = tuple[str, dict[str, Any], dict[str, Any]]
OK: dict[str, Any] = {"body": MEMBERS}
TABLES: dict[Code, list[Row]] = {
    # name, accepted response, refused response
    Code.TOKEN_ERROR: [
        *[(f"status {status}", OK, {"body": MEMBERS, "status": status}) for status in (201, 204, 302, 400, 401, 500)],
        ("error at 400", OK, {"body": {"error": "invalid_grant"}, "status": 400}),
        ("error at 200", OK, {"body": {"error": "invalid_grant"}}),
        ("error next to tokens", OK, {"body": members(error="invalid_grant")}),
        ("error is null", OK, {"body": members(error=None)}),
        ("HTML at 502", OK, {"body": b"<html>", "status": 502, "content_type": "text/html"}),
    ],
    Code.TOKEN_RESPONSE_INVALID: [
        ("HTML", OK, {"body": b"<html>"}),
        ("empty", OK, {"body": b""}),
        ("a list", OK, {"body": [MEMBERS]}),
        ("null", OK, {"body": b"null"}),
        ("member twice", OK, {"body": b'{"access_token":"evil",' + json.dumps(MEMBERS).encode()[1:]}),
        ("truncated", OK, {"body": json.dumps(MEMBERS).encode()[:-1]}),
        ("NaN", {"body": members(x=1)}, {"body": members(x=float("nan"))}),
        ("nesting", {"body": members(x=[[]])}, {"body": b'{"x":' + b"[" * 10_000}),
        ("form", OK, {"body": b"access_token=at", "content_type": "application/x-www-form-urlencoded"}),
        (
            "sent as text",
            {**OK, "content_type": "Application/JSON;charset=UTF-8"},
            {**OK, "content_type": "text/plain"},
        ),
        ("sent as JWT", OK, {**OK, "content_type": "application/jwt"}),
        ("sent as nothing", OK, {**OK, "content_type": ""}),
        ("refresh token empty", {"body": members(refresh_token=ABSENT)}, {"body": members(refresh_token="")}),
        ("refresh token null", OK, {"body": members(refresh_token=None)}),
        ("refresh token a list", OK, {"body": members(refresh_token=["rt"])}),
        ("refresh token not ASCII", OK, {"body": members(refresh_token="é")}),
    ],
    Code.TOKEN_TYPE_UNSUPPORTED: [
        ("absent", OK, {"body": members(token_type=ABSENT)}),
        ("DPoP", {"body": members(token_type="bearer")}, {"body": members(token_type="DPoP")}),
        ("MAC", {"body": members(token_type="BEARER")}, {"body": members(token_type="mac")}),
        ("null", OK, {"body": members(token_type=None)}),
        ("a list", OK, {"body": members(token_type=["Bearer"])}),
        ("a space behind", OK, {"body": members(token_type="Bearer ")}),
    ],
    Code.ACCESS_TOKEN_MISSING: [
        ("absent", OK, {"body": members(access_token=ABSENT)}),
        ("empty", OK, {"body": members(access_token="")}),
        ("null", OK, {"body": members(access_token=None)}),
        ("an object", OK, {"body": members(access_token={"value": "at"})}),
        ("line end", {"body": members(access_token="a-._~+/=t")}, {"body": members(access_token="at\r\nX: y")}),
        ("not ASCII", OK, {"body": members(access_token="ät")}),
    ],
    Code.ID_TOKEN_MISSING: [
        ("absent", OK, {"body": members(id_token=ABSENT)}),
        ("empty", OK, {"body": members(id_token="")}),
        ("null", OK, {"body": members(id_token=None)}),
        ("an object", OK, {"body": members(id_token={})}),
    ],
    Code.ACCESS_TOKEN_LIFETIME: [
        ("zero", {"body": members(expires_in=1)}, {"body": members(expires_in=0)}),
        ("negative", OK, {"body": members(expires_in=-300)}),
        ("text", OK, {"body": members(expires_in="300")}),
        ("a float", OK, {"body": members(expires_in=300.0)}),
        ("true", OK, {"body": members(expires_in=True)}),
        ("null", {"body": members(expires_in=ABSENT)}, {"body": members(expires_in=None)}),
        ("a second over the limit", {"body": members(expires_in=86400)}, {"body": members(expires_in=86401)}),
        ("beyond any time", OK, {"body": members(expires_in=10**60)}),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "accepted", "refused"), ROWS)
def test_process_token_response_one_fault_is_refused(
    make_response: MakeResponse,
    declare: Declare,
    error: Code,
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert process_token_response(make_response(**accepted), declaration=declare()).id_token == "a.b.c"
    with raises(error) as caught:
        process_token_response(make_response(**refused), declaration=declare())
    assert caught.value.code is error
    assert caught.value.__context__ is None


def test_process_token_response_every_code_of_r5_has_a_table() -> None:
    assert {code for code in Code if code.rule == "R5"} == set(TABLES)


@pytest.mark.parametrize(
    ("status", "provider_fault"), [(200, False), (400, False), (401, False), (429, True), (500, True), (503, True)]
)
def test_process_token_response_error_is_attributed_to_the_provider_or_client(
    make_response: MakeResponse, declare: Declare, status: int, provider_fault: bool
) -> None:
    with raises(TokenError) as caught:
        process_token_response(make_response({"error": "invalid_request"}, status=status), declaration=declare())
    assert caught.value.is_provider_fault is provider_fault


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        *(("invalid_grant", "invalid_grant"), ("invalid_dpop_proof", "invalid_dpop_proof")),
        *(("code-8c2f", "other"), (["x"], "other"), (None, "other")),
    ],
)
def test_process_token_response_error_message_contains_only_registered_codes(
    make_response: MakeResponse, declare: Declare, sent: Any, named: str
) -> None:
    body = {"error": sent, "error_description": "the code 8c2f of Jane"}
    with raises(TokenError) as caught:
        process_token_response(make_response(body, status=400), declaration=declare())
    assert str(caught.value) == f"The token endpoint answered 400, error {named} (RFC 6749 5.2)."
    assert caught.value.error == named


@pytest.mark.parametrize(
    ("changes", "expires_in", "alert"),
    [
        ({"expires_in": 3600}, timedelta(hours=1), False),
        ({"expires_in": 3601}, timedelta(seconds=3601), True),
        ({"expires_in": ABSENT}, None, True),
    ],
)
def test_process_token_response_long_or_unknown_lifetime_raises_an_alert(
    make_response: MakeResponse, declare: Declare, changes: dict[str, Any], expires_in: timedelta | None, alert: bool
) -> None:
    tokens = process_token_response(make_response(members(**changes)), declaration=declare())
    assert (tokens.expires_in, tokens.lifetime_alert) == (expires_in, alert)


def test_process_token_response_declared_limit_applies(make_response: MakeResponse, declare: Declare) -> None:
    declaration = declare(max_access_token_lifetime=timedelta(seconds=300))
    assert process_token_response(make_response(members(expires_in=300)), declaration=declaration).expires_in
    with raises(Code.ACCESS_TOKEN_LIFETIME):
        process_token_response(make_response(members(expires_in=301)), declaration=declaration)


@pytest.mark.parametrize(
    ("declared", "accepted", "refused"),
    [
        pytest.param({}, 3600, 3601, id="over an hour"),
        pytest.param({}, 3600, ABSENT, id="untold"),
        pytest.param({"max_access_token_lifetime": timedelta(seconds=60)}, 60, 61, id="a lower declared limit"),
    ],
)
def test_process_token_response_heart_requires_at_most_an_hour(
    make_response: MakeResponse, declare: Declare, declared: dict[str, Any], accepted: Any, refused: Any
) -> None:
    heart = declare(profile="heart", **declared)
    assert (
        process_token_response(make_response(members(expires_in=accepted)), declaration=heart).lifetime_alert is False
    )
    with raises(Code.ACCESS_TOKEN_LIFETIME):
        process_token_response(make_response(members(expires_in=refused)), declaration=heart)
    if "max_access_token_lifetime" not in declared:
        assert (
            process_token_response(make_response(members(expires_in=refused)), declaration=declare()).lifetime_alert
            is True
        )


def test_process_token_response_reprs_show_no_token(make_response: MakeResponse, declare: Declare) -> None:
    body = members(access_token="at-secret", refresh_token="rt-secret", id_token="id-secret")
    tokens = process_token_response(make_response(body), declaration=declare())
    assert (tokens.access_token, tokens.refresh_token, tokens.id_token) == ("at-secret", "rt-secret", "id-secret")
    assert "secret" not in repr(tokens)
    assert "secret" not in repr(extract_received_tokens(make_response(body)))


def test_process_token_response_without_refresh_token_has_an_empty_one(
    make_response: MakeResponse, declare: Declare
) -> None:
    assert (
        process_token_response(make_response(members(refresh_token=ABSENT)), declaration=declare()).refresh_token == ""
    )


BOTH = [("refresh_token", "rt"), ("access_token", "at")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(MEMBERS, BOTH, id="as it should be"),
        pytest.param(members(error="server_error"), BOTH, id="next to an error"),
        pytest.param(members(refresh_token=ABSENT), [("access_token", "at")], id="access token only"),
        pytest.param(json.dumps(MEMBERS).encode()[:-1], BOTH, id="truncated"),
        pytest.param(b"\xff" + json.dumps(MEMBERS).encode(), BOTH, id="not UTF-8"),
        pytest.param(members(x=float("nan")), BOTH, id="NaN"),
        pytest.param({"data": {"tokens": [MEMBERS]}}, BOTH, id="nested"),
        pytest.param(b"[" * 10_000 + json.dumps(MEMBERS).encode(), BOTH, id="absurdly nested"),
        pytest.param(
            b'{"access_token":"a1","access_token":"a2"}', [("access_token", "a1"), ("access_token", "a2")], id="twice"
        ),
        pytest.param(b'{"access_token":"a1","access_token":"a1"}', [("access_token", "a1")], id="the same twice"),
        pytest.param(rb'{"access\u005ftoken":"a\/1"}', [("access_token", "a/1")], id="escaped"),
        pytest.param(b'{"access_token" : \n "at"}', [("access_token", "at")], id="white space"),
        pytest.param(b'<p>{\'x\': "access_token":"at"</p>', [("access_token", "at")], id="in HTML"),
        pytest.param(members(access_token="ät"), [("refresh_token", "rt"), ("access_token", "ät")], id="not ASCII"),
        pytest.param(rb'{"access_token":"\ud800"}', [], id="lone surrogate"),
        pytest.param(rb'{"access_token":"\udfff"}', [], id="lone surrogate, the last"),
        pytest.param(members(access_token="", refresh_token=None), [], id="empty and null"),
        pytest.param({"access_token": ["at"], "refresh_token": 1}, [], id="other types"),
        pytest.param({"error_description": '"access_token":"no"'}, [], id="in a text"),
        pytest.param({"x": "access_token", "y": "at"}, [], id="a name as a value"),
        pytest.param(b'"access_token""at"', [], id="no colon between name and value"),
        pytest.param(b"<html>", [], id="HTML"),
        pytest.param(b"", [], id="empty"),
        pytest.param(
            b'{"refresh_token":"r\\u0074\n"}', [("refresh_token", "rt\n")], id="an unescaped line end after an escape"
        ),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_received_tokens_all_are_found_in_any_form_refresh_tokens_first(
    make_response: MakeResponse, body: Any, expected: list[tuple[str, str]], status: int
) -> None:
    tokens = extract_received_tokens(make_response(body, status=status, content_type="text/html"))
    assert [(token.token_type_hint, token.value) for token in tokens] == expected


def test_received_tokens_both_are_found_in_a_form(make_response: MakeResponse) -> None:
    body = b"access_token=a%2Ft&token_type=bearer&refresh_token=rt"
    tokens = extract_received_tokens(
        make_response(body, content_type="application/x-www-form-urlencoded;charset=utf-8")
    )
    assert tokens == (
        ReceivedToken(token_type_hint="refresh_token", value="rt"),
        ReceivedToken(token_type_hint="access_token", value="a/t"),
    )


def test_received_tokens_are_limited_to_sixteen(make_response: MakeResponse) -> None:
    assert len(extract_received_tokens(make_response([{"access_token": f"t{n}"} for n in range(16)]))) == 16
    assert len(extract_received_tokens(make_response([{"access_token": f"t{n}"} for n in range(17)]))) == 16


@pytest.mark.parametrize(
    "body",
    [
        b'"access_token":"' * 60_000,
        b'"' + b'\\"' * 500_000,
        b"\\" * 1_000_000,
        b'"a":' * 250_000,
        b'"a":\t' + b" " * 999_999,
    ],
)
def test_received_tokens_malicious_mebibyte_is_fast(make_response: MakeResponse, body: bytes) -> None:
    before = time.perf_counter()
    tokens = extract_received_tokens(make_response(body))
    assert len(tokens) <= 16
    assert time.perf_counter() - before < 2


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(MEMBERS)), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from([*MEMBERS, "error"]), ANY_JSON, max_size=3),
    st.binary(max_size=30),
    st.sampled_from([200, 200, 400, 503]),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded"]),
)
def test_process_token_response_any_response_is_processed_or_refused_by_our_error(
    make_response: MakeResponse,
    declare: Declare,
    changes: dict[str, Any],
    damage: bytes,
    status: int,
    content_type: str,
) -> None:
    whole = json.dumps({**MEMBERS, **changes}).encode()
    for body in (whole, damage, whole[: len(whole) // 2] + damage + whole[len(whole) // 2 :]):
        response = make_response(body, status=status, content_type=content_type)
        received = extract_received_tokens(response)
        try:
            result: object = process_token_response(response, declaration=declare())
        except TokenResponseError as error:
            result = error
        assert isinstance(result, TokenResponse | TokenResponseError)
        if isinstance(result, TokenResponse):
            values = {token.value for token in received}
            assert {result.access_token, result.refresh_token} - {""} <= values


@pytest.mark.parametrize(
    ("dpop", "has_proof", "token_type", "is_accepted"),
    [
        ("never", False, "Bearer", True),
        ("never", False, "DPoP", False),
        ("auto", False, "DPoP", False),
        ("auto", True, "Bearer", True),
        ("auto", True, "dpop", True),
        ("require", True, "DPOP", True),
        ("require", True, "Bearer", False),
        ("require", False, "Bearer", False),
        ("require", True, "mac", False),
    ],
)
def test_token_type_is_accepted_as_declared(
    dpop: Any, has_proof: bool, token_type: str, is_accepted: bool, declare: Declare, make_response: MakeResponse
) -> None:
    declaration = declare(dpop=dpop)
    types = list_accepted_token_types(declaration, has_proof=has_proof)
    response = make_response(members(token_type=token_type))
    if is_accepted:
        accepted = process_token_response(response, declaration=declaration, token_types=types).token_type
        assert accepted.lower() == token_type.lower()
        return
    with raises(Code.TOKEN_TYPE_UNSUPPORTED):
        process_token_response(response, declaration=declaration, token_types=types)


@pytest.mark.parametrize("process", [process_token_response, process_refresh_response])
def test_id_token_is_decrypted_exactly_if_that_is_declared(
    make_response: MakeResponse, declare: Declare, process: Callable[..., TokenResponse]
) -> None:
    encrypted = declare(client_keys=ENCRYPTION_KEYS, id_token_encrypted_response_alg=("ECDH-ES",))
    received = make_response(members(id_token=encrypt_token("a.b.c")))
    assert process(received, declaration=encrypted).id_token == "a.b.c"
    with raises(Code.ENCRYPTION_UNDECLARED):
        process(received, declaration=declare(client_keys=ENCRYPTION_KEYS))
    with raises(Code.ENCRYPTION_MISSING):
        process(make_response(members()), declaration=encrypted)
    with raises(Code.DECRYPTION_FAILED):
        process(make_response(members(id_token=encrypt_token("a.b.c", kid="x"))), declaration=encrypted)


def test_refresh_without_id_token_is_accepted_if_they_are_encrypted(
    make_response: MakeResponse, declare: Declare
) -> None:
    encrypted = declare(client_keys=ENCRYPTION_KEYS, id_token_encrypted_response_alg=("ECDH-ES",))
    response = make_response(members(id_token=ABSENT))
    assert process_refresh_response(response, declaration=encrypted).id_token == ""
