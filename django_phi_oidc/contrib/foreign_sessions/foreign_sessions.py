"""Sessions that another authentication backend has begun: find them, and end them with the tokens
that they store.

mozilla-django-oidc stores tokens in the Django session, where nothing encrypts or revokes them. If
its backend is not in AUTHENTICATION_BACKENDS any more, Django treats the user of such a session as
anonymous, and keeps its row.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, TypeGuard

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import router, transaction
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...audit.events import Action, NewEvent, Origin
from ...audit.outbox import enqueue_many
from ...audit.request_context import LOCAL_SIGN_IN_KEY, find_oidc_session_id
from ...errors import IDTokenError, KeyRingError
from ...oidc.jose import parse_compact_jws
from ...oidc.token import ReceivedToken
from ...sessions.lifecycle import delete_django_sessions
from ...sessions.models import TOKEN_HINTS, EndReason, PendingRevocation, TokenToRevoke
from ...sessions.tasks import revoke_after_commit

logger = logging.getLogger("django_phi_oidc.sessions")
BATCH_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSession:
    """A Django session with a user who has not signed in by this package."""

    session_key: str = field(repr=False)
    user_id: str
    backend: str
    """The dotted path of the authentication backend, which may not exist any more."""
    expires_at: datetime
    tokens: tuple[ReceivedToken, ...] = field(repr=False)
    provider: str
    """The declared provider that issued the tokens, as the stored ID Token names it; empty if that
    is unknown.
    """
    issuer: str = ""
    """The issuer that the stored ID Token names; empty without a readable one."""

    def list_revocable(self, provider: str) -> list[TokenToRevoke]:
        """Return the tokens with the provider at which they can be revoked.

        provider: for tokens whose provider is unknown, or empty. It gets no tokens of another
        issuer.
        """
        is_possible = provider and self.issuer in ("", conf.providers()[provider].issuer)
        name = self.provider or (provider if is_possible else "")
        if name:
            return [TokenToRevoke(token=token, provider=name) for token in self.tokens]
        return []


def has_session_table() -> bool:
    """Return whether the session engine stores sessions in a table, so that they can be
    searched.
    """
    return issubclass(import_module(settings.SESSION_ENGINE).SessionStore, DatabaseStore)


@sensitive_variables()
def iterate_foreign_sessions() -> Iterator[ForeignSession]:
    """Yield the foreign sessions, also expired ones, by one query for each 500 rows of the table.

    Rows that SECRET_KEY and SECRET_KEY_FALLBACKS cannot read are left out: no request can use them
    either.
    Requires: has_session_table.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    rows = store.get_model_class()._base_manager.order_by("pk")
    last_key = ""
    while batch := list(rows.filter(pk__gt=last_key)[:BATCH_SIZE]):
        last_key = batch[-1].pk
        for row in batch:
            data = store.decode(row.session_data)
            if _is_foreign(data):
                yield ForeignSession(
                    session_key=row.pk,
                    user_id=str(data[auth.SESSION_KEY]),
                    backend=str(data.get(auth.BACKEND_SESSION_KEY, "")),
                    expires_at=row.expire_date,
                    tokens=_list_tokens(data),
                    provider=_find_provider(data),
                    issuer=str(_parse_id_token(data).get("iss", "")),
                )


