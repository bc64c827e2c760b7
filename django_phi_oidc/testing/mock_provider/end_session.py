"""The end-session endpoint. Spec: OIDC RP-Initiated Logout 1.0."""

import logging

from ..._internal.randomness import token_b64url
from .backchannel import send_logout_token
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply, parse_unique_parameters
from .pages import render_error_page, render_sign_out_page, render_signed_out_page
from .registrations import Client
from .signing import has_valid_signature, parse_unverified
from .state import OPSession, ProviderState

logger = logging.getLogger(__name__)

_FORM_FIELDS = frozenset({"csrf", "decision"})


def handle_end_session(state: ProviderState, request: ReceivedRequest) -> Reply:
    """End the session: at once if the id_token_hint is of this session, otherwise after
    confirmation by the user.

    Redirect only to a URI that exactly equals a registered one of the client that the hint or
    client_id names.
    """
    form = dict(request.form)
    try:
        pairs = [
            *request.query,
            *((name, value) for name, value in request.form if name not in _FORM_FIELDS),
        ]
        parameters = parse_unique_parameters(pairs)
        hint = _parse_id_token_hint(state, parameters.get("id_token_hint", ""))
        client = _find_client(state, hint, parameters.get("client_id", ""))
        uri = parameters.get("post_logout_redirect_uri", "")
        if uri and (client is None or uri not in client.post_logout_redirect_uris):
            raise OAuthError(
                "invalid_request", "This post-logout redirect URI is not registered for the client."
            )
    except OAuthError as error:
        return render_error_page(error.description, status=error.status)
    session = state.find_session(request)
    if session is not None and not _is_confirmed(state, request, session, form, hint):
        return _render_confirmation(state, request, parameters)
    if session is not None:
        _end_session(state, session, initiating_client=client)

    if uri:
        if "state" in parameters:
            query = {"state": parameters["state"]}
        else:
            query = {}
        reply = Reply(
            status=303,
            headers={**NO_STORE_HEADERS, "Referrer-Policy": "no-referrer"},
            redirect_to=uri,
            query=query,
        )
    else:
        reply = render_signed_out_page()

    reply.headers["Set-Cookie"] = (
        f"{state.get_cookie_name('session')}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    )
    return reply


def _parse_id_token_hint(state: ProviderState, token: str) -> dict[str, str]:
    if not token:
        return {}
    try:
        header, claims = parse_unverified(token)
    except ValueError:
        header = {}
        claims = {}
    # Times are not checked: an expired ID Token is accepted as hint. Spec: RP-Initiated Logout 4.
    if claims.get("iss") != state.issuer or not _is_signed_by_provider(
        state, token, alg=header.get("alg")
    ):
        raise OAuthError("invalid_request", "The id_token_hint was not issued by this provider.")
    token_hint = {}
    for name in ("aud", "sub", "sid"):
        if isinstance(claims.get(name), str):
            token_hint[name] = claims[name]
    return token_hint


def _is_signed_by_provider(state: ProviderState, token: str, *, alg: object) -> bool:
    """Return whether a current or retired key of the provider has signed the token."""
    for key in (*state.published_keys, *state.retired_keys):
        public_key = key.private_key.public_key()
        if key.alg == alg and has_valid_signature(token, public_key, alg=key.alg):
            return True
    return False


def _find_client(state: ProviderState, hint: dict[str, str], client_id: str) -> Client | None:
    if hint and client_id and hint.get("aud") != client_id:
        raise OAuthError("invalid_request", "client_id and id_token_hint name different clients.")
    return state.clients.get(hint.get("aud", client_id))


def _is_confirmed(
    state: ProviderState,
    request: ReceivedRequest,
    session: OPSession,
    form: dict[str, str],
    hint: dict[str, str],
) -> bool:
    if form.get("decision") == "sign-out":
        return state.is_csrf_valid(request, form)
    client = state.clients.get(hint.get("aud", ""))
    return client is not None and hint.get("sid") == state.get_sid(session, client)


def _render_confirmation(
    state: ProviderState, request: ReceivedRequest, parameters: dict[str, str]
) -> Reply:
    csrf = state.find_csrf_token(request) or token_b64url(16)
    reply = render_sign_out_page(parameters=parameters, csrf=csrf)
    reply.headers["Set-Cookie"] = state.build_cookie("csrf", csrf)
    return reply


def _end_session(
    state: ProviderState, session: OPSession, *, initiating_client: Client | None
) -> None:
    state.end_session(session)
    for client_id in sorted(session.client_ids):
        client = state.clients[client_id]
        if client is initiating_client or not client.backchannel_logout_uri:
            continue
        sub = state.get_subject(session.account, client)
        sid = state.get_sid(session, client)
        try:
            send_logout_token(state, client, sub=sub, sid=sid)
        except OSError:
            logger.warning("The logout token could not be sent to client %s.", client_id)
