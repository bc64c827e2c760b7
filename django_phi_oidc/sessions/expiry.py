"""Sessions that nobody comes back to: past their limits, of nobody any more, or without a Django session."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db.models import Case, CharField, Q, Value, When

from .._internal import clock
from ..errors import KeyRingError
from ..fields import SealedTextField
from .models import EndReason, OIDCSession

BATCH_SIZE = 500
ExpiredSessions = tuple[EndReason, list[uuid.UUID]]


def list_expired_sessions(
    *, now: datetime, idle_timeout: timedelta, absolute_timeout: timedelta, limit: int = BATCH_SIZE
) -> list[ExpiredSessions]:
    """Return up to limit live sessions that are past a limit, or of an account that is inactive or gone, by reason."""
    is_nobodys = Q(user=None) | (Q(user__is_active=False) if _has_is_active_field() else Q())
    is_old, is_idle = Q(started_at__lte=now - absolute_timeout), Q(last_seen_at__lte=now - idle_timeout)
    reason = Case(
        When(is_nobodys, then=Value(EndReason.USER_INACTIVE)),
        When(is_old, then=Value(EndReason.ABSOLUTE_TIMEOUT)),
        default=Value(EndReason.IDLE_TIMEOUT),
        output_field=CharField(),
    )
    rows = OIDCSession.objects.filter(is_nobodys | is_old | is_idle, ended_at=None).annotate(reason=reason)
    found: dict[EndReason, list[uuid.UUID]] = {}
    for pk, why in rows.values_list("pk", "reason")[:limit]:
        found.setdefault(EndReason(why), []).append(pk)
    return list(found.items())


def iter_orphan_candidates(*, session_ids: Sequence[uuid.UUID] | None = None) -> Iterator[uuid.UUID]:
    """Yield live sessions whose Django session is gone, or whose key no key of ours opens. among: these alone."""
    live = OIDCSession.objects.filter(ended_at=None).order_by("pk").only("pk", "session_key")
    if session_ids is not None:
        live = live.filter(pk__in=session_ids)
    last = uuid.UUID(int=0)
    while rows := list(live.filter(pk__gt=last)[:BATCH_SIZE]):
        last = rows[-1].pk
        keys = {row.pk: key for row in rows if (key := _decrypt_session_key(row))}
        there = _find_existing_keys(list(keys.values()))
        yield from (row.pk for row in rows if keys.get(row.pk) not in there)


def list_orphaned_sessions(*, wait: Callable[[], None]) -> list[uuid.UUID]:
    """Return what is lost at two looks, wait() in between: a key that a request has just cycled is noted at its end."""
    suspects = list(iter_orphan_candidates())
    if not suspects:
        return []
    wait()
    return [
        pk
        for start in range(0, len(suspects), BATCH_SIZE)
        for pk in iter_orphan_candidates(session_ids=suspects[start : start + BATCH_SIZE])
    ]


def _has_is_active_field() -> bool:
    """A user model of the host's may have no such column, and then all are active."""
    return any(field.name == "is_active" for field in get_user_model()._meta.concrete_fields)


def _decrypt_session_key(row: OIDCSession) -> str:
    field: SealedTextField = OIDCSession._meta.get_field("session_key")
    try:
        return field.decrypt(row) or ""
    except KeyRingError:
        return ""


def _find_existing_keys(session_keys: Sequence[str]) -> set[str]:
    """Return those of the keys that the session engine has, expired ones left out where it tells."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        rows = store.get_model_class().objects.filter(session_key__in=session_keys, expire_date__gt=clock.now())
        return set(rows.values_list("session_key", flat=True))
    return {key for key in session_keys if store().exists(key)}
