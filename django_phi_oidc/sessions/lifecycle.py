"""Start, renew and end sessions. Spec: OIDC Core 3.1.3.3.

Ending a session waits for no audit database, provider or message broker.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDatabaseStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import connection, connections, router, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal.inserts import insert
from .._internal.sql import any_of, delete_in_batches, fetch, update
from ..audit.events import Action, NewEvent, Origin
from ..audit.outbox import enqueue_many
from ..claims.retention import scrub_sessions
from ..crypto import keyring
from ..errors import Code
from ..oidc.token import ReceivedToken, TokenResponse
from ..subjects.models import PairwiseSubject
from .digests import build_token_columns, sha256_hex
from .kept_id_token import KeptIDToken
from .models import (
    ENCRYPTED_COLUMNS,
    TOKEN_HINTS,
    DecryptedColumns,
    EncryptedColumnName,
    EndReason,
    OIDCSession,
    PendingRevocation,
    SessionToken,
)
from .sign_in_places import SignInPlace
from .token_revocation import queue_revocations

KEY_ALERT_RULE = "encryption_key_missing"
"""The rule of the alert that a session's columns can't be decrypted because a key is missing."""
MAX_INLINE_SESSIONS = 100
"""Sessions that an action of the admin ends in its request."""

_HINT_COLUMNS: tuple[EncryptedColumnName, ...] = ("id_token", "id_token_claims")
_RENEWED_COLUMNS = (
    "refresh_token",
    "access_token",
    "access_token_digest",
    "access_token_expires_at",
    "dpop_seed",
    "id_token",
    "id_token_claims",
    "sid_digest",
    "acr",
    "auth_time",
)
"""All columns that `renew_session` sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSession:
    """A session that has just ended."""

    provider: str
    id_token: str = field(repr=False)
    """For the `id_token_hint` of a LOGOUT, and empty for other reasons or if it was not kept."""
    id_token_claims: Mapping[str, Any] = field(repr=False)
    """Those that were kept of the ID Token; empty for other reasons or if they could not be
    decrypted.
    """
    revocation_ids: tuple[uuid.UUID, ...]
    """The revocations to try after the commit, most dangerous token first."""
    leased_revocations: tuple[PendingRevocation, ...] = ()
    """Those of them whose lease the caller has."""
    django_session_key: str = field(repr=False)
    """Of the Django session that was deleted with it; empty if its key could not be decrypted."""


def list_revocation_ids(sessions: Iterable[EndedSession]) -> list[uuid.UUID]:
    """Return the revocations to try after the commit, session by session."""
    revocation_ids: list[uuid.UUID] = []
    for session in sessions:
        revocation_ids += session.revocation_ids
    return revocation_ids


def end_session(
    session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime
) -> EndedSession | None:
    """End the session as `end_sessions` does. None: it had already ended, or never existed."""
    return next(iter(end_sessions([session_id], reason, origin=origin, now=now)), None)


