"""Events that the sealer seals, with contents that no code of this package writes.

A process with a MAC key and the right to INSERT can write them. They are the same for the same seed.
"""

import random
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django_phi_oidc._internal.randomness import lowest_uuid7
from django_phi_oidc.audit.actions import DECLARATION_ACTIONS, DETAIL_KEYS, DETAIL_TYPES, DetailType
from django_phi_oidc.audit.events import MAX_INTEGER, MAX_ITEMS, OUTCOMES, Event, canonical_json, sanitize_text

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TEXTS = (
    *("", " ", "0", "-1", "1" * 256, "x" * 256, "𝒳" * 256, "None", "null", "true", "{}", "[]", "%s", "%(x)s", "{0}"),
    *("=1+1", "@x", "<script>", "a|b\\c=d", "../..", '"', "\\", "\u202e\u200b", "٣", "e\u0301", "\ufffe"),
    *("SecurityAlert/", "SecurityAlert/1", "user/", "user/x", "group/7", "/", "Patient/7", "Sink/x", "SCIMClient/7"),
    *("00000000-0000-0000-0000-000000000000", "0" * 36, "9999-12-31T23:59:59+00:00", "0001-01-01", "2026-13-45"),
    *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
    *("os:", "os:x@y", "::1", "300.1.1.1", "fe80::1%eth0", "TREAT", "audit_unavailable", "session_timeout", "default"),
)
INTEGERS = (0, 1, -1, 3, 2**31, MAX_INTEGER - 1, 1 - MAX_INTEGER)
NEWER_KEYS = ("next", "items", "keys", "get", "Z")
"""Keys that no action declares."""


def create_hostile_events(
    count: int, *, seed: int, until: datetime, mac_key: str, since: datetime = FIRST
) -> Iterator[Event]:
    """Yield events of all actions in turn, with times in any order."""
    source = random.Random(seed)
    actions = sorted(set(DETAIL_KEYS) - DECLARATION_ACTIONS)
    for number in range(count):
        occurred_at = since + source.randrange((until - since) // MICROSECOND) * MICROSECOND
        action = actions[number % len(actions)]
        yield Event(
            uuid.UUID(int=lowest_uuid7(occurred_at).int | source.getrandbits(62)),
            1,
            mac_key,
            occurred_at,
            action,
            source.choice(OUTCOMES),
            *(_create_text(source) for _ in range(10)),
            canonical_json(_create_detail(source, DETAIL_KEYS[action])),
        )


def _create_detail(source: random.Random, keys: Iterable[str]) -> dict[str, Any]:
    detail = {}
    for key in sorted(keys):
        if source.random() < 0.7:
            detail[key] = _create_value(source, DETAIL_TYPES[key])
    for key in source.sample(NEWER_KEYS, source.choice([0, 0, 1, 2])):
        detail[key] = _create_value(source, source.choice(list(DetailType)))
    for key in source.sample(sorted(DETAIL_TYPES), source.choice([0, 0, 3, 20])):
        detail[key] = _create_value(source, DETAIL_TYPES[key])
    return detail


def _create_value(source: random.Random, detail_type: DetailType) -> Any:
    count = source.choice([0, 1, 3, MAX_ITEMS])
    match detail_type:
        case DetailType.TEXT:
            return _create_text(source)
        case DetailType.INTEGER:
            return source.choice(INTEGERS)
        case DetailType.BOOLEAN:
            return source.choice([True, False])
        case DetailType.TEXTS:
            return [_create_text(source) for _ in range(count)]
        case DetailType.INTEGERS:
            return [source.choice(INTEGERS) for _ in range(count)]


def _create_text(source: random.Random) -> str:
    if source.random() < 0.8:
        return source.choice(TEXTS)
    text = "".join(chr(source.randrange(0x110000)) for _ in range(source.randrange(40)))
    assigned = "".join(character for character in text if unicodedata.category(character) != "Cn")
    return sanitize_text(assigned)
