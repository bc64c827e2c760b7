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
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from . import conf, entropy
from .errors import KeyMissing, Undecryptable

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its public id: eight hexadecimal digits."""

    id: str
    material: bytes = field(repr=False)


def keys(ring: str) -> tuple[Key, ...]:
    """Return the keys of that ring (one of conf.KEY_RINGS), newest first; never empty.

    Raises: KeyMissing.
    """
    found = _parse(ring, _texts(ring, conf.option(ring)))
    if not found:
        raise KeyMissing(f"PHI_OIDC[{ring!r}] has no key.")
    return found


def generate() -> str:
    """Return a new random key as a key list has it."""
    return base64.urlsafe_b64encode(entropy.token_bytes(KEY_BYTES)).decode("ascii")


def seal(value: str, *, context: Sequence[str]) -> str:
    """Return value sealed under the newest encryption key, to be opened in the same context alone.

    The text names its key. Its time of writing is not in it: Fernet's clear timestamp is set to zero.
    """
    key = keys("ENCRYPTION_KEYS")[0]
    envelope = json.dumps([*context, value], ensure_ascii=False, separators=(",", ":"))
    token = _fernet(key.material).encrypt_at_time(envelope.encode("utf-8"), current_time=0)
    return f"{key.id}:{token.decode('ascii')}"


def open_sealed(text: str, *, context: Sequence[str]) -> str:
    """Return what was sealed in that context.

    Raises: Undecryptable, whichever of damage, foreign key and foreign place it is.
    """
    key_id, _, token = text.partition(":")
    for key in keys("ENCRYPTION_KEYS"):
        if key.id == key_id:
            return _open(key, token, context)
    raise Undecryptable


def _open(key: Key, token: str, context: Sequence[str]) -> str:
    try:
        *sealed_context, value = json.loads(_fernet(key.material).decrypt(token.encode("ascii")))
    except (InvalidToken, ValueError, TypeError) as error:
        # Not only damage: a host project may have sealed something of its own under the same key.
        raise Undecryptable from error
    if sealed_context != list(context) or not isinstance(value, str):
        raise Undecryptable
    return value


def _texts(ring: str, source: Any) -> tuple[str, ...]:
    if callable(source):
        source = source()
    if isinstance(source, Path):
        try:
            source = source.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyMissing(f"PHI_OIDC[{ring!r}]: the key file can't be read.") from error
    if isinstance(source, str):
        source = source.replace("\n", ",").split(",")
    if not isinstance(source, list | tuple | None) or not all(isinstance(text, str) for text in source or ()):
        raise KeyMissing(f"PHI_OIDC[{ring!r}] must be a list of keys, a file or a callable.")
    return tuple(source or ())


@lru_cache(maxsize=16)
def _parse(ring: str, texts: tuple[str, ...]) -> tuple[Key, ...]:
    try:
        # One key has several spellings in base64; two of them are still one key.
        return tuple(dict.fromkeys(_key(text.strip()) for text in texts if text.strip()))
    except ValueError as error:
        raise KeyMissing(f"PHI_OIDC[{ring!r}]: each key is {KEY_BYTES} bytes as base64url.") from error


@lru_cache(maxsize=64)
def _key(text: str) -> Key:
    material = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(material) != KEY_BYTES:
        raise ValueError("length")
    return Key(hashlib.sha256(b"django_phi_oidc key id\x00" + material).hexdigest()[:8], material)


@lru_cache(maxsize=64)
def _fernet(material: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(material))
