"""The doors of a sign-in. A refusal's code goes to the trail; the person sees a plain page with a reference."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import clock, conf, entropy
from ..audit.events import Action, Origin, Outcome
from ..audit.recording import record
from ..audit.request import SESSION_KEY, Actor, session_id_of
from ..claims.catalog import scopes_for
from ..errors import AuditUnavailable, NotProvisioned, ProviderError, SignInRefused, StateUnknown
from ..oidc.authorization import (
    AuthorizationRequest,
    build_authorization_url,
    judge_authorization_response,
    read_state,
)
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider, get_provider
from ..sessions.ending import end_session
from ..sessions.models import EndReason
from ..sessions.tasks import on_live_connection, revoke_soon
from ..sessions.views import door, private
from ..subjects.linking import mark_seen
from ..subjects.models import PairwiseSubject
from .completing import (
    DEADLINE,
    Exchanged,
    VerifiedSignIn,
    exchange,
    new_session_id,
    nothing_left_alive,
    open_session,
    permit,
)
from .pending import Pending, forget_state, keep, make_nonce, take

logger = logging.getLogger(__name__)
LONGEST_NEXT = 512
"""Characters. Sealed, five of them and all else of ours stay within the 4 KB of a cookie and the 8 KB of a header."""


@method_decorator(door, name="dispatch")
class OIDCAuthenticationRequestView(View):
    """Sends the browser to the OP. Of the request only `next` has a say, and it never reaches the OP."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        request.encoding = "utf-8"
        try:
            return begin(request, get_provider(provider), named=provider is not None)
        except SignInRefused as refusal:
            return refuse(request, refusal, provider=provider or "", stage="request")


