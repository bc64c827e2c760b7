"""Who is asking at a back-channel endpoint. Spec: RFC 6749 2.3.1."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from .messages import OAuthError, Request, once
from .registrations import Client, ClientAuthMethod
from .state import State

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="demo provider"'}


def authenticated(state: State, request: Request) -> tuple[Client, dict[str, str]]:
    """Return the client that proved itself by exactly one method, and the form's parameters.

    Raises: OAuthError invalid_client (401), or invalid_request: two methods at once, anything in the URL's query.
    """
    if request.query:
        raise OAuthError("invalid_request", "Parameters belong in the form: a URL ends up in logs.")
    parameters = once(request.form)
    authorization = request.headers.get("authorization", "")
    if authorization and "client_secret" in parameters:
        raise OAuthError("invalid_request", "Two ways of client authentication in one request.")
    if authorization:
        return _checked(state, *_basic(authorization), method="client_secret_basic", parameters=parameters), parameters
    client_id, secret = parameters.get("client_id", ""), parameters.get("client_secret", "")
    return _checked(state, client_id, secret, method="client_secret_post", parameters=parameters), parameters


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("ascii")
        client_id, colon, secret = decoded.partition(":")
        if scheme.lower() != "basic" or not colon:
            raise ValueError("No Basic credentials.")
        # Both halves are form-encoded before they are joined, so that either may hold a colon.
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as error:
        raise OAuthError("invalid_client", "Malformed credentials.", status=401, headers=_CHALLENGE) from error


def _checked(
    state: State, client_id: str, secret: str, *, method: ClientAuthMethod, parameters: Mapping[str, str]
) -> Client:
    client = state.clients.get(client_id)
    if (
        client is None
        or not client.client_secret
        or method not in client.token_endpoint_auth_methods
        or parameters.get("client_id", client_id) != client_id
        or not hmac.compare_digest(client.client_secret.encode(), secret.encode())
    ):
        raise OAuthError("invalid_client", "Client authentication failed.", status=401, headers=_CHALLENGE)
    return client
