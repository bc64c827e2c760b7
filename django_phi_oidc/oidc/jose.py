"""Strict reading of what stands in a JWS: JSON and base64url in their one canonical form. Verifies no signature.

Whatever two parsers could read in two ways is refused here, before a key is looked at. Spec: RFC 7515, RFC 8259.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never

from ..errors import TokenMalformed

MAX_DEPTH = 20
MAX_STRUCTURAL_CHARACTERS = 20_000
"""Of the characters `[`, `{`, `:` and `,`, those in texts counted too. They bound the number of values: a mebibyte of
`{"":0},` would become 30 MB, and of `{}` as keys half a second. A key set of a hundred keys has some 2,000."""
MAX_NUMBER_LENGTH = 64
"""Characters. No number of a protocol message needs more, and reading long ones takes time that is not linear."""

_B64URL = re.compile(r"[A-Za-z0-9_-]+")
_STRUCTURAL_CHARACTERS = (b"[", b"{", b":", b",")
_NEXT_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.?)*+"?)*+([\[\]{}]?)', re.DOTALL)
"""Steps over texts. It matches whatever comes, and possessively: one pass, without a stack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JWS:
    """A JSON Web Signature whose structure was judged. Nothing in it is authentic before its signature is verified."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def alg(self) -> str:
        """The header's alg, a string by construction."""
        return str(self.header["alg"])

    @property
    def kid(self) -> str | None:
        """The header's kid, if it has one."""
        kid: str | None = self.header.get("kid")
        return kid


def parse_compact_jws(token: str, *, max_bytes: int = 65536) -> JWS:
    """Return the parts of a JWS in compact serialization whose header and payload are JSON objects.

    Canonical base64url without padding; no `crit` (we understand no extension, `b64` among them); `alg` a string, `typ`
    and `kid` too when present. `jku`, `x5u`, `jwk` and `x5c` are let through and used by nobody. NOT checked: whether
    alg is allowed, what typ says, the signature: an empty one is well-formed, so that `none` is refused for what it is.

    Raises: TokenMalformed.
    Spec: RFC 7515 5.2, 7.1, 4.1.11.
    """
    if len(token) > max_bytes or not token.isascii():
        raise TokenMalformed
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise TokenMalformed
    header = _parse_token_part(parts[0])
    _validate_header(header)
    return JWS(
        header=header,
        payload=_parse_token_part(parts[1]),
        signing_input=f"{parts[0]}.{parts[1]}".encode("ascii"),
        signature=_decode_token_part(parts[2]) if parts[2] else b"",
    )


def parse_json_object(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Return the JSON object that data is, of which no two readers can think differently.

    Valid UTF-8 without lone surrogates and NUL (no column and no form takes them), no member name twice at any level,
    every number finite and at most 64 characters long, at most max_depth levels (the outer object is the first), and no
    more values than a protocol message needs: no input leads to RecursionError, or takes much more memory than its own.

    Raises: ValueError, which holds nothing of data.
    Spec: RFC 8259, RFC 7515 5.2, RFC 7493.
    """
    value: object = None
    if sum(map(data.count, _STRUCTURAL_CHARACTERS)) <= MAX_STRUCTURAL_CHARACTERS and not _exceeds_depth(
        data, max_depth
    ):
        try:
            value = _DECODER.decode(data.decode("utf-8"))
            if b"\\u" in data:
                _validate_text(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        # Raised out here because the parser's own error holds the document, and would stay as its context.
        raise ValueError("Not a JSON object of the accepted kind.")  # noqa: TRY004 -- one error for all that is wrong
    return value


def decode_b64url(text: str) -> bytes:
    """Return the bytes of text, the one canonical base64url form of them, without padding and not empty.

    Raises: ValueError for everything else: padding, foreign characters, bits left over that are not zero.
    Spec: RFC 7515 2, RFC 4648 3.5.
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


def _decode_token_part(part: str) -> bytes:
    try:
        return decode_b64url(part)
    except ValueError:
        pass
    raise TokenMalformed


def _parse_token_part(part: str) -> dict[str, Any]:
    data = _decode_token_part(part)
    try:
        return parse_json_object(data)
    except ValueError:
        pass
    raise TokenMalformed


def _validate_header(header: Mapping[str, Any]) -> None:
    if "crit" in header or not isinstance(header.get("alg"), str):
        raise TokenMalformed
    if any(name in header and not isinstance(header[name], str) for name in ("typ", "kid")):
        raise TokenMalformed


def _exceeds_depth(data: bytes, max_depth: int) -> bool:
    """Say it without recursion. Of what is no JSON it is right up to the first fault, where the parser stops."""
    if data.count(b"{") + data.count(b"[") <= max_depth:
        return False
    depth = 0
    for bracket in _NEXT_BRACKET.finditer(data):
        depth += 1 if bracket[1] in (b"{", b"[") else -1
        if not 0 < depth <= max_depth:
            return depth > max_depth
    return False


def _reject_duplicate_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("A member name stands twice.")
    return members


def _parse_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("A number is too long.")
    return int(text)


def _parse_finite_float(text: str) -> float:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("A number is too long.")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("A number is too large.")
    return number


def _reject_constant(name: str) -> Never:
    raise ValueError("NaN and Infinity are no JSON.")


def _validate_text(value: object) -> None:
    """Lone surrogates and NUL come in by `\\u` escapes alone."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("NUL in a text.")
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
