"""The authorization endpoint: the login page, single sign-on, the code. Spec: OIDC Core 3.1.2; RFC 9126 4; RFC 9207."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ...entropy import token_b64url
from .authorization_request import AuthorizationRequest, RedirectUnsafe, judge_redirect, judge_request
from .claims import PROTOCOL_CLAIMS
from .messages import NO_STORE, OAuthError, Reply, Request, once
from .pages import error_page, login_page
from .par import keep, spent
from .registrations import Client
from .state import Grant, PushedRequest, Session, State

_FORM_FIELDS = frozenset({"username", "password", "csrf", "decision"})
_AT_THE_PAGE = timedelta(minutes=10)
"""How long a person may take for the login page of a pushed request: the page holds a request_uri of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """One request to this endpoint, as far as it is trusted."""

    client: Client
    redirect_uri: str
    parameters: dict[str, str] = field(repr=False)
    asked: AuthorizationRequest
    pushed: bool
    session: Session | None
    now: datetime


def respond(state: State, request: Request) -> Reply:
    """Return the login page, or the redirect back to the client; without a redirect URI to trust, an error page."""
    form = dict(request.form)
    pairs = [*request.query, *((name, value) for name, value in request.form if name not in _FORM_FIELDS)]
    try:
        pushed = spent(state, pairs)
        if pushed is not None:
            pairs = list(pushed.parameters.items())
        client, redirect_uri = judge_redirect(state, pairs)
    except RedirectUnsafe as error:
        return error_page(str(error), status=400)
    try:
        parameters = once(pairs)
        if state.par == "required" and pushed is None:
            raise OAuthError("invalid_request", "Authorization requests have to be pushed.")
        visit = _Visit(
            client=client,
            redirect_uri=redirect_uri,
            parameters=parameters,
            asked=judge_request(parameters, client, further=state.resource_scopes()),
            pushed=pushed is not None,
            session=state.session_of(request),
            now=state.clock(),
        )
        if "decision" in form:
            return _decided(state, request, visit, form)
        if visit.session is not None and _enough(state, visit, visit.session):
            return _granted(state, visit, visit.session)
        if "none" in visit.asked.prompt:
            raise OAuthError("login_required", "Nobody is signed in, or not freshly enough.")
        return _page(state, request, visit)
    except OAuthError as error:
        states = [value for name, value in pairs if name == "state"]
        query = {"error": error.error, "error_description": error.description, "iss": state.issuer}
        return _redirect(redirect_uri, query | ({"state": states[0]} if len(states) == 1 else {}))


def _enough(state: State, visit: _Visit, session: Session) -> bool:
    asked = visit.asked
    if asked.prompt & {"login", "consent", "select_account"}:
        return False
    if asked.max_age is not None and (visit.now - session.auth_time).total_seconds() > asked.max_age:
        return False
    if "none" in asked.prompt:
        # There is no page to ask on. acr_values is a wish, and the answer says what was reached; what is more than a
        # wish is refused where the code would be made. Spec: OIDC Core 5.5.1.1.
        return True
    sub = state.subject(session.account, visit.client)
    wanted = ((session.acr, asked.acr_values), (session.acr, asked.essential_acr), (sub, asked.subs))
    return all(not values or value in values for value, values in wanted)


def _decided(state: State, request: Request, visit: _Visit, form: dict[str, str]) -> Reply:
    csrf = request.cookies.get(state.cookie_name("csrf"), "")
    if not csrf or not hmac.compare_digest(csrf.encode(), form.get("csrf", "").encode()):
        return _page(state, request, visit, fault="The form was out of date. Please sign in again.")
    if form["decision"] == "cancel":
        raise OAuthError("access_denied", "The person said no.")
    account = state.accounts.get(form.get("username", ""))
    given = form.get("password", "").encode()
    if account is None or not hmac.compare_digest(account.password.encode(), given):
        return _page(state, request, visit, fault="User name and password don't match.", username=form.get("username"))
    acr = account.stronger_acr if account.stronger_acr in visit.asked.acr_values else account.acr
    session = state.sign_in(account, acr=acr, previous=visit.session, now=visit.now)
    reply = _granted(state, visit, session)
    secure = "; Secure" if state.issuer.startswith("https:") else ""
    cookie = f"{state.cookie_name('session')}={session.cookie}; Path=/; HttpOnly; SameSite=Lax{secure}"
    reply.headers["Set-Cookie"] = cookie
    return reply


def _granted(state: State, visit: _Visit, session: Session) -> Reply:
    asked, client = visit.asked, visit.client
    if asked.essential_acr and session.acr not in asked.essential_acr:
        raise OAuthError("unmet_authentication_requirements", "The sign-in did not reach an essential acr.")
    sub = state.subject(session.account, client)
    if asked.subs and sub not in asked.subs:
        raise OAuthError("login_required", "Somebody else was asked for.")
    grant = Grant(
        client=client,
        account=session.account,
        sub=sub,
        sid=state.sid(session, client),
        scope=asked.scope,
        claims=asked.claims,
        nonce=asked.nonce,
        auth_time=session.auth_time,
        acr=session.acr,
        redirect_uri=visit.redirect_uri,
        code_challenge=asked.code_challenge,
        code=f"code_{token_b64url(32)}",
        code_expires_at=visit.now + state.code_lifetime,
    )
    with state.lock:
        state.grants[grant.code] = grant
        session.client_ids.add(client.client_id)
    query = {"code": grant.code, "iss": state.issuer}
    if "state" in visit.parameters:
        query["state"] = visit.parameters["state"]
    return _redirect(visit.redirect_uri, query)


def _redirect(redirect_uri: str, query: dict[str, str]) -> Reply:
    headers = {**NO_STORE, "Referrer-Policy": "no-referrer"}
    return Reply(status=303, headers=headers, redirect_to=redirect_uri, query=dict(query))


def _page(state: State, request: Request, visit: _Visit, *, fault: str = "", username: str | None = None) -> Reply:
    csrf = request.cookies.get(state.cookie_name("csrf"), "") or token_b64url(16)
    hint = visit.parameters.get("login_hint", "")
    reply = login_page(
        client=visit.client,
        accounts=state.accounts.values(),
        parameters=_continuing(state, visit),
        redirect_uri=visit.redirect_uri,
        scope=visit.asked.scope,
        claims=sorted({name for names in visit.asked.claims.values() for name in names} - set(PROTOCOL_CLAIMS)),
        csrf=csrf,
        username=username if username is not None else hint,
        fault=fault,
    )
    secure = "; Secure" if state.issuer.startswith("https:") else ""
    reply.headers["Set-Cookie"] = f"{state.cookie_name('csrf')}={csrf}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return reply


def _continuing(state: State, visit: _Visit) -> dict[str, str]:
    """A pushed request stays out of the browser: the page's form names a new request_uri, for one use as the first."""
    if not visit.pushed:
        return visit.parameters
    client_id = visit.client.client_id
    again = PushedRequest(client_id=client_id, parameters=visit.parameters, expires_at=visit.now + _AT_THE_PAGE)
    return {"client_id": client_id, "request_uri": keep(state, again)}
