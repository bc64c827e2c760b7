"""The page where a user without a linked account enters an activation code.

The verified sign-in is stored for ten minutes, only in an encrypted cookie. Guesses are limited per
person, per address and in total. A correct code creates the link, and the user then signs in again.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from ... import conf
from ..._internal import clock
from ..._internal.view_decorators import public_view
from ...access.responses import set_private_headers
from ...audit.events import Action, Origin
from ...audit.refusals import RefusalLog, report_refusal
from ...audit.request_context import Actor
from ...audit.throttling import add_attempt, get_sender_network, remove_attempt
from ...crypto import keyring
from ...crypto.keyring import SymmetricKey
from ...errors import NotProvisioned, SubjectAltered, SubjectKeyMissing
from ...login.code_exchange import VerifiedSignIn
from ...login.failures import LoginError, SignInAttempt, report_failure
from ...login.provider_selection import build_sign_in_url, parse_next_url
from ...login.redirect_url import get_landing_url
from ...login.state_cookie import (
    get_encrypted_cookie_name,
    read_encrypted_cookie,
    set_encrypted_cookie,
)
from ...subjects.account_changes import AccountChange, report_suspicion
from ...subjects.identifiers import compute_subject_digest
from ...subjects.linking import find_linked_subject
from .activation_redemption import redeem_code
from .errors import ActivationRefused, InvitationCode

logger = logging.getLogger("django_phi_oidc.login")
LOG_MESSAGE = (
    "An activation code was refused: reason=%(reason)s provider=%(provider)s "
    "reference=%(reference)s"
)
COOKIE_LIFETIME = timedelta(minutes=10)
MAX_GUESSES_PER_PERSON = 5
MAX_GUESSES_PER_ADDRESS = 10
MAX_GUESSES_TOTAL = 3000
"""Wrong codes per minute. Further ones are not checked. Those beyond one limit do not count towards
the next.
"""
MAX_CODE_LENGTH = 64
"""Characters that are read."""
TOO_MANY_GUESSES = "guessing"
_COOKIE_NAME = "phi_oidc_activation"
_COOKIE_CONTEXT = "newcomer"
_THROTTLE_KIND = "activation"
_REQUEST_ATTRIBUTE = "phi_oidc_unlinked_sign_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkedSignIn:
    """A verified sign-in of a person who is not linked to an account."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    provider_in_url: bool
    """Whether the URLs of the sign-in name the provider."""
    next_url: str = field(repr=False)
    signed_in_timestamp: float
    """Seconds since the epoch."""
    auth_timestamp: float | None = None
    """Seconds since the epoch: when the person authenticated at the provider; None if unknown."""


def attach_unlinked_sign_in(request: HttpRequest, sign_in: VerifiedSignIn) -> None:
    """Attach the sign-in to the request for redirect_to_activation, if its provider accepts
    activation codes.
    """
    provider = conf.providers().get(sign_in.provider)
    if provider is not None and provider.provisioning == "invitation":
        setattr(request, _REQUEST_ATTRIBUTE, sign_in)


def redirect_to_activation(
    request: HttpRequest, error: LoginError, attempt: SignInAttempt, *, next_url: str
) -> HttpResponse | None:
    """Report the failure and redirect to the activation page; None if an activation code would not
    help.
    """
    sign_in: VerifiedSignIn | None = getattr(request, _REQUEST_ATTRIBUTE, None)
    if sign_in is None or not isinstance(error, NotProvisioned):
        return None
    report_failure(request, error, attempt)
    unlinked = UnlinkedSignIn(
        provider=sign_in.provider,
        issuer=sign_in.issuer,
        sub=sign_in.sub,
        provider_in_url=attempt.provider_in_url,
        next_url=next_url,
        signed_in_timestamp=clock.now().timestamp(),
        auth_timestamp=sign_in.auth_time.timestamp() if sign_in.auth_time else None,
    )
    response = HttpResponseRedirect(reverse("oidc_activate"))
    name = get_encrypted_cookie_name(request, _COOKIE_NAME)
    set_encrypted_cookie(
        response, request, name, unlinked, context=_COOKIE_CONTEXT, lifetime=COOKIE_LIFETIME
    )
    return set_private_headers(response)


@method_decorator(
    [public_view, csrf_protect, sensitive_post_parameters("code"), sensitive_variables()],
    name="dispatch",
)
class ActivationView(View):
    """Asks for the code after a sign-in at the provider. A correct code leads to the sign-in
    again.
    """

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        if unlinked := _find_unlinked_sign_in(request, now=clock.now()):
            return _render_page(request, unlinked, status=200)
        # The letter with the code may contain this URL.
        if request.user.is_authenticated:
            home = get_landing_url()
        else:
            home = ""

        url = home or build_sign_in_url(None, next_url=parse_next_url(request))
        return set_private_headers(HttpResponseRedirect(url))

    def post(self, request: HttpRequest) -> HttpResponse:
        origin = Actor.from_request(request).origin
        now = clock.now()
        unlinked = _find_unlinked_sign_in(request, now=now)
        if unlinked is None:
            return _render_page(request, None, status=403)
        provider = conf.providers()[unlinked.provider]
        keys = keyring.get_keys("subject")
        person = compute_subject_digest(keys[0].material, issuer=unlinked.issuer, sub=unlinked.sub)
        network = get_sender_network(origin.client_ip)
        limits = (
            (person, MAX_GUESSES_PER_PERSON),
            (network, MAX_GUESSES_PER_ADDRESS),
            ("", MAX_GUESSES_TOTAL),
        )
        try:
            # Count before checking, so that concurrent requests cannot exceed a limit. The limits
            # are checked one after the other, so that attempts beyond the limit of one person or
            # network do not use up the limit of all.
            for counter_key, limit in limits:
                if add_attempt(_THROTTLE_KIND, counter_key, now=now) > limit:
                    raise ActivationRefused(TOO_MANY_GUESSES)
            code = request.POST.get("code", "")[:MAX_CODE_LENGTH]
            redeem_code(
                code, sub=unlinked.sub, provider=provider, keys=keys, origin=origin, now=now
            )
        except (ActivationRefused, SubjectKeyMissing) as error:
            return _deny_activation(request, error, unlinked, keys, origin, now=now)
        for counter_key, _ in limits:
            remove_attempt(_THROTTLE_KIND, counter_key, now=now)
        return _redirect_to_sign_in(request, unlinked)


