"""Find sessions to end: past a timeout, of an inactive or deleted account, or without a Django session."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import connection
from django.db.models import Case, CharField, Q, Value, When

from .._internal import clock
from ..crypto import keyring
from .models import EndReason, OIDCSession

logger = logging.getLogger("django_phi_oidc.sessions")
BATCH_SIZE = 500
MAX_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""How much the clocks of servers may differ: a fast clock lengthens a timeout by this, and by one run of the task."""
ExpiredSessions = tuple[EndReason, list[uuid.UUID]]


def list_expired_sessions(
    *, now: datetime, idle_timeout: timedelta, absolute_timeout: timedelta, limit: int = BATCH_SIZE
) -> list[ExpiredSessions]:
    """Return up to limit live sessions that are past a timeout or whose account is inactive or deleted, by reason."""
    # A custom user model may have no such column; then all accounts are active.
    has_is_active = any(field.name == "is_active" for field in get_user_model()._meta.concrete_fields)
    is_unusable = Q(user=None) | (Q(user__is_active=False) if has_is_active else Q())
    is_old, is_idle = Q(started_at__lte=now - absolute_timeout), Q(last_seen_at__lte=now - idle_timeout)
    reason = Case(
        When(is_unusable, then=Value(EndReason.USER_INACTIVE)),
        When(is_old, then=Value(EndReason.ABSOLUTE_TIMEOUT)),
        default=Value(EndReason.IDLE_TIMEOUT),
        output_field=CharField(),
    )
    rows = OIDCSession.objects.live().filter(is_unusable | is_old | is_idle).annotate(reason=reason)
    ids_by_reason: dict[EndReason, list[uuid.UUID]] = {}
    for pk, reason_value in rows.values_list("pk", "reason")[:limit]:
        ids_by_reason.setdefault(EndReason(reason_value), []).append(pk)
    return list(ids_by_reason.items())


def limit_future_times(*, now: datetime) -> None:
    """Set times of live sessions that are in the future to now: a server with a fast clock has stored them.

    Otherwise its lead would lengthen both timeouts. Differences up to MAX_CLOCK_DIFFERENCE are left alone. Nothing is
    changed if the clock of this process differs from that of the database, because then this clock may be the slow one.
    """
    if not _has_time_of_database(now):
        logger.error("This clock and that of the database differ by more than %s.", MAX_CLOCK_DIFFERENCE)
        return
    for name in ("last_seen_at", "started_at"):
        rows = OIDCSession.objects.live().filter(**{f"{name}__gt": now + MAX_CLOCK_DIFFERENCE})
        if changed := rows.update(**{name: now}):
            logger.error("%d sessions had a time in the future: check the clocks of the servers.", changed)


def _has_time_of_database(now: datetime) -> bool:
    if connection.vendor != "postgresql":
        # SQLite has no clock of its own.
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (database_now,) = cursor.fetchone()
    return bool(abs(database_now - now) <= MAX_CLOCK_DIFFERENCE)


@dataclass(slots=True, kw_only=True)
class OrphanSearch:
    """The result of a search for live sessions without a Django session."""

    orphaned: list[uuid.UUID] = field(default_factory=list)
    """Their Django session is gone, or their session key is damaged."""
    key_missing_count: int = 0
    """Sessions about which nothing is known, because the key of their session key is missing."""


def find_orphaned_sessions(*, wait: Callable[[], None]) -> OrphanSearch:
    """Return the sessions orphaned before and after wait(): a request stores a cycled session key only at its end."""
    search = _find_orphan_candidates()
    if candidates := search.orphaned:
        wait()
        search.orphaned = []
        for start in range(0, len(candidates), BATCH_SIZE):
            again = _find_orphan_candidates(candidates[start : start + BATCH_SIZE])
            search.orphaned += again.orphaned
            search.key_missing_count += again.key_missing_count
    return search


def _find_orphan_candidates(session_ids: Sequence[uuid.UUID] | None = None) -> OrphanSearch:
    """Search the live sessions, or those of session_ids."""
    live = OIDCSession.objects.live().order_by("pk").only("pk", "session_key")
    if session_ids is not None:
        live = live.filter(pk__in=session_ids)
    search, last_id = OrphanSearch(), uuid.UUID(int=0)
    while rows := list(live.filter(pk__gt=last_id)[:BATCH_SIZE]):
        last_id = rows[-1].pk
        keys = keyring.find_keys("encryption")
        columns_by_id = {row.pk: row.decrypt_columns(["session_key"], keys=keys) for row in rows}
        session_keys = {pk: columns.plaintexts.get("session_key", "") for pk, columns in columns_by_id.items()}
        existing = _find_existing_keys([key for key in session_keys.values() if key])
        for pk, columns in columns_by_id.items():
            if columns.ciphertexts:
                search.key_missing_count += 1
            elif session_keys[pk] not in existing:
                search.orphaned.append(pk)
    return search


def _find_existing_keys(session_keys: Sequence[str]) -> set[str]:
    """Return the keys that the session engine has, without expired ones if the engine stores when they expire."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        rows = store.get_model_class().objects.filter(session_key__in=session_keys, expire_date__gt=clock.now())
        return set(rows.values_list("session_key", flat=True))
    return {key for key in session_keys if store().exists(key)}
