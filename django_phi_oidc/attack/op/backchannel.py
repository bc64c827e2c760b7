"""Logout tokens, made and sent. Spec: OIDC Back-Channel Logout 1.0, 2.4, 2.5."""

import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from urllib.parse import urlencode, urlsplit

from ...entropy import token_b64url
from .messages import Exchange
from .outgoing import connect, target
from .registrations import Client
from .state import State

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_LIFETIME = timedelta(minutes=2)
DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """What the client said to a logout token. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


def logout_token(state: State, client: Client, *, sub: str = "", sid: str = "", jti: str = "") -> str:
    """Return a logout token for client, of a person, of a session or of both; the hook's stage is `logout_token`.

    Raises: ValueError when it would be about nobody.
    """
    if not sub and not sid:
        raise ValueError("A logout token names a sub, a sid or both.")
    now = state.clock()
    key = state.keys[state.signing_alg]
    exchange = Exchange(
        header={"alg": key.alg, "kid": key.kid, "typ": "logout+jwt"},
        claims={
            "iss": state.issuer,
            "aud": client.client_id,
            "iat": int(now.timestamp()),
            "exp": int((now + LOGOUT_TOKEN_LIFETIME).timestamp()),
            "jti": jti or token_b64url(16),
            "events": {EVENT: {}},
            **({"sub": sub} if sub else {}),
            **({"sid": sid} if sid else {}),
        },
        key=key,
    )
    return state.signed("logout_token", exchange)


def send_logout(
    state: State,
    client: Client,
    *,
    sub: str = "",
    sid: str = "",
    jti: str = "",
    trust: ssl.SSLContext | None = None,
) -> ClientAnswer:
    """Return the client's answer to a logout token that was posted to its back-channel logout URI.

    Raises: OSError when there was no answer in time; ValueError when the client registered no such URI.
    """
    if not client.backchannel_logout_uri:
        raise ValueError(f"Client {client.client_id} has no back-channel logout URI.")
    token = logout_token(state, client, sub=sub, sid=sid, jti=jti)
    url = urlsplit(client.backchannel_logout_uri)
    connection = connect(url, timeout=DEADLINE_SECONDS, trust=trust)
    try:
        connection.request(
            "POST",
            target(url),
            body=urlencode({"logout_token": token}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return ClientAnswer(status=response.status, headers=headers, body=response.read())
    except HTTPException as error:
        raise ConnectionError("The client's answer was not HTTP.") from error
    finally:
        connection.close()
