"""The failure of a sign-in: an event, a log line, a signal, and a page that says what the user can
do.

Only the first three contain the code. There are few kinds of page, with a reference by which a help
desk finds the event: the browser must not see which check of R5 or R6 failed, or whether a `state`
was ever issued here.

Requests that fail before a pending sign-in was found and used up cost their sender nothing, so
their events are throttled: a `state` that is used or expired can be sent any number of times.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.generic import View

from .. import conf
from .._internal import clock, metrics
from ..access.responses import set_private_headers
from ..audit.events import Action, EventOutcome
from ..audit.refusals import RefusalLog, report_refusal
from ..audit.request_context import Actor
from ..crypto import keyring
from ..errors import (
    AuditUnavailable,
    ClaimMissing,
    EmailMatchRefused,
    KeyMissing,
    PARError,
    ProviderError,
    SignInRefused,
    TokenError,
)
from ..oidc.remedies import get_remedy
from ..options import SettingInvalid
from ..signals import sign_in_refused
from .failure_texts import FAILURE_TEXTS
from .provider_selection import build_sign_in_url, needs_provider_selection
from .redirect_url import get_landing_url

logger = logging.getLogger("django_phi_oidc.login")
LOG_MESSAGE = (
    "A sign-in was refused: reason=%(code)s provider=%(provider)s stage=%(stage)s "
    "reference=%(reference)s%(detail)s. %(remedy)s"
)
INTERNAL_ERROR = "internal_error"
AUDIT_RETRY_AFTER = timedelta(seconds=10)

LoginError = SignInRefused | AuditUnavailable | KeyMissing | SettingInvalid
LOGIN_ERRORS = (SignInRefused, AuditUnavailable, KeyMissing, SettingInvalid)
"""The failures that have a page. Any other exception is an internal error."""
SignInStage = Literal["request", "callback", "step_up"]
FailurePage = Literal[
    "restart",
    "declined",
    "stronger",
    "not_shared",
    "no_account",
    "other_person",
    "failed",
    "unavailable",
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
    **dict.fromkeys(
        ("state_missing", "state_unknown", "state_expired", "state_replayed"), "restart"
    ),
    **dict.fromkeys(
        ("parameter_repeated", "code_missing", "provider_unknown", "logged_out"), "restart"
    ),
    **dict.fromkeys(("acr_insufficient", "vot_insufficient", "amr_insufficient"), "stronger"),
    **dict.fromkeys(("auth_time_missing", "auth_time_stale"), "stronger"),
    **dict.fromkeys(("not_provisioned", "email_match_refused", "user_inactive"), "no_account"),
    **dict.fromkeys(("account_not_saved", "subject_altered"), "no_account"),
    "subject_changed": "other_person",
    "claim_missing": "not_shared",
    **dict.fromkeys(("audit_unavailable", "key_missing", "declaration_invalid"), "unavailable"),
}
"""By rule code. Other codes: `unavailable` for a fault of the provider, else `failed`."""
PAGES_BY_PROVIDER_ERROR: Mapping[str, FailurePage] = {
    **dict.fromkeys(
        ("access_denied", "consent_required", "account_selection_required"), "declined"
    ),
    **dict.fromkeys(("login_required", "interaction_required"), "declined"),
    **dict.fromkeys(("server_error", "temporarily_unavailable"), "unavailable"),
    "unmet_authentication_requirements": "stronger",
}
"""For the code `provider_error`, by the provider's error. Other errors: `failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAttempt:
    """A request of a sign-in, as far as it may be reported."""

    view: type[View]
    stage: SignInStage
    provider: str
    """A declared name, or empty. Other names in a URL come from the sender, and are not
    reported.
    """
    provider_in_url: bool
    """Whether the URL names the provider."""
    is_state_known: bool = False
    """Whether its pending sign-in was found, and used up. That cannot be repeated for free, so it
    is not throttled.
    """


def create_sign_in_attempt(
    view: View, provider: str | None, *, stage: SignInStage
) -> SignInAttempt:
    """Return the attempt. provider: from the URL; None: the first declared provider."""
    try:
        providers = conf.providers()
    except SettingInvalid:
        # The view reads the providers, too, and reports the error.
        providers = {}

    if provider is None:
        name = next(iter(providers), "")
    elif provider in providers:
        name = provider
    else:
        name = ""

    in_url = bool(name) and provider is not None
    return SignInAttempt(view=type(view), stage=stage, provider=name, provider_in_url=in_url)


