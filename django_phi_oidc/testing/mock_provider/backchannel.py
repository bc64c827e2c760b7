"""Outgoing requests of the provider, and logout tokens. Spec: OIDC Back-Channel Logout 1.0, 2.4,
2.5.

Outgoing connections ignore proxy variables, follow no redirects, and have a timeout.
"""

import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..._internal.randomness import token_b64url
from .client_connections import build_request_target, create_connection
from .messages import ReceivedRequest
from .registrations import Client
from .state import ProviderState

BACKCHANNEL_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_LIFETIME = timedelta(minutes=2)
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelLogoutResponse:
    """The client's response to a logout token. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


def create_logout_token(
    state: ProviderState, client: Client, *, sub: str = "", sid: str = "", jti: str = ""
) -> str:
    """Return a logout token with a sub, a sid or both; the hook's stage is `logout_token`.

    Raises: ValueError without sub and sid.
    """
    if not sub and not sid:
        raise ValueError("A logout token needs a sub, a sid or both.")
    now = state.clock()
    claims: dict[str, Any] = {
        "iss": state.issuer,
        "aud": client.client_id,
        "iat": int(now.timestamp()),
        "exp": int((now + LOGOUT_TOKEN_LIFETIME).timestamp()),
        "jti": jti or token_b64url(16),
        "events": {BACKCHANNEL_LOGOUT_EVENT: {}},
    }
    if sub:
        claims["sub"] = sub
    if sid:
        claims["sid"] = sid
    request = ReceivedRequest(method="", path="")
    token = state.sign_claims("logout_token", request, claims, typ="logout+jwt")
    return state.encrypt_token("logout_token_jwe", request, token, client)


def send_logout_token(
    state: ProviderState,
    client: Client,
    *,
    sub: str = "",
    sid: str = "",
    jti: str = "",
    ssl_context: ssl.SSLContext | None = None,
) -> BackchannelLogoutResponse:
    """Post a logout token to the client's back-channel logout URI and return the response.

    Raises: OSError without a response in time; ValueError if the client registered no such URI.
    """
    if not client.backchannel_logout_uri:
        raise ValueError(f"Client {client.client_id} has no back-channel logout URI.")
    token = create_logout_token(state, client, sub=sub, sid=sid, jti=jti)
    url = urlsplit(client.backchannel_logout_uri)
    connection = create_connection(url, timeout_seconds=TIMEOUT_SECONDS, ssl_context=ssl_context)
    try:
        connection.request(
            "POST",
            build_request_target(url),
            body=urlencode({"logout_token": token}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        response = connection.getresponse()
        headers = {}
        for name, value in response.getheaders():
            headers[name.lower()] = value
        return BackchannelLogoutResponse(
            status=response.status, headers=headers, body=response.read()
        )
    except HTTPException as error:
        raise ConnectionError("The client's response is not HTTP.") from error
    finally:
        connection.close()
