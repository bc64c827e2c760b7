"""The introspection endpoint. Spec: RFC 7662."""

from .client_auth import authenticate_client
from .messages import NO_STORE_HEADERS, OAuthError, ReceivedRequest, Reply
from .state import ProviderState


def handle_introspection(state: ProviderState, request: ReceivedRequest) -> Reply:
    """Return what is known of a live token of the asking client, or for an API; of any other, that it is not active.

    Spec: RFC 7662 2.2.
    """
    try:
        client, parameters = authenticate_client(state, request)
        if not parameters.get("token"):
            raise OAuthError("invalid_request", "token is missing.")
    except OAuthError as error:
        return error.to_reply()
    token = state.find_token(parameters["token"])
    is_known = token is not None and (token.resource or token.grant.client.client_id == client.client_id)
    if token is None or not is_known or not token.is_active(now=state.clock()):
        return Reply(headers=dict(NO_STORE_HEADERS), json={"active": False})
    return Reply(
        headers=dict(NO_STORE_HEADERS),
        json={
            "active": True,
            "iss": state.issuer,
            "sub": token.grant.sub,
            "aud": token.resource or client.client_id,
            "client_id": token.grant.client.client_id,
            "scope": " ".join(token.scope),
            "token_type": "Bearer" if token.kind == "access_token" else "refresh_token",
            "iat": int(token.issued_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
            "acr": token.grant.acr,
            "auth_time": int(token.grant.auth_time.timestamp()),
        },
    )