def render_login_failure(
    request: HttpRequest, error: LoginError, attempt: SignInAttempt, *, next_url: str
) -> HttpResponse:
    """Report the failure and return its page. next_url: where the sign-in would have led, or
    empty.
    """
    page = get_failure_page(error)
    # The provider may still have the session of another person, who has no account: do not repeat
    # that sign-in.
    prompts_login = page == "no_account"

    provider = None
    if attempt.provider_in_url:
        provider = attempt.provider

    sign_in_url = build_sign_in_url(provider, next_url=next_url, prompts_login=prompts_login)
    choose_url = build_sign_in_url(None, next_url=next_url, prompts_login=prompts_login)
    can_choose = attempt.provider_in_url and needs_provider_selection()
    context = {
        "page": page,
        "text": FAILURE_TEXTS.get(page),
        "reference": report_failure(request, error, attempt),
        # After a failed step-up, retry through the page that required it: a new sign-in would end
        # the session.
        "restart_url": next_url if attempt.stage == "step_up" and next_url else sign_in_url,
        "choose_url": choose_url if can_choose else "",
        "home_url": get_landing_url() if request.user.is_authenticated else "",
        "wait_minutes": math.ceil(wait / timedelta(minutes=1))
        if (wait := _find_retry_after(error))
        else None,
    }
    templates = [TEMPLATES_BY_PAGE[page], TEMPLATES_BY_PAGE["failed"]]
    response = render(request, templates, context, status=_get_http_status(error))
    if wait:
        response["Retry-After"] = str(math.ceil(wait.total_seconds()))
    return set_private_headers(response)


def report_failure(request: HttpRequest, error: LoginError, attempt: SignInAttempt) -> str:
    """Report a failed sign-in everywhere but on a page, and return the reference."""
    if _get_http_status(error) == 503:
        level = logging.ERROR
    else:
        level = logging.WARNING

    audit_error = None
    if isinstance(error, AuditUnavailable):
        audit_error = error

    if isinstance(error, KeyMissing):
        # The line of the refusal does not say which keys.
        keyring.log_key_missing(error)
    elif isinstance(error, SettingInvalid):
        logger.error("%s", error)
    detail = _describe_error(error)
    return _report(
        request,
        error.code,
        attempt,
        level,
        outcome="failure",
        detail=detail,
        audit_error=audit_error,
    )


def report_internal_error(request: HttpRequest, attempt: SignInAttempt) -> None:
    """Report a sign-in that an unexpected exception ended, which the caller raises again."""
    _report(request, INTERNAL_ERROR, attempt, logging.ERROR, outcome="error")


def _describe_error(error: LoginError) -> dict[str, Any]:
    """Return what the event says about the error, such as the provider's own error code."""
    if isinstance(error, ClaimMissing):
        return {"claims": list(error.claims)}
    if isinstance(error, EmailMatchRefused):
        return {"match": error.match}
    if isinstance(error, PARError | TokenError):
        return {"provider_error": error.error, "provider_status": error.status}

    if isinstance(error, ProviderError):
        return {"provider_error": error.error}
    return {}


def _find_retry_after(error: LoginError) -> timedelta | None:
    """Return how long to wait: for the audit database, or for a provider that asks for it. Spec:
    RFC 9110 10.2.3.
    """
    if isinstance(error, AuditUnavailable):
        return AUDIT_RETRY_AFTER
    if isinstance(error, SignInRefused) and error.is_provider_fault:
        return error.retry_after
    return None


def _get_http_status(error: LoginError) -> int:
    is_fault_here = isinstance(error, AuditUnavailable | KeyMissing | SettingInvalid)
    if error.is_provider_fault or is_fault_here:
        return 503
    return 403


def get_failure_page(error: LoginError) -> FailurePage:
    """Return the kind of page that the user sees."""
    if isinstance(error, ProviderError):
        return PAGES_BY_PROVIDER_ERROR.get(error.error, "failed")
    return PAGES_BY_CODE.get(error.code, "unavailable" if error.is_provider_fault else "failed")


def _report(
    request: HttpRequest,
    code: str,
    attempt: SignInAttempt,
    log_level: int,
    *,
    outcome: EventOutcome,
    detail: Mapping[str, Any] = MappingProxyType({}),
    audit_error: AuditUnavailable | None = None,
) -> str:
    provider = attempt.provider
    stage = attempt.stage
    metrics.increment(
        metrics.COMPLETED_SIGN_INS, provider=provider, stage=stage, outcome=outcome, reason=code
    )

    log_detail = ""
    for name, value in detail.items():
        log_detail += f" {name}={_format_log_value(value)}"

    log_fields = {
        "code": code,
        "provider": provider,
        "stage": stage,
        "detail": log_detail,
        "remedy": get_remedy(code, str(detail.get("provider_error", ""))),
    }
    reference = report_refusal(
        Action.LOGIN_REFUSED,
        code,
        origin=Actor.from_request(request).origin,
        now=clock.now(),
        log=RefusalLog(logger, LOG_MESSAGE, log_fields, log_level),
        is_event_allowed=attempt.is_state_known or None,
        audit_error=audit_error,
        outcome=outcome,
        provider=provider,
        detail={"stage": stage, **detail},
    ).reference
    sign_in_refused.send_robust(
        sender=attempt.view,
        request=request,
        provider=provider,
        code=code,
        stage=stage,
        reference=reference,
    )
    return reference


def _format_log_value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value)
