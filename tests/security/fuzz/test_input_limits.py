"""The inputs that cost most: 64 KiB of anything within 50 ms of CPU time, a mebibyte of metadata or keys within 250."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from django_phi_oidc.errors import KeyNotFound, SignInRefused, TransportNotHTTPS
from django_phi_oidc.oidc.jose import MAX_STRUCTURAL_CHARACTERS, encode_b64url, parse_json_object
from django_phi_oidc.oidc.jwks import JSONWebKeySet, parse_jwks
from django_phi_oidc.oidc.metadata import validate_https_url
from tests.security.fuzz import response_processors as judges
from tests.support.fuzz_inputs import KIB, MIB, SECONDS_FOR_64_KIB, SECONDS_FOR_A_MIB, in_time

pytestmark = pytest.mark.sqlite

Pattern = Callable[[int], bytes]


def again(piece: bytes, *, before: bytes = b"", behind: bytes = b"") -> Pattern:
    """Return what fills a size with a piece, as often as it goes, and what stands around it."""
    return lambda size: before + piece * ((size - len(before) - len(behind)) // len(piece)) + behind


def numbered(piece: str, *, before: bytes = b"") -> Pattern:
    """Return what fills a size with a piece that bears a number, so that no two are alike."""
    width = len(piece % 0)
    return lambda size: before + b"".join((piece % n).encode() for n in range((size - len(before)) // width))


def compact(jwk: Mapping[str, Any], **changes: str) -> bytes:
    members = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    return json.dumps({**members, **changes}, separators=(",", ":")).encode() + b","


def as_many_as_are_read(piece: bytes) -> bytes:
    """Return a key set of these, one less than would be too many marks of structure, or than a mebibyte holds."""
    marks = sum(piece.count(mark) for mark in b"[{:,")
    return b'{"keys":[' + (piece * min((MAX_STRUCTURAL_CHARACTERS - 4) // marks, (MIB - 64) // len(piece)))[:-1] + b"]}"


DOWN = b'{"a":' * 19
PATTERNS: dict[str, Pattern] = {
    "open lists": again(b"["),
    "open lists in an object": again(b"[", before=b'{"a":'),
    "open objects": again(b'{"a":'),
    "closing lists": again(b"]", before=b'{"a":[' + b"[]," * 30),
    "empty lists": again(b"[],", before=b'{"keys":[', behind=b"[]]}"),
    "empty objects": again(b"{},", before=b'{"keys":[', behind=b"{}]}"),
    "small objects": again(b'{"":0},', before=b'{"keys":[', behind=b"{}]}"),
    "small lists": again(b"[0],", before=b'{"keys":[', behind=b"[0]]}"),
    "lists deep down": again(b"[],", before=DOWN + b"[", behind=b"[]]" + b"}" * 19),
    "digits": again(b"9,", before=b'{"a":[', behind=b"9]}"),
    "long numbers": again(b"9" * 64 + b",", before=b'{"a":[', behind=b"9]}"),
    "long fractions": again(b"9" * 58 + b"e-300,", before=b'{"a":[', behind=b"9]}"),
    "one number": again(b"9", before=b'{"a":', behind=b"}"),
    "short texts": again('"ā",'.encode(), before=b'{"a":[', behind=b'""]}'),
    "members": numbered('"%07d":0,', before=b"{"),
    "one member again": again(b'"a":0,', before=b"{", behind=b'"a":0}'),
    "quotes": again(b'"'),
    "quotes behind brackets": again(b'"', before=b"[" * 30),
    "texts behind brackets": again(b'xx""', before=b"{}" * 30),
    "backslashes": again(b"\\"),
    "backslashes in a text": again(b"\\", before=b'{"access_token":"'),
    "backslashes behind brackets": again(b"\\", before=b"[" * 30 + b'"'),
    "escaped quotes": again(b'\\"', before=b"[" * 30 + b'"'),
    "escapes": again(b"\\u0061", before=b'{"access_token":"', behind=b'"}'),
    "escapes in short texts": again(b'"\\u0061",', before=b'{"a":[', behind=b'""]}'),
    "lone surrogates": again(b"\\ud800", before=b'{"access_token":"', behind=b'"}'),
    "escaped names": again(rb'"\u0061ccess_token":"\u0061",', before=b"{"),
    "spaces": again(b" ", before=b'{"access_token"', behind=b':"x"}'),
    "spaces between texts": again(b'"a"   '),
    "tokens": numbered('"access_token":"%07d",', before=b"{"),
    "tokens in a form": numbered("access_token=%07d&"),
    "escaped form": again(b"%61=%61&"),
    "escaped value in a form": again(b"%C3%A9", before=b"refresh_token="),
    "ampersands": again(b"&"),
    "not UTF-8": again(b"\xff", before=b'{"access_token":"', behind=b'"}'),
    "dots": again(b"."),
    "base64": again(b"A"),
    "base64 with dots": again(b"AAAA."),
    "three parts": again(b"A", before=b"eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYifQ.e30."),
    "emoji": again("😀".encode(), before=b'{"sub":"', behind=b'"}'),
    "a URL": again(b"/a", before=b'{"issuer":"https://op.example","authorization_endpoint":"https://', behind=b'"}'),
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_64_kib_are_judged_within_50_ms(pattern: Pattern) -> None:
    for name, judge in judges.JUDGES.items():
        # In a token, the payload is a quarter longer.
        body = pattern(48 * KIB - 64 if name == "payload" else 64 * KIB)
        assert len(body) <= 64 * KIB
        in_time(lambda judge=judge, body=body: judge(body), SECONDS_FOR_64_KIB, refusal=(SignInRefused, ValueError))


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_a_mebibyte_of_metadata_or_keys_is_judged_within_250_ms(pattern: Pattern) -> None:
    body = pattern(MIB)
    for name in ("metadata", "jwks"):
        assert isinstance(in_time(lambda name=name: judges.JUDGES[name](body), SECONDS_FOR_A_MIB), SignInRefused)


KEYS = {
    "P-256": compact(judges.EC_JWK),
    "no point of P-256": compact({**judges.EC_JWK, "y": judges.EC_JWK["x"]}),
    "Ed25519": compact(judges.OKP_JWK),
    "RSA 2048": compact(judges.RSA_JWK),
    "RSA 2048 with a long exponent": compact({**judges.RSA_JWK, "e": encode_b64url(b"\xff" * 8)}),
    "RSA 16384": compact({**judges.RSA_JWK, "n": encode_b64url(b"\xff" * 2048)}),
    "nothing": b"{},",
}


@pytest.mark.parametrize("piece", KEYS.values(), ids=KEYS)
def test_as_many_keys_as_are_read_are_judged_within_250_ms_and_one_is_found_in_50(piece: bytes) -> None:
    body = as_many_as_are_read(piece)
    keys = in_time(lambda: parse_jwks(body), SECONDS_FOR_A_MIB)
    assert isinstance(keys, JSONWebKeySet)
    assert len(keys.keys) in (0, body.count(b"kty"))
    for kid in (None, "unknown"):
        found = in_time(lambda kid=kid: keys.get_key(kid=kid, alg="RS256"), SECONDS_FOR_64_KIB)
        assert isinstance(found, KeyNotFound)


def test_a_document_with_more_marks_of_structure_than_are_read_is_refused() -> None:
    """The twin is one value shorter."""
    most = b'{"a":[%s0]}' % (b"0," * (MAX_STRUCTURAL_CHARACTERS - 3))
    assert len(parse_json_object(most)["a"]) == MAX_STRUCTURAL_CHARACTERS - 2
    with pytest.raises(ValueError, match="Not a JSON object"):
        parse_json_object(most.replace(b"[", b"[0,"))


def test_an_endpoint_longer_than_is_read_is_refused() -> None:
    """urlsplit keeps what it has split: of a mebibyte each, a hundred endpoints would never be forgotten."""
    longest = "https://op.example/".ljust(2048, "a")
    validate_https_url(longest, allow_loopback_http=False)
    with pytest.raises(TransportNotHTTPS):
        validate_https_url(f"{longest}a", allow_loopback_http=False)


def test_documents_of_great_providers_are_far_from_the_limits() -> None:
    """A hundred RSA keys with certificates; metadata of 50 KB; a person in five thousand groups."""
    jwk = {**judges.RSA_JWK, "use": "sig", "x5t": "x" * 27, "x5c": ["A" * 1200]}
    keys = json.dumps({"keys": [{**jwk, "kid": f"key {number}"} for number in range(100)]}, indent=4).encode()
    assert len(parse_jwks(keys).keys) == 100
    scopes = [f"https://op.example/scope/{number}" for number in range(1400)]
    metadata = json.dumps({**judges.METADATA, "scopes_supported": scopes}, indent=4).encode()
    assert len(metadata) > 50_000
    assert judges.JUDGES["metadata"](metadata).issuer == judges.ISSUER
    groups = json.dumps({**judges.USERINFO, "groups": [f"group {number}" for number in range(5000)]}).encode()
    assert len(judges.JUDGES["userinfo"](groups)["groups"]) == 5000


def test_the_largest_key_verifies_within_50_ms() -> None:
    largest = {**judges.RSA_JWK, "n": encode_b64url(b"\xff" * 2048), "e": encode_b64url(b"\xff" * 8), "alg": "RS256"}
    (key,) = parse_jwks(json.dumps({"keys": [largest]}).encode()).keys
    verified = in_time(lambda: key.verify("RS256", b"x" * 64 * KIB, b"\x01" * 2048), SECONDS_FOR_64_KIB)
    assert verified is False
