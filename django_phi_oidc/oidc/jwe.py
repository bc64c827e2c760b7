"""Decryption of a JWE that contains a signed token. joserfc decrypts; this module decides what it
may decrypt.

Spec: RFC 7516, RFC 7518 4 and 5, RFC 7519 5.2; OIDC Core 10.2, 16.14 (signed first, then
encrypted).
"""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry, decrypt_compact

from ..config.client_keys import ClientKey
from ..config.encryption_algorithms import (
    CONTENT_ENCRYPTION_ALGS,
    KTY_BY_KEY_MANAGEMENT_ALG,
    ResponseEncryption,
)
from ..config.signature_algorithms import find_key_type, import_key
from ..errors import Code, IDTokenError
from .jose import decode_b64url, parse_json_object
from .jwks import parse_ec_key

MAX_JWE_LENGTH = 65536
MAX_HEADER_LENGTH = 4096
"""Characters of base64url."""
_FORBIDDEN_PARAMETERS = frozenset({"crit", "zip", "p2s", "p2c", "iv", "tag", "b64"})
"""No extension and no compression, which would also expand; and what only refused algorithms
use.
"""
_WRAPPED_KEY_LENGTHS = {"A256GCM": 32 + 8, "A128GCM": 16 + 8, "A256CBC-HS512": 64 + 8}
"""The content encryption key after AES key wrap (RFC 3394), in bytes."""
_IV_AND_TAG_LENGTHS = {"A256GCM": (12, 16), "A128GCM": (12, 16), "A256CBC-HS512": (16, 32)}
"""In bytes. Spec: RFC 7518 5.2.5, 5.3."""
_COMPACT_JWS = re.compile(rb"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class _Registry(JWERegistry):
    """The limits of joserfc, raised for RSA keys of 16384 bits and for this module's own limits."""

    max_protected_header_length = MAX_HEADER_LENGTH
    max_encrypted_key_length = 4096
    max_ciphertext_length = MAX_JWE_LENGTH


_REGISTRY = _Registry(
    algorithms=[*KTY_BY_KEY_MANAGEMENT_ALG, *CONTENT_ENCRYPTION_ALGS], strict_check_header=False
)


def get_signed_token(token: str, *, encryption: ResponseEncryption) -> str:
    """Return the JWS that the token is, or contains if its kind of token is encrypted. NOTHING in
    it is verified.

    Raises: IDTokenError, also if a token is encrypted that must not be, or the reverse. Spec: RFC
    7516 9.
    """
    is_encrypted = token.count(".") == 4
    if is_encrypted and not encryption.algs:
        raise IDTokenError(Code.ENCRYPTION_UNDECLARED)
    if encryption.algs and not is_encrypted:
        raise IDTokenError(Code.ENCRYPTION_MISSING)

    if is_encrypted:
        return decrypt_compact_jwe(token, encryption=encryption)
    return token


def decrypt_compact_jwe(token: str, *, encryption: ResponseEncryption) -> str:
    """Return the JWS in a JWE in compact serialization.

    Requires canonical base64url, one of the declared algorithms, `cty` JWT, and exactly one key of
    the client that has the `kid`, or of the type if there is none. Once a key is used, each fault
    is `decryption_failed`, so that the error does not help an attacker to decrypt a captured token.
    Raises: IDTokenError. Spec: RFC 7516 5.2, 11.5; RFC 7519 5.2.
    """
    parts = token.split(".", 5)
    if (
        len(token) > MAX_JWE_LENGTH
        or not token.isascii()
        or len(parts) != 5
        or len(parts[0]) > MAX_HEADER_LENGTH
    ):
        raise IDTokenError(Code.TOKEN_MALFORMED)
    header = _parse_header(parts[0])
    if header["alg"] not in encryption.algs or header["enc"] not in encryption.encs:
        raise IDTokenError(Code.ALG_NOT_ALLOWED)
    key = _find_key(header, keys=encryption.keys)
    plaintext = None
    # Suppressed instead of chained: the error says why.
    with contextlib.suppress(JoseError, ValueError, AssertionError):
        if key is not None and _has_valid_structure(header, parts, key=key):
            plaintext = decrypt_compact(
                token, import_key(key.private_key), registry=_REGISTRY
            ).plaintext
    if plaintext is None:
        raise IDTokenError(Code.DECRYPTION_FAILED)
    if not _COMPACT_JWS.fullmatch(plaintext):
        raise IDTokenError(Code.TOKEN_MALFORMED)
    return plaintext.decode("ascii")


def _parse_header(text: str) -> Mapping[str, Any]:
    """Raises: IDTokenError `token_malformed`."""
    header: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        header = parse_json_object(decode_b64url(text))
    required = (header.get(name) for name in ("alg", "enc", "cty"))
    optional = (header.get(name, "") for name in ("kid", "typ"))
    if (
        not all(isinstance(value, str) for value in (*required, *optional))
        or header["cty"].lower().removeprefix("application/") != "jwt"
        or not _FORBIDDEN_PARAMETERS.isdisjoint(header)
    ):
        raise IDTokenError(Code.TOKEN_MALFORMED)
    return header


def _find_key(header: Mapping[str, Any], *, keys: tuple[ClientKey, ...]) -> ClientKey | None:
    """Return the only key that fits; None if none or several do, because keys are not tried in
    turn.
    """
    kid = header.get("kid")
    kty = KTY_BY_KEY_MANAGEMENT_ALG.get(header["alg"])
    fitting = [
        key
        for key in keys
        if kid in (None, key.kid)
        and (key_type := find_key_type(key.private_key)) is not None
        and key_type.kty == kty
    ]
    if len(fitting) == 1:
        return fitting[0]
    return None


def _has_valid_structure(header: Mapping[str, Any], parts: list[str], *, key: ClientKey) -> bool:
    """Return whether the parts have the lengths of the algorithms, and epk is a public key on the
    curve of the key.

    Raises: ValueError. Spec: RFC 7518 4.3, 4.6, 5.2.5, 5.3; RFC 7516 5.2.
    """
    encrypted_key, iv, ciphertext, tag = (
        decode_b64url(part) if part else b"" for part in parts[1:]
    )
    if (len(iv), len(tag)) != _IV_AND_TAG_LENGTHS[header["enc"]] or not ciphertext:
        return False
    if isinstance(key.private_key, RSAPrivateKey):
        return len(encrypted_key) == (key.private_key.key_size + 7) // 8
    epk = header.get("epk")
    if not isinstance(epk, dict) or epk.get("kty") != "EC" or "d" in epk:
        return False
    for name in ("apu", "apv"):
        if name in header:
            decode_b64url(header[name] if isinstance(header[name], str) else "")

    if header["alg"] == "ECDH-ES":
        expected_length = 0
    else:
        expected_length = _WRAPPED_KEY_LENGTHS[header["enc"]]

    is_on_curve = find_key_type(parse_ec_key(epk)) == find_key_type(key.private_key)
    return len(encrypted_key) == expected_length and is_on_curve
