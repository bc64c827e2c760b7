"""The doors of a sign-in: to the OP, and back. A refusal's code goes to the trail, never to the browser."""

from dataclasses import replace

from django.conf import settings
from django.contrib import auth
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import clock, conf, metering, secrecy
from ..access.answering import private
from ..audit.request import Actor
from ..errors import AuditUnavailable, NotProvisioned, SignInRefused, StateUnknown
from ..oidc.authorization import judge_authorization_response, read_state
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider, get_provider
from ..sessions.views import door
from .activating import ask_for_code, note_newcomer
from .admitting import admit
from .choosing import choose, must_choose, read_next
from .completing import DEADLINE, VerifiedSignIn, exchange, nothing_left_alive
from .pending import Pending, forget_state, next_of, start, take
from .redirecting import callback_url, redirect
from .refusing import attempt_at, refuse, tell_of_internal_error
from .stepping_up import ask_again, complete_step_up


@method_decorator([door, sensitive_variables()], name="dispatch")
class OIDCAuthenticationRequestView(View):
    """Sends the browser to the OP, or asks to which. Only `next` of a request has a say, and the OP does not get it."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        request.encoding = "utf-8"
        attempt = attempt_at(self, provider, stage="request")
        try:
            if provider is None and must_choose():
                return private(choose(request))
            with metering.timed(metering.SIGN_IN, provider=attempt.provider, step="request"):
                return begin(request, get_provider(provider), named=provider is not None)
        except SignInRefused as refusal:
            return refuse(request, refusal, attempt, next_url=read_next(request))
        except SuspiciousOperation:
            raise
        except BaseException:
            tell_of_internal_error(request, attempt)
            raise


@method_decorator([door, sensitive_variables()], name="dispatch")
class OIDCAuthenticationCallbackView(View):
    """Takes the OP's answer: a session, or a refusal that leaves no token alive and nobody signed out."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        # What a request says of its own encoding is not asked: some of Python's codecs are no text.
        request.encoding = "utf-8"
        attempt = attempt_at(self, provider, stage="callback")
        state, pending = "", None
        # Django's 400 for what is no request to us: anybody can send a thousand parameters. What is suspicious later
        # on, in a hook of the host's, ends a sign-in, and is told like any other end.
        parameters = dict(request.GET.lists())
        try:
            state = read_state(parameters)
            pending = take(request, state, now=clock.now())
            # Not before: what is in a URL that anybody wrote is no secret of ours, and masks nothing.
            secrecy.learn(state, "state")
            secrecy.learn(parameters.get("code"), "code")
            attempt = replace(attempt, known_state=True, stage="step_up" if pending.renews else "callback")
            response: HttpResponse = HttpResponseRedirect(pending.next_url or resolve_url(settings.LOGIN_REDIRECT_URL))
            complete(request, get_provider(provider), pending=pending, parameters=parameters)
            told = {"provider": attempt.provider, "stage": attempt.stage, "outcome": "success", "reason": ""}
            metering.count(metering.SIGN_INS, **told)
        except (SignInRefused, AuditUnavailable) as fault:
            next_url = next_of(request, state)
            response = (
                ask_again(request, pending, fault, attempt)
                or ask_for_code(request, fault, attempt, next_url=next_url)
                or refuse(request, fault, attempt, next_url=next_url)
            )
        except BaseException:
            tell_of_internal_error(request, attempt)
            raise
        if state:
            forget_state(response, request, state)
        return private(response)


def begin(request: HttpRequest, provider: Provider, *, named: bool) -> HttpResponse:
    """Return the redirect to the OP, with the pending sign-in in a cookie.

    Raises: SignInRefused. Spec: OIDC Core 3.1.2.1, RFC 7636.
    """
    name = provider.declaration.name
    callback = callback_url(request, name if named else None)
    pending = start(provider=name, redirect_uri=callback, next_url=read_next(request), now=clock.now())
    return redirect(request, provider, pending, declared=conf.claims())


def complete(request: HttpRequest, provider: Provider, *, pending: Pending, parameters: dict[str, list[str]]) -> None:
    """Sign the person in.

    Raises: SignInRefused, AuditUnavailable; nothing that the OP issued is left alive then.
    """
    name = provider.declaration.name
    if pending.provider != name:
        raise StateUnknown
    code = judge_authorization_response(parameters, metadata=provider.metadata(deadline=DEADLINE))
    if pending.renews:
        complete_step_up(request, provider, pending=pending, code=code)
        return
    received: list[ReceivedToken] = []
    with nothing_left_alive(received, provider=name):
        with metering.timed(metering.SIGN_IN, provider=name, step="exchange"):
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
        try:
            with metering.timed(metering.SIGN_IN, provider=name, step="authenticate"):
                user = auth.authenticate(request, sign_in=sign_in)
        except NotProvisioned:
            note_newcomer(request, sign_in)
            raise
        if user is None:
            raise NotProvisioned
        with metering.timed(metering.SIGN_IN, provider=name, step="admit"):
            admit(request, user, exchanged, provider, received)
