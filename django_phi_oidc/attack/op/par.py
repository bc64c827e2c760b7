"""The pushed authorization request endpoint, and what became of a push. Spec: RFC 9126."""

from ...entropy import token_b64url
from .authorization_request import RedirectUnsafe, judge_redirect, judge_request
from .client_auth import CREDENTIALS, authenticated
from .messages import NO_STORE, OAuthError, Pairs, Reply, Request
from .state import PushedRequest, State

URN = "urn:ietf:params:oauth:request_uri:"


def respond(state: State, request: Request) -> Reply:
    """Return a request_uri for what the client pushed, or why the authorization endpoint would not grant it.

    Spec: RFC 9126 2.1 to 2.3.
    """
    if state.par == "off":
        return Reply(status=404)
    try:
        client, form = authenticated(state, request)
        if "request_uri" in form:
            raise OAuthError("invalid_request", "A push holds the request itself, no request_uri.")
        parameters = {name: value for name, value in form.items() if name not in CREDENTIALS}
        judge_redirect(state, list(parameters.items()))
        judge_request(parameters, client)
    except RedirectUnsafe as error:
        return OAuthError("invalid_request", str(error)).reply()
    except OAuthError as error:
        return error.reply()
    pushed = PushedRequest(
        client_id=client.client_id, parameters=parameters, expires_at=state.clock() + state.pushed_lifetime
    )
    body = {"request_uri": keep(state, pushed), "expires_in": int(state.pushed_lifetime.total_seconds())}
    return Reply(status=201, headers=dict(NO_STORE), json=body)


def keep(state: State, pushed: PushedRequest) -> str:
    """Return a new request_uri that stands for pushed."""
    request_uri = f"{URN}{token_b64url(32)}"
    with state.lock:
        state.pushed[request_uri] = pushed
    return request_uri


def spent(state: State, pairs: Pairs) -> PushedRequest | None:
    """Return what was pushed under the request_uri of an authorization request, for the last time; None: it has none.

    Whatever else stands in pairs does not count. Another client's try leaves the push to its own.

    Raises: RedirectUnsafe when the request_uri is unknown, used, expired or another client's. Spec: RFC 9126 4.
    """
    uris = [value for name, value in pairs if name == "request_uri"]
    if state.par == "off" or not any(value.startswith(URN) for value in uris):
        return None
    client_ids = [value for name, value in pairs if name == "client_id"]
    if len(uris) != 1 or len(client_ids) != 1:
        raise RedirectUnsafe("client_id and request_uri are each needed once.")
    with state.lock:
        pushed = state.pushed.get(uris[0])
        if pushed is not None and pushed.client_id == client_ids[0]:
            del state.pushed[uris[0]]
            if state.clock() < pushed.expires_at:
                return pushed
    raise RedirectUnsafe("The pushed request is unknown, used, expired, or another client's.")
