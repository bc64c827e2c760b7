"""Property tests: each provider response is valid, or refused with an error of this package, in time."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.signature_algorithms import SIGNATURE_ALGORITHMS
from django_phi_oidc.errors import KeyNotFound, SignInRefused
from django_phi_oidc.oidc.authorization import build_authorization_url, get_state, process_authorization_response
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import ProviderMetadata, build_jwks_request, validate_https_url
from django_phi_oidc.oidc.rp_initiated_logout import build_end_session_url, parse_url_origin
from django_phi_oidc.oidc.token import TokenResponse, extract_received_tokens
from django_phi_oidc.provider.metadata_cache import MAX_FRESH_SECONDS, MIN_FRESH_SECONDS, parse_freshness_seconds
from tests.security.fuzz import response_processors as processors
from tests.support.fuzz_inputs import (
    ANY_TEXT,
    FRAGMENTS,
    ODD_NUMBER,
    ODD_TEXT,
    ODD_VALUE,
    PURE,
    SECONDS_FOR_64_KIB,
    damaged,
    run_within,
)

pytestmark = pytest.mark.sqlite

ANY_BYTES = st.binary(max_size=200) | st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12).map(b"".join)
URL_PARTS = st.sampled_from(
    [
        "https:",
        "http:",
        "//",
        "/",
        "op.example",
        "127.0.0.1",
        "[::1]",
        "[",
        "]",
        ":",
        ":443",
        ":99999",
        "@",
        "#",
        "?",
        "\\",
    ]
)
URLS = st.lists(URL_PARTS | st.text(max_size=3), max_size=8).map("".join)


def process(name: str, body: bytes) -> Any:
    """Return the result or the refusal, within the time limit. Other exceptions fail the test."""
    refusal = ValueError if name == "json" else SignInRefused
    return run_within(lambda: processors.PROCESSORS[name](body), SECONDS_FOR_64_KIB, refusal=refusal)


@pytest.mark.parametrize("name", processors.PROCESSORS)
@PURE
@given(body=ANY_BYTES)
def test_any_bytes_are_accepted_or_refused(name: str, body: bytes) -> None:
    outcome = process(name, body)
    accepted = () if name.startswith("received") else (outcome,)
    # The only valid document among these inputs is an object such as {}.
    assert all(isinstance(result, SignInRefused | ValueError) or result == json.loads(body) for result in accepted)


@PURE
@given(damaged(processors.METADATA))
def test_damaged_metadata_is_refused_or_has_only_https_endpoints(body: bytes) -> None:
    metadata = process("metadata", body)
    if isinstance(metadata, ProviderMetadata):
        assert metadata.issuer == processors.ISSUER
        assert build_jwks_request(metadata).url.startswith("https://")
        assert build_authorization_url(metadata=metadata, parameters={"state": "x"}).startswith("https://")
        for name in ("token_endpoint", "userinfo_endpoint", "revocation_endpoint", "end_session_endpoint"):
            assert getattr(metadata, name).startswith("https://") or not getattr(metadata, name)
        if metadata.end_session_endpoint:
            assert build_end_session_url(metadata.end_session_endpoint, {"state": "x"}).startswith("https://")
            assert set(" ;,'*").isdisjoint(parse_url_origin(metadata.end_session_endpoint))
    else:
        assert isinstance(metadata, SignInRefused)


@PURE
@given(URLS, st.booleans())
def test_any_endpoint_is_https_or_refused(url: str, loopback: bool) -> None:
    outcome = run_within(lambda: validate_https_url(url, allow_loopback_http=loopback), SECONDS_FOR_64_KIB)
    assert isinstance(outcome, SignInRefused) or url.startswith(("https://", *(["http://"] if loopback else [])))


@PURE
@given(damaged(processors.JWKS), ODD_TEXT | st.sampled_from(["p256", "rsa", "ed"]), st.none() | st.binary(max_size=300))
def test_damaged_keys_are_ignored_or_usable(body: bytes, kid: str, signature: bytes | None) -> None:
    keys = process("jwks", body)
    if not isinstance(keys, JSONWebKeySet):
        assert isinstance(keys, SignInRefused)
        return
    for key in keys.keys:
        for alg in (*SIGNATURE_ALGORITHMS, "none", "HS256"):
            assert key.verify(alg, b"signing input", signature if signature is not None else bytes(64)) is False
    for alg in SIGNATURE_ALGORITHMS:
        key_or_error = run_within(lambda alg=alg: keys.get_key(kid=kid, alg=alg), SECONDS_FOR_64_KIB)
        assert isinstance(key_or_error, KeyNotFound) or (key_or_error.kid == kid and key_or_error.can_verify(alg))


@PURE
@given(damaged(processors.TOKENS))
def test_damaged_token_response_is_refused_and_all_its_tokens_are_extracted(body: bytes) -> None:
    tokens = process("token", body)
    received = process("received", body)
    assert len(received) <= 16
    if isinstance(tokens, TokenResponse):
        values = {token.value for token in received}
        assert {tokens.access_token, tokens.refresh_token} - {""} <= values
        assert isinstance(tokens.id_token, str)
    else:
        assert isinstance(tokens, SignInRefused)


@PURE
@given(
    st.lists(st.sampled_from(["access_token", "refresh_token", "%61ccess_token", "x"]) | st.text(max_size=3)), ANY_TEXT
)
def test_tokens_of_a_form_with_values_are_extracted(names: list[str], value: str) -> None:
    body = "&".join(f"{name}={value}" for name in names).encode("utf-8", "surrogatepass")
    received = process("received form", body)
    assert all(token.value for token in received)
    assert len(received) <= 2 or "&" in value
    plain = extract_received_tokens(
        processors.create_response(b"x=1&refresh_token=r&access_token=a", "application/x-www-form-urlencoded")
    )
    assert [(token.token_type_hint, token.value) for token in plain] == [("refresh_token", "r"), ("access_token", "a")]


@PURE
@given(damaged(processors.PUSHED) | damaged({**processors.PUSHED, "error": "invalid_request"}))
def test_damaged_par_response_has_a_request_uri_or_is_refused(body: bytes) -> None:
    result = process("par", body)
    is_refused = isinstance(result, SignInRefused)
    assert is_refused or (result["client_id"] == "portal" and 0 < len(result["request_uri"]) <= 512)


@PURE
@given(damaged(processors.USERINFO), st.booleans())
def test_damaged_userinfo_is_refused_or_has_the_expected_sub(body: bytes, is_signed: bool) -> None:
    if is_signed:
        claims = process("signed userinfo", processors.sign(b'{"alg":"ES256","kid":"p256"}', body).encode())
    else:
        claims = process("userinfo", body)
    assert isinstance(claims, SignInRefused) or claims["sub"] == processors.SUB


@PURE
@given(damaged(processors.HEADER), damaged(processors.CLAIMS))
def test_id_token_damaged_before_signing_is_refused_or_valid(header: bytes, payload: bytes) -> None:
    claims = process("id_token", processors.sign(header, payload).encode())
    if isinstance(claims, SignInRefused):
        return
    assert (claims["iss"], claims["nonce"]) == (processors.ISSUER, processors.NONCE)
    assert "portal" in claims["aud"]
    assert 0 < len(claims["sub"]) <= 255


@PURE
@given(st.data())
def test_id_token_damaged_after_signing_is_refused(data: st.DataObject) -> None:
    valid_token = processors.sign(json.dumps(processors.HEADER).encode(), json.dumps(processors.CLAIMS).encode())
    assert processors.process_id_token(valid_token)["sub"] == processors.SUB
    position = data.draw(st.integers(0, len(valid_token) - 1))
    character = data.draw(st.sampled_from([".", "A", "_", "=", "é", "\0", ""]))
    damaged_token = valid_token[:position] + character + valid_token[position + 1 :]
    outcome = process("id_token", damaged_token.encode("latin-1"))
    assert isinstance(outcome, SignInRefused) or damaged_token == valid_token


@PURE
@given(
    st.dictionaries(
        st.sampled_from(["code", "state", "iss", "error", "error_description", "next"]) | ODD_TEXT,
        st.lists(ODD_TEXT | st.just(processors.ISSUER), max_size=3),
    ),
    st.booleans(),
)
def test_any_callback_parameters_have_a_code_and_a_state_or_are_refused(
    parameters: dict[str, list[str]], has_iss_support: bool
) -> None:
    metadata = ProviderMetadata(
        issuer=processors.ISSUER,
        authorization_endpoint="",
        token_endpoint="",
        jwks_uri="",
        authorization_response_iss_parameter_supported=has_iss_support,
    )
    code = run_within(lambda: process_authorization_response(parameters, metadata=metadata), SECONDS_FOR_64_KIB)
    state = run_within(lambda: get_state(parameters), SECONDS_FOR_64_KIB)
    assert isinstance(code, SignInRefused) or [code] == parameters["code"]
    assert isinstance(state, SignInRefused) or [state] == parameters["state"]


@PURE
@given(
    ANY_TEXT | st.lists(st.sampled_from(["max-age", "=", '"', "9" * 30, "-1", ",", " ", "no-store", "²"])).map("".join)
)
def test_any_cache_control_results_in_a_time_within_the_limits(cache_control: str) -> None:
    seconds = run_within(lambda: parse_freshness_seconds({"cache-control": cache_control}), SECONDS_FOR_64_KIB)
    assert MIN_FRESH_SECONDS <= seconds <= MAX_FRESH_SECONDS


VERIFIED_CLAIMS = ["iss", "aud", "azp", "sub", "nonce", "iat", "exp", "nbf", "auth_time", "acr", "at_hash", "email"]


@PURE
@given(st.sampled_from([*VERIFIED_CLAIMS, "birthdate"]), ODD_NUMBER | ODD_TEXT | ODD_VALUE)
def test_id_token_with_any_claim_value_is_refused_or_has_a_sub(name: str, value: Any) -> None:
    """R6 ignores other claims, which are discarded or stored later."""
    try:
        payload = json.dumps({**processors.CLAIMS, name: value}, allow_nan=False).encode()
    except ValueError:
        payload = json.dumps(processors.CLAIMS).encode()
    outcome = process("id_token", processors.sign(json.dumps(processors.HEADER).encode(), payload).encode())
    assert isinstance(outcome, SignInRefused) or outcome["sub"]


@PURE
@given(st.sampled_from(["token", "par"]), ODD_VALUE)
def test_response_with_any_error_value_is_refused(name: str, value: Any) -> None:
    valid = {"token": processors.TOKENS, "par": processors.PUSHED}[name]
    try:
        body = json.dumps({**valid, "error": value}, allow_nan=False).encode()
    except ValueError:
        body = b"{}"
    assert isinstance(process(name, body), SignInRefused)