@sensitive_variables()
def end_foreign_sessions(
    sessions: Sequence[ForeignSession], *, provider: str = "", origin: Origin, now: datetime
) -> tuple[int, tuple[uuid.UUID, ...]]:
    """Delete those of the sessions that still exist; return their number, and the revocations to
    try.

    One transaction, with an event for each. provider: as for `list_revocable`; other tokens are
    only deleted.
    Requires: has_session_table. Raises: KeyMissing.
    """
    model = import_module(settings.SESSION_ENGINE).SessionStore.get_model_class()
    rows = model._base_manager.using(router.db_for_write(model)).order_by("pk").select_for_update()
    with transaction.atomic():
        existing = set(
            rows.filter(pk__in=[session.session_key for session in sessions]).values_list(
                "pk", flat=True
            )
        )
        ended = []
        for session in sessions:
            if session.session_key in existing:
                ended.append(session)

        revocable = []
        tokens_to_revoke: list[TokenToRevoke] = []
        for session in ended:
            tokens = session.list_revocable(provider)
            revocable.append((session, tokens))
            tokens_to_revoke += tokens
        queued = _queue(tokens_to_revoke, now=now)

        events = []
        for session, tokens in revocable:
            events.append(
                NewEvent(
                    action=Action.SESSION_ENDED,
                    resource=f"user/{session.user_id}",
                    provider=tokens[0].provider if tokens else session.provider,
                    detail={"tokens": len(tokens)},
                    origin=origin,
                    now=now,
                    reason=EndReason.ADMINISTRATOR,
                )
            )
        enqueue_many(events)
        delete_django_sessions([session.session_key for session in ended])
    return len(ended), queued


@sensitive_variables()
def revoke_foreign_tokens(session: Mapping[str, Any], *, now: datetime) -> None:
    """Revoke the tokens of a foreign Django session that is about to be deleted, after the
    commit.
    """
    revoke_after_commit(queue_foreign_tokens(session, now=now))


@sensitive_variables()
def queue_foreign_tokens(session: Mapping[str, Any], *, now: datetime) -> tuple[uuid.UUID, ...]:
    """Queue the tokens of a foreign Django session that is about to be deleted; return the
    revocations to try.

    Tokens are only sent to the provider that issued them. If that is unknown, or no key can encrypt
    them, they are not revoked: the end of a session does not depend on it.
    """
    tokens = _list_tokens(session)
    provider = _find_provider(session)
    if not tokens or not provider:
        return ()
    try:
        return _queue([TokenToRevoke(token=token, provider=provider) for token in tokens], now=now)
    except KeyRingError as error:
        logger.error("Tokens of a session of another backend are not revoked: %s", error)  # noqa: TRY400 -- its locals are tokens
        return ()


def _queue(tokens: Sequence[TokenToRevoke], *, now: datetime) -> tuple[uuid.UUID, ...]:
    if tokens:
        return PendingRevocation.objects.queue(tokens, now=now)
    return ()


def _is_foreign(data: Mapping[str, Any]) -> bool:
    """Return whether the session has a user, and neither an OIDC session nor the sign-in of a local
    account.
    """
    is_local = LOCAL_SIGN_IN_KEY in data and data[LOCAL_SIGN_IN_KEY] == data.get(
        auth.BACKEND_SESSION_KEY
    )
    return auth.SESSION_KEY in data and find_oidc_session_id(data) is None and not is_local


def _list_tokens(data: Mapping[str, Any]) -> tuple[ReceivedToken, ...]:
    """Return the tokens under the keys of mozilla-django-oidc (`store_tokens`), and of subclasses
    that refresh.

    Other code may store anything under these keys: what is no token (RFC 6749 A.12) must not
    prevent a logout.
    """
    stored = []
    for hint in TOKEN_HINTS:
        stored.append((hint, data.get(f"oidc_{hint}")))
    tokens = []
    for hint, value in stored:
        if _is_token(value):
            tokens.append(ReceivedToken(token_type_hint=hint, value=value))
    return tuple(tokens)


def _is_token(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()


def _find_provider(data: Mapping[str, Any]) -> str:
    """Return the declared provider and client that the stored ID Token names. Its signature was
    verified before.
    """
    claims = _parse_id_token(data)
    audience = claims.get("aud")
    if isinstance(audience, list):
        audiences = audience
    else:
        audiences = [audience]

    for name, declaration in conf.providers().items():
        if declaration.issuer == claims.get("iss") and declaration.client_id in audiences:
            return name
    return ""


def _parse_id_token(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the claims of the stored ID Token; none without a readable one."""
    try:
        return parse_compact_jws(str(data.get("oidc_id_token", ""))).payload
    except IDTokenError:
        return {}
