"""The names of retention keys: one for each day and retention, for each person and for each legal
hold.
"""

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from ...crypto.claim_keys import (
    DAY_PATTERN,
    HOLD_PATTERN,
    HOLD_PREFIX,
    PERSON_PATTERN,
    are_claim_key_names,
)

NAME_SEPARATOR = "+"
"""Between the names in a ciphertext."""
_PERSON_PREFIX = "person/"
_LISTED_NAME = re.compile(f"{DAY_PATTERN}|{HOLD_PATTERN}")
_PERSON_NAME = re.compile(PERSON_PATTERN)


def retention_key_name(obtained_at: datetime, retention: timedelta | Literal["session"]) -> str:
    """Return the key name for a claim: the day on which it was obtained (UTC), and its retention in
    seconds.
    """
    if isinstance(retention, timedelta):
        kind = str(int(retention.total_seconds()))
    else:
        kind = retention
    return f"{obtained_at.astimezone(UTC):%Y%m%d}-{kind}"


def person_key_name(key_id: uuid.UUID) -> str:
    """Return the name of the key of a person. key_id: random. Its first two digits divide a folder
    into 256 parts.
    """
    return f"{_PERSON_PREFIX}{key_id.hex[:2]}/{key_id.hex[2:]}"


def join_names(bucket: str, person_key_id: uuid.UUID) -> str:
    """Return the names of the keys of a claim: those of its day and of the person, or the bucket
    alone.
    """
    if not bucket or bucket.startswith(HOLD_PREFIX):
        return bucket
    return f"{bucket}{NAME_SEPARATOR}{person_key_name(person_key_id)}"


def is_retention_key_name(name: str) -> bool:
    """Say whether a store can have a key of that name."""
    return is_listed_name(name) or bool(_PERSON_NAME.fullmatch(name))


def is_listed_name(name: str) -> bool:
    """Say whether this is the name of the key of a day or a hold, which stores list."""
    return bool(_LISTED_NAME.fullmatch(name)) and are_claim_key_names(name)


def parse_key_date(name: str) -> date | None:
    """Return the day of the claims under that key; None for the key of a legal hold."""
    if name.startswith(HOLD_PREFIX):
        return None
    return date.fromisoformat(name[:8])
