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

from .._internal import clock
from ..access.policy import STEP_UP_CODES, Assurance, find_assurance_refusal
from ..access.step_up import parse_step_up_request
from ..audit.events import Action
from ..audit.recorder import record
from ..audit.request_context import ASSURANCE_KEY, Actor, build_assurance_entry
from ..crypto import keyring
from ..errors import AuditUnavailable, AuthTimeStale, SignInRefused, StateUnknown, SubjectChanged, UserInactive
from ..oidc.id_token import find_auth_time
from ..oidc.token import ReceivedToken
from ..provider.registry import Provider, get_provider
from ..sessions.lifecycle import find_live_session_with_subject, renew_session
from ..sessions.models import OIDCSession
from ..sessions.tasks import revoke_after_commit
from ..sessions.views import public_view
from ..subjects.linking import list_subject_ids
from .authorization_request import build_callback_url, redirect_to_provider
from .code_exchange import TokenExchangeResult, exchange_code, parse_acr, revoke_tokens_on_error
from .failures import SignInAttempt, create_sign_in_attempt, render_login_failure, report_failure, report_internal_error
from .provider_selection import needs_provider_selection
from .state_cookie import AuthorizationState, create_authorization_state

MAX_STEP_UP_ATTEMPTS = 2
"""Sign-ins that may come back too weak; after them there is a page that says so."""


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class StepUpView(View):
    """Sends the browser of a signed-in person to the OP that vouched for them, with what a guard demands of it."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        request.encoding = "utf-8"
        actor = Actor.from_request(request)
        attempt, next_url = create_sign_in_attempt(self, None, stage="step_up"), ""
        try:
            demand = parse_step_up_request(
                request.GET.get("demand", ""), session_id=actor.origin.session, now=clock.now()
            )
            if demand is None:
                raise StateUnknown
            next_url = demand.next_url
            row = _get_actor_session(actor)
            attempt = create_sign_in_attempt(self, row.provider, stage="step_up")
            # As the sign-in's own way there: with several providers, each has URLs that name it.
            named = row.provider if needs_provider_selection() else None
            pending = create_authorization_state(
                provider=row.provider,
                redirect_uri=build_callback_url(request, named),
                next_url=demand.next_url,
                now=clock.now(),
                renews=demand.session_id,
                acr=demand.acr,
                max_age=demand.max_age_seconds,
            )
            return redirect_to_provider(
                request, _apply_step_up_requirements(get_provider(row.provider), pending), pending, declared_claims={}
            )
        except SignInRefused as refusal:
            return render_login_failure(request, refusal, attempt, next_url=next_url)
        except SuspiciousOperation:
            raise
        except BaseException:
            report_internal_error(request, attempt)
            raise


@sensitive_variables()
def complete_step_up(
    request: HttpRequest, provider: Provider, *, authorization_state: AuthorizationState, code: str
) -> None:
    """Renew the session that the person is in. Nothing but tokens and assurance is taken: claims stay as they are.

    Raises: SignInRefused, AuditUnavailable: nothing that the OP issued is left alive, and the session is as it was.
    """
    received: list[ReceivedToken] = []
    with revoke_tokens_on_error(received, provider=authorization_state.provider):
        exchanged = exchange_code(
            code,
            provider=_apply_step_up_requirements(provider, authorization_state),
            authorization_state=authorization_state,
            declared_claims={},
            issued_tokens=received,
            clock=clock.now,
        )
        _validate_assurance(exchanged, authorization_state)
        _renew_current_session(request, exchanged, provider, authorization_state, received)


def retry_step_up(
    request: HttpRequest,
    authorization_state: AuthorizationState | None,
    fault: SignInRefused | AuditUnavailable,
    attempt: SignInAttempt,
) -> HttpResponse | None:
    """Return the redirect to the OP after an answer that was too weak, once; None where there is nothing to ask again.

    The refusal is told in any case.
    """
    if (
        authorization_state is None
        or not authorization_state.session_to_renew
        or authorization_state.attempt_number >= MAX_STEP_UP_ATTEMPTS
        or fault.code not in STEP_UP_CODES
    ):
        return None
    report_failure(request, fault, attempt)
    try:
        again = create_authorization_state(
            provider=authorization_state.provider,
            redirect_uri=authorization_state.redirect_uri,
            next_url=authorization_state.next_url,
            now=clock.now(),
            renews=authorization_state.session_to_renew,
            acr=authorization_state.acr,
            max_age=authorization_state.max_age,
            attempt=authorization_state.attempt_number + 1,
        )
        return redirect_to_provider(
            request,
            _apply_step_up_requirements(get_provider(authorization_state.provider), again),
            again,
            declared_claims={},
        )
    except SignInRefused as refusal:
        return render_login_failure(request, refusal, attempt, next_url=authorization_state.next_url)


def _apply_step_up_requirements(provider: Provider, authorization_state: AuthorizationState) -> Provider:
    """Return the provider, of which is asked, and verified, what the page demands beside what every sign-in must be."""
    declared = provider.declaration
    # Of a page's values those that a sign-in may have; none of them may be, and then the page knows a stronger one.
    acr = [value for value in authorization_state.acr if value in declared.acr_values] or authorization_state.acr
    ages = [age for age in (authorization_state.max_age, declared.max_age) if age is not None]
    return provider.with_declaration(
        replace(
            declared,
            acr_values=tuple(acr) or declared.acr_values,
            max_age=min(ages, default=None),
            # Where a page wants to know how long ago it was, "not told" is no answer.
            allow_auth_time_zero=declared.allow_auth_time_zero and authorization_state.max_age is None,
        )
    )


def _validate_assurance(exchange_result: TokenExchangeResult, authorization_state: AuthorizationState) -> None:
    """R6 has allowed for clocks that differ; a guard does not, and would ask again at once. Raises: AuthTimeStale."""
    max_age = None if authorization_state.max_age is None else timedelta(seconds=authorization_state.max_age)
    claims = exchange_result.id_token_claims
    if find_assurance_refusal(
        Assurance(max_age=max_age), acr=parse_acr(claims), auth_time=find_auth_time(claims), now=clock.now()
    ):
        raise AuthTimeStale


@sensitive_variables()
def _renew_current_session(
    request: HttpRequest,
    exchange_result: TokenExchangeResult,
    provider: Provider,
    authorization_state: AuthorizationState,
    issued_tokens: list[ReceivedToken],
) -> None:
    """received: emptied once what is committed names the tokens."""
    actor, now = Actor.from_request(request), clock.now()
    declaration, id_claims = provider.declaration, exchange_result.id_token_claims
    if actor.origin.session != authorization_state.session_to_renew:
        raise SubjectChanged
    row = _get_actor_session(actor)
    subjects = list_subject_ids(issuer=declaration.issuer, sub=id_claims["sub"], keys=keyring.get_keys("subject"))
    if row.subject_id not in subjects or row.provider != declaration.name:
        raise SubjectChanged
    acr, auth_time = parse_acr(id_claims), find_auth_time(id_claims)
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
        subject_id=row.subject_id,
        tokens=exchange_result.tokens,
        sid=str(id_claims.get("sid", "")),
        acr=acr,
        auth_time=auth_time,
        persist_tokens=declaration.tokens == "keep",
        now=now,
    )
    if revocations is None:
        raise SubjectChanged
    issued_tokens.clear()
    request.session[ASSURANCE_KEY] = build_assurance_entry(acr=acr, auth_time=auth_time)
    # What the browser held until now is worth nothing more. RevocationMiddleware writes the new key into the row.
    request.session.cycle_key()
    revoke_after_commit(revocations)


def _get_actor_session(actor: Actor) -> OIDCSession:
    """Return the live session that actor is in. Raises: SubjectChanged, UserInactive."""
    row = (
        find_live_session_with_subject(UUID(actor.origin.session))
        if actor.origin.session and actor.user.is_authenticated
        else None
    )
    if row is None or row.user is None or row.user.pk != actor.user.pk:
        raise SubjectChanged
    if not row.user.is_active:
        raise UserInactive
    return row
