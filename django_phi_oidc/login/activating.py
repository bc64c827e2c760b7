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

from .. import clock, conf, entropy, keyring
from ..access.answering import private
from ..audit.events import Action, Origin
from ..audit.recording import record
from ..audit.request import Actor
from ..audit.throttling import admits, count_try, network_of, take_back_try
from ..declarations import ProviderDeclaration
from ..errors import (
    ActivationRefused,
    AuditUnavailable,
    NotProvisioned,
    SignInRefused,
    SubjectKeyMissing,
    Undecryptable,
)
from ..keyring import Key
from ..sessions.views import door
from ..subjects.digest import subject_digest
from ..subjects.linking import find_linked
from .choosing import begin_url, read_next
from .completing import VerifiedSignIn
from .redeeming import redeem
from .refusing import Attempt, tell_of

logger = logging.getLogger("django_phi_oidc.login")
LINE = "An activation code was refused: reason=%(reason)s provider=%(provider)s reference=%(reference)s"
LIFETIME = timedelta(minutes=10)
MOST_OF_PERSON, MOST_OF_ADDRESS, MOST_IN_ALL = 5, 10, 3000
"""Wrong codes in a minute; after them no code is looked at. What is beyond one of these does not count for the next."""
LONGEST = 64
"""Characters that are looked at."""
GUESSING = "guessing"
_COOKIE = "phi_oidc_activation"
_KIND = "activation"
_NOTED = "phi_oidc_newcomer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """A person whom the provider vouched for, and who has no account here."""

    provider: str
    issuer: str
    sub: str = field(repr=False)
    named: bool
    """Whether the URLs of their sign-in name the provider."""
    next_url: str = field(repr=False)
    signed_in_at: float
    """Seconds since the epoch."""


def note_newcomer(request: HttpRequest, sign_in: VerifiedSignIn) -> None:
    """Let `ask_for_code` know, in this request, who it was that has no account; nothing where no code would help."""
    provider = conf.providers().get(sign_in.provider)
    if provider is not None and provider.provisioning == "invitation":
        setattr(request, _NOTED, sign_in)


def ask_for_code(
    request: HttpRequest, fault: SignInRefused | AuditUnavailable, attempt: Attempt, *, next_url: str
) -> HttpResponse | None:
    """Return the redirect to the page that asks, after the refusal was told; None where a code would not help."""
    sign_in: VerifiedSignIn | None = getattr(request, _NOTED, None)
    if sign_in is None or not isinstance(fault, NotProvisioned):
        return None
    tell_of(request, fault, attempt)
    newcomer = Newcomer(
        provider=sign_in.provider,
        issuer=sign_in.issuer,
        sub=sign_in.sub,
        named=attempt.named,
        next_url=next_url,
        signed_in_at=clock.now().timestamp(),
    )
    response = HttpResponseRedirect(reverse("oidc_activate"))
    name = _name(request)
    response.set_cookie(
        name,
        keyring.seal(json.dumps(asdict(newcomer)), context=_context(name)),
        max_age=LIFETIME,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return private(response)


@method_decorator([door, csrf_protect, sensitive_post_parameters("code"), sensitive_variables()], name="dispatch")
class ActivationView(View):
    """Asks for the code, once the provider has said who asks; a code that fits leads to the sign-in again."""

    http_method_names = ("get", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        if newcomer := _newcomer(request, now=clock.now()):
            return _page(request, newcomer, status=200)
        # The address may stand in the letter with the code.
        home = resolve_url(settings.LOGIN_REDIRECT_URL) if request.user.is_authenticated else ""
        return private(HttpResponseRedirect(home or begin_url(None, next_url=read_next(request))))

    def post(self, request: HttpRequest) -> HttpResponse:
        origin, now = Actor.from_request(request).origin, clock.now()
        newcomer = _newcomer(request, now=now)
        if newcomer is None:
            return _page(request, None, status=403)
        provider, keys = conf.providers()[newcomer.provider], keyring.keys("SUBJECT_KEYS")
        tries = _tries(newcomer, origin, keys)
        try:
            _count(tries, now=now)
            typed = request.POST.get("code", "")[:LONGEST]
            redeem(typed, sub=newcomer.sub, provider=provider, keys=keys, origin=origin, now=now)
        except (ActivationRefused, SubjectKeyMissing) as fault:
            return _refuse(request, fault, newcomer, keys, origin, now=now)
        for by, _ in tries:
            take_back_try(_KIND, by, now=now)
        return _go_on(request, newcomer)


def _tries(newcomer: Newcomer, origin: Origin, keys: Sequence[Key]) -> Sequence[tuple[str, int]]:
    """Return by whom tries are counted, and how many each may have."""
    person = subject_digest(keys[0].material, issuer=newcomer.issuer, sub=newcomer.sub)
    return (person, MOST_OF_PERSON), (network_of(origin.client_ip), MOST_OF_ADDRESS), ("", MOST_IN_ALL)


def _count(tries: Sequence[tuple[str, int]], *, now: datetime) -> None:
    """Count first: of many that come at once, no more have their code looked at. Raises: ActivationRefused."""
    for by, most in tries:
        # One after the other: who is beyond their own limit does not use up that of all.
        if count_try(_KIND, by, now=now) > most:
            raise ActivationRefused(GUESSING)


def _refuse(
    request: HttpRequest,
    fault: ActivationRefused | SubjectKeyMissing,
    newcomer: Newcomer,
    keys: Sequence[Key],
    origin: Origin,
    *,
    now: datetime,
) -> HttpResponse:
    """The page is the same whatever was wrong, but that too many tries are told."""
    reason = fault.reason if isinstance(fault, ActivationRefused) else fault.code
    user = fault.user if isinstance(fault, ActivationRefused) else ""
    reference, status = str(entropy.uuid7(now)), 429 if reason == GUESSING else 403
    if admits(ActivationRefused.code, origin.client_ip, now=now):
        try:
            event = record(
                Action.ACTIVATION_REFUSED,
                origin=origin,
                now=now,
                outcome="failure",
                provider=newcomer.provider,
                resource=f"user/{user}" if user else "",
                reason=reason,
            )
            reference = str(event)
        except AuditUnavailable:
            # It stays refused.
            status = 503
    logger.warning(LINE, {"reason": reason, "provider": newcomer.provider, "reference": reference})
    with suppress(SubjectKeyMissing):
        # Whoever has pressed twice, and whose first time has made the link.
        if find_linked(issuer=newcomer.issuer, sub=newcomer.sub, keys=keys):
            return _go_on(request, newcomer)
    return _page(request, newcomer, status=status, reference=reference)


def _go_on(request: HttpRequest, newcomer: Newcomer) -> HttpResponse:
    """Lead to the sign-in, which finds an account now; the provider knows who is there, and asks nothing."""
    response = HttpResponseRedirect(_begin_again(newcomer))
    response.delete_cookie(_name(request), samesite="Lax")
    return private(response)


def _page(request: HttpRequest, newcomer: Newcomer | None, *, status: int, reference: str = "") -> HttpResponse:
    """newcomer: None when it is too late to enter a code."""
    provider = conf.providers().get(newcomer.provider) if newcomer else None
    context = {
        "is_open": newcomer is not None,
        "label": provider.label if provider else "",
        "is_wrong": status == 403,
        "is_guessing": status == 429,
        "is_unavailable": status == 503,
        "reference": reference,
        "restart_url": _begin_again(newcomer) if newcomer else begin_url(None, next_url=""),
    }
    response = private(render(request, "django_phi_oidc/activate.html", context, status=status))
    # With `no-referrer` the form would come from the origin "null", which Django refuses.
    response["Referrer-Policy"] = "same-origin"
    if status == 429:
        response["Retry-After"] = "60"
    return response


def _begin_again(newcomer: Newcomer) -> str:
    return begin_url(newcomer.provider if newcomer.named else None, next_url=newcomer.next_url)


@sensitive_variables()
def _newcomer(request: HttpRequest, *, now: datetime) -> Newcomer | None:
    """Return whom the cookie tells of; None when it is over, or the provider is not what it was."""
    name = _name(request)
    try:
        text = request.COOKIES.get(name, "")
        newcomer = Newcomer(**json.loads(keyring.open_sealed(text, context=_context(name)))) if text else None
    except (Undecryptable, TypeError):
        # TypeError: another release of ours, which remembered other things, has kept it.
        return None
    if newcomer is None or now.timestamp() - newcomer.signed_in_at > LIFETIME.total_seconds():
        return None
    return newcomer if _takes_codes(conf.providers().get(newcomer.provider), newcomer.issuer) else None


def _takes_codes(provider: ProviderDeclaration | None, issuer: str) -> bool:
    return provider is not None and provider.provisioning == "invitation" and provider.issuer == issuer


def _name(request: HttpRequest) -> str:
    # A browser takes a cookie of the first name over https alone, for this host alone.
    return f"__Host-{_COOKIE}" if request.is_secure() else _COOKIE


def _context(name: str) -> Sequence[str]:
    return "newcomer", name
