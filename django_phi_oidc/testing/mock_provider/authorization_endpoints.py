"""The authorization endpoint and the pushed authorization request endpoint.

Spec: OIDC Core 3.1.2; RFC 9126; RFC 9207.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest

from ..._internal.randomness import token_b64url
from .authorization_request import (
    UntrustedRedirectURI,
    ValidatedAuthorizationRequest,
    validate_authorization_request,
    validate_redirect_uri,
)
from .bound_tokens import find_proof_thumbprint
from .claims import PROTOCOL_CLAIMS
from .client_auth import CREDENTIAL_PARAMETERS, authenticate_client
from .messages import (
    NO_STORE_HEADERS,
    OAuthError,
    ParameterPairs,
    ReceivedRequest,
    Reply,
    parse_unique_parameters,
)
from .pages import render_error_page, render_login_page
from .registrations import Client
from .state import Grant, OPSession, ProviderState, PushedAuthorizationRequest

REQUEST_URI_PREFIX = "urn:ietf:params:oauth:request_uri:"
_FORM_FIELDS = frozenset({"username", "password", "csrf", "decision"})
_LOGIN_PAGE_LIFETIME = timedelta(minutes=10)
"""How long the login page of a pushed request is valid: its form contains a request_uri of its
own.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _AuthorizationAttempt:
    """One request to the authorization endpoint whose client and redirect URI are validated."""

    client: Client
    redirect_uri: str
    parameters: dict[str, str] = field(repr=False)
    request: ValidatedAuthorizationRequest
    was_pushed: bool
    session: OPSession | None
    now: datetime


