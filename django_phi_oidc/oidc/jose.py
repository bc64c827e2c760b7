"""Strict parsing of a JWS, JSON and base64url. Verifies no signature.

Input that two parsers could interpret differently is refused before any key is used. Spec: RFC
7515, RFC 8259.
"""

import base64
import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never

from ..errors import Code, IDTokenError

MAX_DEPTH = 20
MAX_STRUCTURAL_CHARACTERS = 20_000
"""Maximum number of `[`, `{`, `:` and `,`, including those in strings. It bounds the number of
values: 1 MiB of `{"":0},` would become 30 MB, and of `{}` as keys take half a second. A set of a
hundred keys has about 2,000.
"""
MAX_NUMBER_LENGTH = 64
"""Characters. No protocol message needs more, and parsing long numbers takes more than linear
time.
"""

_B64URL = re.compile(r"[A-Za-z0-9_-]+")
_STRUCTURAL_CHARACTERS = (b"[", b"{", b":", b",")
_NEXT_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.?)*+"?)*+([\[\]{}]?)', re.DOTALL)
"""Skips strings. It matches any input, with possessive quantifiers: one pass without
backtracking.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JWS:
    """A JSON Web Signature with a valid structure. Its content is not authentic until the signature
    is verified.
    """

    header: Mapping[str, Any]
    payload: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def alg(self) -> str:
        """The alg of the header; always a string."""
        return str(self.header["alg"])

    @property
    def kid(self) -> str | None:
        """The kid of the header, if any."""
        kid: str | None = self.header.get("kid")
        return kid

    @property
    def media_type(self) -> str | None:
        """The typ of the header in lower case, without `application/` (RFC 7515 4.1.9); None if
        absent.
        """
        typ: str | None = self.header.get("typ")
        if typ is None:
            return None
        return typ.lower().removeprefix("application/")


def parse_compact_jws(token: str, *, max_bytes: int = 65536) -> JWS:
    """Return the parts of a JWS in compact serialization whose header and payload are JSON objects.

    Requires canonical base64url without padding, a string `alg`, string `typ` and `kid` if present,
    and no `crit` (no extension is supported, including `b64`). `jku`, `x5u`, `jwk` and `x5c` are
    ignored. NOT checked: whether alg is allowed, the value of typ, and the signature. It may be
    empty, so that `none` is refused as an algorithm.
    Raises: IDTokenError. Spec: RFC 7515 5.2, 7.1, 4.1.11.
    """
    if len(token) > max_bytes or not token.isascii():
        raise IDTokenError(Code.TOKEN_MALFORMED)
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise IDTokenError(Code.TOKEN_MALFORMED)
    jws = None
    with contextlib.suppress(ValueError):
        jws = JWS(
            header=parse_json_object(decode_b64url(parts[0])),
            payload=parse_json_object(decode_b64url(parts[1])),
            signing_input=f"{parts[0]}.{parts[1]}".encode("ascii"),
            signature=decode_b64url(parts[2]) if parts[2] else b"",
        )
    if jws is None or not _is_valid_header(jws.header):
        raise IDTokenError(Code.TOKEN_MALFORMED)
    return jws


def parse_json_object(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Return the JSON object in data, which all parsers must interpret in the same way.

    Requires valid UTF-8 without lone surrogates and NUL (columns and forms refuse them), unique
    member names at each level, finite numbers of at most 64 characters, at most max_depth levels
    (the outer object is the first), and a limited number of values. No input causes RecursionError
    or uses much more memory than its own size.
    Raises: ValueError, which contains nothing of data. Spec: RFC 8259, RFC 7515 5.2, RFC 7493.
    """
    value: object = None
    size = sum(map(data.count, _STRUCTURAL_CHARACTERS))
    if size <= MAX_STRUCTURAL_CHARACTERS and not _exceeds_depth(data, max_depth):
        try:
            value = _DECODER.decode(data.decode("utf-8"))
            if b"\\u" in data:
                _validate_text(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        # Not raised in the except block: the parser's error contains the document and would become
        # the context.
        raise ValueError("Not a JSON object of the accepted form.")  # noqa: TRY004 -- one error for all faults
    return value


def decode_b64url(text: str) -> bytes:
    """Return the bytes of canonical, non-empty base64url without padding.

    Raises: ValueError for padding, other characters, and non-zero unused bits. Spec: RFC 7515 2,
    RFC 4648 3.5.
    """
    if not _B64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("Not base64url.")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_b64url(data) != text:
        raise ValueError("Not canonical base64url.")
    return data


def encode_b64url(data: bytes) -> str:
    """Return data as base64url without padding. Spec: RFC 7515 2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _is_valid_header(header: Mapping[str, Any]) -> bool:
    optional = all(isinstance(header.get(name, ""), str) for name in ("typ", "kid"))
    return optional and isinstance(header.get("alg"), str) and "crit" not in header


def _exceeds_depth(data: bytes, max_depth: int) -> bool:
    """Return without recursion. For invalid JSON this is correct up to the first fault, where the
    parser stops.
    """
    if data.count(b"{") + data.count(b"[") <= max_depth:
        return False
    depth = 0
    for bracket in _NEXT_BRACKET.finditer(data):
        if bracket[1] in (b"{", b"["):
            depth += 1
        else:
            depth += -1
        if not 0 < depth <= max_depth:
            return depth > max_depth
    return False


def _reject_duplicate_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("A member name is repeated.")
    return members


def _parse_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("A number is too long.")
    return int(text)


def _parse_finite_float(text: str) -> float:
    number = float(text)
    if len(text) > MAX_NUMBER_LENGTH or not math.isfinite(number):
        raise ValueError("A number is too long or too large.")
    return number


def _reject_constant(name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON.")


def _validate_text(value: object) -> None:
    """Refuse lone surrogates and NUL, which only `\\u` escapes can produce."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("A string contains NUL.")
        value.encode("utf-8")
    elif isinstance(value, dict):
        for name, member in value.items():
            _validate_text(name)
            _validate_text(member)
    elif isinstance(value, list):
        for item in value:
            _validate_text(item)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_duplicate_members,
    parse_int=_parse_integer,
    parse_float=_parse_finite_float,
    parse_constant=_reject_constant,
)
