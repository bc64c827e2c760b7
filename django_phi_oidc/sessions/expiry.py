"""Find sessions to end: past a timeout, of an inactive or deleted account, or without a Django
session.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.cache import caches
from django.db import connection, router, transaction
from django.db.models import Case, CharField, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import SHA256, Least

from .._internal import clock
from ..crypto import keyring
from .models import EndReason, OIDCSession

logger = logging.getLogger("django_phi_oidc.sessions")
BATCH_SIZE = 500
DUE_BATCH_SIZE = 10_000
"""Sessions whose times are compared by one statement."""
RECHECK_BATCH_SIZE = 10_000
"""Sessions that are looked up again by one statement, which computes the digests of all Django
sessions.
"""
MAX_CLOCK_DIFFERENCE = timedelta(minutes=1)
"""How much the clocks of servers may differ: a fast clock lengthens a timeout by this, and by one
run of the task.
"""


def list_due_sessions(
    *,
    now: datetime,
    idle_timeout: timedelta,
    absolute_timeout: timedelta,
    limit: int = DUE_BATCH_SIZE,
) -> dict[str, list[uuid.UUID]]:
    """Return up to limit live sessions that are due, by the reason why they end; those that do not
    end yet by "".
    """
    reason = Case(
        # First: its end also erases the claims of the account.
        When(_get_unusable_condition(), then=Value(EndReason.USER_INACTIVE)),
        When(started_at__lte=now - absolute_timeout, then=Value(EndReason.ABSOLUTE_TIMEOUT)),
        When(last_seen_at__lte=now - idle_timeout, then=Value(EndReason.IDLE_TIMEOUT)),
        default=Value(""),
        output_field=CharField(),
    )
    rows = (
        OIDCSession.objects.live()
        .filter(due_at__lte=now)
        .order_by("due_at")
        .annotate(reason=reason)
    )
    ids_by_reason: dict[str, list[uuid.UUID]] = {}
    for pk, reason_value in rows.values_list("pk", "reason")[:limit]:
        ids_by_reason.setdefault(reason_value, []).append(pk)
    return ids_by_reason


def update_due_times(
    session_ids: Sequence[uuid.UUID], *, idle_timeout: timedelta, absolute_timeout: timedelta
) -> int:
    """Make sessions due at the earlier end of their timeouts; return how many. Those that are
    locked are left out.
    """
    if not session_ids:
        return 0
    rows = OIDCSession.objects.live().filter(pk__in=session_ids)
    free = rows.order_by("pk").select_for_update(skip_locked=True).values("pk")
    due_at = _build_due_time(idle_timeout, absolute_timeout)
    with transaction.atomic():
        return OIDCSession.objects.filter(pk__in=free).update(due_at=due_at)


def list_sessions_with_late_due_time(
    *, idle_timeout: timedelta, absolute_timeout: timedelta, limit: int = DUE_BATCH_SIZE
) -> list[uuid.UUID]:
    """Return up to limit live sessions that would be due too late, because a timeout was
    shortened.
    """
    rows = OIDCSession.objects.live().filter(
        due_at__gt=_build_due_time(idle_timeout, absolute_timeout)
    )
    return list(rows.values_list("pk", flat=True)[:limit])


def _build_due_time(idle_timeout: timedelta, absolute_timeout: timedelta) -> Least:
    return Least(F("last_seen_at") + idle_timeout, F("started_at") + absolute_timeout)


def list_sessions_of_unusable_accounts(*, limit: int = BATCH_SIZE) -> list[uuid.UUID]:
    """Return up to limit live sessions whose account is inactive or deleted."""
    return list(
        OIDCSession.objects.live()
        .filter(_get_unusable_condition())
        .values_list("pk", flat=True)[:limit]
    )


def _get_unusable_condition() -> Q:
    # A custom user model may have no such column; then all accounts are active.
    has_is_active = any(
        field.name == "is_active" for field in get_user_model()._meta.concrete_fields
    )
    return Q(user=None) | (Q(user__is_active=False) if has_is_active else Q())


def limit_future_times(*, now: datetime) -> None:
    """Set times of live sessions that are in the future to now: a server with a fast clock has
    stored them.

    Otherwise its lead would lengthen both timeouts. Differences up to MAX_CLOCK_DIFFERENCE are left
    alone. Nothing is changed if the clock of this process differs from that of the database,
    because then this clock may be the slow one.
    """
    if not _has_time_of_database(now):
        logger.error(
            "This clock and that of the database differ by more than %s.", MAX_CLOCK_DIFFERENCE
        )
        return
    for name in ("last_seen_at", "started_at"):
        rows = OIDCSession.objects.live().filter(**{f"{name}__gt": now + MAX_CLOCK_DIFFERENCE})
        if changed := rows.update(**{name: now}):
            logger.error(
                "%d sessions had a time in the future: check the clocks of the servers.", changed
            )


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
    """Return the sessions orphaned before and after wait(): a request stores a cycled session key
    only at its end.

    Django sessions in the same database are found by the digests of their keys, without any
    encryption key. Those elsewhere are looked up by their decrypted keys.
    """
    is_joinable = _is_in_same_database()
    if is_joinable:
        search = _join_django_sessions()
    else:
        search = _look_up_django_sessions()

    if candidates := search.orphaned:
        wait()
        search.orphaned = []

        if is_joinable:
            size = RECHECK_BATCH_SIZE
        else:
            size = BATCH_SIZE

        for start in range(0, len(candidates), size):
            batch = candidates[start : start + size]

            if is_joinable:
                again = _join_django_sessions(batch)
            else:
                again = _look_up_django_sessions(batch)

            search.orphaned += again.orphaned
            search.key_missing_count += again.key_missing_count
    return search


class _HexSHA256(SHA256):
    """Django's function, without the extension pgcrypto that it needs on PostgreSQL."""

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "encode(sha256(convert_to(%(expressions)s, 'UTF8')), 'hex')"
        return self.as_sql(compiler, connection, template=template, **context)


