"""Client authentication at back-channel endpoints. Spec: RFC 6749 2.3.1, RFC 7523 2.2."""

import base64
import binascii
import hmac
from urllib.parse import unquote_plus

from .client_assertion import authenticate_by_assertion
from .messages import (
    OAuthError,
    ReceivedRequest,
    create_invalid_client_error,
    parse_unique_parameters,
)
from .registrations import Client, ClientAuthMethod
from .state import ProviderState

CREDENTIAL_PARAMETERS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
"""Parameters that are only for client authentication."""


def authenticate_client(
    state: ProviderState, request: ReceivedRequest
) -> tuple[Client, dict[str, str]]:
    """Return the client, which must authenticate by exactly one method, and the form parameters.

    Raises: OAuthError invalid_client (401), or invalid_request for two methods or a query string.
    """
    if request.query:
        raise OAuthError(
            "invalid_request", "Parameters must be in the form, because URLs are logged."
        )
    parameters = parse_unique_parameters(request.form)
    authorization = request.headers.get("authorization", "")
    methods = [bool(authorization), "client_secret" in parameters, "client_assertion" in parameters]
    if sum(methods) > 1:
        raise OAuthError("invalid_request", "Two methods of client authentication in one request.")
    if authorization:
        client = _authenticate_by_secret(
            state, *_parse_basic_credentials(authorization), method="client_secret_basic"
        )
    elif "client_assertion" in parameters:
        client = authenticate_by_assertion(state, parameters)
    else:
        client_id = parameters.get("client_id", "")
        secret = parameters.get("client_secret", "")
        client = _authenticate_by_secret(state, client_id, secret, method="client_secret_post")
    if parameters.get("client_id", client.client_id) != client.client_id:
        raise create_invalid_client_error("client_id is that of another client.")
    return client, parameters


def _parse_basic_credentials(authorization: str) -> tuple[str, str]:
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("ascii")
        client_id, colon, secret = decoded.partition(":")
        if scheme.lower() != "basic" or not colon:
            raise ValueError("No Basic credentials.")
        # Both parts are form-encoded before they are joined, so each may contain a colon.
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as error:
        raise create_invalid_client_error("Malformed credentials.") from error


def _authenticate_by_secret(
    state: ProviderState, client_id: str, secret: str, *, method: ClientAuthMethod
) -> Client:
    client = state.clients.get(client_id)
    if (
        client is None
        or not client.client_secret
        or method not in client.token_endpoint_auth_methods
        or not hmac.compare_digest(client.client_secret.encode(), secret.encode())
    ):
        raise create_invalid_client_error("Client authentication failed.")
    return client
