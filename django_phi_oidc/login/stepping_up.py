"""A stronger or newer sign-in of a person who stays signed in: the same session, vouched for anew.

Whoever else answers changes nothing: the session is as it was, and what was issued for the answer is revoked.
Spec: R9 (`subject_changed`); OIDC Core 3.1.2.1 (acr_values, max_age, prompt); RFC 9470.
"""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import clock, keyring
from ..access.policy import TOO_WEAK, Assurance, refuse_assurance
from ..access.stepping import open_demand
from ..audit.events import Action
from ..audit.recording import record
from ..audit.request import ASSURANCE_KEY, Actor, assurance_entry
from ..errors import AuditUnavailable, AuthTimeStale, SignInRefused, StateUnknown, SubjectChanged, UserInactive
from ..oidc.id_token import auth_time_of
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider, get_provider
from ..sessions.models import OIDCSession
from ..sessions.renewing import find_live, renew_session
from ..sessions.tasks import revoke_soon
from ..sessions.views import door
from ..subjects.linking import find_subjects
from .choosing import must_choose
from .completing import Exchanged, exchange, nothing_left_alive, read_acr
from .pending import Pending, start
from .redirecting import callback_url, redirect
from .refusing import Attempt, attempt_at, refuse, tell_of, tell_of_internal_error

ATTEMPTS = 2
"""Sign-ins that may come back too weak; after them there is a page that says so."""


@method_decorator([door, sensitive_variables()], name="dispatch")
class StepUpView(View):
    """Sends the browser of a signed-in person to the OP that vouched for them, with what a guard demands of it."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        request.encoding = "utf-8"
        actor = Actor.from_request(request)
        attempt, next_url = attempt_at(self, None, stage="step_up"), ""
        try:
            demand = open_demand(request.GET.get("demand", ""), session=actor.origin.session, now=clock.now())
            if demand is None:
                raise StateUnknown
            next_url = demand.next_url
            row = _session_of(actor)
            attempt = attempt_at(self, row.provider, stage="step_up")
            # As the sign-in's own way there: with several providers, each has URLs that name it.
            named = row.provider if must_choose() else None
            pending = start(
                provider=row.provider,
                redirect_uri=callback_url(request, named),
                next_url=demand.next_url,
                now=clock.now(),
                renews=demand.session,
                acr=demand.acr,
                max_age=demand.max_age,
            )
            return redirect(request, _demanding(get_provider(row.provider), pending), pending, declared={})
        except SignInRefused as refusal:
            return refuse(request, refusal, attempt, next_url=next_url)
        except SuspiciousOperation:
            raise
        except BaseException:
            tell_of_internal_error(request, attempt)
            raise


@sensitive_variables()
def complete_step_up(request: HttpRequest, provider: Provider, *, pending: Pending, code: str) -> None:
    """Renew the session that the person is in. Nothing but tokens and assurance is taken: claims stay as they are.

    Raises: SignInRefused, AuditUnavailable: nothing that the OP issued is left alive, and the session is as it was.
    """
    received: list[ReceivedToken] = []
    with nothing_left_alive(received, provider=pending.provider):
        exchanged = exchange(
            code,
            provider=_demanding(provider, pending),
            pending=pending,
            declared={},
            received=received,
            clock=clock.now,
        )
        _check_assurance(exchanged, pending)
        _renew(request, exchanged, provider, pending, received)


def ask_again(
    request: HttpRequest, pending: Pending | None, fault: SignInRefused | AuditUnavailable, attempt: Attempt
) -> HttpResponse | None:
    """Return the redirect to the OP after an answer that was too weak, once; None where there is nothing to ask again.

    The refusal is told in any case.
    """
    if pending is None or not pending.renews or pending.attempt >= ATTEMPTS or fault.code not in TOO_WEAK:
        return None
    tell_of(request, fault, attempt)
    try:
        again = start(
            provider=pending.provider,
            redirect_uri=pending.redirect_uri,
            next_url=pending.next_url,
            now=clock.now(),
            renews=pending.renews,
            acr=pending.acr,
            max_age=pending.max_age,
            attempt=pending.attempt + 1,
        )
        return redirect(request, _demanding(get_provider(pending.provider), again), again, declared={})
    except SignInRefused as refusal:
        return refuse(request, refusal, attempt, next_url=pending.next_url)


def _demanding(provider: Provider, pending: Pending) -> Provider:
    """Return the provider, of which is asked, and verified, what the page demands beside what every sign-in must be."""
    declared = provider.declaration
    # Of a page's values those that a sign-in may have; none of them may be, and then the page knows a stronger one.
    acr = [value for value in pending.acr if value in declared.acr_values] or pending.acr
    ages = [age for age in (pending.max_age, declared.max_age) if age is not None]
    return provider.as_declared(
        replace(
            declared,
            acr_values=tuple(acr) or declared.acr_values,
            max_age=min(ages, default=None),
            # Where a page wants to know how long ago it was, "not told" is no answer.
            allow_auth_time_zero=declared.allow_auth_time_zero and pending.max_age is None,
        )
    )


def _check_assurance(exchanged: Exchanged, pending: Pending) -> None:
    """R6 has allowed for clocks that differ; a guard does not, and would ask again at once. Raises: AuthTimeStale."""
    max_age = None if pending.max_age is None else timedelta(seconds=pending.max_age)
    claims = exchanged.id_claims
    if refuse_assurance(
        Assurance(max_age=max_age), acr=read_acr(claims), auth_time=auth_time_of(claims), now=clock.now()
    ):
        raise AuthTimeStale


@sensitive_variables()
def _renew(
    request: HttpRequest, exchanged: Exchanged, provider: Provider, pending: Pending, received: list[ReceivedToken]
) -> None:
    """received: emptied once what is committed names the tokens."""
    actor, now = Actor.from_request(request), clock.now()
    declaration, id_claims = provider.declaration, exchanged.id_claims
    if actor.origin.session != pending.renews:
        raise SubjectChanged
    row = _session_of(actor)
    subjects = find_subjects(issuer=declaration.issuer, sub=id_claims["sub"], keys=keyring.keys("SUBJECT_KEYS"))
    if row.subject_id not in subjects or row.provider != declaration.name:
        raise SubjectChanged
    acr, auth_time = read_acr(id_claims), auth_time_of(id_claims)
    record(
        Action.SESSION_RENEWED,
        origin=actor.origin,
        now=now,
        provider=declaration.name,
        subject=str(row.subject.uuid) if row.subject else "",
        detail={"acr": acr},
    )
    revocations = renew_session(
        row.pk,
        subject=row.subject_id,
        tokens=exchanged.tokens,
        sid=str(id_claims.get("sid", "")),
        acr=acr,
        auth_time=auth_time,
        keeps_tokens=declaration.tokens == "keep",
        now=now,
    )
    if revocations is None:
        raise SubjectChanged
    received.clear()
    request.session[ASSURANCE_KEY] = assurance_entry(acr=acr, auth_time=auth_time)
    # What the browser held until now is worth nothing more. RevocationMiddleware writes the new key into the row.
    request.session.cycle_key()
    revoke_soon(revocations)


def _session_of(actor: Actor) -> OIDCSession:
    """Return the live session that actor is in. Raises: SubjectChanged, UserInactive."""
    row = find_live(UUID(actor.origin.session)) if actor.origin.session and actor.user.is_authenticated else None
    if row is None or row.user is None or row.user.pk != actor.user.pk:
        raise SubjectChanged
    if not row.user.is_active:
        raise UserInactive
    return row