@sensitive_variables()
def end_sessions(
    session_ids: Collection[uuid.UUID],
    reason: EndReason,
    *,
    origin: Origin,
    now: datetime,
    keep_offline_providers: Collection[str] = (),
    lease_revocations: bool = False,
    end_job: uuid.UUID | None = None,
) -> list[EndedSession]:
    """End those of the sessions that are live, each exactly once, and return them.

    One transaction: the rows are ended, their claims are erased, the ciphertext of each token is
    moved to a revocation, all encrypted columns are cleared, the events are in the outbox, and the
    Django sessions are deleted (after the commit if the session engine has no transactions). No
    token is decrypted: one whose key is missing, or that is damaged, is found when it is revoked. A
    Django session whose key can't be decrypted is not deleted, which raises an alert: the
    middleware ends it at its next request.
    The number of statements does not depend on the number of sessions, but for one for each 400
    tokens.

    keep_offline_providers: names of providers whose refresh tokens are deleted here without being
    revoked.
    lease_revocations: the caller tries the new revocations at once, after the commit.
    end_job: the id of the job that ends them, for the progress of its revocations.
    """
    with transaction.atomic():
        sessions = _lock_live_sessions(session_ids)
        if not sessions:
            return []
        ids = [session.pk for session in sessions]
        offline_ids = set()
        for session in sessions:
            if session.provider in keep_offline_providers:
                offline_ids.add(session.pk)
        keys = keyring.find_keys("encryption")

        names: list[EncryptedColumnName] = ["session_key"]
        if reason is EndReason.LOGOUT:
            names += _HINT_COLUMNS

        ending = []
        for session in sessions:
            ending.append(
                _EndingSession(
                    session,
                    session.decrypt_columns(names, keys=keys),
                    keep_refresh_token=session.pk in offline_ids,
                )
            )

        events: list[NewEvent] = []
        for item in ending:
            events += item.build_events(reason, origin=origin, now=now)
        events += _build_key_alert([item.columns for item in ending], now=now)
        scrub_sessions(ids, origin=origin, now=now, further_events=events)
        revocations = PendingRevocation.objects
        deferred = revocations.make_due_now(
            ids, keep_offline_session_ids=offline_ids, now=now, end_job=end_job
        )

        tokens: list[SessionToken] = []
        for item in ending:
            tokens += item.tokens_to_revoke
        moved, leased = revocations.move_tokens(
            tokens, now=now, is_leased=lease_revocations, end_job=end_job
        )

        # The columns come from the list of encrypted columns, and are not written out: a column
        # that is added to the list must be cleared here, too.
        cleared_columns: dict[str, Any] = dict.fromkeys(ENCRYPTED_COLUMNS)
        update(
            OIDCSession,
            *ids,
            using=connection.alias,
            ended_at=now,
            end_reason=reason.value,
            refresh_lease_until=None,
            **cleared_columns,
            access_token_digest=None,
        )

        session_keys = []
        for item in ending:
            session_key = item.columns.plaintexts.get("session_key")
            if session_key:
                session_keys.append(session_key)
        delete_django_sessions(session_keys)

        remaining = iter(moved)
        ended: list[EndedSession] = []
        for item in ending:
            own = list(islice(remaining, len(item.tokens_to_revoke)))
            plaintexts = item.columns.plaintexts
            ended.append(
                EndedSession(
                    provider=item.session.provider,
                    id_token=plaintexts.get("id_token", ""),
                    id_token_claims=json.loads(plaintexts.get("id_token_claims", "{}")),
                    revocation_ids=(*own, *deferred.get(item.session.pk, ())),
                    leased_revocations=tuple(leased[pk] for pk in own if pk in leased),
                    django_session_key=plaintexts.get("session_key", ""),
                )
            )
        return ended


def _lock_live_sessions(session_ids: Collection[uuid.UUID]) -> list[OIDCSession]:
    """Return those of the sessions that are live; no other transaction can end them until the
    commit.
    """
    using = router.db_for_write(OIDCSession)
    if connections[using].features.has_select_for_update:
        return fetch(_build_lock_query, list(dict.fromkeys(session_ids)), using=using)
    # SQLite locks at the first write, and may refuse that after a read.
    live = OIDCSession.objects.live().filter(pk__in=session_ids)
    if live.update(refresh_lease_until=None):
        return list(_build_end_query(*session_ids))
    return []


def _build_lock_query(*session_ids: uuid.UUID) -> QuerySet[OIDCSession]:
    return _build_end_query(*session_ids).select_for_update(of=("self",), no_key=True)


def _build_end_query(*session_ids: uuid.UUID) -> QuerySet[OIDCSession]:
    """Return the query of the columns that an end reads, with the UUID of the subject and which
    tokens there are.
    """
    # Ordered, so that two transactions that end some of the same sessions do not deadlock.
    rows = OIDCSession.objects.live().filter(any_of("pk", session_ids)).order_by("pk")
    rows = rows.only("provider", "session_key", *_HINT_COLUMNS)
    has_tokens: dict[str, Any] = {
        f"has_{hint}": Q(**{f"{hint}__isnull": False}) for hint in TOKEN_HINTS
    }
    return rows.annotate(subject_uuid=F("subject__uuid"), **has_tokens)


class _EndingSession:
    """A session that ends, with its decrypted columns."""

    def __init__(
        self, session: Any, columns: DecryptedColumns, *, keep_refresh_token: bool
    ) -> None:
        """session: a row of `_build_end_query`."""
        self.session: OIDCSession = session
        self.subject_uuid: uuid.UUID | None = session.subject_uuid
        self.columns = columns
        self.tokens_to_revoke: list[SessionToken] = []
        for hint in TOKEN_HINTS:
            if keep_refresh_token and hint == "refresh_token":
                continue
            if getattr(session, f"has_{hint}"):
                self.tokens_to_revoke.append(SessionToken(session.pk, hint))

    def build_events(
        self, reason: EndReason, *, origin: Origin, now: datetime
    ) -> Iterator[NewEvent]:
        fields = _get_event_fields(self.session, self.subject_uuid, origin=origin, now=now)
        detail: dict[str, Any] = {"tokens": len(self.tokens_to_revoke)}
        yield NewEvent(action=Action.SESSION_ENDED, reason=reason, detail=detail, **fields)
        if reason is EndReason.LOGOUT:
            yield NewEvent(action=Action.LOGOUT_COMPLETED, **fields)
        if self.columns.damaged:
            yield _build_damage_alert(fields)


