"""The authorization endpoint: the login page, single sign-on, the code. Spec: OIDC Core 3.1.2; RFC 9126 4; RFC 9207."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..._internal.randomness import token_b64url
from .authorization_request import (
    UntrustedRedirectURI,
    ValidatedAuthorizationRequest,
    validate_authorization_request,
    validate_redirect_uri,
)
from .claims import PROTOCOL_CLAIMS
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply, parse_unique_parameters
from .pages import render_error_page, render_login_page
from .par import consume_pushed_request, store_pushed_request
from .registrations import Client
from .state import Grant, OPSession, ProviderState, PushedAuthorizationRequest

_FORM_FIELDS = frozenset({"username", "password", "csrf", "decision"})
_LOGIN_PAGE_LIFETIME = timedelta(minutes=10)
"""How long a person may take for the login page of a pushed request: the page holds a request_uri of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _AuthorizationAttempt:
    """One request to this endpoint, as far as it is trusted."""

    client: Client
    redirect_uri: str
    parameters: dict[str, str] = field(repr=False)
    authorization_request: ValidatedAuthorizationRequest
    was_pushed: bool
    session: OPSession | None
    now: datetime


def handle_authorization(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the login page, or the redirect back to the client; without a redirect URI to trust, an error page."""
    form = dict(request.form)
    pairs = [*request.query, *((name, value) for name, value in request.form if name not in _FORM_FIELDS)]
    try:
        pushed = consume_pushed_request(state, pairs)
        if pushed is not None:
            pairs = list(pushed.parameters.items())
        client, redirect_uri = validate_redirect_uri(state, pairs)
    except UntrustedRedirectURI as error:
        return render_error_page(str(error), status=400)
    try:
        parameters = parse_unique_parameters(pairs)
        if state.par == "required" and pushed is None:
            raise OAuthError("invalid_request", "Authorization requests have to be pushed.")
        visit = _AuthorizationAttempt(
            client=client,
            redirect_uri=redirect_uri,
            parameters=parameters,
            authorization_request=validate_authorization_request(
                parameters, client, extra_scopes=state.list_resource_scopes()
            ),
            was_pushed=pushed is not None,
            session=state.find_session(request),
            now=state.clock(),
        )
        if "decision" in form:
            return _process_form(state, request, visit, form)
        if visit.session is not None and _is_session_sufficient(state, visit, visit.session):
            return _grant_code(state, visit, visit.session)
        if "none" in visit.authorization_request.prompt:
            raise OAuthError("login_required", "Nobody is signed in, or not freshly enough.")
        return _create_login_reply(state, request, visit)
    except OAuthError as error:
        states = [value for name, value in pairs if name == "state"]
        query = {"error": error.error, "error_description": error.description, "iss": state.issuer}
        return _create_redirect(redirect_uri, query | ({"state": states[0]} if len(states) == 1 else {}))


def _is_session_sufficient(state: ProviderState, attempt: _AuthorizationAttempt, session: OPSession) -> bool:
    asked = attempt.authorization_request
    if asked.prompt & {"login", "consent", "select_account"}:
        return False
    if asked.max_age is not None and (attempt.now - session.auth_time).total_seconds() > asked.max_age:
        return False
    if "none" in asked.prompt:
        # There is no page to ask on. acr_values is a wish, and the answer says what was reached; what is more than a
        # wish is refused where the code would be made. Spec: OIDC Core 5.5.1.1.
        return True
    sub = state.get_subject(session.account, attempt.client)
    wanted = ((session.acr, asked.acr_values), (session.acr, asked.essential_acr_values), (sub, asked.allowed_subjects))
    return all(not values or value in values for value, values in wanted)


def _process_form(
    state: ProviderState, request: ReceivedRequest, attempt: _AuthorizationAttempt, form: dict[str, str]
) -> Reply:
    csrf = request.cookies.get(state.get_cookie_name("csrf"), "")
    if not csrf or not hmac.compare_digest(csrf.encode(), form.get("csrf", "").encode()):
        return _create_login_reply(
            state, request, attempt, error_message="The form was out of date. Please sign in again."
        )
    if form["decision"] == "cancel":
        raise OAuthError("access_denied", "The person said no.")
    account = state.accounts.get(form.get("username", ""))
    given = form.get("password", "").encode()
    if account is None or not hmac.compare_digest(account.password.encode(), given):
        return _create_login_reply(
            state, request, attempt, error_message="User name and password don't match.", username=form.get("username")
        )
    acr = account.step_up_acr if account.step_up_acr in attempt.authorization_request.acr_values else account.acr
    session = state.create_session(account, acr=acr, previous_session=attempt.session, now=attempt.now)
    reply = _grant_code(state, attempt, session)
    secure = "; Secure" if state.issuer.startswith("https:") else ""
    cookie = f"{state.get_cookie_name('session')}={session.cookie_value}; Path=/; HttpOnly; SameSite=Lax{secure}"
    reply.headers["Set-Cookie"] = cookie
    return reply


def _grant_code(state: ProviderState, attempt: _AuthorizationAttempt, session: OPSession) -> Reply:
    asked, client = attempt.authorization_request, attempt.client
    if asked.essential_acr_values and session.acr not in asked.essential_acr_values:
        raise OAuthError("unmet_authentication_requirements", "The sign-in did not reach an essential acr.")
    sub = state.get_subject(session.account, client)
    if asked.allowed_subjects and sub not in asked.allowed_subjects:
        raise OAuthError("login_required", "Somebody else was asked for.")
    grant = Grant(
        client=client,
        account=session.account,
        sub=sub,
        sid=state.get_sid(session, client),
        scope=asked.scope,
        claims=asked.claims,
        nonce=asked.nonce,
        auth_time=session.auth_time,
        acr=session.acr,
        redirect_uri=attempt.redirect_uri,
        code_challenge=asked.code_challenge,
        code=f"code_{token_b64url(32)}",
        code_expires_at=attempt.now + state.code_lifetime,
    )
    with state.lock:
        state.grants[grant.code] = grant
        session.client_ids.add(client.client_id)
    query = {"code": grant.code, "iss": state.issuer}
    if "state" in attempt.parameters:
        query["state"] = attempt.parameters["state"]
    return _create_redirect(attempt.redirect_uri, query)


def _create_redirect(redirect_uri: str, query: dict[str, str]) -> Reply:
    headers = {**NO_STORE_HEADERS, "Referrer-Policy": "no-referrer"}
    return Reply(status=303, headers=headers, redirect_to=redirect_uri, query=dict(query))


def _create_login_reply(
    state: ProviderState,
    request: ReceivedRequest,
    attempt: _AuthorizationAttempt,
    *,
    error_message: str = "",
    username: str | None = None,
) -> Reply:
    csrf = request.cookies.get(state.get_cookie_name("csrf"), "") or token_b64url(16)
    hint = attempt.parameters.get("login_hint", "")
    reply = render_login_page(
        client=attempt.client,
        accounts=state.accounts.values(),
        parameters=_create_form_parameters(state, attempt),
        redirect_uri=attempt.redirect_uri,
        scope=attempt.authorization_request.scope,
        claims=sorted(
            {name for names in attempt.authorization_request.claims.values() for name in names} - set(PROTOCOL_CLAIMS)
        ),
        csrf=csrf,
        username=username if username is not None else hint,
        error_message=error_message,
    )
    secure = "; Secure" if state.issuer.startswith("https:") else ""
    reply.headers["Set-Cookie"] = f"{state.get_cookie_name('csrf')}={csrf}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return reply


def _create_form_parameters(state: ProviderState, attempt: _AuthorizationAttempt) -> dict[str, str]:
    """A pushed request stays out of the browser: the page's form names a new request_uri, for one use as the first."""
    if not attempt.was_pushed:
        return attempt.parameters
    client_id = attempt.client.client_id
    again = PushedAuthorizationRequest(
        client_id=client_id, parameters=attempt.parameters, expires_at=attempt.now + _LOGIN_PAGE_LIFETIME
    )
    return {"client_id": client_id, "request_uri": store_pushed_request(state, again)}
