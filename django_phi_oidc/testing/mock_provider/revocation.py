"""The revocation endpoint. Spec: RFC 7009."""

from .client_auth import authenticate_client
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply
from .state import ProviderState


def handle_revocation(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return 200 when the token is dead, also one that never lived; a refresh token takes all of its grant with it.

    The hint is not needed to find the token. A token of another client is refused. Spec: RFC 7009 2.1, 2.2.
    """
    try:
        client, parameters = authenticate_client(state, request)
        if not parameters.get("token"):
            raise OAuthError("invalid_request", "token is missing.")
        with state.lock:
            token = state.find_token(parameters["token"])
            if token is not None and token.grant.client.client_id != client.client_id:
                raise OAuthError("invalid_grant", "The token was issued to another client.")
            if token is not None:
                token.revoked = True
                token.grant.revoked = token.grant.revoked or token.kind == "refresh_token"
    except OAuthError as error:
        return error.to_reply()
    return Reply(headers=dict(NO_STORE_HEADERS))
