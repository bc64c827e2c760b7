"""Strict reading of JSON, base64url and compact JWS. Spec: RFC 7515, RFC 8259, RFC 4648."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.errors import Code, IDTokenError
from django_phi_oidc.oidc.jose import decode_b64url, encode_b64url, parse_compact_jws, parse_json_object
from tests.support.error_codes import raises

HEADER = '{"alg":"ES256","kid":"k","typ":"JWT"}'
PAYLOAD = '{"sub":"x"}'
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def b64(text: str | bytes) -> str:
    return encode_b64url(text.encode() if isinstance(text, str) else text)


def token(header: str | bytes = HEADER, payload: str | bytes = PAYLOAD, signature: bytes = b"signature") -> str:
    return f"{b64(header)}.{b64(payload)}.{b64(signature)}"


def nested(levels: int) -> str:
    """Return an object with that many levels, including itself."""
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


JSON_PAIRS = [
    pytest.param(b'{"a":1,"b":2}', b'{"a":1,"a":2}', id="member name twice"),
    pytest.param(b'{"a":{"b":1,"c":1}}', b'{"a":{"b":1,"b":1}}', id="member name twice, below"),
    pytest.param(b'{"a":[{"b":1},{"b":1}]}', b'{"a":[{"b":1,"b":1}]}', id="member name twice, in a list"),
    pytest.param(rb'{"a":1,"b":2}', rb'{"a":1,"\u0061":2}', id="member name twice, once escaped"),
    pytest.param(b'{"a":1}', b'{"a":NaN}', id="NaN"),
    pytest.param(b'{"a":1}', b'{"a":Infinity}', id="Infinity"),
    pytest.param(b'{"a":1}', b'{"a":-Infinity}', id="minus Infinity"),
    pytest.param(b'{"a":1e308}', b'{"a":1e309}', id="float overflow"),
    pytest.param(b'{"a":%s}' % (b"9" * 64), b'{"a":%s}' % (b"9" * 65), id="integer length"),
    pytest.param(b'{"a":1}', b'{"a":%s}' % (b"9" * 5000), id="integer beyond Python's digit limit"),
    pytest.param(b'{"a":0.%s}' % (b"1" * 62), b'{"a":0.%s}' % (b"1" * 63), id="float length"),
    pytest.param(nested(20).encode(), nested(21).encode(), id="nesting of objects"),
    pytest.param(b'{"a":%s%s}' % (b"[" * 19, b"]" * 19), b'{"a":%s%s}' % (b"[" * 20, b"]" * 20), id="nesting of lists"),
    pytest.param(
        b'{"b":[],"a":%s%s,"c":[]}' % (b"[" * 19, b"]" * 19),
        b'{"b":[],"a":%s%s,"c":[]}' % (b"[" * 20, b"]" * 20),
        id="nesting next to lists",
    ),
    pytest.param(
        b'{"a":[0%s]}' % (b",0" * 19_997), b'{"a":[0%s]}' % (b",0" * 19_998), id="20,000 structural characters"
    ),
    pytest.param(b'{"a":"%s"}' % (b"[" * 99), b'{"a":"%s}' % (b"[" * 99), id="brackets in a string"),
    pytest.param(rb'{"a":"\"%s"}' % (b"{" * 99), rb'{"a":"\\"%s"}' % (b"{" * 99), id="brackets after an escaped quote"),
    pytest.param('{"a":"é"}'.encode(), '{"a":"é"}'.encode("latin-1"), id="not UTF-8"),
    pytest.param(b'{"a":1}', '{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"a":1}', b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
    pytest.param(rb'{"a":"\ud83d\ude00"}', rb'{"a":"\ud83d"}', id="lone surrogate"),
    pytest.param(rb'{"\ud83d\ude00":1}', rb'{"\ude00":1}', id="lone surrogate in a name"),
    pytest.param(rb'{"a":["\u0041"]}', rb'{"a":["\ud800"]}', id="lone surrogate in a list"),
    pytest.param(rb'{"a":"\u0001"}', rb'{"a":"\u0000"}', id="NUL"),
    pytest.param(rb'{"a":"\n"}', b'{"a":"\n"}', id="bare control character"),
    pytest.param(b"{}", b"", id="empty"),
    pytest.param(b"{}", b"null", id="null"),
    pytest.param(b'{"a":[1]}', b'[{"a":1}]', id="a list"),
    pytest.param(b'{"a":"b"}', b'"a"', id="a string"),
    pytest.param(b' {"a":1}\n', b'{"a":1} x', id="text behind"),
    pytest.param(b'{"a":1}', b'{"a":1}{"a":1}', id="two objects"),
    pytest.param(b'{"a":1}', b'{"a":1,}', id="trailing comma"),
    pytest.param(b'{"a":1}', b"{'a':1}", id="single quotes"),
]


@pytest.mark.parametrize(("accepted", "refused"), JSON_PAIRS)
def test_parse_json_object_one_fault_is_refused(accepted: bytes, refused: bytes) -> None:
    assert parse_json_object(accepted) == json.loads(accepted)
    with raises(ValueError, match="Not a JSON object") as caught:
        parse_json_object(refused)
    assert caught.value.__context__ is None


def test_parse_json_object_smaller_max_depth_counts_levels() -> None:
    assert parse_json_object(nested(3).encode(), max_depth=3) == {"a": {"a": {}}}
    with raises(ValueError, match="Not a JSON object"):
        parse_json_object(nested(4).encode(), max_depth=3)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a":' + b"[" * 1_000_000, id="open lists"),
        pytest.param(b'{"a":' * 200_000, id="open objects"),
        pytest.param(b'"' + b'\\"' * 500_000 + b"[" * 30, id="escaped quotes without an end"),
        pytest.param(b'{"a":' + b"9" * 1_000_000 + b"}", id="a number of a million digits"),
    ],
)
def test_parse_json_object_malicious_mebibyte_is_refused_fast(body: bytes) -> None:
    before = time.perf_counter()
    with raises(ValueError, match="Not a JSON object"):
        parse_json_object(body)
    assert time.perf_counter() - before < 2


@given(st.binary())
def test_parse_json_object_any_bytes_give_an_object_or_value_error(data: bytes) -> None:
    try:
        result: object = parse_json_object(data)
    except ValueError as error:
        result = error
    assert isinstance(result, dict) or type(result) is ValueError


@given(ANY_JSON)
def test_parse_json_object_any_json_is_parsed_unchanged_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    try:
        result: object = parse_json_object(data)
    except ValueError as error:
        result = error
    assert result == value if isinstance(value, dict) and isinstance(result, dict) else type(result) is ValueError


B64URL_PAIRS = [
    pytest.param("_-8", "/+8", id="alphabet of base64"),
    pytest.param("YQ", "YQ==", id="padding"),
    pytest.param("YQ", "YR", id="bits left over, two characters"),
    pytest.param("YWI", "YWJ", id="bits left over, three characters"),
    pytest.param("YWJj", "YWJjZ", id="a length that no bytes have"),
    pytest.param("YWJj", "YW Jj", id="space"),
    pytest.param("YWJj", "YWJj\n", id="line end"),
    pytest.param("YWJj", "YWJ\u0661", id="non-ASCII digit"),
    pytest.param("YWJj", "", id="empty"),
]


@pytest.mark.parametrize(("accepted", "refused"), B64URL_PAIRS)
def test_decode_b64url_one_fault_is_refused(accepted: str, refused: str) -> None:
    assert encode_b64url(decode_b64url(accepted)) == accepted
    with raises(ValueError, match="base64url"):
        decode_b64url(refused)


@given(st.text(alphabet="ABYZabyz0189-_=+/. ", max_size=12))
def test_decode_b64url_any_text_is_canonical_or_refused(text: str) -> None:
    try:
        data = decode_b64url(text)
    except ValueError:
        data = b""
    assert data == b"" or encode_b64url(data) == text


JWS_PAIRS = [
    pytest.param(token(), token().rsplit(".", 1)[0], id="two parts"),
    pytest.param(token(), token() + ".YQ", id="four parts"),
    pytest.param(token().rsplit(".", 1)[0] + ".", token().rsplit(".", 1)[0], id="two parts, not an empty signature"),
    pytest.param(token(), "." + token().split(".", 1)[1], id="empty header"),
    pytest.param(token(), f"{b64(HEADER)}..{b64('s')}", id="empty payload"),
    pytest.param(token(), token() + "\n", id="line end"),
    pytest.param(token(), " " + token(), id="space"),
    pytest.param(token(), token() + "é", id="not ASCII"),
    pytest.param(token(), token(signature=b"s").replace(b64("s"), b64("s") + "=="), id="padding"),
    pytest.param(token(signature=b"a"), token(signature=b"a")[:-1] + "R", id="signature malleable by left-over bits"),
    pytest.param(token(), token(payload="[]"), id="payload is a list"),
    pytest.param(token(), token(payload=b"\xff"), id="payload is binary"),
    pytest.param(token(), token(payload='{"sub":"x","sub":"y"}'), id="member twice in the payload"),
    pytest.param(token(), token('{"alg":"ES256","alg":"none"}'), id="member twice in the header"),
    pytest.param(token(payload=nested(20)), token(payload=nested(21)), id="nesting"),
    pytest.param(token(), token('"ES256"'), id="header is a string"),
    pytest.param(token('{"alg":"ES256"}'), token('{"kid":"k"}'), id="no alg"),
    pytest.param(token('{"alg":"ES256"}'), token('{"alg":null}'), id="alg is null"),
    pytest.param(token('{"alg":"ES256"}'), token('{"alg":["ES256"]}'), id="alg is a list"),
    pytest.param(token('{"alg":"ES256"}'), token('{"alg":"ES256","crit":["exp"]}'), id="crit"),
    pytest.param(token('{"alg":"ES256"}'), token('{"alg":"ES256","crit":[]}'), id="crit, empty"),
    pytest.param(
        token('{"alg":"ES256","b64":true}'), token('{"alg":"ES256","b64":false,"crit":["b64"]}'), id="b64 under crit"
    ),
    pytest.param(token('{"alg":"ES256","kid":"1"}'), token('{"alg":"ES256","kid":1}'), id="kid is a number"),
    pytest.param(token('{"alg":"ES256","kid":"1"}'), token('{"alg":"ES256","kid":null}'), id="kid is null"),
    pytest.param(token('{"alg":"ES256","typ":"JWT"}'), token('{"alg":"ES256","typ":["JWT"]}'), id="typ is a list"),
]


@pytest.mark.parametrize(("accepted", "refused"), JWS_PAIRS)
def test_parse_compact_jws_one_fault_is_token_malformed(accepted: str, refused: str) -> None:
    assert parse_compact_jws(accepted).alg == "ES256"
    with raises(Code.TOKEN_MALFORMED) as caught:
        parse_compact_jws(refused)
    assert caught.value.code == "token_malformed"
    assert caught.value.__context__ is None


def test_parse_compact_jws_one_byte_over_64_kib_is_refused() -> None:
    def token_of(size: int) -> str:
        """A length of one more than a multiple of four is not valid base64."""
        starts = (f"{b64(HEADER)}.{b64(json.dumps({'a': 'x' * more}))}." for more in range(3))
        return next(start + "A" * rest for start in starts if (rest := size - len(start)) % 4 != 1)

    assert len(token_of(65536)) == 65536
    assert len(parse_compact_jws(token_of(65536)).signature) > 48000
    with raises(Code.TOKEN_MALFORMED):
        parse_compact_jws(token_of(65537))
    assert len(parse_compact_jws(token_of(65537), max_bytes=65537).signature) > 48000


def test_parse_compact_jws_valid_token_keeps_the_signed_bytes() -> None:
    jws = parse_compact_jws(token())
    assert (jws.header["kid"], jws.kid, jws.payload, jws.signature) == ("k", "k", {"sub": "x"}, b"signature")
    assert jws.signing_input == token().rpartition(".")[0].encode()


def test_parse_compact_jws_repr_shows_no_payload() -> None:
    assert "sub" not in repr(parse_compact_jws(token()))
    assert "signature" not in repr(parse_compact_jws(token()))


@given(st.text())
def test_parse_compact_jws_any_text_gives_token_malformed(text: str) -> None:
    with raises(Code.TOKEN_MALFORMED):
        parse_compact_jws(text)


@given(ANY_JSON, ANY_JSON, st.binary(), st.text(alphabet="ab.=-", max_size=2))
def test_parse_compact_jws_any_parts_give_a_jws_or_token_malformed(
    header: Any, payload: Any, signature: bytes, behind: str
) -> None:
    header = {"alg": "ES256", **header} if isinstance(header, dict) else header
    text = token(json.dumps(header), json.dumps(payload), signature) + behind
    try:
        jws = parse_compact_jws(text)
        read: object = (jws.payload, f"{jws.signing_input.decode()}.{encode_b64url(jws.signature)}")
    except IDTokenError as error:
        read = error.__context__
    assert read in (None, (payload, text))
