"""Random bytes, tokens and identifiers."""

import base64
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

from .overrides import override_global

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_source: Callable[[int], bytes] = os.urandom


def token_bytes(size: int) -> bytes:
    """Return size unpredictable bytes."""
    return _source(size)


def token_b64url(size: int) -> str:
    """Return size unpredictable bytes as base64url without padding."""
    return base64.urlsafe_b64encode(token_bytes(size)).rstrip(b"=").decode("ascii")


def uuid4() -> uuid.UUID:
    """Return a random UUIDv4."""
    return uuid.UUID(bytes=token_bytes(16), version=4)


def uuid7(now: datetime) -> uuid.UUID:
    """Return a UUIDv7 with microsecond precision. Spec: RFC 9562 5.7, and 6.2 (method 3)."""
    return uuid.UUID(
        int=_lowest_uuid7_int(now) | int.from_bytes(token_bytes(8), "big") & (1 << 62) - 1
    )


def lowest_uuid7(now: datetime) -> uuid.UUID:
    """Return the lowest id that `uuid7` can return at now: lower ids are older. Times before 1970
    count as 1970.
    """
    return uuid.UUID(int=_lowest_uuid7_int(now))


def get_id_time(id_: uuid.UUID) -> datetime:
    """Return the time of a UUIDv7, in milliseconds; a time of the far future for another id."""
    return _EPOCH + timedelta(milliseconds=min(id_.int >> 80, 2**45))


def _lowest_uuid7_int(now: datetime) -> int:
    millis, micros = divmod(max((now - _EPOCH) // _MICROSECOND, 0), 1000)
    return millis << 80 | 0x7 << 76 | (micros * 4096 // 1000) << 64 | 0b10 << 62


def override_randomness(source: Callable[[int], bytes]) -> AbstractContextManager[None]:
    """Take randomness from source in this process, for the length of the block: for tests."""
    return override_global(globals(), "_source", source)
