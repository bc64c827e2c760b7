"""Whatever a provider answers: it is accepted for good reason, or refused by an error of ours, in time."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import SIGNING_ALGS
from django_phi_oidc.errors import KeyNotFound, SignInRefused
from django_phi_oidc.oidc.authorization import build_authorization_url, get_state, process_authorization_response
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import ProviderMetadata, build_jwks_request, validate_https_url
from django_phi_oidc.oidc.rp_initiated_logout import build_end_session_url, parse_url_origin
from django_phi_oidc.oidc.token import TokenResponse, extract_received_tokens
from django_phi_oidc.provider.metadata_cache import MAX_FRESH_SECONDS, MIN_FRESH_SECONDS, parse_freshness_seconds
from tests.security.fuzz import response_processors as judges
from tests.support.fuzz_inputs import (
    ANY_TEXT,
    ODD_NUMBER,
    ODD_TEXT,
    ODD_VALUE,
    PIECES,
    PURE,
    SECONDS_FOR_64_KIB,
    damaged,
    in_time,
)

pytestmark = pytest.mark.sqlite

ANY_BYTES = st.binary(max_size=200) | st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)
PARTS_OF_URL = st.sampled_from(
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
URLS = st.lists(PARTS_OF_URL | st.text(max_size=3), max_size=8).map("".join)


def judged(name: str, body: bytes) -> Any:
    """Return what that judge makes of body within the time for it; a refusal that is no error of ours fails."""
    refusal = ValueError if name == "json" else SignInRefused
    return in_time(lambda: judges.JUDGES[name](body), SECONDS_FOR_64_KIB, refusal=refusal)


@pytest.mark.parametrize("name", judges.JUDGES)
@PURE
@given(body=ANY_BYTES)
def test_any_bytes_are_judged_or_refused_by_an_error_of_ours(name: str, body: bytes) -> None:
    outcome = judged(name, body)
    accepted = () if name.startswith("received") else (outcome,)
    # By chance, {} is an object. Nothing else that is drawn here is more than that.
    assert all(isinstance(it, SignInRefused | ValueError) or it == json.loads(body) for it in accepted)


@PURE
@given(damaged(judges.METADATA))
def test_metadata_damaged_is_refused_or_leads_to_https_alone(body: bytes) -> None:
    metadata = judged("metadata", body)
    if isinstance(metadata, ProviderMetadata):
        assert metadata.issuer == judges.ISSUER
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
def test_any_endpoint_is_https_with_a_host_or_refused(url: str, loopback: bool) -> None:
    outcome = in_time(lambda: validate_https_url(url, allow_loopback_http=loopback), SECONDS_FOR_64_KIB)
    assert isinstance(outcome, SignInRefused) or url.startswith(("https://", *(["http://"] if loopback else [])))


@PURE
@given(damaged(judges.JWKS), ODD_TEXT | st.sampled_from(["p256", "rsa", "ed"]), st.none() | st.binary(max_size=300))
def test_keys_damaged_are_left_out_or_can_be_verified_with(body: bytes, kid: str, signature: bytes | None) -> None:
    keys = judged("jwks", body)
    if not isinstance(keys, JSONWebKeySet):
        assert isinstance(keys, SignInRefused)
        return
    for key in keys.keys:
        for alg in (*SIGNING_ALGS, "none", "HS256"):
            assert key.verify(alg, b"signing input", signature if signature is not None else bytes(64)) is False
    for alg in SIGNING_ALGS:
        found = in_time(lambda alg=alg: keys.get_key(kid=kid, alg=alg), SECONDS_FOR_64_KIB)
        assert isinstance(found, KeyNotFound) or (found.kid == kid and found.can_verify(alg))


@PURE
@given(damaged(judges.TOKENS))
def test_tokens_damaged_are_refused_and_none_accepted_is_forgotten(body: bytes) -> None:
    tokens = judged("token", body)
    received = judged("received", body)
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
def test_a_form_with_tokens_gives_those_that_have_a_value(names: list[str], value: str) -> None:
    body = "&".join(f"{name}={value}" for name in names).encode("utf-8", "surrogatepass")
    received = judged("received form", body)
    assert all(token.value for token in received)
    assert len(received) <= 2 or "&" in value
    plain = extract_received_tokens(
        judges.response(b"x=1&refresh_token=r&access_token=a", "application/x-www-form-urlencoded")
    )
    assert [(token.token_type_hint, token.value) for token in plain] == [("refresh_token", "r"), ("access_token", "a")]


@PURE
@given(damaged(judges.PUSHED) | damaged({**judges.PUSHED, "error": "invalid_request"}))
def test_a_pushed_request_is_answered_with_a_uri_or_refused(body: bytes) -> None:
    left = judged("par", body)
    assert isinstance(left, SignInRefused) or (left["client_id"] == "portal" and 0 < len(left["request_uri"]) <= 512)


@PURE
@given(damaged(judges.USERINFO), st.booleans())
def test_userinfo_damaged_is_refused_or_that_persons(body: bytes, signed: bool) -> None:
    if signed:
        claims = judged("signed userinfo", judges.signed(b'{"alg":"ES256","kid":"p256"}', body).encode())
    else:
        claims = judged("userinfo", body)
    assert isinstance(claims, SignInRefused) or claims["sub"] == judges.SUB


@PURE
@given(damaged(judges.HEADER), damaged(judges.CLAIMS))
def test_an_id_token_damaged_before_it_was_signed_is_refused_or_as_good(header: bytes, payload: bytes) -> None:
    claims = judged("id_token", judges.signed(header, payload).encode())
    if isinstance(claims, SignInRefused):
        return
    assert (claims["iss"], claims["nonce"]) == (judges.ISSUER, judges.NONCE)
    assert "portal" in claims["aud"]
    assert 0 < len(claims["sub"]) <= 255


@PURE
@given(st.data())
def test_an_id_token_damaged_after_it_was_signed_is_refused(data: st.DataObject) -> None:
    good = judges.signed(json.dumps(judges.HEADER).encode(), json.dumps(judges.CLAIMS).encode())
    assert judges.id_token(good)["sub"] == judges.SUB
    position = data.draw(st.integers(0, len(good) - 1))
    character = data.draw(st.sampled_from([".", "A", "_", "=", "é", "\0", ""]))
    damaged_token = good[:position] + character + good[position + 1 :]
    outcome = judged("id_token", damaged_token.encode("latin-1"))
    assert isinstance(outcome, SignInRefused) or damaged_token == good


@PURE
@given(
    st.dictionaries(
        st.sampled_from(["code", "state", "iss", "error", "error_description", "next"]) | ODD_TEXT,
        st.lists(ODD_TEXT | st.just(judges.ISSUER), max_size=3),
    ),
    st.booleans(),
)
def test_any_callback_parameters_give_a_code_and_a_state_or_are_refused(
    parameters: dict[str, list[str]], promised: bool
) -> None:
    metadata = ProviderMetadata(
        issuer=judges.ISSUER,
        authorization_endpoint="",
        token_endpoint="",
        jwks_uri="",
        authorization_response_iss_parameter_supported=promised,
    )
    code = in_time(lambda: process_authorization_response(parameters, metadata=metadata), SECONDS_FOR_64_KIB)
    state = in_time(lambda: get_state(parameters), SECONDS_FOR_64_KIB)
    assert isinstance(code, SignInRefused) or [code] == parameters["code"]
    assert isinstance(state, SignInRefused) or [state] == parameters["state"]


@PURE
@given(
    ANY_TEXT | st.lists(st.sampled_from(["max-age", "=", '"', "9" * 30, "-1", ",", " ", "no-store", "²"])).map("".join)
)
def test_any_cache_control_gives_a_time_within_the_limits(cache_control: str) -> None:
    seconds = in_time(lambda: parse_freshness_seconds({"cache-control": cache_control}), SECONDS_FOR_64_KIB)
    assert MIN_FRESH_SECONDS <= seconds <= MAX_FRESH_SECONDS


JUDGED = ["iss", "aud", "azp", "sub", "nonce", "iat", "exp", "nbf", "auth_time", "acr", "at_hash", "email"]


@PURE
@given(st.sampled_from([*JUDGED, "birthdate"]), ODD_NUMBER | ODD_TEXT | ODD_VALUE)
def test_one_claim_of_any_kind_is_refused_or_no_fault_of_the_token(name: str, value: Any) -> None:
    """What R6 does not judge may be anything: it is dropped, or stored, by others."""
    try:
        payload = json.dumps({**judges.CLAIMS, name: value}, allow_nan=False).encode()
    except ValueError:
        payload = json.dumps(judges.CLAIMS).encode()
    outcome = judged("id_token", judges.signed(json.dumps(judges.HEADER).encode(), payload).encode())
    assert isinstance(outcome, SignInRefused) or outcome["sub"]


@PURE
@given(st.sampled_from(["token", "par"]), ODD_VALUE)
def test_an_error_of_any_kind_is_refused(name: str, value: Any) -> None:
    good = {"token": judges.TOKENS, "par": judges.PUSHED}[name]
    try:
        body = json.dumps({**good, "error": value}, allow_nan=False).encode()
    except ValueError:
        body = b"{}"
    assert isinstance(judged(name, body), SignInRefused)