def handle_authorization(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return the login page or the redirect to the client; an error page if the redirect URI is not
    trusted.
    """
    form = dict(request.form)
    pairs = [
        *request.query,
        *((name, value) for name, value in request.form if name not in _FORM_FIELDS),
    ]
    try:
        pushed = _consume_pushed_request(state, pairs)
        if pushed is not None:
            pairs = list(pushed.parameters.items())
        client, redirect_uri = validate_redirect_uri(state, pairs)
    except UntrustedRedirectURI as error:
        return render_error_page(str(error), status=400)
    try:
        parameters = parse_unique_parameters(pairs)
        if state.par == "required" and pushed is None:
            raise OAuthError("invalid_request", "Authorization requests must be pushed.")
        attempt = _AuthorizationAttempt(
            client=client,
            redirect_uri=redirect_uri,
            parameters=parameters,
            request=validate_authorization_request(
                parameters,
                client,
                extra_scopes=state.list_resource_scopes(),
                resources=state.resources,
            ),
            was_pushed=pushed is not None,
            session=state.find_session(request),
            now=state.clock(),
        )
        if "decision" in form:
            return _process_form(state, request, attempt, form)
        if attempt.session is not None and _is_session_sufficient(state, attempt, attempt.session):
            return _grant_code(state, attempt, attempt.session)
        if "none" in attempt.request.prompt:
            raise OAuthError("login_required", "No user is signed in, or the sign-in is too old.")
        return _create_login_reply(state, request, attempt)
    except OAuthError as error:
        states = []
        for name, value in pairs:
            if name == "state":
                states.append(value)
        query = {"error": error.error, "error_description": error.description, "iss": state.issuer}
        return _create_redirect(
            redirect_uri, query | ({"state": states[0]} if len(states) == 1 else {})
        )


def _is_session_sufficient(
    state: ProviderState, attempt: _AuthorizationAttempt, session: OPSession
) -> bool:
    request = attempt.request
    if request.prompt & {"login", "consent", "select_account"}:
        return False
    if (
        request.max_age is not None
        and (attempt.now - session.auth_time).total_seconds() > request.max_age
    ):
        return False
    if "none" in request.prompt:
        # No page can be shown. acr_values is voluntary: the response states the acr that was
        # reached. An essential acr or sub is checked in `_grant_code`. Spec: OIDC Core 5.5.1.1.
        return True
    sub = state.get_subject(session.account, attempt.client)
    requirements = (
        (session.acr, request.acr_values),
        (session.acr, request.essential_acr_values),
        (sub, request.allowed_subjects),
    )
    for value, allowed_values in requirements:
        if allowed_values and value not in allowed_values:
            return False
    return request.accepts_vector(session.vot)


def _process_form(
    state: ProviderState,
    request: ReceivedRequest,
    attempt: _AuthorizationAttempt,
    form: dict[str, str],
) -> Reply:
    if not state.is_csrf_valid(request, form):
        return _create_login_reply(
            state, request, attempt, error="The form is out of date. Please sign in again."
        )
    if form["decision"] == "cancel":
        raise OAuthError("access_denied", "The user cancelled the sign-in.")
    account = state.accounts.get(form.get("username", ""))
    password = form.get("password", "").encode()
    if account is None or not compare_digest(account.password.encode(), password):
        error = "User name and password don't match."
        username = form.get("username")
        return _create_login_reply(state, request, attempt, error=error, username=username)

    if account.step_up_acr in attempt.request.acr_values:
        acr = account.step_up_acr
    else:
        acr = account.acr

    if attempt.request.accepts_vector(account.vot):
        vot = account.vot
    else:
        vot = account.step_up_vot or account.vot

    session = state.create_session(
        account, acr=acr, vot=vot, previous_session=attempt.session, now=attempt.now
    )
    reply = _grant_code(state, attempt, session)
    reply.headers["Set-Cookie"] = state.build_cookie("session", session.cookie_value)
    return reply


def _grant_code(state: ProviderState, attempt: _AuthorizationAttempt, session: OPSession) -> Reply:
    request = attempt.request
    client = attempt.client
    if request.essential_acr_values and session.acr not in request.essential_acr_values:
        raise OAuthError(
            "unmet_authentication_requirements", "The sign-in did not reach an essential acr."
        )
    sub = state.get_subject(session.account, client)
    if request.allowed_subjects and sub not in request.allowed_subjects:
        raise OAuthError("login_required", "The request is for another user.")
    grant = Grant(
        client=client,
        account=session.account,
        sub=sub,
        sid=state.get_sid(session, client),
        scope=request.scope,
        claims=request.claims,
        nonce=request.nonce,
        auth_time=session.auth_time,
        acr=session.acr,
        vot=session.vot,
        resource=request.resource,
        redirect_uri=attempt.redirect_uri,
        code_challenge=request.code_challenge,
        dpop_jkt=attempt.parameters.get("dpop_jkt", "") if state.dpop != "off" else "",
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
    error: str = "",
    username: str | None = None,
) -> Reply:
    csrf = state.find_csrf_token(request) or token_b64url(16)
    names = {name for names in attempt.request.claims.values() for name in names}
    reply = render_login_page(
        client=attempt.client,
        accounts=state.accounts.values(),
        parameters=_create_form_parameters(state, attempt),
        redirect_uri=attempt.redirect_uri,
        scope=attempt.request.scope,
        claims=sorted(names - set(PROTOCOL_CLAIMS)),
        csrf=csrf,
        username=username if username is not None else attempt.parameters.get("login_hint", ""),
        error_message=error,
    )
    reply.headers["Set-Cookie"] = state.build_cookie("csrf", csrf)
    return reply


def _create_form_parameters(state: ProviderState, attempt: _AuthorizationAttempt) -> dict[str, str]:
    """Keep a pushed request out of the browser: the form contains a new request_uri, which is also
    valid once.
    """
    if not attempt.was_pushed:
        return attempt.parameters
    client_id = attempt.client.client_id
    pushed = PushedAuthorizationRequest(
        client_id=client_id,
        parameters=attempt.parameters,
        expires_at=attempt.now + _LOGIN_PAGE_LIFETIME,
    )
    return {"client_id": client_id, "request_uri": _store_pushed_request(state, pushed)}


def handle_par(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return a request_uri for the pushed parameters, or the error that the authorization endpoint
    would send.

    Spec: RFC 9126 2.1 to 2.3.
    """
    if state.par == "off":
        return Reply(status=404)
    try:
        client, form = authenticate_client(state, request)
        if "request_uri" in form:
            raise OAuthError("invalid_request", "A pushed request must not contain a request_uri.")
        parameters = {}
        for name, value in form.items():
            if name not in CREDENTIAL_PARAMETERS:
                parameters[name] = value
        validate_redirect_uri(state, list(parameters.items()))
        validate_authorization_request(parameters, client, resources=state.resources)
        thumbprint = find_proof_thumbprint(state, request)
        if thumbprint and parameters.setdefault("dpop_jkt", thumbprint) != thumbprint:
            raise OAuthError("invalid_dpop_proof", "dpop_jkt is that of another key.")
    except UntrustedRedirectURI as error:
        return OAuthError("invalid_request", str(error)).to_reply()
    except OAuthError as error:
        return error.to_reply()
    lifetime = state.pushed_request_lifetime
    pushed = PushedAuthorizationRequest(
        client_id=client.client_id, parameters=parameters, expires_at=state.clock() + lifetime
    )
    body = {
        "request_uri": _store_pushed_request(state, pushed),
        "expires_in": int(lifetime.total_seconds()),
    }
    return Reply(status=201, headers=dict(NO_STORE_HEADERS), json=body)


def _store_pushed_request(state: ProviderState, pushed: PushedAuthorizationRequest) -> str:
    request_uri = f"{REQUEST_URI_PREFIX}{token_b64url(32)}"
    with state.lock:
        state.pushed_requests[request_uri] = pushed
    return request_uri


def _consume_pushed_request(
    state: ProviderState, pairs: ParameterPairs
) -> PushedAuthorizationRequest | None:
    """Return and delete the request that was pushed under the request_uri in pairs; None without a
    request_uri.

    Other parameters in pairs are ignored. An attempt of another client does not consume the pushed
    request.

    Raises: UntrustedRedirectURI if the request_uri is unknown, used, expired or of another client.
    Spec: RFC 9126 4.
    """
    uris = []
    for name, value in pairs:
        if name == "request_uri":
            uris.append(value)
    if state.par == "off" or not any(value.startswith(REQUEST_URI_PREFIX) for value in uris):
        return None
    client_ids = []
    for name, value in pairs:
        if name == "client_id":
            client_ids.append(value)
    if len(uris) != 1 or len(client_ids) != 1:
        raise UntrustedRedirectURI("client_id and request_uri are each required exactly once.")
    with state.lock:
        pushed = state.pushed_requests.get(uris[0])
        if pushed is not None and pushed.client_id == client_ids[0]:
            del state.pushed_requests[uris[0]]
            if state.clock() < pushed.expires_at:
                return pushed
    raise UntrustedRedirectURI(
        "The pushed request is unknown, used, expired, or of another client."
    )
