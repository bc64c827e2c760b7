"""A verified person becomes somebody who is signed in: both sessions at once, and the former one's end."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.db import router, transaction
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import clock, randomness
from .._internal.sql import insert
from ..access.role_sync import sync_roles
from ..audit.events import Origin
from ..audit.outbox import defer_delivery
from ..audit.request_context import ASSURANCE_KEY, SESSION_KEY, Actor, build_assurance_entry, find_oidc_session_id
from ..errors import NotProvisioned
from ..oidc.id_token import find_auth_time
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider
from ..sessions.activity import TIMES_KEY, create_times_entry
from ..sessions.lifecycle import end_session
from ..sessions.models import EndReason, PendingRevocation, TokenToRevoke
from ..sessions.tasks import retry_on_lost_connection, revoke_after_commit
from ..subjects.linking import mark_seen
from ..subjects.models import PairwiseSubject
from .code_exchange import (
    TokenExchangeResult,
    create_session_id,
    create_session_with_claims,
    parse_acr,
    record_login_succeeded,
)


def establish_session(
    request: HttpRequest,
    user: Any,
    exchange_result: TokenExchangeResult,
    provider: Provider,
    issued_tokens: list[ReceivedToken],
) -> None:
    """Open the sessions, Django's and ours, in one transaction; commit the event that permits them; or end them.

    The new Django session takes the place of the browser's former one for good only when all of that is done: until
    then, whatever fails, the former session is as it was, and so is who is signed in.
    received: emptied where something that is committed names the tokens: the end of a session that was ended again, or
    the revocations of a provider whose tokens are discarded. Those are tried when all else is done.
    """
    subject = user.pairwise_link.subject
    session_id, now = create_session_id(), clock.now()
    with _replace_django_session(request) as former:
        with defer_delivery() as changes, transaction.atomic():
            try:
                mark_seen(subject, now=now)
            except PairwiseSubject.DoesNotExist as error:
                raise NotProvisioned from error
            # Before this session is there, for a change of roles may end the person's others; and before the account's
            # row is written, for who is the last administrator is asked with several accounts' rows locked in order.
            if rules := conf.roles().get(provider.declaration.name):
                sync_roles(
                    user,
                    rules=rules,
                    claims=exchange_result.claims,
                    provider=provider.declaration.name,
                    subject=str(subject.uuid),
                    origin=Actor.from_request(request).origin._replace(actor=str(user.pk), session=str(session_id)),
                    now=now,
                )
            _log_in(request, user, session_id, exchange_result, now=now)
            origin = Actor.from_request(request).origin
            stored = create_session_with_claims(
                exchange_result,
                session_id=session_id,
                subject=subject,
                provider=provider,
                declared_claims=conf.claims(),
                django_session_key=str(request.session.session_key),
                origin=origin,
                now=now,
            )
            discarded = _queue_discarded_tokens(issued_tokens, exchange_result, provider, session_id, now=now)
        if discarded:
            issued_tokens.clear()
        try:
            record_login_succeeded(
                exchange_result,
                subject=subject,
                provider=provider,
                stored_claims=stored,
                change_events=changes,
                origin=origin,
                now=now,
            )
            _end_previous_session(former, origin=origin, now=now)
        except BaseException:
            # When not even this can be written, received still names the tokens, and they are revoked without a row.
            _end_oidc_session(session_id, EndReason.AUDIT_UNAVAILABLE, origin=origin, now=clock.now())
            issued_tokens.clear()
            raise
        finally:
            revoke_after_commit(discarded)


@sensitive_variables()
def _queue_discarded_tokens(
    issued_tokens: list[ReceivedToken],
    exchange_result: TokenExchangeResult,
    provider: Provider,
    session_id: uuid.UUID,
    *,
    now: datetime,
) -> tuple[uuid.UUID, ...]:
    """Queue all tokens of a provider whose tokens are discarded, with the session that does not store them."""
    declaration = provider.declaration
    if declaration.tokens == "keep":
        return ()
    lifetime = exchange_result.tokens.expires_in
    expires_at = None if lifetime is None else now + lifetime
    return PendingRevocation.objects.queue(
        [
            TokenToRevoke(
                token=token, provider=declaration.name, session_id=session_id, access_token_expires_at=expires_at
            )
            for token in issued_tokens
        ],
        now=now,
    )


def _log_in(
    request: HttpRequest, user: Any, session_id: uuid.UUID, exchange_result: TokenExchangeResult, *, now: datetime
) -> None:
    """Sign the user in, and both sessions together, with a Django session that is saved when this returns.

    Its row is inserted with all that login() would write into it. So login() finds its own there, and need not cycle
    the key of a session that nobody else knows.
    """
    request.session.update(
        {
            auth.SESSION_KEY: user._meta.pk.value_to_string(user),
            auth.BACKEND_SESSION_KEY: user.backend,
            auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
            SESSION_KEY: str(session_id),
            ASSURANCE_KEY: build_assurance_entry(
                acr=parse_acr(exchange_result.id_token_claims),
                auth_time=find_auth_time(exchange_result.id_token_claims),
            ),
            TIMES_KEY: create_times_entry(now),
        }
    )
    _insert_session(request.session)
    _save_only_when_changed(request.session)
    auth.login(request, user)


def _insert_session(session: SessionBase) -> None:
    """Insert a new session. Its key, 160 random bits, is not looked up first, as create() does it."""
    session._session_key = base64.b32encode(randomness.token_bytes(20)).decode("ascii").lower()
    if isinstance(session, DatabaseStore) and type(session).save is DatabaseStore.save and session.model is Session:
        # The same row without a savepoint.
        row = session.create_model_instance(dict(session.items()))
        insert([row], using=router.db_for_write(type(row), instance=row))
    else:
        session.save(must_create=True)


def _save_only_when_changed(session: SessionBase) -> None:
    """Let SessionMiddleware, which saves what login() has touched, write the row again only where it would differ."""
    save, written = session.save, _serialize_session(session)

    def save_changed(must_create: bool = False) -> None:
        nonlocal written
        if must_create or _serialize_session(session) != written:
            save(must_create)
            written = _serialize_session(session)

    session.save = save_changed  # type: ignore[method-assign]  # of this one session, for the rest of the request


def _serialize_session(session: SessionBase) -> bytes:
    content: bytes = session.serializer().dumps([session.session_key, dict(session.items())])
    return content


@contextmanager
def _replace_django_session(request: HttpRequest) -> Iterator[SessionBase]:
    """Give the request a session of its own for the length of the block, and its former one back if the block fails.

    What an anonymous visitor had put into theirs is taken along, as django.contrib.auth does it.
    """
    former, user = request.session, request.user
    fresh = import_module(settings.SESSION_ENGINE).SessionStore()
    if auth.SESSION_KEY not in former:
        fresh.update(former.items())
    request.session = fresh
    try:
        yield former
    except BaseException:
        request.session, request.user = former, user
        # An engine without transactions has kept it.
        if fresh.session_key:
            fresh.delete()
        raise


def _end_previous_session(previous_session: SessionBase, *, origin: Origin, now: datetime) -> None:
    if session_id := find_oidc_session_id(previous_session):
        _end_oidc_session(session_id, EndReason.REPLACED, origin=origin, now=now)
    if previous_session.session_key:
        previous_session.delete()


def _end_oidc_session(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> None:
    ended = retry_on_lost_connection(lambda: end_session(session_id, reason, origin=origin, now=now))
    revoke_after_commit(ended.revocation_ids if ended else ())
