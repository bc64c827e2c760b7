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

from .. import clock, conf, entropy
from ..access.granting import grant
from ..audit.events import Origin
from ..audit.outbox import holding_back
from ..audit.request import ASSURANCE_KEY, SESSION_KEY, Actor, assurance_entry, session_id_of
from ..errors import NotProvisioned
from ..oidc.id_token import auth_time_of
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider
from ..sessions.ending import end_session
from ..sessions.models import Doomed, EndReason, PendingRevocation
from ..sessions.tasks import on_live_connection, revoke_soon
from ..sessions.visiting import TIMES_KEY, new_times
from ..statements import insert
from ..subjects.linking import mark_seen
from ..subjects.models import PairwiseSubject
from .completing import Exchanged, new_session_id, open_session, permit, read_acr


def admit(
    request: HttpRequest, user: Any, exchanged: Exchanged, provider: Provider, received: list[ReceivedToken]
) -> None:
    """Open the sessions, Django's and ours, in one transaction; commit the event that permits them; or end them.

    The new Django session takes the place of the browser's former one for good only when all of that is done: until
    then, whatever fails, the former session is as it was, and so is who is signed in.
    received: emptied where something that is committed names the tokens: the end of a session that was ended again, or
    the revocations of a provider whose tokens are discarded. Those are tried when all else is done.
    """
    subject = user.pairwise_link.subject
    session_id, now = new_session_id(), clock.now()
    with _new_django_session(request) as former:
        with holding_back() as changes, transaction.atomic():
            try:
                mark_seen(subject, now=now)
            except PairwiseSubject.DoesNotExist as error:
                raise NotProvisioned from error
            # Before this session is there, for a change of roles may end the person's others; and before the account's
            # row is written, for who is the last administrator is asked with several accounts' rows locked in order.
            if rules := conf.roles().get(provider.declaration.name):
                grant(
                    user,
                    rules=rules,
                    claims=exchanged.claims,
                    provider=provider.declaration.name,
                    subject=str(subject.uuid),
                    origin=Actor.from_request(request).origin._replace(actor=str(user.pk), session=str(session_id)),
                    now=now,
                )
            _log_in(request, user, session_id, exchanged, now=now)
            origin = Actor.from_request(request).origin
            stored = open_session(
                exchanged,
                session_id=session_id,
                subject=subject,
                provider=provider,
                declared=conf.claims(),
                django_session_key=str(request.session.session_key),
                origin=origin,
                now=now,
            )
            discarded = _queue_discarded(received, exchanged, provider, session_id, now=now)
        if discarded:
            received.clear()
        try:
            permit(
                exchanged, subject=subject, provider=provider, stored=stored, changes=changes, origin=origin, now=now
            )
            _end_former_session(former, origin=origin, now=now)
        except BaseException:
            # When not even this can be written, received still names the tokens, and they are revoked without a row.
            _end(session_id, EndReason.AUDIT_UNAVAILABLE, origin=origin, now=clock.now())
            received.clear()
            raise
        finally:
            revoke_soon(discarded)


@sensitive_variables()
def _queue_discarded(
    received: list[ReceivedToken], exchanged: Exchanged, provider: Provider, session_id: uuid.UUID, *, now: datetime
) -> tuple[uuid.UUID, ...]:
    """Queue all tokens of a provider whose tokens are discarded, with the session that does not store them."""
    declaration = provider.declaration
    if declaration.tokens == "keep":
        return ()
    lifetime = exchanged.tokens.expires_in
    expires_at = None if lifetime is None else now + lifetime
    return PendingRevocation.objects.queue(
        [
            Doomed(token=token, provider=declaration.name, session=session_id, expires_at=expires_at)
            for token in received
        ],
        now=now,
    )


def _log_in(request: HttpRequest, user: Any, session_id: uuid.UUID, exchanged: Exchanged, *, now: datetime) -> None:
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
            ASSURANCE_KEY: assurance_entry(
                acr=read_acr(exchanged.id_claims), auth_time=auth_time_of(exchanged.id_claims)
            ),
            TIMES_KEY: new_times(now),
        }
    )
    _create(request.session)
    _save_changed_alone(request.session)
    auth.login(request, user)


def _create(session: SessionBase) -> None:
    """Insert a new session. Its key, 160 random bits, is not looked up first, as create() does it."""
    session._session_key = base64.b32encode(entropy.token_bytes(20)).decode("ascii").lower()
    if isinstance(session, DatabaseStore) and type(session).save is DatabaseStore.save and session.model is Session:
        # The same row without a savepoint.
        row = session.create_model_instance(dict(session.items()))
        insert([row], using=router.db_for_write(type(row), instance=row))
    else:
        session.save(must_create=True)


def _save_changed_alone(session: SessionBase) -> None:
    """Let SessionMiddleware, which saves what login() has touched, write the row again only where it would differ."""
    save, written = session.save, _content(session)

    def save_changed(must_create: bool = False) -> None:
        nonlocal written
        if must_create or _content(session) != written:
            save(must_create)
            written = _content(session)

    session.save = save_changed  # type: ignore[method-assign]  # of this one session, for the rest of the request


def _content(session: SessionBase) -> bytes:
    content: bytes = session.serializer().dumps([session.session_key, dict(session.items())])
    return content


@contextmanager
def _new_django_session(request: HttpRequest) -> Iterator[SessionBase]:
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


def _end_former_session(former: SessionBase, *, origin: Origin, now: datetime) -> None:
    if session_id := session_id_of(former):
        _end(session_id, EndReason.REPLACED, origin=origin, now=now)
    if former.session_key:
        former.delete()


def _end(session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime) -> None:
    ended = on_live_connection(lambda: end_session(session_id, reason, origin=origin, now=now))
    revoke_soon(ended.revocations if ended else ())
