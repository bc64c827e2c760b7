"""UserInfo, unsigned and signed (R7). Spec: OIDC Core 5.3."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, KeyNotFound, UserInfoError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.userinfo import build_userinfo_request, process_userinfo_response
from tests.support.encrypted_tokens import ENCRYPTION_KEYS, encrypt_token
from tests.support.error_codes import raises

NOW = int(datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp())
CLAIMS = {"sub": "x", "birthdate": "1970-01-01"}
SIGNED = {**CLAIMS, "iss": "https://op.example", "aud": "portal"}
ABSENT = object()
MakeResponse = Callable[..., TransportResponse]
Declare = Callable[..., ProviderDeclaration]
Sign = Callable[..., str]
Process = Callable[..., Any]
OK: dict[str, Any] = {"body": CLAIMS}


@pytest.fixture(scope="session")
def process(keys: JSONWebKeySet, declare: Declare, now: datetime) -> Process:
    """process(response, userinfo_signed_response_alg=…): for sub x, with these changes to the declaration."""

    def process(response: TransportResponse, **declared: Any) -> Any:
        return process_userinfo_response(
            response, expected_sub="x", keys=keys, declaration=declare(**declared), now=now
        )

    return process


TABLES: dict[Code, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    # name, accepted response, refused response
    Code.USERINFO_SUB_MISMATCH: [
        ("another", OK, {"body": {**CLAIMS, "sub": "y"}}),
        ("longer", OK, {"body": {**CLAIMS, "sub": "xx"}}),
        ("missing", OK, {"body": {"birthdate": "1970-01-01"}}),
        ("a list", OK, {"body": {**CLAIMS, "sub": ["x"]}}),
        ("null", OK, {"body": {**CLAIMS, "sub": None}}),
        ("not ASCII", OK, {"body": {**CLAIMS, "sub": "é"}}),
        ("upper case", OK, {"body": {**CLAIMS, "sub": "X"}}),
    ],
    Code.USERINFO_INVALID: [
        *[(f"status {status}", OK, {"body": CLAIMS, "status": status}) for status in (204, 302, 401, 403, 500)],
        ("HTML", OK, {"body": b"<html>"}),
        ("a list", OK, {"body": [CLAIMS]}),
        ("empty", OK, {"body": b""}),
        ("sub twice", OK, {"body": b'{"sub":"y","sub":"x"}'}),
        (
            "plain, sent as signed",
            {**OK, "content_type": "application/json;charset=utf-8"},
            {**OK, "content_type": "application/jwt"},
        ),
        ("sent as text", OK, {**OK, "content_type": "text/html"}),
        ("sent as nothing", OK, {**OK, "content_type": ""}),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "accepted", "refused"), ROWS)
def test_process_userinfo_response_one_fault_is_refused(
    make_response: MakeResponse,
    process: Process,
    error: Code,
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    assert process(make_response(**accepted)) == CLAIMS
    with raises(error) as caught:
        process(make_response(**refused))
    assert caught.value.code is error
    assert caught.value.__context__ is None


def test_process_userinfo_response_every_code_of_r7_has_a_table() -> None:
    assert {code for code in Code if code.rule == "R7"} == set(TABLES)


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**SIGNED, **changes}.items() if value is not ABSENT}


ES256 = {"userinfo_signed_response_alg": ("ES256",)}
TWO = {**ES256, "trusted_audiences": ("api",)}
SIGNED_ROWS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # name, declaration, accepted changes, refused changes
    ("iss another", ES256, {}, {"iss": "https://evil.example"}),
    ("iss a slash more", ES256, {}, {"iss": "https://op.example/"}),
    ("iss missing", ES256, {}, {"iss": ABSENT}),
    ("aud another", ES256, {}, {"aud": "api"}),
    ("aud missing", ES256, {}, {"aud": ABSENT}),
    ("additional untrusted audience", TWO, {"aud": ["portal", "api"]}, {"aud": ["portal", "x"]}),
    ("aud without this client", TWO, {"aud": ["portal"]}, {"aud": ["api"]}),
    ("exp past", ES256, {"exp": NOW - 29}, {"exp": NOW - 30}),
    ("exp text", ES256, {"exp": NOW + 60}, {"exp": str(NOW + 60)}),
    ("exp null", ES256, {}, {"exp": None}),
    ("nbf ahead", ES256, {"nbf": NOW + 30}, {"nbf": NOW + 31}),
    ("iss missing, not demanded", {}, {}, {"iss": ABSENT}),
]


@pytest.mark.parametrize(
    ("declared", "accepted", "refused"), [pytest.param(*row[1:], id=row[0]) for row in SIGNED_ROWS]
)
def test_process_userinfo_response_wrong_signed_claim_is_userinfo_invalid(
    make_response: MakeResponse,
    process: Process,
    sign: Sign,
    declared: dict[str, Any],
    accepted: dict[str, Any],
    refused: dict[str, Any],
) -> None:
    def processed(changes: dict[str, Any]) -> Any:
        response = make_response(sign(claims(**changes)).encode(), content_type="application/jwt")
        return process(response, **declared)

    assert processed(accepted) == claims(**accepted)
    with raises(Code.USERINFO_INVALID) as caught:
        processed(refused)
    assert caught.value.__context__ is None


def test_process_userinfo_response_signed_sub_must_be_that_of_the_id_token(
    make_response: MakeResponse, process: Process, sign: Sign
) -> None:
    for sub in ("y", ABSENT, None):
        with raises(Code.USERINFO_SUB_MISMATCH):
            process(make_response(sign(claims(sub=sub)).encode(), content_type="application/jwt"), **ES256)


@pytest.mark.parametrize(
    ("alg", "declared", "accepted"),
    [
        ("ES256", ("ES256",), True),
        ("RS256", ("ES256",), False),
        ("RS256", ("ES256", "RS256"), True),
        # Not declared: the algorithms of ID Tokens.
        ("PS256", (), True),
        ("RS256", (), False),
    ],
)
def test_process_userinfo_response_undeclared_alg_is_refused(
    make_response: MakeResponse, process: Process, sign: Sign, alg: str, declared: tuple[str, ...], accepted: bool
) -> None:
    response = make_response(sign(SIGNED, alg=alg).encode(), content_type="application/jwt")
    options = {"userinfo_signed_response_alg": declared, "id_token_signed_response_alg": ("PS256",)}
    if accepted:
        assert process(response, **options) == SIGNED
        return
    with raises(Code.USERINFO_INVALID, match="alg_not_allowed"):
        process(response, **options)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda token: token.rpartition(".")[0] + ".AAAA", "signature_invalid"),
        (lambda token: token.rpartition(".")[0] + ".", "signature_invalid"),
        (lambda token: token + "\n", "token_malformed"),
        (lambda token: "é" + token, "token_malformed"),
        (lambda token: token.replace(".", ". "), "token_malformed"),
        (lambda token: "", "token_malformed"),
    ],
)
def test_process_userinfo_response_damaged_signed_response_is_userinfo_invalid(
    make_response: MakeResponse, process: Process, sign: Sign, damage: Callable[[str], str], code: str
) -> None:
    token = sign(SIGNED)
    assert process(make_response(token.encode(), content_type="application/jwt"), **ES256) == SIGNED
    with raises(Code.USERINFO_INVALID, match=code):
        process(make_response(damage(token).encode(), content_type="application/jwt"), **ES256)


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_process_userinfo_response_alg_none_and_hs256_are_refused_even_when_declared(
    make_response: MakeResponse, process: Process, sign: Sign, alg: str
) -> None:
    response = make_response(sign(SIGNED, header={"alg": alg}).encode(), content_type="application/jwt")
    for declared in ((), (alg,)):
        with raises(Code.USERINFO_INVALID, match="alg_not_allowed"):
            process(response, userinfo_signed_response_alg=declared)


def test_process_userinfo_response_unsigned_response_is_refused_if_a_signature_is_declared(
    make_response: MakeResponse, process: Process
) -> None:
    assert process(make_response(SIGNED)) == SIGNED
    with raises(Code.USERINFO_INVALID):
        process(make_response(SIGNED), **ES256)


def test_process_userinfo_response_unknown_kid_is_key_not_found(
    make_response: MakeResponse, process: Process, sign: Sign
) -> None:
    with raises(KeyNotFound):
        process(
            make_response(sign(SIGNED, header={"kid": "unknown"}).encode(), content_type="application/jwt"), **ES256
        )


@pytest.mark.parametrize("status", [201, 401, 500])
def test_process_userinfo_response_signed_response_with_another_status_is_refused(
    make_response: MakeResponse, process: Process, sign: Sign, status: int
) -> None:
    with raises(Code.USERINFO_INVALID):
        process(make_response(sign(SIGNED).encode(), status=status, content_type="application/jwt"), **ES256)


def test_build_userinfo_request_token_is_only_in_the_header(metadata: ProviderMetadata, declare: Declare) -> None:
    request = build_userinfo_request(metadata=metadata, declaration=declare(), access_token="at-secret")
    assert (request.method, request.url, request.body) == ("GET", metadata.userinfo_endpoint, None)
    assert request.headers["Authorization"] == "Bearer at-secret"
    assert "secret" not in repr(request)


def test_build_userinfo_request_accepts_only_jwt_if_a_signature_is_declared(
    metadata: ProviderMetadata, declare: Declare
) -> None:
    for declared, accepted in ((ES256, "application/jwt"), ({}, "application/json")):
        request = build_userinfo_request(metadata=metadata, declaration=declare(**declared), access_token="at")
        assert request.headers["Accept"] == accepted


def test_build_userinfo_request_without_endpoint_is_userinfo_invalid(
    metadata: ProviderMetadata, declare: Declare
) -> None:
    without = replace(metadata, userinfo_endpoint="")
    with raises(Code.USERINFO_INVALID) as caught:
        build_userinfo_request(metadata=without, declaration=declare(), access_token="at")
    assert caught.value.code == "userinfo_invalid"


@given(
    st.binary() | st.dictionaries(st.sampled_from(["sub", "x"]), st.none() | st.text() | st.floats()).map(json.dumps),
    st.sampled_from(["application/json", "application/jwt"]),
)
def test_process_userinfo_response_any_response_is_processed_or_refused_by_our_error(
    make_response: MakeResponse, process: Process, body: bytes | str, content_type: str
) -> None:
    response = make_response(body.encode() if isinstance(body, str) else body, content_type=content_type)
    try:
        result: object = process(response)
    except UserInfoError as error:
        result = error
    assert isinstance(result, dict | UserInfoError)


@given(
    changes=st.dictionaries(
        st.sampled_from([*SIGNED, "exp", "nbf"]), st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    ),
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit"]), st.none() | st.text(), max_size=1),
)
def test_process_userinfo_response_any_signed_claims_are_processed_or_refused_by_our_error(
    make_response: MakeResponse, process: Process, sign: Sign, changes: dict[str, Any], header: dict[str, Any]
) -> None:
    token = sign({**SIGNED, **changes}, alg="EdDSA", header=header)
    try:
        result: object = process(make_response(token.encode(), content_type="application/jwt"))
    except (UserInfoError, KeyNotFound) as error:
        result = error
    assert isinstance(result, dict | UserInfoError | KeyNotFound)


ENCRYPTED: dict[str, Any] = {
    **ES256,
    "client_keys": ENCRYPTION_KEYS,
    "userinfo_encrypted_response_alg": ("ECDH-ES",),
    "userinfo_encrypted_response_enc": ("A256GCM",),
}


@pytest.mark.parametrize(
    ("accepted", "refused", "code"),
    [
        (encrypt_token, lambda token: token, "encryption_missing"),
        (encrypt_token, lambda token: encrypt_token(token, enc="A128GCM"), "alg_not_allowed"),
        (encrypt_token, lambda token: encrypt_token(token, kid="x"), "decryption_failed"),
        (encrypt_token, lambda token: encrypt_token(token, cty="json"), "token_malformed"),
        (encrypt_token, lambda token: encrypt_token(token.rpartition(".")[0] + ".AAAA"), "signature_invalid"),
        (encrypt_token, lambda token: encrypt_token('{"sub":"x"}'), "token_malformed"),
    ],
)
def test_process_userinfo_response_encrypted_with_one_fault_is_refused(
    make_response: MakeResponse,
    process: Process,
    sign: Sign,
    accepted: Callable[[str], str],
    refused: Callable[[str], str],
    code: str,
) -> None:
    """Core 5.3.2: signed, then encrypted."""
    token = sign(SIGNED)
    assert process(make_response(accepted(token).encode(), content_type="application/jwt"), **ENCRYPTED) == SIGNED
    with raises(Code.USERINFO_INVALID, match=code):
        process(make_response(refused(token).encode(), content_type="application/jwt"), **ENCRYPTED)


def test_process_userinfo_response_encrypted_without_a_declaration_is_refused(
    make_response: MakeResponse, process: Process, sign: Sign
) -> None:
    response = make_response(encrypt_token(sign(SIGNED)).encode(), content_type="application/jwt")
    with raises(Code.USERINFO_INVALID, match="encryption_undeclared"):
        process(response, **{**ENCRYPTED, "userinfo_encrypted_response_alg": ()})
    with raises(Code.USERINFO_INVALID):
        process(make_response(SIGNED), **ENCRYPTED)
