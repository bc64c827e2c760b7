"""The page on which a person whom nobody knows here enters their activation code, and becomes the account's.

Whom the provider vouched for is kept for ten minutes in one sealed cookie, and nowhere else. Guesses are limited by
person, by address and in all. A code that fits makes the link, and then the person signs in as everybody does.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock, randomness
from ..access.responses import set_private_headers
from ..audit.events import Action, Origin
from ..audit.recorder import record
from ..audit.request_context import Actor
from ..audit.throttling import add_attempt, allow_event, get_sender_network, remove_attempt
from ..config.providers import ProviderDeclaration
from ..crypto import keyring
from ..crypto.keyring import SymmetricKey
from ..errors import (
    ActivationRefused,
    AuditUnavailable,
    NotProvisioned,
    SignInRefused,
    SubjectKeyMissing,
    Undecryptable,
)
from ..sessions.views import public_view
from ..subjects.identifiers import compute_subject_digest
from ..subjects.linking import find_linked_subject
from .activation_redemption import redeem_code
from .code_exchange import VerifiedSignIn
from .failures import SignInAttempt, report_failure
from .provider_selection import build_sign_in_url, parse_next_url

logger = logging.getLogger("django_phi_oidc.login")
LOG_MESSAGE = "An activation code was refused: reason=%(reason)s provider=%(provider)s reference=%(reference)s"
COOKIE_LIFETIME = timedelta(minutes=10)
MAX_GUESSES_PER_PERSON, MAX_GUESSES_PER_ADDRESS, MAX_GUESSES_TOTAL = 5, 10, 3000
"""Wrong codes in a minute; after them no code is looked at. What is beyond one of these does not count for the next."""
MAX_CODE_LENGTH = 64
"""Characters that are looked at."""
TOO_MANY_GUESSES = "guessing"
_COOKIE_NAME = "phi_oidc_activation"
_THROTTLE_KIND = "activation"
_REQUEST_ATTRIBUTE = "phi_oidc_unlinked_sign_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkedSignIn:
    """A person whom the provider vouched for, and who has no account here."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    provider_in_url: bool
    """Whether the URLs of their sign-in name the provider."""
    next_url: str = field(repr=False)
    signed_in_timestamp: float
    """Seconds since the epoch."""


def attach_unlinked_sign_in(request: HttpRequest, sign_in: VerifiedSignIn) -> None:
    """Let `ask_for_code` know, in this request, who it was that has no account; nothing where no code would help."""
    provider = conf.providers().get(sign_in.provider)
    if provider is not None and provider.provisioning == "invitation":
        setattr(request, _REQUEST_ATTRIBUTE, sign_in)


