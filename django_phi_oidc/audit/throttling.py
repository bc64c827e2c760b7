"""Refusals that cost their sender nothing: a minute's first ones are events, of the others there is one that counts.

20 a minute for each reason and address, 600 in all. `admits` counts, in a table, so for all processes together; `flush`
writes what was counted when the minute is over, and an alert. Time is that of the servers: one whose clock is more than
SETTLED behind begins a minute anew that another has flushed, and then its refusals are two events that count.
`count_try` counts there, too, what people guess at: tries are never told.
"""

import ipaddress
import logging
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections, transaction
from django.db.models import F, Min

from ..errors import ActivationRefused, LogoutTokenInvalid, LogoutTokenReplayed
from .events import Action, Origin
from .models import RefusalCount
from .outbox import enqueue

logger = logging.getLogger("phi_oidc.audit")
MAX_EVENTS_PER_SENDER = 20
"""Events of one reason and address in a minute."""
MAX_EVENTS_TOTAL = 600
FLUSH_DELAY = timedelta(seconds=10)
"""How long after its end a minute may still get counts: of a request that lasts, or a clock that lags."""
_MINUTE = timedelta(minutes=1)
API_REASON_PREFIX = "api:"
"""Before the reason of a refusal at the portal's own APIs: those reasons are also a sign-in's, and counted apart."""
_ATTEMPT_REASON_PREFIX = "try:"
"""Before the reason of a row that counts tries, and not refusals: it ends with its minute, and nobody is told."""
_LOGOUT_REASONS = (LogoutTokenInvalid.code, LogoutTokenReplayed.code)
_UNKNOWN_NETWORK = "unknown"
_ANY_NETWORK = ""
_TOTAL_COUNTER = ("", _ANY_NETWORK)
"""The reason and network of the row that counts a minute's events."""


def allow_event(reason: str, client_ip: str, *, now: datetime) -> bool:
    """Say whether this refusal gets an event of its own; if not, it was counted.

    reason: a rule code. client_ip: an address; the others of its IPv6 /64 are taken for it. Each count is one
    statement, committed at once unless the caller has a transaction open. A bucket of reason and address is exact. At
    the edge of MOST_IN_ALL as many more may pass as come at the same time, since nobody waits for the others' total.
    A counter that can't be reached admits: what nobody counted must not be lost.
    """
    minute = now.replace(second=0, microsecond=0)
    # In a caller's transaction a fault must not take the transaction along.
    frame = transaction.atomic(using=DEFAULT_DB_ALIAS) if _is_in_transaction() else nullcontext()
    try:
        with frame:
            # This comes first: while the minute is full, a flood from ever new addresses makes no new rows.
            if _get_count(minute, *_TOTAL_COUNTER) >= MAX_EVENTS_TOTAL:
                _increment_count(minute, reason, _ANY_NETWORK)
                return False
            if _increment_count(minute, reason, get_sender_network(client_ip)) > MAX_EVENTS_PER_SENDER:
                return False
            _increment_count(minute, *_TOTAL_COUNTER)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Refusals can't be counted (%s), so this one gets its event.", type(error).__name__)
    return True


def release_event(reason: str, client_ip: str, *, was_allowed: bool, now: datetime) -> None:
    """Undo what `admits`, asked before the verdict, has counted: it was no refusal.

    admitted: its answer. Requires: that when this is False, the minute was full, and not the bucket alone.
    """
    _decrement_count(reason, get_sender_network(client_ip) if was_allowed else _ANY_NETWORK, now=now)


def count_refusals(reason: str, client_ip: str, *, now: datetime) -> tuple[int, int]:
    """Return how many refusals of that reason this minute has counted, of that address and of all together."""
    minute = now.replace(second=0, microsecond=0)
    rows = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(minute=minute, reason=reason)
    counts = dict(rows.values_list("network", "count"))
    return counts.get(get_sender_network(client_ip), 0), sum(counts.values())


def add_attempt(kind: str, counter_key: str, *, now: datetime) -> int:
    """Return how often this minute somebody has tried that, with this time, over all processes: no two get the same.

    by: who, in 64 characters at most; empty: anybody. Committed at once unless the caller has a transaction open.
    Raises: DatabaseError, and then nobody may try.
    """
    return _increment_count(now.replace(second=0, microsecond=0), _ATTEMPT_REASON_PREFIX + kind, counter_key)


def remove_attempt(kind: str, counter_key: str, *, now: datetime) -> None:
    """Undo what `count_try` has counted: it was no guess. now: as it was then."""
    _decrement_count(_ATTEMPT_REASON_PREFIX + kind, counter_key, now=now)


