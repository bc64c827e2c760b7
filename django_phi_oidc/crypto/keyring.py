"""Key lists, newest first, and what they seal.

A key is 32 bytes, written as base64url. A list comes from the setting itself (list or comma-separated text), from a
file (`pathlib.Path`, a key a line), or from a callable that returns either: a KMS or Vault client. A key's id is
derived from the key, so that no list has to name them.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import randomness
from ..errors import KeyMissing, Undecryptable
from . import retention_keys

KEY_BYTES = 32
_LIST_TYPES = (list, tuple)
_decode_json_prefix = json.JSONDecoder().raw_decode
"""Half of json.loads: without the look for an encoding, and for spaces around."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """A key and its public id: eight hexadecimal digits."""

    id: str
    material: bytes = field(repr=False)


@sensitive_variables()
def get_keys(ring_name: str) -> tuple[SymmetricKey, ...]:
    """Return the keys of that ring (one of conf.KEY_RINGS), newest first; never empty.

    Raises: KeyMissing.
    """
    source = conf.get_key_source(ring_name)
    texts = tuple(source) if isinstance(source, _LIST_TYPES) else _load_key_texts(ring_name, source)
    try:
        found = _parse_keys(ring_name, texts)
    except TypeError as error:
        raise _key_list_error(ring_name) from error
    if not found:
        raise KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}] has no key.")
    return found


def generate_key() -> str:
    """Return a new random key as a key list has it."""
    return base64.urlsafe_b64encode(randomness.token_bytes(KEY_BYTES)).decode("ascii")


@sensitive_variables()
def encrypt(value: str, *, context: Sequence[str], retention_key_name: str = "") -> str:
    """Return value sealed under the newest encryption key, to be opened in the same context alone.

    bucket: of the retention key to seal under instead, which is made if there is none.

    The text names its key. Its time of writing is not in it: Fernet's clear timestamp is set to zero.
    """
    key = (
        SymmetricKey(retention_key_name, retention_keys.get_store().create(retention_key_name))
        if retention_key_name
        else get_keys("encryption")[0]
    )
    return _encrypt_envelope([*context, value], key)


def decrypt(ciphertext: str, *, context: Sequence[str]) -> str:
    """Return what was sealed in that context.

    Raises: Undecryptable, whichever of damage, foreign key and foreign place it is.
    """
    key_id, _, token = ciphertext.partition(":")
    if "-" in key_id and retention_keys.is_retention_key_name(key_id):
        material = retention_keys.get_store().get(key_id)
        if material is None:
            raise Undecryptable
        return _decrypt_value(SymmetricKey(key_id, material), token, context)
    return _decrypt_value(_get_key(key_id, get_keys("encryption")), token, context)


def reencrypt_text(ciphertext: str, *, context: Sequence[str], keys: Sequence[SymmetricKey]) -> str:
    """Return what was sealed in that context under one of the ring, sealed under its first key.

    ring: as `get_keys("encryption")` gives it, once for many texts.
    Raises: Undecryptable, of a text under a retention key too.
    """
    key_id, _, token = ciphertext.partition(":")
    return _encrypt_bytes(_decrypt_envelope(_get_key(key_id, keys), token, context)[0], keys[0])


def _get_key(key_id: str, keys: Sequence[SymmetricKey]) -> SymmetricKey:
    for key in keys:
        if key.id == key_id:
            return key
    raise Undecryptable


def _encrypt_envelope(envelope: Sequence[str], key: SymmetricKey) -> str:
    # What json.dumps writes of a list of texts, at a quarter of the time.
    return _encrypt_bytes(f"[{','.join(map(encode_basestring, envelope))}]".encode(), key)


def _encrypt_bytes(envelope: bytes, key: SymmetricKey) -> str:
    token = _create_fernet(key.material).encrypt_at_time(envelope, current_time=0)
    return f"{key.id}:{token.decode('ascii')}"


def _decrypt_value(key: SymmetricKey, token: str, context: Sequence[str]) -> str:
    return _decrypt_envelope(key, token, context)[1]


def _decrypt_envelope(key: SymmetricKey, token: str, context: Sequence[str]) -> tuple[bytes, str]:
    """Return what the token holds, and the value in it. Raises: Undecryptable."""
    try:
        envelope = _create_fernet(key.material).decrypt(token.encode("ascii"))
        text = envelope.decode("utf-8")
        (*sealed_context, value), end = _decode_json_prefix(text)
    except (InvalidToken, ValueError, TypeError) as error:
        # Not only damage: a host project may have sealed something of its own under the same key.
        raise Undecryptable from error
    if sealed_context != list(context) or not isinstance(value, str) or end != len(text):
        raise Undecryptable
    return envelope, value


def _load_key_texts(ring_name: str, source: Any) -> tuple[str, ...]:
    if callable(source):
        source = source()
    if isinstance(source, Path):
        try:
            source = source.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}]: the key file can't be read.") from error
    if isinstance(source, str):
        source = source.replace("\n", ",").split(",")
    if source is not None and not isinstance(source, _LIST_TYPES):
        raise _key_list_error(ring_name)
    return tuple(source or ())


def _key_list_error(ring_name: str) -> KeyMissing:
    return KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}] must be a list of keys, a file or a callable.")


@lru_cache(maxsize=16)
def _parse_keys(ring_name: str, texts: tuple[str, ...]) -> tuple[SymmetricKey, ...]:
    """Raises: KeyMissing; TypeError when something in texts is no text."""
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("A key is text.")
    try:
        # One key has several spellings in base64; two of them are still one key.
        return tuple(dict.fromkeys(_parse_key(text.strip()) for text in texts if text.strip()))
    except ValueError:
        # From None: the frames of the cause hold what stands there for a key, and may be one but for a letter.
        raise KeyMissing(f"PHI_OIDC['KEYS'][{ring_name!r}]: each key is {KEY_BYTES} bytes as base64url.") from None


@lru_cache(maxsize=64)
def _parse_key(text: str) -> SymmetricKey:
    material = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(material) != KEY_BYTES:
        raise ValueError("length")
    return SymmetricKey(hashlib.sha256(b"django_phi_oidc key id\x00" + material).hexdigest()[:8], material)


@lru_cache(maxsize=64)
def _create_fernet(material: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(material))