def _get_event_fields(
    session: OIDCSession, subject_uuid: uuid.UUID | None, *, origin: Origin, now: datetime
) -> dict[str, Any]:
    return {
        "origin": origin._replace(session=str(session.pk)),
        "now": now,
        "provider": session.provider,
        "subject": str(subject_uuid or ""),
    }


def _build_damage_alert(fields: dict[str, Any]) -> NewEvent:
    """Return the alert that encrypted columns of a session are damaged. fields: of the session's
    events.
    """
    detail = {"rule": "session_undecryptable"}
    return NewEvent(
        action=Action.ALERT_RAISED, detail=detail, **{**fields, "reason": Code.UNDECRYPTABLE}
    )


def _build_key_alert(columns: Sequence[DecryptedColumns], *, now: datetime) -> Iterator[NewEvent]:
    """Yield one alert if columns of some of the sessions can't be decrypted because a key is
    missing.
    """
    affected = [item for item in columns if item.ciphertexts]
    if affected:
        detail = {"rule": KEY_ALERT_RULE, "count": len(affected)}
        yield NewEvent(Action.ALERT_RAISED, Origin(), now, reason=Code.KEY_MISSING, detail=detail)


def delete_django_sessions(session_keys: Sequence[str]) -> None:
    """Delete Django sessions with the open transaction, or after it if the session engine has no
    transactions.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore):
        store.get_model_class().objects.filter(any_of("session_key", session_keys)).delete()
    if store is not DatabaseStore:
        # For cached_db too: until the commit, another request may put the row into the cache again.
        def delete_django_sessions() -> None:
            engine = store()
            if store in (CachedDatabaseStore, CacheStore):
                engine._cache.delete_many([engine.cache_key_prefix + key for key in session_keys])
                return
            for key in session_keys:
                engine.delete(key)

        # A named function and no partial: Django logs the name of a failed callback, and a
        # partial's shows the key.
        transaction.on_commit(delete_django_sessions, robust=True)


def delete_ended_sessions(*, before: datetime, now: datetime) -> int:
    """Delete the sessions that ended before that time; return their number. Those of persons on
    legal hold stay.
    """
    held = PairwiseSubject.objects.filter(pk=OuterRef("subject"), held_until__gt=now)
    return delete_in_batches(OIDCSession.objects.filter(~Exists(held), ended_at__lt=before))


def find_live_session_with_subject(session_id: uuid.UUID) -> OIDCSession | None:
    """Return a live session with its subject and user; None when it has ended."""
    return (
        OIDCSession.objects.live().filter(pk=session_id).select_related("subject", "user").first()
    )


@sensitive_variables()
def renew_session(
    session_id: uuid.UUID,
    *,
    subject_id: int,
    tokens: TokenResponse,
    id_token: KeptIDToken,
    sid: str,
    acr: str,
    auth_time: datetime | None,
    persist_tokens: bool,
    dpop_seed: str = "",
    origin: Origin,
    now: datetime,
) -> tuple[uuid.UUID, ...] | None:
    """Replace the tokens of a session after a new sign-in of the same person; return the
    revocations to try now.

    One transaction. None: the session has ended or belongs to another person, and nothing is
    written. Its start, claims and timeouts stay. A refresh in progress loses its lease, and its
    result is discarded.

    The replaced tokens are revoked when the session ends and not now: a provider may have one grant
    for a user and client, and revokes all its tokens, including the new ones, with the old refresh
    token (RFC 7009 2.1).

    A replaced token whose key is missing, or that is damaged, raises an alert.

    persist_tokens: False: access and refresh token are not stored, but revoked now. dpop_seed: of
    the key that the new tokens are bound to, or empty. Raises: KeyMissing. Spec: R9.
    """
    with transaction.atomic():
        live = OIDCSession.objects.live().filter(pk=session_id, subject_id=subject_id)
        # A write first: on SQLite a read would not lock.
        if not live.update(refresh_lease_until=None):
            return None
        row = OIDCSession.objects.select_related("subject").get(pk=session_id)
        new = {"refresh_token": tokens.refresh_token, "access_token": tokens.access_token}
        columns = row.decrypt_columns(TOKEN_HINTS, keys=keyring.get_keys("encryption"))
        stored = []
        for hint in TOKEN_HINTS:
            if getattr(row, hint):
                stored.append(hint)
        replaced = []
        for hint in stored:
            if columns.plaintexts.get(hint) not in new.values():
                replaced.append(SessionToken(row.pk, hint))
        PendingRevocation.objects.move_tokens(
            replaced, now=now, due_at=row.started_at + conf.absolute_timeout()
        )

        subject_uuid = None
        if row.subject:
            subject_uuid = row.subject.uuid

        fields = _get_event_fields(row, subject_uuid, origin=Origin(), now=now)
        claim_events = id_token.build_events(
            **_get_event_fields(row, subject_uuid, origin=origin, now=now)
        )

        if columns.damaged:
            damage_alerts = [_build_damage_alert(fields)]
        else:
            damage_alerts = []

        enqueue_many([*damage_alerts, *_build_key_alert([columns], now=now), *claim_events])

        if not persist_tokens:
            unused = []
            for hint in TOKEN_HINTS:
                if new[hint]:
                    unused.append(hint)
        else:
            unused = []

        received = []
        for hint in unused:
            received.append(ReceivedToken(token_type_hint=hint, value=new[hint]))
        queued = queue_revocations(received, provider=row.provider, session_id=row.pk, now=now)

        token_columns: dict[str, str] = {}
        stored_dpop_seed = None
        expires_at = None
        if persist_tokens:
            token_columns = build_token_columns(tokens)
            stored_dpop_seed = dpop_seed or None
            if tokens.expires_in:
                expires_at = now + tokens.expires_in

        renewed = OIDCSession(
            pk=row.pk,
            refresh_token=token_columns.get("refresh_token"),
            access_token=token_columns.get("access_token"),
            access_token_digest=token_columns.get("access_token_digest"),
            access_token_expires_at=expires_at,
            dpop_seed=stored_dpop_seed,
            id_token=id_token.columns["id_token"],
            id_token_claims=id_token.columns["id_token_claims"],
            sid_digest=_compute_sid_digest(sid),
            acr=acr,
            auth_time=auth_time,
        )
        renewed.save(update_fields=_RENEWED_COLUMNS)
        return queued


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
    id_token: KeptIDToken,
    django_session_key: str,
    auth_time: datetime | None,
    acr: str,
    now: datetime,
    persist_tokens: bool = True,
    dpop_seed: str = "",
    place: SignInPlace = SignInPlace(),  # noqa: B008 -- immutable
) -> OIDCSession:
    """Create the session with one INSERT inside the caller's transaction and return it.

    sid: of the ID Token, or empty; only its digest has a column. The caller stores str(id) in the
    Django session, and the events of id_token in the outbox. place: of the sign-in.
    persist_tokens: False: access and refresh token are not stored. dpop_seed: of the key that they
    are bound to, or empty.
    """
    token_columns: dict[str, str] = {}
    stored_dpop_seed = None
    expires_at = None
    if persist_tokens:
        token_columns = build_token_columns(tokens)
        stored_dpop_seed = dpop_seed or None
        if tokens.expires_in is not None:
            expires_at = now + tokens.expires_in

    row = OIDCSession(
        id=session_id,
        user_id=user.pk,
        subject=subject,
        provider=provider,
        issuer=issuer,
        sid_digest=_compute_sid_digest(sid),
        session_key=django_session_key,
        session_key_digest=sha256_hex(django_session_key),
        refresh_token=token_columns.get("refresh_token"),
        access_token=token_columns.get("access_token"),
        access_token_digest=token_columns.get("access_token_digest"),
        dpop_seed=stored_dpop_seed,
        id_token=id_token.columns["id_token"],
        id_token_claims=id_token.columns["id_token_claims"],
        access_token_expires_at=expires_at,
        auth_time=auth_time,
        acr=acr,
        started_at=now,
        last_seen_at=now,
        due_at=now + min(conf.idle_timeout(), conf.absolute_timeout()),
        browser=place.browser,
        platform=place.platform,
        network=place.network,
    )
    insert([row], using=router.db_for_write(OIDCSession))
    return row


@sensitive_variables()
def _compute_sid_digest(sid: str) -> str:
    """Return the digest of a `sid`, or empty without one."""
    if sid:
        return sha256_hex(sid)
    return ""
