"""The pushed authorization request endpoint, and what became of a push. Spec: RFC 9126."""

from ..._internal.randomness import token_b64url
from .authorization_request import UntrustedRedirectURI, validate_authorization_request, validate_redirect_uri
from .client_auth import CREDENTIAL_PARAMETERS, authenticate_client
from .messages import NO_STORE_HEADERS, OAuthError, ParameterPairs, ReceivedRequest, Reply
from .state import ProviderState, PushedAuthorizationRequest

REQUEST_URI_PREFIX = "urn:ietf:params:oauth:request_uri:"


def handle_par(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return a request_uri for what the client pushed, or why the authorization endpoint would not grant it.

    Spec: RFC 9126 2.1 to 2.3.
    """
    if state.par == "off":
        return Reply(status=404)
    try:
        client, form = authenticate_client(state, request)
        if "request_uri" in form:
            raise OAuthError("invalid_request", "A push holds the request itself, no request_uri.")
        parameters = {name: value for name, value in form.items() if name not in CREDENTIAL_PARAMETERS}
        validate_redirect_uri(state, list(parameters.items()))
        validate_authorization_request(parameters, client)
    except UntrustedRedirectURI as error:
        return OAuthError("invalid_request", str(error)).to_reply()
    except OAuthError as error:
        return error.to_reply()
    pushed = PushedAuthorizationRequest(
        client_id=client.client_id, parameters=parameters, expires_at=state.clock() + state.pushed_request_lifetime
    )
    body = {
        "request_uri": store_pushed_request(state, pushed),
        "expires_in": int(state.pushed_request_lifetime.total_seconds()),
    }
    return Reply(status=201, headers=dict(NO_STORE_HEADERS), json=body)


def store_pushed_request(state: ProviderState, pushed_request: PushedAuthorizationRequest) -> str:
    """Return a new request_uri that stands for pushed."""
    request_uri = f"{REQUEST_URI_PREFIX}{token_b64url(32)}"
    with state.lock:
        state.pushed_requests[request_uri] = pushed_request
    return request_uri


def consume_pushed_request(state: ProviderState, pairs: ParameterPairs) -> PushedAuthorizationRequest | None:
    """Return what was pushed under the request_uri of an authorization request, for the last time; None: it has none.

    Whatever else stands in pairs does not count. Another client's try leaves the push to its own.

    Raises: RedirectUnsafe when the request_uri is unknown, used, expired or another client's. Spec: RFC 9126 4.
    """
    uris = [value for name, value in pairs if name == "request_uri"]
    if state.par == "off" or not any(value.startswith(REQUEST_URI_PREFIX) for value in uris):
        return None
    client_ids = [value for name, value in pairs if name == "client_id"]
    if len(uris) != 1 or len(client_ids) != 1:
        raise UntrustedRedirectURI("client_id and request_uri are each needed once.")
    with state.lock:
        pushed = state.pushed_requests.get(uris[0])
        if pushed is not None and pushed.client_id == client_ids[0]:
            del state.pushed_requests[uris[0]]
            if state.clock() < pushed.expires_at:
                return pushed
    raise UntrustedRedirectURI("The pushed request is unknown, used, expired, or another client's.")
