"""Sessions that nobody comes back to: past their limits, of nobody any more, or without a Django session."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db.models import Case, CharField, Q, Value, When

from .. import clock
from ..errors import KeyRingError
from ..fields import SealedTextField
from .models import EndReason, OIDCSession

BATCH = 500
Overdue = tuple[EndReason, list[uuid.UUID]]


def overdue(*, now: datetime, idle: timedelta, absolute: timedelta, limit: int = BATCH) -> list[Overdue]:
    """Return up to limit live sessions that are past a limit, or of an account that is inactive or gone, by reason."""
    is_nobodys = Q(user=None) | (Q(user__is_active=False) if _can_be_inactive() else Q())
    is_old, is_idle = Q(started_at__lte=now - absolute), Q(last_seen_at__lte=now - idle)
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


def lost(*, among: Sequence[uuid.UUID] | None = None) -> Iterator[uuid.UUID]:
    """Yield live sessions whose Django session is gone, or whose key no key of ours opens. among: these alone."""
    live = OIDCSession.objects.filter(ended_at=None).order_by("pk").only("pk", "session_key")
    if among is not None:
        live = live.filter(pk__in=among)
    last = uuid.UUID(int=0)
    while rows := list(live.filter(pk__gt=last)[:BATCH]):
        last = rows[-1].pk
        keys = {row.pk: key for row in rows if (key := _django_key(row))}
        there = _existing(list(keys.values()))
        yield from (row.pk for row in rows if keys.get(row.pk) not in there)


def lost_for_good(*, wait: Callable[[], None]) -> list[uuid.UUID]:
    """Return what is lost at two looks, wait() in between: a key that a request has just cycled is noted at its end."""
    suspects = list(lost())
    if not suspects:
        return []
    wait()
    return [pk for start in range(0, len(suspects), BATCH) for pk in lost(among=suspects[start : start + BATCH])]


def _can_be_inactive() -> bool:
    """A user model of the host's may have no such column, and then all are active."""
    return any(field.name == "is_active" for field in get_user_model()._meta.concrete_fields)


def _django_key(row: OIDCSession) -> str:
    field: SealedTextField = OIDCSession._meta.get_field("session_key")
    try:
        return field.open(row) or ""
    except KeyRingError:
        return ""


def _existing(keys: Sequence[str]) -> set[str]:
    """Return those of the keys that the session engine has, expired ones left out where it tells."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        rows = store.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=clock.now())
        return set(rows.values_list("session_key", flat=True))
    return {key for key in keys if store().exists(key)}