def flush_refusal_counts(*, now: datetime) -> int:
    """Write, for each minute that is over, what got no event of its own, and return how many refusals that were.

    One `login.refused` (`logout.refused` of a logout token, `api.refused` of an access token, `activation.refused` of
    an activation code) for each reason and address, with their number, and one `alert.raised` for each reason. They
    bear the end of the minute as their time. A minute is one transaction: its counts are deleted in it, and by one
    flusher only, so to be killed, to repeat it and to run several at once neither loses nor doubles a count.
    Raises: KeyMissing, DatabaseError; what was not flushed stays for the next time.
    """
    flushed = 0
    over = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(minute__lte=now - _MINUTE - FLUSH_DELAY)
    while minute := over.aggregate(first=Min("minute"))["first"]:
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            flushed += _flush_minute(minute)
    return flushed


def get_sender_network(client_ip: str) -> str:
    """Return the network that counts as one sender: an IPv4 address, an IPv6 /64, or "unknown"."""
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return _UNKNOWN_NETWORK
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _flush_minute(minute: datetime) -> int:
    end = minute + _MINUTE
    by_reason: dict[str, int] = {}
    for reason, network, count in _delete_minute_counts(minute):
        # Nothing of the row for anybody was written, of the others the first ones were.
        suppressed = count if network == _ANY_NETWORK else count - MAX_EVENTS_PER_SENDER
        if (reason, network) == _TOTAL_COUNTER or reason.startswith(_ATTEMPT_REASON_PREFIX) or suppressed <= 0:
            continue
        by_reason[reason] = by_reason.get(reason, 0) + suppressed
        origin = Origin(client_ip="" if network == _UNKNOWN_NETWORK else network)
        told: dict[str, Any] = {"now": end, "outcome": "failure", "detail": {"count": suppressed}}
        enqueue(_get_action(reason), origin=origin, reason=reason.removeprefix(API_REASON_PREFIX), **told)
    for reason, count in by_reason.items():
        detail = {"rule": "refusal_burst", "count": count}
        told = {"now": end, "reason": reason.removeprefix(API_REASON_PREFIX), "detail": detail}
        enqueue(Action.ALERT_RAISED, origin=Origin(), **told)
    return sum(by_reason.values())


def _get_action(reason: str) -> Action:
    if reason.startswith(API_REASON_PREFIX):
        return Action.API_REFUSED
    if reason == ActivationRefused.code:
        return Action.ACTIVATION_REFUSED
    return Action.LOGOUT_REFUSED if reason in _LOGOUT_REASONS else Action.LOGIN_REFUSED


def _is_in_transaction() -> bool:
    return connections[DEFAULT_DB_ALIAS].in_atomic_block


def _decrement_count(reason: str, network: str, *, now: datetime) -> None:
    rows = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(reason=reason, network=network, count__gt=0)
    rows.filter(minute=now.replace(second=0, microsecond=0)).update(count=F("count") - 1)


def _get_count(minute: datetime, reason: str, network: str) -> int:
    rows = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(minute=minute, reason=reason, network=network)
    return rows.values_list("count", flat=True).first() or 0


def _increment_count(minute: datetime, reason: str, network: str) -> int:
    """Return the count after it, which no other gets. PostgreSQL, and SQLite from 3.35."""
    columns = ("minute", "reason", "network", "count")
    table, *quoted = _quote_names(RefusalCount._meta.db_table, *columns)
    row = RefusalCount(minute=minute, reason=reason, network=network, count=1)
    (count,) = _fetch_rows(
        f"INSERT INTO {table} ({', '.join(quoted)}) VALUES (%s, %s, %s, %s) "  # noqa: S608 -- the model's names
        f"ON CONFLICT ({', '.join(quoted[:3])}) DO UPDATE SET {quoted[3]} = {table}.{quoted[3]} + 1 "
        f"RETURNING {quoted[3]}",
        {name: getattr(row, name) for name in columns},
    )[0]
    return int(count)


def _delete_minute_counts(minute: datetime) -> list[Any]:
    """Return the minute's counts, deleted: of two at once, one gets them, when the other has committed or not."""
    table, *quoted = _quote_names(RefusalCount._meta.db_table, "minute", "reason", "network", "count")
    statement = f"DELETE FROM {table} WHERE {quoted[0]} = %s RETURNING {', '.join(quoted[1:])}"  # noqa: S608 -- as above
    return _fetch_rows(statement, {"minute": minute})


def _fetch_rows(statement: str, values: dict[str, Any]) -> list[Any]:
    connection = connections[DEFAULT_DB_ALIAS]
    fields: list[Any] = [RefusalCount._meta.get_field(name) for name in values]
    given = zip(fields, values.values(), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(statement, [field.get_db_prep_save(value, connection) for field, value in given])
        # All rows: SQLite commits when the last one was read.
        rows: list[Any] = cursor.fetchall()
        return rows


def _quote_names(*names: str) -> list[str]:
    return [connections[DEFAULT_DB_ALIAS].ops.quote_name(name) for name in names]
