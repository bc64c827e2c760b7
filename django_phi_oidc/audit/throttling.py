"""Throttle the events of refusals that cost their sender nothing.

The first refusals of a minute are events of their own: 20 per reason and address, 600 in total. The
others are counted in a table, for all processes, and `flush_refusal_counts` writes one event with
their number, and an alert, when the minute is over. A server whose clock is more than FLUSH_DELAY
behind starts a minute again that was already flushed; its refusals are then a second event.
`add_attempt` counts attempts to guess a code in the same table, without events.
"""

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections, transaction
from django.db.models import F, Min

from ..errors import Code
from .events import Action, Origin
from .models import RefusalCount
from .outbox import enqueue
from .request_context import use_origin

logger = logging.getLogger("phi_oidc.audit")
MAX_EVENTS_PER_SENDER = 20
"""Events per reason and address in a minute."""
MAX_EVENTS_TOTAL = 600
FLUSH_DELAY = timedelta(seconds=10)
"""A minute is flushed this long after its end, for slow requests and lagging clocks."""
_MINUTE = timedelta(minutes=1)
API_REASON_PREFIX = "api:"
"""Prefix of reasons of refused API calls: the same reasons exist for sign-ins, and are counted
separately.
"""
SCIM_REASON_PREFIX = "scim_"
"""Prefix of reasons of refused requests of SCIM clients."""
_ATTEMPT_REASON_PREFIX = "try:"
"""Prefix of rows that count attempts and not refusals: deleted after their minute, without an
event.
"""
_ACTIVATION_REASON = "activation_refused"
"""The code of a refused activation code."""
_SIGNAL_REASON = "set_invalid"
"""The code of a refused security event token."""
_LOGOUT_REASONS = (Code.LOGOUT_TOKEN_INVALID, Code.LOGOUT_TOKEN_REPLAYED)
UNKNOWN_NETWORK = "unknown"
_IPV6_PREFIXES = (64, 56, 48)
_ANY_NETWORK = ""
_TOTAL_COUNTER = ("", _ANY_NETWORK)
"""Reason and network of the row that counts the events of a minute."""


def allow_event(reason: str, client_ip: str, *, now: datetime) -> bool:
    """Whether this refusal gets an event of its own; otherwise it is counted.

    reason: a rule code. client_ip: all addresses of an IPv6 /64 count as one. Each count is one
    statement, committed at once unless the caller has an open transaction. The limit per reason and
    address is exact. MAX_EVENTS_TOTAL may be exceeded by concurrent requests, which do not wait for
    each other.
    If the database cannot count, the answer is True: a refusal that is not counted must not be
    lost.
    """
    minute = now.replace(second=0, microsecond=0)
    # A savepoint, so that an error does not break the transaction of the caller.
    in_transaction = connections[DEFAULT_DB_ALIAS].in_atomic_block
    savepoint: AbstractContextManager[Any]
    if in_transaction:
        savepoint = transaction.atomic(using=DEFAULT_DB_ALIAS)
    else:
        savepoint = nullcontext()

    try:
        with savepoint:
            # First, so that a flood from ever new addresses adds no rows while the minute is full.
            totals = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(
                minute=minute, reason="", network=_ANY_NETWORK
            )
            if totals.filter(count__gte=MAX_EVENTS_TOTAL).exists():
                _increment_count(minute, reason, _ANY_NETWORK)
                return False
            if (
                _increment_count(minute, reason, get_sender_network(client_ip))
                > MAX_EVENTS_PER_SENDER
            ):
                return False
            _increment_count(minute, *_TOTAL_COUNTER)
    except (DatabaseError, InterfaceError) as error:
        logger.warning(
            "Refusals can't be counted (%s), so this one gets an event.", type(error).__name__
        )
    return True


def add_attempt(kind: str, counter_key: str, *, now: datetime) -> int:
    """Count an attempt, and return the number of attempts this minute over all processes. Each
    number is unique.

    counter_key: who tries, at most 64 characters; empty for all together. Committed at once unless
    the caller has an open transaction. Raises: DatabaseError, and then no attempt may be made.
    """
    return _increment_count(
        now.replace(second=0, microsecond=0), _ATTEMPT_REASON_PREFIX + kind, counter_key
    )


def get_attempts(kind: str, counter_keys: Sequence[str], *, now: datetime) -> Mapping[str, int]:
    """Return the numbers of attempts this minute by counter key, without counting one."""
    rows = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(
        minute=now.replace(second=0, microsecond=0),
        reason=_ATTEMPT_REASON_PREFIX + kind,
        network__in=counter_keys,
    )
    counts = dict.fromkeys(counter_keys, 0)
    counts.update(rows.values_list("network", "count"))
    return counts


def remove_attempt(kind: str, counter_key: str, *, now: datetime) -> None:
    """Undo the count of an `add_attempt` call that turned out not to be a guess. now: the same time
    as in that call.
    """
    rows = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(
        reason=_ATTEMPT_REASON_PREFIX + kind, count__gt=0
    )
    rows.filter(minute=now.replace(second=0, microsecond=0), network=counter_key).update(
        count=F("count") - 1
    )


