"""Key lists, newest key first, and encryption with them.

A key is 32 bytes, written as base64url. A list comes from the setting itself (list or
comma-separated text), from a file (`pathlib.Path`, one key per line), or from a callable that
returns either, such as a KMS or Vault client. A key's id is derived from the key, so lists need no
names.
"""

import base64
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness
from ..errors import CiphertextInvalid, KeyMissing, KeyUnknown, Undecryptable
from . import claim_keys
from .conf import get_key_source

logger = logging.getLogger(__name__)
KEY_BYTES = 32
_KEY_ID = re.compile("[0-9a-f]{8}")
_LIST_TYPES = (list, tuple)
_decode_json_prefix = json.JSONDecoder().raw_decode
"""The part of json.loads that skips neither an encoding check nor surrounding whitespace."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """A key and its public id: eight hexadecimal digits."""

    id: str
    material: bytes = field(repr=False)


@sensitive_variables()
def get_keys(ring_name: str) -> tuple[SymmetricKey, ...]:
    """Return the keys of that ring (one of KEY_RINGS), newest first, never empty. Raises:
    KeyMissing.
    """
    source = get_key_source(ring_name)
    if isinstance(source, _LIST_TYPES):
        texts = tuple(source)
    else:
        texts = _load_key_texts(ring_name, source)

    try:
        keys = _parse_keys(ring_name, texts)
    except TypeError as error:
        raise _key_list_error(ring_name) from error
    if not keys:
        raise KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}] has no key.")
    return keys


def find_keys(ring_name: str) -> tuple[SymmetricKey, ...]:
    """Return the keys of that ring as `get_keys` does; none if they can't be read, which is
    logged.
    """
    try:
        return get_keys(ring_name)
    except KeyMissing as error:
        log_key_missing(error)
        return ()


def log_key_missing(error: KeyMissing) -> None:
    """Log the fault without its traceback: the cause and its frames may contain credentials of a
    key service.
    """
    if error.__cause__:
        cause = f" ({type(error.__cause__).__name__})"
    else:
        cause = ""
    logger.error("%s%s", error, cause)


def generate_key() -> str:
    """Return a new random key in the format of a key list."""
    return base64.urlsafe_b64encode(randomness.token_bytes(KEY_BYTES)).decode("ascii")


@sensitive_variables()
def encrypt(
    value: str,
    *,
    context: Sequence[str],
    retention_key_names: str = "",
    retention_key_cache: claim_keys.KeyCache | None = None,
) -> str:
    """Encrypt value under the newest encryption key, or under the named retention keys, created if
    necessary.

    context: must be the same for decryption. The ciphertext starts with the key id or names.
    Fernet's plaintext timestamp is set to zero, so the time of encryption is not stored.
    """
    if retention_key_names:
        material = claim_keys.get_or_create_key(retention_key_names, cache=retention_key_cache)
        key = SymmetricKey(retention_key_names, material)
    else:
        key = get_keys("encryption")[0]
    # The output of json.dumps for a list of texts, in a quarter of the time.
    return _encrypt_bytes(f"[{','.join(map(encode_basestring, [*context, value]))}]".encode(), key)


def decrypt(
    ciphertext: str,
    *,
    context: Sequence[str],
    keys: Sequence[SymmetricKey] | None = None,
    retention_key_cache: claim_keys.KeyCache | None = None,
) -> str:
    """Return the plaintext. Raises: KeyMissing, KeyUnknown; CiphertextInvalid, also for another
    context.

    keys: the encryption keys, read once for many texts; None: read them now.
    """
    key_id, _, token = ciphertext.partition(":")
    if _is_retention(key_id) and claim_keys.are_claim_key_names(key_id):
        material = claim_keys.find_key(key_id, cache=retention_key_cache)
        if material is None:
            raise KeyUnknown
        key = SymmetricKey(key_id, material)
    else:
        key = _get_key(key_id, get_keys("encryption") if keys is None else keys)
    return _decrypt_envelope(key, token, context)[1]


def decrypt_external(ciphertext: str, *, context: Sequence[str]) -> str | None:
    """Return the plaintext of a cookie or parameter; None if it is not one that `encrypt` made with
    that context.

    Only the encryption keys are used: the sender must not choose a retention key, which may be
    missing. Raises: KeyMissing, if there is no encryption key.
    """
    key_id, _, token = ciphertext.partition(":")
    keys = get_keys("encryption")
    try:
        return _decrypt_envelope(_get_key(key_id, keys), token, context)[1]
    except Undecryptable:
        return None


def reencrypt_text(ciphertext: str, *, context: Sequence[str], keys: Sequence[SymmetricKey]) -> str:
    """Encrypt a ciphertext of one of the keys again, under the first key.

    keys: as `get_keys("encryption")` returns them, read once for many texts.
    Raises: Undecryptable, also for a ciphertext under a retention key.
    """
    key_id, _, token = ciphertext.partition(":")
    return _encrypt_bytes(_decrypt_envelope(_get_key(key_id, keys), token, context)[0], keys[0])


def _get_key(key_id: str, keys: Sequence[SymmetricKey]) -> SymmetricKey:
    for key in keys:
        if key.id == key_id:
            return key
    if _KEY_ID.fullmatch(key_id):
        raise KeyUnknown
    raise CiphertextInvalid


def _encrypt_bytes(envelope: bytes, key: SymmetricKey) -> str:
    token = _get_fernet(key).encrypt_at_time(envelope, current_time=0)
    return f"{key.id}:{token.decode('ascii')}"


def _decrypt_envelope(key: SymmetricKey, token: str, context: Sequence[str]) -> tuple[bytes, str]:
    """Return the content of the token, and the value in it. Raises: CiphertextInvalid."""
    try:
        envelope = _get_fernet(key).decrypt(token.encode("ascii"))
        text = envelope.decode("utf-8")
        (*sealed_context, value), end = _decode_json_prefix(text)
    except (InvalidToken, ValueError, TypeError) as error:
        # Not only damage: the host project may use the same key for other content.
        raise CiphertextInvalid from error
    if sealed_context != list(context) or not isinstance(value, str) or end != len(text):
        raise CiphertextInvalid
    return envelope, value


def _load_key_texts(ring_name: str, source: Any) -> tuple[str, ...]:
    if callable(source):
        try:
            source = source()
        except KeyMissing:
            raise
        except Exception as error:
            # Of any type: the clients of key services have their own.
            raise KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}]: the callable failed.") from error
    if isinstance(source, Path):
        try:
            source = source.read_text("ascii")
        except (OSError, ValueError) as error:
            raise KeyMissing(
                f"PHI_OIDC['KEYS'][{ring_name!r}]: the key file can't be read."
            ) from error
    if isinstance(source, str):
        source = source.replace("\n", ",").split(",")
    if source is not None and not isinstance(source, _LIST_TYPES):
        raise _key_list_error(ring_name)
    return tuple(source or ())


def _key_list_error(ring_name: str) -> KeyMissing:
    return KeyMissing(
        f"PHI_OIDC['KEYS'][{ring_name!r}] must be a list of keys, a file or a callable."
    )


@lru_cache(maxsize=16)
def _parse_keys(ring_name: str, texts: tuple[str, ...]) -> tuple[SymmetricKey, ...]:
    """Raises: KeyMissing; TypeError when an entry is not text."""
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("A key must be text.")
    try:
        # Different base64 texts can encode the same key.
        return tuple(dict.fromkeys(_parse_key(text.strip()) for text in texts if text.strip()))
    except ValueError:
        # From None: the frames of the cause contain the text, which may be a key with a typing
        # error.
        raise KeyMissing(
            f"PHI_OIDC['KEYS'][{ring_name!r}]: each key is {KEY_BYTES} bytes as base64url."
        ) from None


@lru_cache(maxsize=64)
def _parse_key(text: str) -> SymmetricKey:
    material = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(material) != KEY_BYTES:
        raise ValueError("length")
    return SymmetricKey(
        hashlib.sha256(b"django_phi_oidc key id\x00" + material).hexdigest()[:8], material
    )


def _is_retention(key_id: str) -> bool:
    return "-" in key_id


def _get_fernet(key: SymmetricKey) -> Fernet:
    # Retention keys are not cached: there is one for each person, and none should stay in memory
    # when it is destroyed.
    if _is_retention(key.id):
        return _create_fernet(key.material)
    return _get_cached_fernet(key.material)


def _create_fernet(material: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(material))


_get_cached_fernet = lru_cache(maxsize=64)(_create_fernet)
