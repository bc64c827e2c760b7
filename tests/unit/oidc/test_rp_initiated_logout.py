import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_phi_oidc.oidc.jose import encode_b64url, parse_compact_jws
from django_phi_oidc.oidc.rp_initiated_logout import (
    MAX_HINT_LENGTH,
    build_end_session_url,
    build_hint_parameters,
    parse_url_origin,
)

PROTOCOL = {"iss", "sub", "aud", "sid"}
ISSUER = "https://op.example"


def token(**claims: object) -> str:
    header, payload = ({"alg": "ES256"}, {"iss": ISSUER, "sub": "s", **claims})
    return ".".join(encode_b64url(json.dumps(part).encode()) for part in (header, payload)) + ".AA"


def hints(id_token: str, **changed: Any) -> dict[str, str]:
    claims = parse_compact_jws(id_token).payload if "." in id_token else {"iss": ISSUER}
    arguments = {"issuer": ISSUER, "policy": "minimal", "in_url": True, "protocol_claims": PROTOCOL, "claims": claims}
    return build_hint_parameters(id_token, **{**arguments, **changed})


def test_build_end_session_url_contains_the_parameters() -> None:
    sent = {"client_id": "a client&", "post_logout_redirect_uri": "https://rp.example/out/", "state": "s:1"}
    url = urlsplit(build_end_session_url("https://op.example/end", sent))
    assert parse_qs(url.query, strict_parsing=True) == {name: [value] for name, value in sent.items()}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://op.example/end", "https://op.example/end?client_id=a%20client%26%2F"),
        ("https://op.example/end?", "https://op.example/end?client_id=a%20client%26%2F"),
        ("https://op.example/end?tenant=1", "https://op.example/end?tenant=1&client_id=a%20client%26%2F"),
        ("https://op.example/end?tenant=1&", "https://op.example/end?tenant=1&client_id=a%20client%26%2F"),
    ],
)
def test_build_end_session_url_keeps_the_query_of_the_endpoint(endpoint: str, expected: str) -> None:
    assert build_end_session_url(endpoint, {"client_id": "a client&/"}) == expected


@pytest.mark.parametrize("claims", [{}, {"aud": "portal"}, {"sid": "sid-1"}])
def test_hint_with_only_protocol_claims_is_the_id_token(claims: dict[str, Any]) -> None:
    assert hints(token(**claims)) == {"id_token_hint": token(**claims)}


@pytest.mark.parametrize("in_url", [True, False])
@pytest.mark.parametrize("claims", [{"email": "a@b"}, {"email": None}])
def test_g1_hint_with_a_personal_claim_is_only_sent_with_the_policy_always(
    claims: dict[str, Any], in_url: bool
) -> None:
    assert hints(token(**claims), in_url=in_url) == {}
    personal = token(sid="sid-1", **claims)
    assert hints(personal, in_url=in_url) == {"logout_hint": "sid-1"}
    assert hints(personal, in_url=in_url, policy="always") == {"id_token_hint": personal}


def test_hint_too_long_for_a_url_is_sent_in_a_form() -> None:
    room = (MAX_HINT_LENGTH - len(token(aud=""))) * 3 // 4
    fits, too_long = token(aud="a" * room), token(aud="a" * (room + 3))
    assert hints(fits) == {"id_token_hint": fits}
    assert hints(too_long) == {}
    assert hints(too_long, in_url=False) == {"id_token_hint": too_long}


@pytest.mark.parametrize("in_url", [True, False])
def test_b4_hint_follows_the_policy(in_url: bool) -> None:
    personal = token(sid="sid-1", email="a@b")
    assert hints(personal, policy="always", in_url=in_url) == {"id_token_hint": personal}
    assert hints(personal, policy="never", in_url=in_url) == {"logout_hint": "sid-1"}
    assert hints(token(), policy="never", in_url=in_url) == {}
    assert hints(token(), policy="always", issuer="https://other.example", in_url=in_url) == {}


def test_b4_hint_that_is_always_sent_has_a_length_limit_in_a_url() -> None:
    too_long = token(sid="sid-1", email="a" * MAX_HINT_LENGTH)
    assert hints(too_long, policy="always") == {"logout_hint": "sid-1"}
    assert hints(too_long, policy="always", in_url=False) == {"id_token_hint": too_long}


@pytest.mark.parametrize("in_url", [True, False])
def test_hint_of_another_issuer_is_not_sent(in_url: bool) -> None:
    assert hints(token(sid="sid-1"), issuer=f"{ISSUER}/", in_url=in_url) == {}


@pytest.mark.parametrize("in_url", [True, False])
@pytest.mark.parametrize("policy", ["minimal", "always"])
def test_g1_hint_without_an_id_token_is_the_sid(policy: str, in_url: bool) -> None:
    kept = {"policy": policy, "in_url": in_url, "claims": {"iss": ISSUER, "sid": "sid-1"}}
    assert hints("", **kept) == {"logout_hint": "sid-1"}
    assert hints(token(), **kept) == {"id_token_hint": token()}


@pytest.mark.parametrize("in_url", [True, False])
def test_hint_without_anything_is_empty(in_url: bool) -> None:
    assert hints("", in_url=in_url) == {}
    assert hints("", in_url=in_url, claims={}) == {}
    assert hints("not a token", in_url=in_url) == {}


@pytest.mark.parametrize("sid", ["", None, 7, ["a"], {"a": 1}])
def test_hint_with_a_sid_that_is_not_a_string_is_empty(sid: object) -> None:
    assert hints(token(sid=sid, email="a@b")) == {}


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://op.example/end?tenant=1", "https://op.example"),
        ("https://op.example:8443/end", "https://op.example:8443"),
        ("http://[::1]:80/end", "http://[::1]:80"),
        ("https://op.example;script-src*/end", ""),
        ("https://a b/end", ""),
        ("", ""),
    ],
)
def test_origin_of_a_url_is_safe_in_a_header(url: str, origin: str) -> None:
    assert parse_url_origin(url) == origin
