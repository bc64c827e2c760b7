"""Step-up: a stronger or newer authentication for a session that continues.

If another person signs in at the provider, the session is unchanged, and the issued tokens are
revoked.
Spec: R9 (`subject_changed`); OIDC Core 3.1.2.1 (acr_values, max_age, prompt); RFC 9470.
"""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .._internal import clock
from .._internal.view_decorators import public_view
from ..access.policy import STEP_UP_CODES, Assurance, find_assurance_refusal
from ..access.step_up import parse_step_up_request
from ..audit.events import Action
from ..audit.recorder import record
from ..audit.request_context import ASSURANCE_KEY, VECTOR_OF_TRUST_KEY, Actor, build_assurance_entry
from ..crypto import keyring
from ..errors import AccountError, CallbackError, Code, IDTokenError
from ..oidc.token import ReceivedToken
from ..oidc.vectors_of_trust import complete_vectors, is_vector_sufficient
from ..provider.registry import Provider, get_provider
from ..sessions.kept_id_token import reduce_id_token
from ..sessions.lifecycle import find_live_session_with_subject, renew_session
from ..sessions.models import EndReason, OIDCSession
from ..sessions.tasks import end_session_and_revoke, revoke_after_commit
from ..subjects.linking import list_subject_ids
from .authorization_request import build_callback_url, redirect_to_provider
from .code_exchange import TokenExchangeResult, exchange_code, revoke_tokens_on_error
from .failures import (
    LOGIN_ERRORS,
    LoginError,
    SignInAttempt,
    create_sign_in_attempt,
    render_login_failure,
    report_failure,
    report_internal_error,
)
from .provider_selection import needs_provider_selection
from .session_setup import SignInEnded, refuse_if_logged_out
from .state_cookie import AuthorizationState, create_authorization_state, renew_authorization_state

MAX_STEP_UP_ATTEMPTS = 2
"""After this many insufficient authentications the failure page is shown."""


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class StepUpView(View):
    """Redirects a signed-in user to their provider, with the requirements of the page that asked
    for the step-up.
    """

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        request.encoding = "utf-8"
        actor = Actor.from_request(request)
        attempt = create_sign_in_attempt(self, None, stage="step_up")
        next_url = ""
        try:
            demand = request.GET.get("demand", "")
            step_up = parse_step_up_request(
                demand, session_id=actor.origin.session, now=clock.now()
            )
            if step_up is None:
                raise CallbackError(Code.STATE_UNKNOWN)
            next_url = step_up.next_url
            provider = _get_actor_session(actor).provider
            attempt = create_sign_in_attempt(self, provider, stage="step_up")
            # As in a sign-in: with several providers, the redirect_uri names the provider.
            redirect_uri = build_callback_url(
                request, provider if needs_provider_selection() else None
            )
            pending = create_authorization_state(
                provider=provider,
                redirect_uri=redirect_uri,
                next_url=next_url,
                now=clock.now(),
                session_to_renew=step_up.session_id,
                acr=step_up.acr,
                vot=step_up.vot,
                max_age=step_up.max_age_seconds,
            )
            return _redirect_to_provider(request, pending)
        except LOGIN_ERRORS as error:
            return render_login_failure(request, error, attempt, next_url=next_url)
        except SuspiciousOperation:
            raise
        except BaseException:
            report_internal_error(request, attempt)
            raise


@sensitive_variables()
def complete_step_up(
    request: HttpRequest, provider: Provider, *, pending: AuthorizationState, code: str
) -> None:
    """Renew the current session, but not its claims. Raises: LOGIN_ERRORS: it is then unchanged."""
    issued_tokens: list[ReceivedToken] = []
    with revoke_tokens_on_error(issued_tokens, provider=pending.provider):
        exchange = partial(
            exchange_code, declared_claims={}, issued_tokens=issued_tokens, clock=clock.now
        )
        result = exchange(
            code, provider=_apply_step_up_requirements(provider, pending), pending=pending
        )
        # Without R6's leeway: pages allow none, and would require another step-up.
        if pending.max_age is None:
            max_age = None
        else:
            max_age = timedelta(seconds=pending.max_age)

        assurance = Assurance(max_age=max_age)
        if find_assurance_refusal(
            assurance, acr=result.acr, vot=result.vot, auth_time=result.auth_time, now=clock.now()
        ):
            raise IDTokenError(Code.AUTH_TIME_STALE)
        _renew_current_session(request, result, provider, pending, issued_tokens)


def retry_step_up(
    request: HttpRequest,
    pending: AuthorizationState | None,
    error: LoginError,
    attempt: SignInAttempt,
) -> HttpResponse | None:
    """After an insufficient authentication, report it and redirect to the provider once more; else
    return None.
    """
    if (
        pending is None
        or not pending.session_to_renew
        or pending.attempt_number >= MAX_STEP_UP_ATTEMPTS
    ):
        return None
    if error.code not in STEP_UP_CODES:
        return None
    report_failure(request, error, attempt)
    try:
        return _redirect_to_provider(request, renew_authorization_state(pending, now=clock.now()))
    except LOGIN_ERRORS as refusal:
        return render_login_failure(request, refusal, attempt, next_url=pending.next_url)


