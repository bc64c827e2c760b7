"""The doors of a sign-in. A refusal's code goes to the trail; the person sees a plain page with a reference."""

import logging
import uuid
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import View

from .. import clock, conf, entropy
from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import SESSION_KEY, Actor
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
from ..sessions.tasks import revoke_soon
from ..sessions.views import door, private
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
LONGEST_NEXT = 1024


@method_decorator(door, name="dispatch")
class OIDCAuthenticationRequestView(View):
    """Sends the browser to the OP. Of the request only `next` has a say, and it never reaches the OP."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        try:
            return begin(request, get_provider(provider), named=provider is not None)
        except SignInRefused as refusal:
            return refuse(request, refusal, provider=provider or "", stage="request")


@method_decorator(door, name="dispatch")
class OIDCAuthenticationCallbackView(View):
    """Takes the OP's answer: a session, or a refusal that leaves no token alive and nobody signed out."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        state = ""
        try:
            parameters = dict(request.GET.lists())
            state = read_state(parameters)
            pending = take(request, state, now=clock.now())
            complete(request, get_provider(provider), pending=pending, parameters=parameters)
            response: HttpResponse = HttpResponseRedirect(pending.next_url or resolve_url(settings.LOGIN_REDIRECT_URL))
        except SignInRefused as refusal:
            response = refuse(request, refusal, provider=provider or "", stage="callback")
        except AuditUnavailable:
            logger.exception("The sign-in was ended: the audit trail can't be written.")
            response = _page(request, "unavailable", status=503, reference=_request_reference(request))
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
    with nothing_left_alive(received, provider=name, clock=clock.now):
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

    received is emptied once the session holds the tokens: from there on its end revokes them.
    """
    subject = user.pairwise_link.subject
    session_id, now = new_session_id(), clock.now()
    with transaction.atomic():
        former = _leave_former_session(request, now)
        auth.login(request, user)
        request.session[SESSION_KEY] = str(session_id)
        request.session.save()
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
    revoke_soon(former)
    try:
        permit(exchanged, subject=subject, provider=provider, stored=stored, origin=origin, now=now)
    except BaseException:
        ended = end_session(session_id, EndReason.AUDIT_UNAVAILABLE, origin=origin, now=clock.now())
        request.session.flush()
        request.user = AnonymousUser()
        revoke_soon(ended.revocations if ended else ())
        raise


def refuse(request: HttpRequest, refusal: SignInRefused, *, provider: str, stage: str) -> HttpResponse:
    """Return the page of a refusal, after its event. The code is in the event alone."""
    detail = {"stage": stage}
    if isinstance(refusal, ProviderError):
        detail["provider_error"] = refusal.error
    reference = _request_reference(request)
    try:
        event = record(
            Action.LOGIN_REFUSED,
            origin=Actor.from_request(request).origin,
            now=clock.now(),
            outcome="failure",
            provider=provider,
            reason=refusal.code,
            detail=detail,
        )
        reference = str(event)
    except AuditUnavailable:
        logger.exception("A sign-in was refused (%s), and the audit trail can't be written.", refusal.code)
    return private(
        _page(
            request,
            "unavailable" if refusal.provider_fault else "refused",
            status=503 if refusal.provider_fault else 403,
            reference=reference,
        )
    )


def _leave_former_session(request: HttpRequest, now: datetime) -> tuple[uuid.UUID, ...]:
    """End what this browser was signed in to; return the revocations to try after the commit."""
    former = request.session.get(SESSION_KEY)
    ended = None
    if former:
        origin = Actor.from_request(request).origin
        ended = end_session(uuid.UUID(former), EndReason.REPLACED, origin=origin, now=now)
    if auth.SESSION_KEY in request.session:
        request.session.flush()
    return ended.revocations if ended else ()


def _next_url(request: HttpRequest) -> str:
    url = request.GET.get("next", "")
    safe = len(url) <= LONGEST_NEXT and url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if safe else ""


def _page(request: HttpRequest, name: str, *, status: int, reference: str) -> HttpResponse:
    context = {"reference": reference, "restart_url": reverse("oidc_authentication_init")}
    return render(request, f"django_phi_oidc/{name}.html", context, status=status)


def _request_reference(request: HttpRequest) -> str:
    return Actor.from_request(request).origin.request_id
