"""The only way out of a session. It waits for no audit database, no OP and no broker.

A session goes on with what a newer sign-in of the same person brought: tokens, and how surely they are known.

What it held until then is revoked when it ends, and not at once: an OP may know one grant of a person for a client, and
with the old refresh token it revokes all of that (RFC 7009 2.1), the new tokens too.

A session begins: what the OP issued is kept, sealed, beside the Django session. Spec: OIDC Core 3.1.3.3.
"""

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from itertools import islice
from typing import Any, Literal, cast

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDatabaseStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import connections, transaction
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import request_secrets
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..claims.retention import scrub_sessions
from ..errors import KeyRingError, Undecryptable
from ..fields import SealedTextField
from ..oidc.token import ReceivedToken, TokenResponse, TokenTypeHint
from ..subjects.models import PairwiseSubject
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus, TokenToRevoke, sha256_hex

EncryptedColumnName = Literal["refresh_token", "access_token", "id_token", "session_key"]
TOKEN_HINTS: tuple[TokenTypeHint, ...] = ("refresh_token", "access_token")
"""In the order in which they are revoked: a refresh token could make new access tokens."""
ENCRYPTED_COLUMNS: tuple[EncryptedColumnName, ...] = (*TOKEN_HINTS, "id_token", "session_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSession:
    """What is left of a session that has just ended."""

    provider: str
    id_token: str = field(repr=False)
    """For the logout hint alone; empty when there was none."""
    revocation_ids: tuple[uuid.UUID, ...]
    """Tokens to be revoked at the OP once this is committed, the most dangerous first."""


def end_session(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> EndedSession | None:
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
    keep_offline_providers: Collection[str] = (),
) -> list[EndedSession]:
    """End those of the sessions that live, each exactly once, and return what is left of them.

    One transaction: the rows are ended, their claims are scrubbed, each token is queued for revocation, all tokens are
    dropped, the events lie in the outbox, the Django sessions are gone (after the commit, where the session engine
    knows no transactions). A token that can't be opened any more does not keep a session alive; an alert tells of it.
    As many statements for a thousand as for one. keep_offline_of: names of providers whose refresh tokens are dropped
    here, and left alive there.
    """
    with transaction.atomic():
        sessions = _lock_live_sessions(session_ids)
        if not sessions:
            return []
        dying = [
            _EndingSession(session, keep_refresh_token=session.provider in keep_offline_providers)
            for session in sessions
        ]
        scrub_sessions([session.pk for session in sessions], origin=origin, now=now)
        kept = [session.pk for session in sessions if session.provider in keep_offline_providers]
        deferred = PendingRevocation.objects.make_due_now(
            [session.pk for session in sessions], keep_offline_session_ids=kept, now=now
        )
        queued = iter(
            PendingRevocation.objects.queue([doomed for each in dying for doomed in each.tokens_to_revoke], now=now)
        )
        enqueue_many([act for each in dying for act in each.build_events(reason, origin=origin, now=now)])
        OIDCSession.objects.filter(pk__in=[session.pk for session in sessions]).update(
            ended_at=now, end_reason=reason, **dict.fromkeys(ENCRYPTED_COLUMNS)
        )
        _delete_django_sessions([each.plaintexts["session_key"] for each in dying if "session_key" in each.plaintexts])
        return [
            EndedSession(
                provider=each.session.provider,
                id_token=each.plaintexts.get("id_token", ""),
                revocation_ids=(*islice(queued, len(each.tokens_to_revoke)), *deferred.get(each.session.pk, ())),
            )
            for each in dying
        ]


def _lock_live_sessions(session_ids: Collection[uuid.UUID]) -> list[OIDCSession]:
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


class _EndingSession:
    """A session on its way out, opened."""

    def __init__(self, session: OIDCSession, *, keep_refresh_token: bool) -> None:
        self.session = session
        self.plaintexts = {
            column: value for column in ENCRYPTED_COLUMNS if (value := _decrypt_or_empty(session, column))
        }
        self.tokens_to_revoke = [
            TokenToRevoke(
                token=ReceivedToken(token_type_hint=hint, value=self.plaintexts[hint]),
                provider=session.provider,
                session_id=session.pk,
                access_token_expires_at=session.access_token_expires_at,
            )
            for hint in TOKEN_HINTS
            if hint in self.plaintexts and not (keep_refresh_token and hint == "refresh_token")
        ]

    def build_events(self, reason: EndReason, *, origin: Origin, now: datetime) -> Iterator[NewEvent]:
        """Yield what is to be told of this end."""
        session = self.session
        told: dict[str, Any] = {
            "origin": origin._replace(session=str(session.pk)),
            "now": now,
            "provider": session.provider,
            "subject": str(session.subject.uuid) if session.subject else "",
        }
        yield NewEvent(
            action=Action.SESSION_ENDED, reason=reason, detail={"tokens": len(self.tokens_to_revoke)}, **told
        )
        if reason is EndReason.LOGOUT:
            yield NewEvent(action=Action.LOGOUT_COMPLETED, **told)
        # What holds something that no key opens.
        lost = [
            column
            for column in ENCRYPTED_COLUMNS
            if column not in self.plaintexts and getattr(session, column) is not None
        ]
        told["reason"] = Undecryptable.code
        for hint in TOKEN_HINTS:
            if hint in lost:
                detail = {"hint": hint, "attempts": 0, "status": RevocationStatus.ABANDONED}
                yield NewEvent(action=Action.TOKEN_REVOCATION_FAILED, outcome="failure", detail=detail, **told)
        if lost:
            yield NewEvent(action=Action.ALERT_RAISED, detail={"rule": "session_undecryptable"}, **told)


def _decrypt_or_empty(session: OIDCSession, column: EncryptedColumnName) -> str:
    """Return the plain text of that column; empty when there is none or when no key opens it."""
    field_of_column = cast(SealedTextField, OIDCSession._meta.get_field(column))
    try:
        opened = field_of_column.decrypt(session) or ""
    except KeyRingError:
        return ""
    if column != "session_key":
        # That one belongs in this request's cookie.
        request_secrets.register_secret(opened, column)
    return opened


def _delete_django_sessions(session_keys: Sequence[str]) -> None:
    """Delete Django sessions with the open transaction, or, by an engine that knows none, after it.

    cached_db gets both: until the commit another request may put the row into the cache again.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        store.get_model_class().objects.filter(session_key__in=session_keys).delete()
    if store is not DatabaseStore:

        def delete_django_sessions() -> None:
            engine = store()
            if store in (CachedDatabaseStore, CacheStore):
                engine._cache.delete_many([engine.cache_key_prefix + key for key in session_keys])
                return
            for key in session_keys:
                engine.delete(key)

        # A name of its own and no partial: what fails is logged by name, and a partial's would show the key.
        transaction.on_commit(delete_django_sessions, robust=True)


def find_live_session_with_subject(session_id: uuid.UUID) -> OIDCSession | None:
    """Return the row of a session that lives, with its person and account; None when it has ended."""
    return OIDCSession.objects.filter(pk=session_id, ended_at=None).select_related("subject", "user").first()


@sensitive_variables()
def renew_session(
    session_id: uuid.UUID,
    *,
    subject_id: int,
    tokens: TokenResponse,
    sid: str,
    acr: str,
    auth_time: datetime | None,
    persist_tokens: bool,
    now: datetime,
) -> tuple[uuid.UUID, ...] | None:
    """Give the session what the OP issued, and queue what it held; return the revocations that are to be tried now.

    One transaction. None when the session has ended meanwhile, or is another person's: nothing is written then. What
    it started with, its claims and its limits stay. A refresh that is under way loses its lease, and what it brings.
    keeps_tokens: False where access and refresh token are not stored, but revoked now.
    Raises: KeyMissing. Spec: R9.
    """
    with transaction.atomic():
        live = OIDCSession.objects.filter(pk=session_id, ended_at=None, subject_id=subject_id)
        # A write first: on SQLite a look alone would hold nobody off.
        if not live.update(refresh_lease_until=None):
            return None
        row = OIDCSession.objects.get(pk=session_id)
        new = {"refresh_token": tokens.refresh_token, "access_token": tokens.access_token}
        doomed = [
            TokenToRevoke(
                token=token,
                provider=row.provider,
                session_id=row.pk,
                access_token_expires_at=row.access_token_expires_at,
            )
            for token in _iter_stored_tokens(row)
            if token.value not in new.values()
        ]
        PendingRevocation.objects.queue(doomed, now=now, due_at=row.started_at + conf.absolute_timeout())
        dying = (
            []
            if persist_tokens
            else [ReceivedToken(token_type_hint=hint, value=new[hint]) for hint in TOKEN_HINTS if new[hint]]
        )
        queued = PendingRevocation.objects.queue(
            [TokenToRevoke(token=token, provider=row.provider, session_id=row.pk) for token in dying], now=now
        )
        values: dict[str, Any] = {
            **({hint: new[hint] or None for hint in TOKEN_HINTS} if persist_tokens else dict.fromkeys(TOKEN_HINTS)),
            "access_token_expires_at": now + tokens.expires_in if persist_tokens and tokens.expires_in else None,
            "id_token": tokens.id_token,
            "sid_digest": sha256_hex(sid) if sid else "",
            "acr": acr,
            "auth_time": auth_time,
        }
        OIDCSession(pk=row.pk, **values).save(update_fields=list(values))
        return queued


def _iter_stored_tokens(row: OIDCSession) -> Iterator[ReceivedToken]:
    """Yield the tokens that the session holds; what no key opens can't be revoked, and keeps nobody from renewing."""
    for hint in TOKEN_HINTS:
        try:
            value = _open_token(row, hint)
        except KeyRingError:
            continue
        if value:
            yield ReceivedToken(token_type_hint=hint, value=value)


def _open_token(row: OIDCSession, column: Literal["refresh_token", "access_token"]) -> str:
    opened = cast(SealedTextField, OIDCSession._meta.get_field(column)).decrypt(row) or ""
    request_secrets.register_secret(opened, column)
    return opened


@sensitive_variables()
def start_session(
    *,
    session_id: uuid.UUID,
    user: AbstractBaseUser,
    subject: PairwiseSubject,
    provider: str,
    issuer: str,
    sid: str,
    tokens: TokenResponse,
    django_session_key: str,
    auth_time: datetime | None,
    acr: str,
    now: datetime,
    persist_tokens: bool = True,
) -> OIDCSession:
    """Return the new session, written in one INSERT inside the caller's transaction.

    sid: the ID Token's, or empty; only its digest is kept. The caller puts str(id) into the Django session.
    keeps_tokens: False where access and refresh token are not stored; the ID Token is, for the logout hint.
    """
    expires_at = now + tokens.expires_in if persist_tokens and tokens.expires_in is not None else None
    return OIDCSession.objects.create(
        id=session_id,
        user_id=user.pk,
        subject=subject,
        provider=provider,
        issuer=issuer,
        sid_digest=sha256_hex(sid) if sid else "",
        session_key=django_session_key,
        session_key_digest=sha256_hex(django_session_key),
        access_token=tokens.access_token if persist_tokens else None,
        refresh_token=tokens.refresh_token or None if persist_tokens else None,
        id_token=tokens.id_token,
        access_token_expires_at=expires_at,
        auth_time=auth_time,
        acr=acr,
        started_at=now,
        last_seen_at=now,
    )
