"""Create the Django session and the OIDC session for a verified sign-in, and end the previous
one.
"""

import base64
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.db import router, transaction
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from .. import conf
from .._internal import clock, randomness
from .._internal.inserts import combine_inserts, insert
from ..audit.events import Action, AuthenticatedEvent, NewEvent, Origin
from ..audit.outbox import deliver_permit, enqueue_permit
from ..audit.request_context import (
    ASSURANCE_KEY,
    SESSION_KEY,
    VECTOR_OF_TRUST_KEY,
    Actor,
    build_assurance_entry,
    find_oidc_session_id,
)
from ..claims.account_columns import build_account_claim_events
from ..claims.overfetched import record_overfetched
from ..claims.storage import store_claims
from ..config.providers import ProviderDeclaration
from ..crypto import keyring
from ..errors import AccountError, Code, NotProvisioned
from ..extensions import SignIn, foreign_session_observers, role_sources, sign_in_observers
from ..oidc.token import ReceivedToken
from ..sessions.activity import TIMES_KEY, create_times_entry
from ..sessions.kept_id_token import reduce_id_token
from ..sessions.lifecycle import end_session, start_session
from ..sessions.models import EndReason, OIDCSession, PendingRevocation, TokenToRevoke
from ..sessions.parallel_limit import end_surplus_sessions
from ..sessions.recent_logouts import find_end_reason
from ..sessions.sign_in_places import create_sign_in_place
from ..sessions.tasks import retry_on_lost_connection, revoke_after_commit
from ..subjects.linking import mark_seen
from ..subjects.models import PairwiseSubject
from .code_exchange import TokenExchangeResult
from .reauthentication import get_device


def establish_session(
    request: HttpRequest,
    user: Any,
    result: TokenExchangeResult,
    provider: ProviderDeclaration,
    issued_tokens: list[ReceivedToken],
    *,
    session_id: uuid.UUID,
    committed_events: list[AuthenticatedEvent],
    requested_at: datetime,
) -> None:
    """Create both sessions and their event in one transaction and move the event to the audit log,
    or end them again.

    The previous Django session is replaced only when all of this succeeded. On any failure, it and
    its user stay.
    committed_events: events of this sign-in that wait in the outbox; emptied once the audit log has
    them. Otherwise the caller moves them.
    requested_at: the time of the authorization request. If a logout token has named the session
    since, it is refused.
    issued_tokens: emptied once committed rows contain the tokens: those of a session that was ended
    again, or the revocations for a provider whose tokens are discarded. These revocations are tried
    last.
    """
    new = _NewSession(
        request=request,
        user=user,
        result=result,
        provider=provider,
        now=clock.now(),
        session_id=session_id,
    )
    with _replace_django_session(request) as previous_session:
        with transaction.atomic():
            last_seen_at = new.subject.last_seen_at
            try:
                mark_seen(new.subject, now=new.now)
            except PairwiseSubject.DoesNotExist as error:
                raise NotProvisioned from error
            sign_in = new.build_sign_in(last_seen_at=last_seen_at)
            # Before the new session exists, because a role change may end the person's other
            # sessions. And before the account's row is written: the check for the last
            # administrator locks several account rows in order.
            new.sync_roles(sign_in)
            for observer in sign_in_observers:
                observer.prepare_session(sign_in)
            new.log_in(sign_in)
            for observer in sign_in_observers:
                observer.record_sign_in(sign_in, get_device=partial(get_device, request))
            origin = Actor.from_request(request).origin
            new.record_undeclared_claims(origin)
            with combine_inserts(using=router.db_for_write(OIDCSession)):
                permit = enqueue_permit(new.create_oidc_session(origin))
                discarded = new.queue_discarded_tokens(issued_tokens)
        committed_events += permit
        if discarded:
            issued_tokens.clear()
        try:
            # After the commit of the session, see `recent_logouts`.
            refuse_if_logged_out(result, issuer=provider.issuer, requested_at=requested_at)
            deliver_permit(committed_events)
            committed_events.clear()
            if previous_id := find_oidc_session_id(previous_session):
                _end_oidc_session(previous_id, EndReason.REPLACED, origin=origin, now=new.now)
            else:
                for observe in foreign_session_observers:
                    observe(previous_session, now=new.now)
            if previous_session.session_key:
                previous_session.delete()
            end_surplus_sessions(user.pk, origin=origin)
        except BaseException as error:
            if isinstance(error, SignInEnded):
                reason = error.session_end
            else:
                reason = EndReason.AUDIT_UNAVAILABLE

            # If this fails too, issued_tokens still contains the tokens, and they are revoked
            # without a row.
            _end_oidc_session(new.session_id, reason, origin=origin, now=clock.now())
            issued_tokens.clear()
            raise
        finally:
            revoke_after_commit(discarded)


