"""The most expensive inputs: 64 KiB within 50 ms of CPU time, a mebibyte of metadata or keys within 250 ms."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from django_phi_oidc.errors import Code, KeyNotFound, SignInRefused
from django_phi_oidc.oidc.jose import MAX_STRUCTURAL_CHARACTERS, encode_b64url, parse_json_object
from django_phi_oidc.oidc.jwks import JSONWebKeySet, parse_jwks
from django_phi_oidc.oidc.metadata import validate_https_url
from tests.security.fuzz import response_processors as processors
from tests.support.error_codes import raises
from tests.support.fuzz_inputs import KIB, MIB, SECONDS_FOR_64_KIB, SECONDS_FOR_A_MIB, run_within

pytestmark = pytest.mark.sqlite

Pattern = Callable[[int], bytes]


def repeat(item: bytes, *, prefix: bytes = b"", suffix: bytes = b"") -> Pattern:
    """Return a pattern that repeats item up to a size, between prefix and suffix."""
    return lambda size: prefix + item * ((size - len(prefix) - len(suffix)) // len(item)) + suffix


def enumerate_items(item: str, *, prefix: bytes = b"") -> Pattern:
    """Return a pattern that repeats item with a different number each time."""
    width = len(item % 0)
    return lambda size: prefix + b"".join((item % n).encode() for n in range((size - len(prefix)) // width))


def encode_jwk(jwk: Mapping[str, Any], **changes: str) -> bytes:
    members = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    return json.dumps({**members, **changes}, separators=(",", ":")).encode() + b","


def create_largest_key_set(jwk: bytes) -> bytes:
    """Return the largest key set that is within the limits for structural characters and size."""
    structural = sum(jwk.count(character) for character in b"[{:,")
    count = min((MAX_STRUCTURAL_CHARACTERS - 4) // structural, (MIB - 64) // len(jwk))
    return b'{"keys":[' + (jwk * count)[:-1] + b"]}"


NESTED_PREFIX = b'{"a":' * 19
PATTERNS: dict[str, Pattern] = {
    "open lists": repeat(b"["),
    "open lists in an object": repeat(b"[", prefix=b'{"a":'),
    "open objects": repeat(b'{"a":'),
    "closing lists": repeat(b"]", prefix=b'{"a":[' + b"[]," * 30),
    "empty lists": repeat(b"[],", prefix=b'{"keys":[', suffix=b"[]]}"),
    "empty objects": repeat(b"{},", prefix=b'{"keys":[', suffix=b"{}]}"),
    "small objects": repeat(b'{"":0},', prefix=b'{"keys":[', suffix=b"{}]}"),
    "small lists": repeat(b"[0],", prefix=b'{"keys":[', suffix=b"[0]]}"),
    "nested lists": repeat(b"[],", prefix=NESTED_PREFIX + b"[", suffix=b"[]]" + b"}" * 19),
    "digits": repeat(b"9,", prefix=b'{"a":[', suffix=b"9]}"),
    "long numbers": repeat(b"9" * 64 + b",", prefix=b'{"a":[', suffix=b"9]}"),
    "long fractions": repeat(b"9" * 58 + b"e-300,", prefix=b'{"a":[', suffix=b"9]}"),
    "one number": repeat(b"9", prefix=b'{"a":', suffix=b"}"),
    "short texts": repeat('"ā",'.encode(), prefix=b'{"a":[', suffix=b'""]}'),
    "members": enumerate_items('"%07d":0,', prefix=b"{"),
    "one repeated member": repeat(b'"a":0,', prefix=b"{", suffix=b'"a":0}'),
    "quotes": repeat(b'"'),
    "quotes after brackets": repeat(b'"', prefix=b"[" * 30),
    "texts after brackets": repeat(b'xx""', prefix=b"{}" * 30),
    "backslashes": repeat(b"\\"),
    "backslashes in a text": repeat(b"\\", prefix=b'{"access_token":"'),
    "backslashes after brackets": repeat(b"\\", prefix=b"[" * 30 + b'"'),
    "escaped quotes": repeat(b'\\"', prefix=b"[" * 30 + b'"'),
    "escapes": repeat(b"\\u0061", prefix=b'{"access_token":"', suffix=b'"}'),
    "escapes in short texts": repeat(b'"\\u0061",', prefix=b'{"a":[', suffix=b'""]}'),
    "lone surrogates": repeat(b"\\ud800", prefix=b'{"access_token":"', suffix=b'"}'),
    "escaped names": repeat(rb'"\u0061ccess_token":"\u0061",', prefix=b"{"),
    "spaces": repeat(b" ", prefix=b'{"access_token"', suffix=b':"x"}'),
    "spaces between texts": repeat(b'"a"   '),
    "tokens": enumerate_items('"access_token":"%07d",', prefix=b"{"),
    "tokens in a form": enumerate_items("access_token=%07d&"),
    "escaped form": repeat(b"%61=%61&"),
    "escaped value in a form": repeat(b"%C3%A9", prefix=b"refresh_token="),
    "ampersands": repeat(b"&"),
    "not UTF-8": repeat(b"\xff", prefix=b'{"access_token":"', suffix=b'"}'),
    "dots": repeat(b"."),
    "base64": repeat(b"A"),
    "base64 with dots": repeat(b"AAAA."),
    "three parts": repeat(b"A", prefix=b"eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYifQ.e30."),
    "emoji": repeat("😀".encode(), prefix=b'{"sub":"', suffix=b'"}'),
    "a URL": repeat(b"/a", prefix=b'{"issuer":"https://op.example","authorization_endpoint":"https://', suffix=b'"}'),
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_64_kib_are_processed_within_50_ms(pattern: Pattern) -> None:
    for name, process in processors.PROCESSORS.items():
        # base64 makes the payload of a token a third longer.
        body = pattern(48 * KIB - 64 if name == "payload" else 64 * KIB)
        assert len(body) <= 64 * KIB
        run_within(
            lambda process=process, body=body: process(body), SECONDS_FOR_64_KIB, refusal=(SignInRefused, ValueError)
        )


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_a_mebibyte_of_metadata_or_keys_is_processed_within_250_ms(pattern: Pattern) -> None:
    body = pattern(MIB)
    for name in ("metadata", "jwks"):
        assert isinstance(
            run_within(lambda name=name: processors.PROCESSORS[name](body), SECONDS_FOR_A_MIB), SignInRefused
        )


KEYS = {
    "P-256": encode_jwk(processors.EC_JWK),
    "not a point of P-256": encode_jwk({**processors.EC_JWK, "y": processors.EC_JWK["x"]}),
    "Ed25519": encode_jwk(processors.OKP_JWK),
    "RSA 2048": encode_jwk(processors.RSA_JWK),
    "RSA 2048 with a long exponent": encode_jwk({**processors.RSA_JWK, "e": encode_b64url(b"\xff" * 8)}),
    "RSA 16384": encode_jwk({**processors.RSA_JWK, "n": encode_b64url(b"\xff" * 2048)}),
    "empty": b"{},",
}


@pytest.mark.parametrize("jwk", KEYS.values(), ids=KEYS)
def test_largest_key_set_is_parsed_within_250_ms_and_searched_within_50_ms(jwk: bytes) -> None:
    body = create_largest_key_set(jwk)
    keys = run_within(lambda: parse_jwks(body), SECONDS_FOR_A_MIB)
    assert isinstance(keys, JSONWebKeySet)
    assert len(keys.keys) in (0, body.count(b"kty"))
    for kid in (None, "unknown"):
        result = run_within(lambda kid=kid: keys.get_key(kid=kid, alg="RS256"), SECONDS_FOR_64_KIB)
        assert isinstance(result, KeyNotFound)


def test_document_with_too_many_structural_characters_is_refused() -> None:
    """A document with one value less is accepted."""
    largest = b'{"a":[%s0]}' % (b"0," * (MAX_STRUCTURAL_CHARACTERS - 3))
    assert len(parse_json_object(largest)["a"]) == MAX_STRUCTURAL_CHARACTERS - 2
    with raises(ValueError, match="Not a JSON object"):
        parse_json_object(largest.replace(b"[", b"[0,"))


def test_too_long_endpoint_url_is_refused() -> None:
    """urlsplit caches its results, so very long URLs would stay in memory."""
    longest = "https://op.example/".ljust(2048, "a")
    validate_https_url(longest, allow_loopback_http=False)
    with raises(Code.TRANSPORT_NOT_HTTPS):
        validate_https_url(f"{longest}a", allow_loopback_http=False)


def test_documents_of_large_providers_are_accepted() -> None:
    """A hundred RSA keys with certificates, metadata of 50 KB, a user in five thousand groups."""
    jwk = {**processors.RSA_JWK, "use": "sig", "x5t": "x" * 27, "x5c": ["A" * 1200]}
    keys = json.dumps({"keys": [{**jwk, "kid": f"key {number}"} for number in range(100)]}, indent=4).encode()
    assert len(parse_jwks(keys).keys) == 100
    scopes = [f"https://op.example/scope/{number}" for number in range(1400)]
    metadata = json.dumps({**processors.METADATA, "scopes_supported": scopes}, indent=4).encode()
    assert len(metadata) > 50_000
    assert processors.PROCESSORS["metadata"](metadata).issuer == processors.ISSUER
    groups = json.dumps({**processors.USERINFO, "groups": [f"group {number}" for number in range(5000)]}).encode()
    assert len(processors.PROCESSORS["userinfo"](groups)["groups"]) == 5000


def test_the_largest_key_verifies_within_50_ms() -> None:
    largest = {
        **processors.RSA_JWK,
        "n": encode_b64url(b"\xff" * 2048),
        "e": encode_b64url(b"\xff" * 8),
        "alg": "RS256",
    }
    (key,) = parse_jwks(json.dumps({"keys": [largest]}).encode()).keys
    verified = run_within(lambda: key.verify("RS256", b"x" * 64 * KIB, b"\x01" * 2048), SECONDS_FOR_64_KIB)
    assert verified is False
