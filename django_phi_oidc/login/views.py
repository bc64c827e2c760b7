"""The views of a sign-in: the authorization request and the callback.

The code of a refusal goes to the audit log, never to the browser.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from django.contrib import auth
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View

from .. import conf
from .._internal import clock, metrics, request_secrets
from .._internal.view_decorators import public_view
from ..access.responses import set_private_headers
from ..audit.outbox import batch_delivery
from ..audit.request_context import Actor
from ..errors import CallbackError, Code, NotProvisioned
from ..extensions import refused_sign_in_handlers
from ..oidc.authorization import get_state, process_authorization_response
from ..oidc.token import ReceivedToken
from ..provider.call_limit import limit_total_time
from ..provider.registry import Provider, get_provider
from .account_sources import find_account_source
from .authorization_request import build_callback_url, redirect_to_provider
from .code_exchange import (
    CALLBACK_SECONDS,
    PROVIDER_TIMEOUT_SECONDS,
    VerifiedSignIn,
    exchange_code,
    revoke_tokens_on_error,
)
from .failures import (
    LOGIN_ERRORS,
    LoginError,
    SignInAttempt,
    SignInStage,
    create_sign_in_attempt,
    render_login_failure,
    report_internal_error,
)
from .interrupted_sign_ins import derive_session_id, mark_callback_ended
from .provider_selection import (
    is_login_prompt_requested,
    needs_provider_selection,
    parse_next_url,
    render_provider_selection,
)
from .reauthentication import (
    is_reauthentication_due,
    remember_session,
    request_reauthentication,
    validate_reauthentication,
)
from .redirect_url import get_landing_url
from .replacement import needs_consent, render_consent_page
from .session_setup import establish_session
from .state_cookie import (
    AuthorizationState,
    consume_state,
    create_authorization_state,
    delete_state,
    find_next_url,
)
from .step_up import complete_step_up, retry_step_up


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class OIDCAuthenticationRequestView(View):
    """Redirects to the provider, or shows the page to choose one or the page that protects a live
    session.

    Reads only `next`, which the provider never sees, `prompt`, and the consent to replace the
    session.
    """

    http_method_names = ("get",)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        request.encoding = "utf-8"
        attempt = create_sign_in_attempt(self, provider, stage="request")
        try:
            if provider is None and needs_provider_selection():
                return set_private_headers(render_provider_selection(request))
            declared_provider = get_provider(provider)
            if needs_consent(request):
                return render_consent_page(request, next_url=parse_next_url(request))
            with metrics.measure_duration(
                metrics.SIGN_IN_STEP_DURATION, provider=attempt.provider, step="request"
            ):
                return start_sign_in(
                    request, declared_provider, provider_in_url=provider is not None
                )
        except LOGIN_ERRORS as error:
            return render_login_failure(request, error, attempt, next_url=parse_next_url(request))
        except SuspiciousOperation:
            raise
        except BaseException:
            report_internal_error(request, attempt)
            raise


@method_decorator([public_view, sensitive_variables()], name="dispatch")
class OIDCAuthenticationCallbackView(View):
    """Processes the provider's authorization response: a session, or a refusal that ends no
    session.
    """

    http_method_names = ("get",)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with limit_total_time(CALLBACK_SECONDS):
            return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest, provider: str | None = None) -> HttpResponse:
        # Ignore the charset that the request declares: some of Python's codecs are not text
        # encodings.
        request.encoding = "utf-8"
        attempt = create_sign_in_attempt(self, provider, stage="callback")
        state = ""
        pending = None
        is_session_started = False
        # Outside the try block: too many parameters are Django's 400, and anyone can send those. A
        # SuspiciousOperation raised later, in a hook of the host project, is reported like any
        # other failure of a sign-in.
        parameters = dict(request.GET.lists())
        try:
            state = get_state(parameters)
            pending = consume_state(request, state, now=clock.now())
            # Only now: values from a URL that anyone may have written are no secrets, and must not
            # be masked.
            request_secrets.register_secret(state, "state")
            request_secrets.register_secret(parameters.get("code"), "code")

            stage: SignInStage
            if pending.session_to_renew:
                stage = "step_up"
            else:
                stage = "callback"

            attempt = replace(attempt, is_state_known=True, stage=stage)
            response: HttpResponse = HttpResponseRedirect(pending.next_url or get_landing_url())
            complete_sign_in(
                request, get_provider(provider), pending=pending, parameters=parameters
            )
            # First: cookies that are deleted take no room.
            delete_state(response, request, state)
            remember_session(response, request)
            is_session_started = not pending.session_to_renew
            metrics.increment(
                metrics.COMPLETED_SIGN_INS,
                provider=attempt.provider,
                stage=attempt.stage,
                outcome="success",
                reason="",
            )
        except LOGIN_ERRORS as error:
            next_url = find_next_url(request, state)
            retry = retry_step_up(request, pending, error, attempt)
            if retry is not None:
                response = retry
            else:
                response = _refuse_sign_in(request, error, attempt, pending, next_url=next_url)
            if state:
                delete_state(response, request, state)
        except BaseException:
            report_internal_error(request, attempt)
            raise
        finally:
            if pending and not is_session_started:
                mark_callback_ended(state)
        return set_private_headers(response)


def _refuse_sign_in(
    request: HttpRequest,
    error: LoginError,
    attempt: SignInAttempt,
    pending: AuthorizationState | None,
    *,
    next_url: str,
) -> HttpResponse:
    """Report the refusal, and return its page, or that of an app on which the person can go on."""
    actor = Actor.from_request(request)
    for handler in refused_sign_in_handlers:
        handler.record_refusal(actor, error, attempt, pending)
    for handler in refused_sign_in_handlers:
        response = handler.find_response(request, error, attempt, next_url=next_url)
        if response is not None:
            return response
    return render_login_failure(request, error, attempt, next_url=next_url)


def start_sign_in(
    request: HttpRequest, provider: Provider, *, provider_in_url: bool
) -> HttpResponse:
    """Return the redirect to the provider. Raises: SignInRefused, KeyMissing. Spec: OIDC Core
    3.1.2.1, RFC 7636.
    """
    name = provider.declaration.name
    callback_url = build_callback_url(request, name if provider_in_url else None)
    next_url = parse_next_url(request)
    now = clock.now()
    is_due = is_reauthentication_due(request, declaration=provider.declaration, now=now)
    reauthenticates = is_due or is_login_prompt_requested(request)
    if reauthenticates:
        provider = request_reauthentication(provider)
    pending = create_authorization_state(
        provider=name,
        redirect_uri=callback_url,
        next_url=next_url,
        now=now,
        reauthenticates=reauthenticates,
    )
    transient_claims: Collection[str] = ()
    account_source = find_account_source(provider.declaration, now=clock.now())
    if account_source is not None:
        transient_claims = account_source.claims
    return redirect_to_provider(
        request, provider, pending, declared_claims=conf.claims(), transient_claims=transient_claims
    )


def complete_sign_in(
    request: HttpRequest,
    provider: Provider,
    *,
    pending: AuthorizationState,
    parameters: dict[str, list[str]],
) -> None:
    """Sign the user in, or renew the session of a step-up. Raises: as exchange_code,
    AuditUnavailable, KeyMissing.
    """
    declaration = provider.declaration
    name = provider.declaration.name
    if pending.provider != name:
        raise CallbackError(Code.STATE_UNKNOWN)
    metadata = provider.get_metadata(timeout_seconds=PROVIDER_TIMEOUT_SECONDS)
    code = process_authorization_response(parameters, metadata=metadata)
    if pending.session_to_renew:
        complete_step_up(request, provider, pending=pending, code=code)
        return
    if not pending.reauthenticates and is_reauthentication_due(
        request, declaration=declaration, now=clock.now()
    ):
        # The request is from before the timeout.
        raise CallbackError(Code.STATE_EXPIRED)
    measure_step = partial(metrics.measure_duration, metrics.SIGN_IN_STEP_DURATION, provider=name)
    issued_tokens: list[ReceivedToken] = []
    with revoke_tokens_on_error(issued_tokens, provider=name):
        with measure_step(step="exchange"):
            result = exchange_code(
                code,
                provider=provider,
                pending=pending,
                declared_claims=conf.claims(),
                account_source=find_account_source(declaration, now=clock.now()),
                issued_tokens=issued_tokens,
                clock=clock.now,
            )
        validate_reauthentication(
            result.id_token_claims, declaration=declaration, pending=pending, now=clock.now()
        )
        sign_in = VerifiedSignIn(
            provider=name,
            issuer=declaration.issuer,
            sub=result.id_token_claims["sub"],
            claims=result.claims,
            account_identifier=result.account_identifier,
            auth_time=result.auth_time,
            origin=Actor.from_request(request).origin,
        )
        # The event of a new account moves to the audit log with those of the session.
        with batch_delivery() as committed_events:
            try:
                with measure_step(step="authenticate"):
                    user = auth.authenticate(request, sign_in=sign_in)
            except NotProvisioned:
                for handler in refused_sign_in_handlers:
                    handler.remember_unlinked_sign_in(request, sign_in)
                raise
            if user is None:
                raise NotProvisioned
            with measure_step(step="admit"):
                establish_session(
                    request,
                    user,
                    result,
                    declaration,
                    issued_tokens,
                    session_id=derive_session_id(get_state(parameters)),
                    committed_events=committed_events,
                    requested_at=pending.started_at,
                )