def flush_refusal_counts(*, now: datetime) -> int:
    """Write events for the counted refusals of each minute that is over, and return the number of
    these refusals.

    Writes one `login.refused` (`logout.refused` for logout tokens, `signal.refused` for security
    events, `api.refused` for access tokens, `activation.refused` for activation codes,
    `scim.refused`) per reason and address, with their number, and one
    `alert.raised` per reason. Their time is the end of the minute. A minute is one transaction that
    deletes its counts, so killing, repeating and concurrent runs neither lose nor duplicate a
    count.
    Raises: KeyMissing, DatabaseError; minutes that were not flushed stay for the next run.
    """
    flushed = 0
    due = RefusalCount.objects.using(DEFAULT_DB_ALIAS).filter(
        minute__lte=now - _MINUTE - FLUSH_DELAY
    )
    while minute := due.aggregate(first=Min("minute"))["first"]:
        # The requests were refused before: a command that flushes their counts is not their actor.
        with use_origin(Origin), transaction.atomic(using=DEFAULT_DB_ALIAS):
            flushed += _flush_minute(minute)
    return flushed


def get_sender_network(client_ip: str) -> str:
    """Return the network that counts as one sender: an IPv4 address, an IPv6 /64, or "unknown"."""
    return list_sender_networks(client_ip)[0]


def list_sender_networks(client_ip: str) -> Sequence[str]:
    """Return the networks that one sender may control, the smallest first: an IPv4 address; an
    IPv6 /64, /56 and /48; or "unknown".

    Providers assign a /56 to a home line and a /48 to a company, so such a line has as many /64
    networks as it needs.
    """
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return [UNKNOWN_NETWORK]
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped:
        return [str(getattr(address, "ipv4_mapped", None) or address)]
    networks = []
    for prefix in _IPV6_PREFIXES:
        host_bits = 128 - prefix
        first = int(address) >> host_bits << host_bits
        networks.append(str(ipaddress.IPv6Network((first, prefix))))
    return networks


def _flush_minute(minute: datetime) -> int:
    end = minute + _MINUTE
    by_reason = dict[str, int]()
    # Of two concurrent transactions, only one gets the deleted rows.
    statement = (
        "DELETE FROM phi_oidc_audit_refusalcount WHERE minute = %s RETURNING reason, network, count"
    )
    for reason, network, count in _fetch_rows(statement, minute):
        # The first refusals of a known network had events of their own, those of "any network" had
        # none.
        if network == _ANY_NETWORK:
            suppressed = count
        else:
            suppressed = count - MAX_EVENTS_PER_SENDER

        if (
            (reason, network) == _TOTAL_COUNTER
            or reason.startswith(_ATTEMPT_REASON_PREFIX)
            or suppressed <= 0
        ):
            continue
        by_reason[reason] = by_reason.get(reason, 0) + suppressed

        if network == UNKNOWN_NETWORK:
            client_ip = ""
        else:
            client_ip = network

        origin = Origin(client_ip=client_ip)
        detail: dict[str, Any] = {"count": suppressed}
        code = reason.removeprefix(API_REASON_PREFIX)
        enqueue(
            _get_action(reason),
            origin=origin,
            now=end,
            outcome="failure",
            reason=code,
            detail=detail,
        )
    for reason, count in by_reason.items():
        detail = {"rule": "refusal_burst", "count": count}
        code = reason.removeprefix(API_REASON_PREFIX)
        enqueue(Action.ALERT_RAISED, origin=Origin(), now=end, reason=code, detail=detail)
    return sum(by_reason.values())


def _get_action(reason: str) -> Action:
    if reason.startswith(API_REASON_PREFIX):
        return Action.API_REFUSED
    if reason.startswith(SCIM_REASON_PREFIX):
        return Action.SCIM_REFUSED
    if reason == _ACTIVATION_REASON:
        return Action.ACTIVATION_REFUSED
    if reason == _SIGNAL_REASON:
        return Action.SIGNAL_REFUSED

    if reason in _LOGOUT_REASONS:
        return Action.LOGOUT_REFUSED
    return Action.LOGIN_REFUSED


def _increment_count(minute: datetime, reason: str, network: str) -> int:
    """Return the new count, which is unique. PostgreSQL, and SQLite from 3.35."""
    statement = (
        "INSERT INTO phi_oidc_audit_refusalcount (minute, reason, network, count) VALUES (%s, %s, "
        "%s, 1) ON CONFLICT (minute, reason, network) DO UPDATE SET count = "
        "phi_oidc_audit_refusalcount.count + 1 RETURNING count"
    )
    return int(_fetch_rows(statement, minute, reason, network)[0][0])


def _fetch_rows(statement: str, minute: datetime, *parameters: str) -> list[Any]:
    connection = connections[DEFAULT_DB_ALIAS]
    with connection.cursor() as cursor:
        cursor.execute(statement, [connection.ops.adapt_datetimefield_value(minute), *parameters])
        # All rows, because SQLite commits after the last one was read.
        return list(cursor.fetchall())
