"""What becomes of a sign-in that is refused: an event, a line in the log, a signal, and a page that tells what to do.

The code goes to the first three. The page is one of a few kinds, and bears a reference by which a help desk finds the
event: nobody at the browser can tell which check of R5 or R6 refused, or whether a `state` was ever ours.

A refusal that cost its sender nothing is one at the request's door, or at the callback's before a pending sign-in was
found: of those, a minute's first ones are events (`audit.throttling`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.views.generic import View

from .. import clock, conf, entropy, metering
from ..access.answering import private
from ..audit.events import Action, Outcome
from ..audit.recording import record
from ..audit.request import Actor
from ..audit.throttling import admits
from ..errors import AuditUnavailable, ProviderError, SignInRefused
from ..signals import sign_in_refused
from .choosing import begin_url, must_choose

logger = logging.getLogger("django_phi_oidc.login")
LINE = "A sign-in was refused: reason=%(code)s provider=%(provider)s stage=%(stage)s reference=%(reference)s"
INTERNAL_ERROR = "internal_error"
OF_A_KNOWN_STATE = frozenset({"state_replayed", "state_expired"})
"""Codes that only a state of ours can have."""

Stage = Literal["request", "callback", "step_up"]
Kind = Literal["restart", "declined", "stronger", "not_shared", "no_account", "other_person", "failed", "unavailable"]
TEMPLATES: Mapping[Kind, str] = {
    "restart": "django_phi_oidc/refused_restart.html",
    "declined": "django_phi_oidc/refused_declined.html",
    "stronger": "django_phi_oidc/refused_stronger.html",
    "not_shared": "django_phi_oidc/refused_not_shared.html",
    "no_account": "django_phi_oidc/refused_no_account.html",
    "other_person": "django_phi_oidc/refused_other_person.html",
    "failed": "django_phi_oidc/refused.html",
    "unavailable": "django_phi_oidc/unavailable.html",
}
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("state_missing", "state_unknown", "state_expired", "state_replayed"), "restart"),
    **dict.fromkeys(("parameter_repeated", "code_missing", "provider_unknown"), "restart"),
    **dict.fromkeys(("acr_insufficient", "auth_time_missing", "auth_time_stale"), "stronger"),
    **dict.fromkeys(("not_provisioned", "user_inactive"), "no_account"),
    "subject_changed": "other_person",
    "claim_missing": "not_shared",
    "audit_unavailable": "unavailable",
}
"""Of a rule's code. One that is not here is `unavailable` where the provider is at fault, else `failed`."""
ANSWERS: Mapping[str, Kind] = {
    **dict.fromkeys(("access_denied", "consent_required", "account_selection_required"), "declined"),
    **dict.fromkeys(("login_required", "interaction_required"), "declined"),
    **dict.fromkeys(("server_error", "temporarily_unavailable"), "unavailable"),
    "unmet_authentication_requirements": "stronger",
}
"""Of the error that the provider answered with, for the code `provider_error`. One that is not here is `failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in at one of its two doors, as far as may be told of it."""

    view: type[View]
    stage: Stage
    provider: str
    """A declared name, or empty: what else stands in a URL is the sender's word, and goes nowhere."""
    named: bool
    """Whether the URL names the provider."""
    known_state: bool = False
    """Whether its pending sign-in was found, and spent: that one can't be had again for nothing."""


def attempt_at(view: View, provider: str | None, *, stage: Stage) -> Attempt:
    """Return the attempt at that door. provider: of the URL; without one the first declared is meant."""
    declared = conf.providers()
    meant = next(iter(declared), "") if provider is None else provider if provider in declared else ""
    return Attempt(view=type(view), stage=stage, provider=meant, named=bool(meant) and provider is not None)


def refuse(
    request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: Attempt, *, next_url: str
) -> HttpResponse:
    """Return the page of a refusal, after it was told. next_url: where the sign-in was to lead, or empty."""
    # The page that asked for a stronger sign-in asks again; a sign-in of its own would end the session.
    is_step_up = attempt.stage == "step_up" and next_url
    context = {
        "reference": tell_of(request, fault, attempt),
        "restart_url": next_url
        if is_step_up
        else begin_url(attempt.provider if attempt.named else None, next_url=next_url),
        "choose_url": begin_url(None, next_url=next_url) if attempt.named and must_choose() else "",
        "home_url": resolve_url(settings.LOGIN_REDIRECT_URL) if request.user.is_authenticated else "",
    }
    return private(render(request, TEMPLATES[kind_of(fault)], context, status=_status_of(fault)))


def tell_of(request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: Attempt) -> str:
    """Tell of a refusal, everywhere but on a page; return its reference."""
    return _tell(
        request,
        fault.code,
        attempt,
        outcome="failure",
        level=logging.ERROR if _status_of(fault) == 503 else logging.WARNING,
        detail={"provider_error": fault.error} if isinstance(fault, ProviderError) else {},
        trail_fault=fault if isinstance(fault, AuditUnavailable) else None,
    )


def tell_of_internal_error(request: HttpRequest, attempt: Attempt) -> None:
    """Tell, everywhere but on a page, of a sign-in that an unforeseen exception ends: that is the caller's to raise."""
    _tell(request, INTERNAL_ERROR, attempt, outcome="error", level=logging.ERROR, detail={}, trail_fault=None)


def _status_of(fault: SignInRefused | AuditUnavailable) -> int:
    return 503 if fault.provider_fault or isinstance(fault, AuditUnavailable) else 403


def kind_of(fault: SignInRefused | AuditUnavailable) -> Kind:
    """Return the kind of page that the person sees."""
    if isinstance(fault, ProviderError):
        return ANSWERS.get(fault.error, "failed")
    return KINDS.get(fault.code, "unavailable" if fault.provider_fault else "failed")


def _tell(
    request: HttpRequest,
    code: str,
    attempt: Attempt,
    *,
    outcome: Outcome,
    level: int,
    detail: Mapping[str, str],
    trail_fault: AuditUnavailable | None,
) -> str:
    """Return the event's id; the request's when the trail can't be written: what is refused stays refused."""
    metering.count(metering.SIGN_INS, provider=attempt.provider, stage=attempt.stage, outcome=outcome, reason=code)
    origin, now = Actor.from_request(request).origin, clock.now()
    reference = origin.request_id
    if not (attempt.known_state or code in OF_A_KNOWN_STATE or admits(code, origin.client_ip, now=now)):
        # Of the form of an event's id. By another form, whoever has been throttled would tell a state that was ours.
        reference = str(entropy.uuid7(now))
    elif trail_fault is None:
        try:
            event = record(
                Action.LOGIN_REFUSED,
                origin=origin,
                now=now,
                outcome=outcome,
                provider=attempt.provider,
                reason=code,
                detail={"stage": attempt.stage, **detail},
            )
            reference = str(event)
        except AuditUnavailable as fault:
            level, trail_fault = logging.ERROR, fault
    told = {"code": code, "provider": attempt.provider, "stage": attempt.stage, "reference": reference}
    logger.log(level, LINE, told, exc_info=trail_fault)
    sign_in_refused.send_robust(sender=attempt.view, request=request, **told)
    return reference