def _is_in_same_database() -> bool:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    return issubclass(store, DatabaseStore) and (
        router.db_for_write(store.get_model_class()) == router.db_for_write(OIDCSession)
    )


def _join_django_sessions(session_ids: Sequence[uuid.UUID] | None = None) -> OrphanSearch:
    """Search the live sessions, or those of session_ids, by one statement."""
    # Not from a replica, which may lack a session that has just been stored.
    alias = router.db_for_write(OIDCSession)
    sessions = _list_valid_sessions().using(alias).annotate(digest=_HexSHA256("session_key"))
    is_orphaned = ~Exists(sessions.filter(digest=OuterRef("session_key_digest")))
    orphaned = OIDCSession.objects.using(alias).live().filter(is_orphaned)
    if session_ids is not None:
        orphaned = orphaned.filter(pk__in=session_ids)
    return OrphanSearch(orphaned=list(orphaned.values_list("pk", flat=True)))


def _look_up_django_sessions(session_ids: Sequence[uuid.UUID] | None = None) -> OrphanSearch:
    """Search the live sessions, or those of session_ids, in batches."""
    live = OIDCSession.objects.live().order_by("pk").only("pk", "session_key")
    if session_ids is not None:
        live = live.filter(pk__in=session_ids)
    search = OrphanSearch()
    last_id = uuid.UUID(int=0)
    while rows := list(live.filter(pk__gt=last_id)[:BATCH_SIZE]):
        last_id = rows[-1].pk
        keys = keyring.find_keys("encryption")
        columns_by_id = {}
        for row in rows:
            columns_by_id[row.pk] = row.decrypt_columns(["session_key"], keys=keys)

        session_keys = []
        for columns in columns_by_id.values():
            session_key = columns.plaintexts.get("session_key")
            if session_key:
                session_keys.append(session_key)
        existing = _find_existing_keys(session_keys)

        for pk, columns in columns_by_id.items():
            if columns.ciphertexts:
                search.key_missing_count += 1
            elif columns.plaintexts.get("session_key", "") not in existing:
                search.orphaned.append(pk)
    return search


def _find_existing_keys(session_keys: Sequence[str]) -> set[str]:
    """Return the keys that the session engine has, without expired ones if the engine stores when
    they expire.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        return set(
            _list_valid_sessions()
            .filter(session_key__in=session_keys)
            .values_list("session_key", flat=True)
        )
    if store is CacheStore:
        engine = store()
        keys: dict[str, str] = {}
        for key in session_keys:
            keys[engine.cache_key_prefix + key] = key
        existing_keys = set()
        for key in caches[settings.SESSION_CACHE_ALIAS].get_many(keys):
            existing_keys.add(keys[key])
        return existing_keys
    existing_keys = set()
    for key in session_keys:
        if store().exists(key):
            existing_keys.add(key)
    return existing_keys


def _list_valid_sessions() -> QuerySet[Any]:
    sessions: QuerySet[Any] = (
        import_module(settings.SESSION_ENGINE).SessionStore.get_model_class().objects.all()
    )
    return sessions.filter(expire_date__gt=clock.now())