def _redirect_to_provider(request: HttpRequest, pending: AuthorizationState) -> HttpResponse:
    provider = _apply_step_up_requirements(get_provider(pending.provider), pending)
    return redirect_to_provider(request, provider, pending, declared_claims={})


def _apply_step_up_requirements(provider: Provider, pending: AuthorizationState) -> Provider:
    """Return the provider with the page's requirements in addition to those of each sign-in."""
    declaration = provider.declaration
    max_age = pending.max_age
    # Of the page's values, those that a sign-in may have. If there are none, the page requires a
    # stronger one.
    acr = pending.acr
    accepted_acr = [value for value in pending.acr if value in declaration.accepted_acr_values]
    if accepted_acr:
        acr = accepted_acr
    # A value that acr never names, such as one for several factors, is requested at each sign-in.
    unnamed_acr = []
    for value in declaration.acr_values:
        if value not in declaration.accepted_acr_values:
            unnamed_acr.append(value)
    # Likewise, the vectors of a sign-in that satisfy the page.
    vtr = []
    for vector in declaration.vtr:
        if is_vector_sufficient(vector, accepted=pending.vot):
            vtr.append(vector)
    vtr = vtr or complete_vectors(pending.vot, required=declaration.vtr)
    ages = []
    for age in (max_age, declaration.max_age):
        if age is not None:
            ages.append(age)
    return provider.with_declaration(
        replace(
            declaration,
            acr_values=(*acr, *unnamed_acr) if acr else declaration.acr_values,
            acr_accepted=tuple(acr) or declaration.acr_accepted,
            vtr=tuple(vtr) or declaration.vtr,
            max_age=min(ages, default=None),
            # A page that limits the age of the authentication does not accept an unknown auth_time.
            allow_auth_time_zero=declaration.allow_auth_time_zero and max_age is None,
        )
    )


@sensitive_variables()
def _renew_current_session(
    request: HttpRequest,
    result: TokenExchangeResult,
    provider: Provider,
    pending: AuthorizationState,
    issued_tokens: list[ReceivedToken],
) -> None:
    """issued_tokens: emptied once committed rows contain the tokens."""
    actor = Actor.from_request(request)
    now = clock.now()
    declaration = provider.declaration
    sub = result.id_token_claims["sub"]
    if actor.origin.session != pending.session_to_renew:
        raise AccountError(Code.SUBJECT_CHANGED)
    session = _get_actor_session(actor)
    subject_ids = list_subject_ids(
        issuer=declaration.issuer, sub=sub, keys=keyring.get_keys("subject")
    )
    if session.subject_id not in subject_ids or session.provider != declaration.name:
        raise AccountError(Code.SUBJECT_CHANGED)

    if session.subject:
        subject = str(session.subject.uuid)
    else:
        subject = ""

    record(
        Action.SESSION_RENEWED,
        origin=actor.origin,
        now=now,
        provider=declaration.name,
        subject=subject,
        detail=result.assurance_detail,
    )
    revocation_ids = renew_session(
        session.pk,
        subject_id=session.subject_id,
        tokens=result.tokens,
        dpop_seed=result.dpop_seed,
        id_token=reduce_id_token(
            result.tokens.id_token, result.id_token_claims, policy=declaration.id_token_hint
        ),
        sid=result.sid,
        acr=result.acr,
        auth_time=result.auth_time,
        persist_tokens=declaration.tokens == "keep",
        origin=actor.origin,
        now=now,
    )
    if revocation_ids is None:
        raise AccountError(Code.SUBJECT_CHANGED)
    issued_tokens.clear()
    try:
        # After the commit of the new sid, see `recent_logouts`.
        refuse_if_logged_out(result, issuer=declaration.issuer, requested_at=pending.started_at)
    except BaseException as error:
        # Also if that is unknown: a logout token that came before the commit has not found the
        # session.
        if isinstance(error, SignInEnded):
            reason = error.session_end
        else:
            reason = EndReason.AUDIT_UNAVAILABLE

        end_session_and_revoke(session.pk, reason, origin=actor.origin, now=clock.now())
        raise
    request.session[ASSURANCE_KEY] = build_assurance_entry(
        acr=result.acr, auth_time=result.auth_time
    )
    request.session[VECTOR_OF_TRUST_KEY] = result.vot
    # The previous session cookie becomes invalid. RevocationMiddleware stores the new key in the
    # row.
    request.session.cycle_key()
    revoke_after_commit(revocation_ids)


def _get_actor_session(actor: Actor) -> OIDCSession:
    """Return the actor's current session. Raises: SubjectChanged, UserInactive."""
    if not actor.origin.session or not actor.user.is_authenticated:
        raise AccountError(Code.SUBJECT_CHANGED)
    session = find_live_session_with_subject(UUID(actor.origin.session))
    if session is None or session.user is None or session.user.pk != actor.user.pk:
        raise AccountError(Code.SUBJECT_CHANGED)
    if not session.user.is_active:
        raise AccountError(Code.USER_INACTIVE)
    return session