class SignInEnded(AccountError):
    """The sign-in was ended while it was in progress. session_end: of its session."""

    def __init__(self, session_end: EndReason) -> None:
        super().__init__(Code.LOGGED_OUT)
        self.session_end = session_end


@sensitive_variables()
def refuse_if_logged_out(
    result: TokenExchangeResult, *, issuer: str, requested_at: datetime
) -> None:
    """Raises: SignInEnded (`logged_out`): a logout, an event or a deactivation came since the
    sign-in was requested.
    """
    sub = result.id_token_claims["sub"]
    keys = keyring.get_keys("subject")
    if reason := find_end_reason(
        issuer=issuer, sid=result.sid, sub=sub, keys=keys, since=requested_at
    ):
        raise SignInEnded(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewSession:
    request: HttpRequest
    user: Any
    result: TokenExchangeResult
    provider: ProviderDeclaration
    now: datetime
    session_id: uuid.UUID

    @property
    def subject(self) -> PairwiseSubject:
        subject: PairwiseSubject = self.user.pairwise_link.subject
        return subject

    def sync_roles(self, sign_in: SignIn) -> None:
        if not role_sources:
            return
        origin = Actor.from_request(self.request).origin
        origin = origin._replace(actor=str(self.user.pk), session=str(self.session_id))
        for source in role_sources:
            source.sync_roles(sign_in, claims=self.result.claims, origin=origin)

    def build_sign_in(self, *, last_seen_at: datetime) -> SignIn:
        """Return what observers see of this sign-in: no token and no claim but `sub`.

        last_seen_at: before this sign-in.
        """
        return SignIn(
            user=self.user,
            provider=self.provider,
            subject=self.subject,
            sub=self.result.id_token_claims["sub"],
            offered_acr_values=self.result.offered_acr_values,
            last_seen_at=last_seen_at,
            is_new_link=self.user.pairwise_link.created,
            now=self.now,
        )

    def log_in(self, sign_in: SignIn) -> None:
        """Log the user in with a Django session that is saved when this returns.

        Its row is inserted with all that login() sets. So login() sees a session of the same user,
        and does not cycle the key, which is new anyway.
        """
        session = self.request.session
        result = self.result
        session.update(
            {
                auth.SESSION_KEY: self.user._meta.pk.value_to_string(self.user),
                auth.BACKEND_SESSION_KEY: self.user.backend,
                auth.HASH_SESSION_KEY: self.user.get_session_auth_hash(),
                SESSION_KEY: str(self.session_id),
                ASSURANCE_KEY: build_assurance_entry(acr=result.acr, auth_time=result.auth_time),
                TIMES_KEY: create_times_entry(self.now),
            }
        )
        if result.vot:
            session[VECTOR_OF_TRUST_KEY] = result.vot
        for observer in sign_in_observers:
            session.update(observer.get_session_entries(sign_in))
        _insert_session(session)
        _save_only_when_changed(session)
        auth.login(self.request, self.user)

    def record_undeclared_claims(self, origin: Origin) -> None:
        event = self._build_event(Action.CLAIM_OVERFETCHED, origin)
        record_overfetched(self.result.undeclared_claims, event)

    def create_oidc_session(self, origin: Origin) -> list[NewEvent]:
        """Insert the OIDC session and its claims, and return the events of the sign-in, which
        permit it.
        """
        provider = self.provider.name
        policy = self.provider.id_token_hint
        id_token = reduce_id_token(
            self.result.tokens.id_token, self.result.id_token_claims, policy=policy
        )
        start_session(
            session_id=self.session_id,
            user=self.subject.user,
            subject=self.subject,
            provider=provider,
            issuer=self.provider.issuer,
            sid=self.result.sid,
            tokens=self.result.tokens,
            dpop_seed=self.result.dpop_seed,
            id_token=id_token,
            django_session_key=str(self.request.session.session_key),
            auth_time=self.result.auth_time,
            acr=self.result.acr,
            now=self.now,
            persist_tokens=self.provider.tokens == "keep",
            place=create_sign_in_place(
                user_agent=self.request.headers.get("User-Agent", ""), client_ip=origin.client_ip
            ),
        )
        stored_claims = store_claims(
            self.result.claims,
            declared_claims=conf.claims(),
            subject=self.subject,
            session_id=self.session_id,
            now=self.now,
        )
        detail = {**self.result.assurance_detail, "claims": stored_claims}
        events = [self._build_event(Action.LOGIN_SUCCEEDED, origin, detail)]
        events += id_token.build_events(
            origin=origin, now=self.now, provider=provider, subject=str(self.subject.uuid)
        )
        events += build_account_claim_events(
            self.user.claims_in_account,
            origin=origin,
            now=self.now,
            provider=provider,
            subject=str(self.subject.uuid),
        )
        if self.result.tokens.lifetime_alert:
            alert = {"rule": "access_token_lifetime"}
            events.append(self._build_event(Action.ALERT_RAISED, origin, alert))
        return events

    def _build_event(
        self, action: Action, origin: Origin, detail: Mapping[str, Any] | None = None
    ) -> NewEvent:
        return NewEvent(
            action=action,
            origin=origin,
            now=self.now,
            provider=self.provider.name,
            subject=str(self.subject.uuid),
            detail=detail,
        )

    @sensitive_variables()
    def queue_discarded_tokens(self, issued_tokens: Sequence[ReceivedToken]) -> Sequence[uuid.UUID]:
        """Queue the revocation of all tokens if the provider's tokens are not stored."""
        if self.provider.tokens == "keep":
            return ()
        lifetime = self.result.tokens.expires_in

        if lifetime is None:
            expires_at = None
        else:
            expires_at = self.now + lifetime

        tokens = []
        for token in issued_tokens:
            tokens.append(
                TokenToRevoke(
                    token=token,
                    access_token_expires_at=expires_at,
                    provider=self.provider.name,
                    session_id=self.session_id,
                )
            )
        return PendingRevocation.objects.queue(tokens, now=self.now)


def _insert_session(session: SessionBase) -> None:
    """Insert a new session, without create()'s query for its key, which has 160 random bits."""
    session._session_key = base64.b32encode(randomness.token_bytes(20)).decode("ascii").lower()
    if (
        isinstance(session, DatabaseStore)
        and type(session).save is DatabaseStore.save
        and session.model is Session
        and not any(signal.has_listeners(Session) for signal in (pre_save, post_save))
    ):
        # The same row as save() inserts, without its savepoint.
        insert(
            [session.create_model_instance(dict(session.items()))],
            using=router.db_for_write(Session),
        )
    else:
        session.save(must_create=True)


def _save_only_when_changed(session: SessionBase) -> None:
    """Skip SessionMiddleware's second save of the session that login() marked as modified, unless
    it changed.
    """
    save = session.save
    saved = _serialize_session(session)

    def save_changed(must_create: bool = False) -> None:
        nonlocal saved
        if must_create or _serialize_session(session) != saved:
            save(must_create)
            saved = _serialize_session(session)

    session.save = save_changed  # type: ignore[method-assign]  # of this session only, until the end of the request


def _serialize_session(session: SessionBase) -> bytes:
    content: bytes = session.serializer().dumps([session.session_key, dict(session.items())])
    return content


@contextmanager
def _replace_django_session(request: HttpRequest) -> Iterator[SessionBase]:
    """Give the request a new session, and yield the previous one, which is restored when the block
    fails.
    """
    previous = request.session
    user = request.user
    new = import_module(settings.SESSION_ENGINE).SessionStore()
    # The data of an anonymous visitor is copied, as django.contrib.auth does.
    if auth.SESSION_KEY not in previous:
        new.update(previous.items())
    request.session = new
    try:
        yield previous
    except BaseException:
        request.session = previous
        request.user = user
        # A session engine without transactions has stored it.
        if new.session_key:
            new.delete()
        raise


def _end_oidc_session(
    session_id: uuid.UUID, reason: EndReason, *, origin: Origin, now: datetime
) -> None:
    ended = retry_on_lost_connection(
        lambda: end_session(session_id, reason, origin=origin, now=now)
    )
    revoke_after_commit(ended.revocation_ids if ended else ())