def redirect_to_activation(
    request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: SignInAttempt, *, next_url: str
) -> HttpResponse | None:
    """Return the redirect to the page that asks, after the refusal was told; None where a code would not help."""
    sign_in: VerifiedSignIn | None = getattr(request, _REQUEST_ATTRIBUTE, None)
    if sign_in is None or not isinstance(fault, NotProvisioned):
        return None
    report_failure(request, fault, attempt)
    newcomer = UnlinkedSignIn(
        provider=sign_in.provider,
        issuer=sign_in.issuer,
        sub=sign_in.sub,
        provider_in_url=attempt.provider_in_url,
        next_url=next_url,
        signed_in_timestamp=clock.now().timestamp(),
    )
    response = HttpResponseRedirect(reverse("oidc_activate"))
    name = _get_cookie_name(request)
    response.set_cookie(
        name,
        keyring.encrypt(json.dumps(asdict(newcomer)), context=_get_encryption_context(name)),
        max_age=COOKIE_LIFETIME,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return set_private_headers(response)


@method_decorator(
    [public_view, csrf_protect, sensitive_post_parameters("code"), sensitive_variables()], name="dispatch"
)
class ActivationView(View):
    """Asks for the code, once the provider has said who asks; a code that fits leads to the sign-in again."""

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        if newcomer := _find_unlinked_sign_in(request, now=clock.now()):
            return _render_page(request, newcomer, status=200)
        # The address may stand in the letter with the code.
        home = resolve_url(settings.LOGIN_REDIRECT_URL) if request.user.is_authenticated else ""
        return set_private_headers(
            HttpResponseRedirect(home or build_sign_in_url(None, next_url=parse_next_url(request)))
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        origin, now = Actor.from_request(request).origin, clock.now()
        newcomer = _find_unlinked_sign_in(request, now=now)
        if newcomer is None:
            return _render_page(request, None, status=403)
        provider, keys = conf.providers()[newcomer.provider], keyring.get_keys("subject")
        tries = _get_guess_limits(newcomer, origin, keys)
        try:
            _enforce_guess_limits(tries, now=now)
            typed = request.POST.get("code", "")[:MAX_CODE_LENGTH]
            redeem_code(typed, sub=newcomer.sub, provider=provider, keys=keys, origin=origin, now=now)
        except (ActivationRefused, SubjectKeyMissing) as fault:
            return _deny_activation(request, fault, newcomer, keys, origin, now=now)
        for by, _ in tries:
            remove_attempt(_THROTTLE_KIND, by, now=now)
        return _redirect_to_sign_in(request, newcomer)


def _get_guess_limits(
    unlinked_sign_in: UnlinkedSignIn, origin: Origin, keys: Sequence[SymmetricKey]
) -> Sequence[tuple[str, int]]:
    """Return by whom tries are counted, and how many each may have."""
    person = compute_subject_digest(keys[0].material, issuer=unlinked_sign_in.issuer, sub=unlinked_sign_in.sub)
    return (
        (person, MAX_GUESSES_PER_PERSON),
        (get_sender_network(origin.client_ip), MAX_GUESSES_PER_ADDRESS),
        ("", MAX_GUESSES_TOTAL),
    )


def _enforce_guess_limits(limits: Sequence[tuple[str, int]], *, now: datetime) -> None:
    """Count first: of many that come at once, no more have their code looked at. Raises: ActivationRefused."""
    for by, most in limits:
        # One after the other: who is beyond their own limit does not use up that of all.
        if add_attempt(_THROTTLE_KIND, by, now=now) > most:
            raise ActivationRefused(TOO_MANY_GUESSES)


def _deny_activation(
    request: HttpRequest,
    fault: ActivationRefused | SubjectKeyMissing,
    unlinked_sign_in: UnlinkedSignIn,
    keys: Sequence[SymmetricKey],
    origin: Origin,
    *,
    now: datetime,
) -> HttpResponse:
    """The page is the same whatever was wrong, but that too many tries are told."""
    reason = fault.reason if isinstance(fault, ActivationRefused) else fault.code
    user = fault.user if isinstance(fault, ActivationRefused) else ""
    reference, status = str(randomness.uuid7(now)), 429 if reason == TOO_MANY_GUESSES else 403
    if allow_event(ActivationRefused.code, origin.client_ip, now=now):
        try:
            event = record(
                Action.ACTIVATION_REFUSED,
                origin=origin,
                now=now,
                outcome="failure",
                provider=unlinked_sign_in.provider,
                resource=f"user/{user}" if user else "",
                reason=reason,
            )
            reference = str(event)
        except AuditUnavailable:
            # It stays refused.
            status = 503
    logger.warning(LOG_MESSAGE, {"reason": reason, "provider": unlinked_sign_in.provider, "reference": reference})
    with suppress(SubjectKeyMissing):
        # Whoever has pressed twice, and whose first time has made the link.
        if find_linked_subject(issuer=unlinked_sign_in.issuer, sub=unlinked_sign_in.sub, keys=keys):
            return _redirect_to_sign_in(request, unlinked_sign_in)
    return _render_page(request, unlinked_sign_in, status=status, reference=reference)


def _redirect_to_sign_in(request: HttpRequest, unlinked_sign_in: UnlinkedSignIn) -> HttpResponse:
    """Lead to the sign-in, which finds an account now; the provider knows who is there, and asks nothing."""
    response = HttpResponseRedirect(_build_restart_url(unlinked_sign_in))
    response.delete_cookie(_get_cookie_name(request), samesite="Lax")
    return set_private_headers(response)


def _render_page(
    request: HttpRequest, unlinked_sign_in: UnlinkedSignIn | None, *, status: int, reference: str = ""
) -> HttpResponse:
    """newcomer: None when it is too late to enter a code."""
    provider = conf.providers().get(unlinked_sign_in.provider) if unlinked_sign_in else None
    context = {
        "is_open": unlinked_sign_in is not None,
        "label": provider.label if provider else "",
        "is_wrong": status == 403,
        "is_guessing": status == 429,
        "is_unavailable": status == 503,
        "reference": reference,
        "restart_url": _build_restart_url(unlinked_sign_in)
        if unlinked_sign_in
        else build_sign_in_url(None, next_url=""),
    }
    response = set_private_headers(render(request, "django_phi_oidc/activate.html", context, status=status))
    # With `no-referrer` the form would come from the origin "null", which Django refuses.
    response["Referrer-Policy"] = "same-origin"
    if status == 429:
        response["Retry-After"] = "60"
    return response


def _build_restart_url(unlinked_sign_in: UnlinkedSignIn) -> str:
    return build_sign_in_url(
        unlinked_sign_in.provider if unlinked_sign_in.provider_in_url else None, next_url=unlinked_sign_in.next_url
    )


@sensitive_variables()
def _find_unlinked_sign_in(request: HttpRequest, *, now: datetime) -> UnlinkedSignIn | None:
    """Return whom the cookie tells of; None when it is over, or the provider is not what it was."""
    name = _get_cookie_name(request)
    try:
        text = request.COOKIES.get(name, "")
        newcomer = (
            UnlinkedSignIn(**json.loads(keyring.decrypt(text, context=_get_encryption_context(name)))) if text else None
        )
    except (Undecryptable, TypeError):
        # TypeError: another release of ours, which remembered other things, has kept it.
        return None
    if newcomer is None or now.timestamp() - newcomer.signed_in_timestamp > COOKIE_LIFETIME.total_seconds():
        return None
    return newcomer if _accepts_codes(conf.providers().get(newcomer.provider), newcomer.issuer) else None


def _accepts_codes(provider: ProviderDeclaration | None, issuer: str) -> bool:
    return provider is not None and provider.provisioning == "invitation" and provider.issuer == issuer


def _get_cookie_name(request: HttpRequest) -> str:
    # A browser takes a cookie of the first name over https alone, for this host alone.
    return f"__Host-{_COOKIE_NAME}" if request.is_secure() else _COOKIE_NAME


def _get_encryption_context(cookie_name: str) -> Sequence[str]:
    return "newcomer", cookie_name
