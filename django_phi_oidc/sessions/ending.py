"""The only way out of a session. It waits for no audit database, no OP and no broker."""

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from itertools import islice
from typing import Any, Literal, cast

from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDatabaseStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import connections, transaction
from django.views.decorators.debug import sensitive_variables

from .. import secrecy
from ..audit.events import Act, Action, Origin
from ..audit.outbox import enqueue_many
from ..claims.scrubbing import scrub_sessions
from ..errors import KeyRingError, Undecryptable
from ..fields import SealedTextField
from ..oidc.token import ReceivedToken, TokenHint
from .models import Doomed, EndReason, OIDCSession, PendingRevocation, RevocationStatus

SealedColumn = Literal["refresh_token", "access_token", "id_token", "session_key"]
TOKENS: tuple[TokenHint, ...] = ("refresh_token", "access_token")
"""In the order in which they are revoked: a refresh token could make new access tokens."""
SEALED: tuple[SealedColumn, ...] = (*TOKENS, "id_token", "session_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is left of a session that has just ended."""

    provider: str
    id_token: str = field(repr=False)
    """For the logout hint alone; empty when there was none."""
    revocations: tuple[uuid.UUID, ...]
    """Tokens to be revoked at the OP once this is committed, the most dangerous first."""


def end_session(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> Ended | None:
    """End the session, exactly once, or return None when it has ended before or was never there.

    As `end_sessions` does it.
    """
    return next(iter(end_sessions([session_id], reason, origin=origin, now=now)), None)


@sensitive_variables()
def end_sessions(
    session_ids: Collection[uuid.UUID],
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    keep_offline_of: Collection[str] = (),
) -> list[Ended]:
    """End those of the sessions that live, each exactly once, and return what is left of them.

    One transaction: the rows are ended, their claims are scrubbed, each token is queued for revocation, all tokens are
    dropped, the events lie in the outbox, the Django sessions are gone (after the commit, where the session engine
    knows no transactions). A token that can't be opened any more does not keep a session alive; an alert tells of it.
    As many statements for a thousand as for one. keep_offline_of: names of providers whose refresh tokens are dropped
    here, and left alive there.
    """
    with transaction.atomic():
        sessions = _hold(session_ids)
        if not sessions:
            return []
        dying = [_Dying(session, keeps_offline=session.provider in keep_offline_of) for session in sessions]
        scrub_sessions([session.pk for session in sessions], origin=origin, now=now)
        kept = [session.pk for session in sessions if session.provider in keep_offline_of]
        deferred = PendingRevocation.objects.hasten([session.pk for session in sessions], keep_offline=kept, now=now)
        queued = iter(PendingRevocation.objects.queue([doomed for each in dying for doomed in each.doomed], now=now))
        enqueue_many([act for each in dying for act in each.acts(reason, origin=origin, now=now)])
        OIDCSession.objects.filter(pk__in=[session.pk for session in sessions]).update(
            ended_at=now, end_reason=reason, **dict.fromkeys(SEALED)
        )
        _delete_django_sessions([each.opened["session_key"] for each in dying if "session_key" in each.opened])
        return [
            Ended(
                provider=each.session.provider,
                id_token=each.opened.get("id_token", ""),
                revocations=(*islice(queued, len(each.doomed)), *deferred.get(each.session.pk, ())),
            )
            for each in dying
        ]


def _hold(session_ids: Collection[uuid.UUID]) -> list[OIDCSession]:
    """Return those of the sessions that live, and keep them from being ended by others until the commit.

    The first statement writes, or SQLite would hold nobody off until a later one, and then refuse that.
    """
    live = OIDCSession.objects.filter(pk__in=session_ids, ended_at__isnull=True)
    if len(session_ids) > 1 and connections[live.db].features.has_select_for_update:
        # In one order, so that two who end some of the same sessions do not wait for each other.
        list(live.order_by("pk").select_for_update().values_list("pk"))
    if not live.update(refresh_lease_until=None):
        return []
    return list(live.select_related("subject").order_by("pk"))


class _Dying:
    """A session on its way out, opened."""

    def __init__(self, session: OIDCSession, *, keeps_offline: bool) -> None:
        self.session = session
        self.opened = {column: value for column in SEALED if (value := _open(session, column))}
        self.doomed = [
            Doomed(
                token=ReceivedToken(hint=hint, value=self.opened[hint]),
                provider=session.provider,
                session=session.pk,
                expires_at=session.access_token_expires_at,
            )
            for hint in TOKENS
            if hint in self.opened and not (keeps_offline and hint == "refresh_token")
        ]

    def acts(self, reason: EndReason, *, origin: Origin, now: datetime) -> Iterator[Act]:
        """Yield what is to be told of this end."""
        session = self.session
        told: dict[str, Any] = {
            "origin": origin._replace(session=str(session.pk)),
            "now": now,
            "provider": session.provider,
            "subject": str(session.subject.uuid) if session.subject else "",
        }
        yield Act(action=Action.SESSION_ENDED, reason=reason, detail={"tokens": len(self.doomed)}, **told)
        if reason is EndReason.LOGOUT:
            yield Act(action=Action.LOGOUT_COMPLETED, **told)
        # What holds something that no key opens.
        lost = [column for column in SEALED if column not in self.opened and getattr(session, column) is not None]
        told["reason"] = Undecryptable.code
        for hint in TOKENS:
            if hint in lost:
                detail = {"hint": hint, "attempts": 0, "status": RevocationStatus.ABANDONED}
                yield Act(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **told)
        if lost:
            yield Act(action=Action.ALERT_RAISED, detail={"rule": "session_undecryptable"}, **told)


def _open(session: OIDCSession, column: SealedColumn) -> str:
    """Return the plain text of that column; empty when there is none or when no key opens it."""
    field_of_column = cast(SealedTextField, OIDCSession._meta.get_field(column))
    try:
        opened = field_of_column.open(session) or ""
    except KeyRingError:
        return ""
    if column != "session_key":
        # That one belongs in this request's cookie.
        secrecy.learn(opened, column)
    return opened


def _delete_django_sessions(keys: Sequence[str]) -> None:
    """Delete Django sessions with the open transaction, or, by an engine that knows none, after it.

    cached_db gets both: until the commit another request may put the row into the cache again.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        store.get_model_class().objects.filter(session_key__in=keys).delete()
    if store is not DatabaseStore:

        def delete_django_sessions() -> None:
            engine = store()
            if store in (CachedDatabaseStore, CacheStore):
                engine._cache.delete_many([engine.cache_key_prefix + key for key in keys])
                return
            for key in keys:
                engine.delete(key)

        # A name of its own and no partial: what fails is logged by name, and a partial's would show the key.
        transaction.on_commit(delete_django_sessions, robust=True)