@method_decorator([door, sensitive_variables()], name="dispatch")
class OIDCAuthenticationCallbackView(View):
    """Takes the OP's answer: a session, or a refusal that leaves no token alive and nobody signed out."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        # What a request says of its own encoding is not asked: some of Python's codecs are no text.
        request.encoding = "utf-8"
        state = ""
        try:
            parameters = dict(request.GET.lists())
            state = read_state(parameters)
            pending = take(request, state, now=clock.now())
            response: HttpResponse = HttpResponseRedirect(pending.next_url or resolve_url(settings.LOGIN_REDIRECT_URL))
            complete(request, get_provider(provider), pending=pending, parameters=parameters)
        except SignInRefused as refusal:
            response = refuse(request, refusal, provider=provider or "", stage="callback")
        except AuditUnavailable:
            logger.exception("The sign-in was ended: the audit trail can't be written.")
            response = _page(request, "unavailable", status=503, reference=_request_reference(request))
        except BaseException:
            _record_refusal(request, "internal_error", provider=provider or "", outcome="error", stage="callback")
            raise
        if state:
            forget_state(response, request, state)
        return private(response)


def begin(request: HttpRequest, provider: Provider, *, named: bool) -> HttpResponse:
    """Return the redirect to the OP, with the pending sign-in in a cookie.

    Raises: SignInRefused. Spec: OIDC Core 3.1.2.1, RFC 7636.
    """
    declaration = provider.declaration
    callback = reverse("oidc_authentication_callback", kwargs={"provider": declaration.name} if named else None)
    state = entropy.token_b64url(32)
    pending = Pending(
        provider=declaration.name,
        nonce=make_nonce(),
        code_verifier=entropy.token_b64url(32),
        redirect_uri=request.build_absolute_uri(callback),
        next_url=_next_url(request),
        started_at=clock.now().timestamp(),
    )
    url = build_authorization_url(
        metadata=provider.metadata(deadline=DEADLINE),
        declaration=declaration,
        request=AuthorizationRequest(
            state=state,
            nonce=pending.nonce,
            code_verifier=pending.code_verifier,
            redirect_uri=pending.redirect_uri,
        ),
        scope=scopes_for(conf.claims()),
    )
    response = HttpResponseRedirect(url)
    keep(response, request, state, pending)
    return private(response)


def complete(request: HttpRequest, provider: Provider, *, pending: Pending, parameters: dict[str, list[str]]) -> None:
    """Sign the person in.

    Raises: SignInRefused, AuditUnavailable; nothing that the OP issued is left alive then.
    """
    name = provider.declaration.name
    if pending.provider != name:
        raise StateUnknown
    code = judge_authorization_response(parameters, metadata=provider.metadata(deadline=DEADLINE))
    received: list[ReceivedToken] = []
    with nothing_left_alive(received, provider=name):
        exchanged = exchange(
            code, provider=provider, pending=pending, declared=conf.claims(), received=received, clock=clock.now
        )
        sign_in = VerifiedSignIn(
            provider=name,
            issuer=provider.declaration.issuer,
            sub=exchanged.id_claims["sub"],
            claims=exchanged.claims,
            origin=Actor.from_request(request).origin,
        )
        user = auth.authenticate(request, sign_in=sign_in)
        if user is None:
            raise NotProvisioned
        admit(request, user, exchanged, provider, received)


def admit(
    request: HttpRequest, user: Any, exchanged: Exchanged, provider: Provider, received: list[ReceivedToken]
) -> None:
    """Open the sessions, Django's and ours, in one transaction; commit the event that permits them; or end them.

    The new Django session takes the place of the browser's former one for good only when all of that is done: until
    then, whatever fails, the former session is as it was, and so is who is signed in.
    received: emptied once the session holds the tokens: from there on its end revokes them.
    """
    subject = user.pairwise_link.subject
    session_id, now = new_session_id(), clock.now()
    with _new_django_session(request) as former:
        with transaction.atomic():
            try:
                mark_seen(subject, now=now)
            except PairwiseSubject.DoesNotExist as error:
                raise NotProvisioned from error
            _log_in(request, user, session_id)
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
        received.clear()
        try:
            permit(exchanged, subject=subject, provider=provider, stored=stored, origin=origin, now=now)
            _end_former_session(former, origin=origin, now=now)
        except BaseException:
            _end(session_id, EndReason.AUDIT_UNAVAILABLE, origin=origin, now=clock.now())
            raise


def _log_in(request: HttpRequest, user: Any, session_id: uuid.UUID) -> None:
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
        }
    )
    request.session.create()
    auth.login(request, user)


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


def refuse(request: HttpRequest, refusal: SignInRefused, *, provider: str, stage: str) -> HttpResponse:
    """Return the page of a refusal, after its event. The code is in the event alone."""
    told = {"provider_error": refusal.error} if isinstance(refusal, ProviderError) else {}
    reference = _record_refusal(request, refusal.code, provider=provider, outcome="failure", stage=stage, **told)
    name, status = ("unavailable", 503) if refusal.provider_fault else ("refused", 403)
    return private(_page(request, name, status=status, reference=reference or _request_reference(request)))


def _record_refusal(request: HttpRequest, code: str, *, provider: str, outcome: Outcome, **detail: str) -> str:
    """Return the id of the event, or nothing when the trail can't be written: what is refused stays refused."""
    try:
        event = record(
            Action.LOGIN_REFUSED,
            origin=Actor.from_request(request).origin,
            now=clock.now(),
            outcome=outcome,
            provider=provider,
            reason=code,
            detail=detail,
        )
    except AuditUnavailable:
        logger.exception("A sign-in was refused (%s), and the audit trail can't be written.", code)
        return ""
    return str(event)


def _next_url(request: HttpRequest) -> str:
    """Return the page to go to after the sign-in, as a header takes it; empty when it is not ours."""
    url = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(url, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    encoded = iri_to_uri(url) if safe else ""
    return encoded if len(encoded) <= LONGEST_NEXT else ""


def _page(request: HttpRequest, name: str, *, status: int, reference: str) -> HttpResponse:
    context = {"reference": reference, "restart_url": reverse("oidc_authentication_init")}
    return render(request, f"django_phi_oidc/{name}.html", context, status=status)


def _request_reference(request: HttpRequest) -> str:
    return Actor.from_request(request).origin.request_id
