"""The introspection endpoint. Spec: RFC 7662."""

from .client_auth import authenticated
from .messages import NO_STORE, OAuthError, Reply, Request
from .state import State


def respond(state: State, request: Request) -> Reply:
    """Return what is known of a live token of the asking client; of any other, only that it is not active.

    Spec: RFC 7662 2.2.
    """
    try:
        client, parameters = authenticated(state, request)
        if not parameters.get("token"):
            raise OAuthError("invalid_request", "token is missing.")
    except OAuthError as error:
        return error.reply()
    token = state.find_token(parameters["token"])
    if token is None or token.grant.client.client_id != client.client_id or not token.active(now=state.clock()):
        return Reply(headers=dict(NO_STORE), json={"active": False})
    return Reply(
        headers=dict(NO_STORE),
        json={
            "active": True,
            "iss": state.issuer,
            "sub": token.grant.sub,
            "aud": client.client_id,
            "client_id": client.client_id,
            "scope": " ".join(token.scope),
            "token_type": "Bearer" if token.kind == "access_token" else "refresh_token",
            "iat": int(token.issued_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
        },
    )
