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

from .. import conf
from .._internal import clock, metrics, randomness
from ..access.responses import set_private_headers
from ..audit.events import Action, EventOutcome
from ..audit.recorder import record
from ..audit.request_context import Actor
from ..audit.throttling import allow_event
from ..errors import AuditUnavailable, ProviderError, SignInRefused
from ..signals import sign_in_refused
from .failure_texts import FAILURE_TEXTS
from .provider_selection import build_sign_in_url, needs_provider_selection

logger = logging.getLogger("django_phi_oidc.login")
LOG_MESSAGE = "A sign-in was refused: reason=%(code)s provider=%(provider)s stage=%(stage)s reference=%(reference)s"
INTERNAL_ERROR = "internal_error"
KNOWN_STATE_CODES = frozenset({"state_replayed", "state_expired"})
"""Codes that only a state of ours can have."""

SignInStage = Literal["request", "callback", "step_up"]
FailurePage = Literal[
    "restart", "declined", "stronger", "not_shared", "no_account", "other_person", "failed", "unavailable"
]
TEMPLATES_BY_PAGE: Mapping[FailurePage, str] = {
    "restart": "django_phi_oidc/login_failed_restart.html",
    "declined": "django_phi_oidc/login_failed_declined.html",
    "stronger": "django_phi_oidc/login_failed_stronger.html",
    "not_shared": "django_phi_oidc/login_failed_not_shared.html",
    "no_account": "django_phi_oidc/login_failed_no_account.html",
    "other_person": "django_phi_oidc/login_failed_other_person.html",
    "failed": "django_phi_oidc/login_failed.html",
    "unavailable": "django_phi_oidc/unavailable.html",
}
PAGES_BY_CODE: Mapping[str, FailurePage] = {
    **dict.fromkeys(("state_missing", "state_unknown", "state_expired", "state_replayed"), "restart"),
    **dict.fromkeys(("parameter_repeated", "code_missing", "provider_unknown"), "restart"),
    **dict.fromkeys(("acr_insufficient", "auth_time_missing", "auth_time_stale"), "stronger"),
    **dict.fromkeys(("not_provisioned", "user_inactive"), "no_account"),
    "subject_changed": "other_person",
    "claim_missing": "not_shared",
    "audit_unavailable": "unavailable",
}
"""Of a rule's code. One that is not here is `unavailable` where the provider is at fault, else `failed`."""
PAGES_BY_PROVIDER_ERROR: Mapping[str, FailurePage] = {
    **dict.fromkeys(("access_denied", "consent_required", "account_selection_required"), "declined"),
    **dict.fromkeys(("login_required", "interaction_required"), "declined"),
    **dict.fromkeys(("server_error", "temporarily_unavailable"), "unavailable"),
    "unmet_authentication_requirements": "stronger",
}
"""Of the error that the provider answered with, for the code `provider_error`. One that is not here is `failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAttempt:
    """A sign-in at one of its two doors, as far as may be told of it."""

    view: type[View]
    stage: SignInStage
    provider: str
    """A declared name, or empty: what else stands in a URL is the sender's word, and goes nowhere."""
    provider_in_url: bool
    """Whether the URL names the provider."""
    is_state_known: bool = False
    """Whether its pending sign-in was found, and spent: that one can't be had again for nothing."""


def create_sign_in_attempt(view: View, provider: str | None, *, stage: SignInStage) -> SignInAttempt:
    """Return the attempt at that door. provider: of the URL; without one the first declared is meant."""
    declared = conf.providers()
    meant = next(iter(declared), "") if provider is None else provider if provider in declared else ""
    return SignInAttempt(
        view=type(view), stage=stage, provider=meant, provider_in_url=bool(meant) and provider is not None
    )


def render_login_failure(
    request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: SignInAttempt, *, next_url: str
) -> HttpResponse:
    """Return the page of a refusal, after it was told. next_url: where the sign-in was to lead, or empty."""
    # The page that asked for a stronger sign-in asks again; a sign-in of its own would end the session.
    is_step_up = attempt.stage == "step_up" and next_url
    page = get_failure_page(fault)
    context = {
        "page": page,
        "text": FAILURE_TEXTS.get(page),
        "reference": report_failure(request, fault, attempt),
        "restart_url": next_url
        if is_step_up
        else build_sign_in_url(attempt.provider if attempt.provider_in_url else None, next_url=next_url),
        "choose_url": build_sign_in_url(None, next_url=next_url)
        if attempt.provider_in_url and needs_provider_selection()
        else "",
        "home_url": resolve_url(settings.LOGIN_REDIRECT_URL) if request.user.is_authenticated else "",
    }
    return set_private_headers(
        render(request, [TEMPLATES_BY_PAGE[page], TEMPLATES_BY_PAGE["failed"]], context, status=_get_http_status(fault))
    )


def report_failure(request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: SignInAttempt) -> str:
    """Tell of a refusal, everywhere but on a page; return its reference."""
    return _report(
        request,
        fault.code,
        attempt,
        outcome="failure",
        log_level=logging.ERROR if _get_http_status(fault) == 503 else logging.WARNING,
        detail={"provider_error": fault.error} if isinstance(fault, ProviderError) else {},
        audit_error=fault if isinstance(fault, AuditUnavailable) else None,
    )


def report_internal_error(request: HttpRequest, attempt: SignInAttempt) -> None:
    """Tell, everywhere but on a page, of a sign-in that an unforeseen exception ends: that is the caller's to raise."""
    _report(request, INTERNAL_ERROR, attempt, outcome="error", log_level=logging.ERROR, detail={}, audit_error=None)


def _get_http_status(fault: SignInRefused | AuditUnavailable) -> int:
    return 503 if fault.provider_fault or isinstance(fault, AuditUnavailable) else 403


def get_failure_page(fault: SignInRefused | AuditUnavailable) -> FailurePage:
    """Return the kind of page that the person sees."""
    if isinstance(fault, ProviderError):
        return PAGES_BY_PROVIDER_ERROR.get(fault.error, "failed")
    return PAGES_BY_CODE.get(fault.code, "unavailable" if fault.provider_fault else "failed")


def _report(
    request: HttpRequest,
    code: str,
    attempt: SignInAttempt,
    *,
    outcome: EventOutcome,
    log_level: int,
    detail: Mapping[str, str],
    audit_error: AuditUnavailable | None,
) -> str:
    """Return the event's id; the request's when the trail can't be written: what is refused stays refused."""
    metrics.increment(
        metrics.COMPLETED_SIGN_INS, provider=attempt.provider, stage=attempt.stage, outcome=outcome, reason=code
    )
    origin, now = Actor.from_request(request).origin, clock.now()
    reference = origin.request_id
    if not (attempt.is_state_known or code in KNOWN_STATE_CODES or allow_event(code, origin.client_ip, now=now)):
        # Of the form of an event's id. By another form, whoever has been throttled would tell a state that was ours.
        reference = str(randomness.uuid7(now))
    elif audit_error is None:
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
            log_level, audit_error = logging.ERROR, fault
    told = {"code": code, "provider": attempt.provider, "stage": attempt.stage, "reference": reference}
    logger.log(log_level, LOG_MESSAGE, told, exc_info=audit_error)
    sign_in_refused.send_robust(sender=attempt.view, request=request, **told)
    return reference