def _deny_activation(
    request: HttpRequest,
    error: ActivationRefused | SubjectKeyMissing,
    unlinked: UnlinkedSignIn,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    *,
    now: datetime,
) -> HttpResponse:
    """Return the same page for each reason, except for too many guesses."""
    if isinstance(error, ActivationRefused):
        reason = error.reason
        user = error.user
    else:
        reason = error.code
        user = ""

    if user:
        resource = f"user/{user}"
    else:
        resource = ""

    reference, audit_error = report_refusal(
        Action.ACTIVATION_REFUSED,
        reason,
        origin=origin,
        now=now,
        log=RefusalLog(logger, LOG_MESSAGE, {"reason": reason, "provider": unlinked.provider}),
        throttle_key=InvitationCode.ACTIVATION_REFUSED,
        provider=unlinked.provider,
        resource=resource,
    )
    with suppress(SubjectKeyMissing, SubjectAltered):
        # The form was submitted twice, and the first request created the link.
        if find_linked_subject(issuer=unlinked.issuer, sub=unlinked.sub, keys=keys):
            return _redirect_to_sign_in(request, unlinked)
    pk: Any = user
    if pk and (account := get_user_model()._default_manager.filter(pk=pk).first()):
        report_suspicion(account, AccountChange.CODE_REFUSED, provider=unlinked.provider, now=now)

    if audit_error:
        status = 503
    elif reason == TOO_MANY_GUESSES:
        status = 429
    else:
        status = 403

    return _render_page(request, unlinked, status=status, reference=reference)


def _redirect_to_sign_in(request: HttpRequest, unlinked: UnlinkedSignIn) -> HttpResponse:
    """Redirect to the sign-in, which now finds an account. The provider still has a session and
    does not prompt.
    """
    response = HttpResponseRedirect(_build_restart_url(unlinked, prompts_login=False))
    response.delete_cookie(get_encrypted_cookie_name(request, _COOKIE_NAME), samesite="Lax")
    return set_private_headers(response)


def _render_page(
    request: HttpRequest, unlinked: UnlinkedSignIn | None, *, status: int, reference: str = ""
) -> HttpResponse:
    """unlinked: None when it is too late to enter a code."""
    provider = None
    if unlinked:
        provider = conf.providers().get(unlinked.provider)

    auth_timestamp = None
    if unlinked:
        auth_timestamp = unlinked.auth_timestamp

    # On a shared computer the provider may still have the session of the previous person: without
    # the prompt, the links would lead back to this page as the same person. No claim is shown,
    # because that person may not be the reader.
    authenticated_at = None
    if auth_timestamp is not None:
        authenticated_at = datetime.fromtimestamp(auth_timestamp, UTC)

    context = {
        "is_open": unlinked is not None,
        "label": provider.label if provider else "",
        "authenticated_at": authenticated_at,
        "is_wrong": status == 403,
        "is_guessing": status == 429,
        "is_unavailable": status == 503,
        "reference": reference,
        "restart_url": _build_restart_url(unlinked, prompts_login=True),
    }
    response = set_private_headers(
        render(request, "django_phi_oidc/activate.html", context, status=status)
    )
    # With `no-referrer` the form would be sent with the origin "null", which Django's CSRF check
    # refuses.
    response["Referrer-Policy"] = "same-origin"
    if status == 429:
        response["Retry-After"] = "60"
    return response


def _build_restart_url(unlinked: UnlinkedSignIn | None, *, prompts_login: bool) -> str:
    provider = None
    if unlinked and unlinked.provider_in_url:
        provider = unlinked.provider
    return build_sign_in_url(
        provider, next_url=unlinked.next_url if unlinked else "", prompts_login=prompts_login
    )


@sensitive_variables()
def _find_unlinked_sign_in(request: HttpRequest, *, now: datetime) -> UnlinkedSignIn | None:
    """Return the sign-in of the cookie; None when it has expired, or its provider was declared
    differently since.
    """
    unlinked = read_encrypted_cookie(
        request,
        get_encrypted_cookie_name(request, _COOKIE_NAME),
        UnlinkedSignIn,
        context=_COOKIE_CONTEXT,
    )
    if (
        unlinked is None
        or now.timestamp() - unlinked.signed_in_timestamp > COOKIE_LIFETIME.total_seconds()
    ):
        return None
    provider = conf.providers().get(unlinked.provider)
    if (
        provider is None
        or provider.provisioning != "invitation"
        or provider.issuer != unlinked.issuer
    ):
        return None
    return unlinked
