"""The keys that an app supplies for claims, in place of KEYS['encryption'].

A ciphertext under such keys starts with their names, which contain a hyphen, unlike the id of an
encryption key. `extensions.ClaimKeySource` describes the app; the first one that is registered is
used.
"""

import re
import uuid
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal

from ..errors import KeyMissing
from ..extensions import ClaimKeySource, claim_key_sources

DAY_PATTERN = "[0-9]{8}-(session|[0-9]{1,10})"
HOLD_PREFIX = "hold-"
HOLD_PATTERN = f"{HOLD_PREFIX}[0-9a-f]{{32}}"
PERSON_PATTERN = "person/[0-9a-f]{2}/[0-9a-f]{30}"
NAMES_PATTERN = f"({DAY_PATTERN}([+]{PERSON_PATTERN})?|{HOLD_PATTERN})"
"""The names in a ciphertext, for Python and PostgreSQL."""
_NAMES = re.compile(NAMES_PATTERN)
KeyCache = dict[str, bytes]
"""Keys by name that one operation has read. A longer use would miss that a key is destroyed."""


@lru_cache(maxsize=64)
def are_claim_key_names(names: str) -> bool:
    """Say whether a text that starts with these names is encrypted under keys of claims."""
    if not _NAMES.fullmatch(names):
        return False
    if names.startswith(HOLD_PREFIX):
        return True
    try:
        date.fromisoformat(names[:8])
    except ValueError:
        return False
    return True


def find_enabled_source() -> ClaimKeySource | None:
    """Return the source of keys for new claims; None: KEYS['encryption'] encrypts them."""
    source = _find_source()
    if source is None or not source.is_enabled():
        return None
    return source


def find_day_key_name(obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
    """Return the name of the key of such a claim; "" for KEYS['encryption']."""
    source = find_enabled_source()
    if source is None:
        return ""
    return source.name_day_key(obtained_at, retention)


def join_names(bucket: str, person_key_id: uuid.UUID) -> str:
    """Return the names of all keys of a claim; "" for KEYS['encryption']. Raises: KeyMissing.

    bucket: that of the claim. person_key_id: the `retention_key_id` of its subject.
    """
    if not bucket:
        return ""
    return _get_source().join_names(bucket, person_key_id)


def find_key(names: str, *, cache: KeyCache | None) -> bytes | None:
    """Return the key of texts with these names; None if it was destroyed. Raises: KeyMissing."""
    return _get_source().find_key(names, cache=cache)


def get_or_create_key(names: str, *, cache: KeyCache | None) -> bytes:
    """Return the key of texts with these names, creating it if necessary. Raises: KeyMissing."""
    return _get_source().get_or_create_key(names, cache=cache)


def _find_source() -> ClaimKeySource | None:
    return next(iter(claim_key_sources), None)


def _get_source() -> ClaimKeySource:
    source = _find_source()
    if source is None:
        raise KeyMissing("Claims are encrypted under retention keys, and no app supplies the keys.")
    return source
