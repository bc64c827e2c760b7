"""Who is asking at a back-channel endpoint. Spec: RFC 6749 2.3.1, RFC 7523 2.2."""

import base64
import binascii
import hmac
from urllib.parse import unquote_plus

from .client_assertion import client_of_assertion
from .messages import OAuthError, Request, invalid_client, once
from .registrations import Client, ClientAuthMethod
from .state import State

CREDENTIALS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
"""Parameters that are for client authentication alone."""


def authenticated(state: State, request: Request) -> tuple[Client, dict[str, str]]:
    """Return the client that proved itself by exactly one method, and the form's parameters.

    Raises: OAuthError invalid_client (401), or invalid_request: two methods at once, anything in the URL's query.
    """
    if request.query:
        raise OAuthError("invalid_request", "Parameters belong in the form: a URL ends up in logs.")
    parameters = once(request.form)
    authorization = request.headers.get("authorization", "")
    ways = [bool(authorization), "client_secret" in parameters, "client_assertion" in parameters]
    if sum(ways) > 1:
        raise OAuthError("invalid_request", "Two ways of client authentication in one request.")
    if authorization:
        client = _of_secret(state, *_basic(authorization), method="client_secret_basic")
    elif "client_assertion" in parameters:
        client = client_of_assertion(state, parameters)
    else:
        given = (parameters.get("client_id", ""), parameters.get("client_secret", ""))
        client = _of_secret(state, *given, method="client_secret_post")
    if parameters.get("client_id", client.client_id) != client.client_id:
        raise invalid_client("client_id is another.")
    return client, parameters


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
        raise invalid_client("Malformed credentials.") from error


def _of_secret(state: State, client_id: str, secret: str, *, method: ClientAuthMethod) -> Client:
    client = state.clients.get(client_id)
    if (
        client is None
        or not client.client_secret
        or method not in client.token_endpoint_auth_methods
        or not hmac.compare_digest(client.client_secret.encode(), secret.encode())
    ):
        raise invalid_client("Client authentication failed.")
    return client
