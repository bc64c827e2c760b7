"""A provider one of whose endpoints is slow, and requests by strangers that make the portal call that endpoint."""

import base64
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.http_browser import Browser, PortalResponse
from tests.support.scripted_server import Peer, reply

Endpoint = Literal["discovery", "par", "token", "jwks"]
ENDPOINTS: tuple[Endpoint, ...] = ("discovery", "par", "token", "jwks")
PATHS: dict[str, Endpoint] = {
    "/.well-known/openid-configuration": "discovery",
    "/par": "par",
    "/token": "token",
    "/jwks": "jwks",
}
SIGN_IN = "/oidc/authenticate/"
CALLBACK = "/oidc/callback/"
BACKCHANNEL_LOGOUT = "/oidc/backchannel-logout/"
JSON_HEADERS = ("Content-Type: application/json", "Cache-Control: max-age=3600")


@dataclass(slots=True, kw_only=True)
class SlowProvider:
    """The script of a provider that delays the answers of one endpoint."""

    endpoint: Endpoint
    delay_seconds: float
    fails: bool = False
    """Whether that endpoint answers with status 503."""
    is_slow: threading.Event = field(default_factory=threading.Event)

    def answer(self, peer: Peer) -> None:
        while request := peer.read():
            path = request.split(b" ", 2)[1].decode()
            endpoint = PATHS[path]
            is_delayed = endpoint == self.endpoint and self.is_slow.is_set()
            if is_delayed and self._has_client_gone(peer):
                return
            if is_delayed and self.fails:
                peer.send(reply(status="503 Service Unavailable"))
            else:
                peer.send(self._create_reply(endpoint, peer.server.port))

    def _has_client_gone(self, peer: Peer) -> bool:
        """Wait for the delay, and return whether the portal has closed the connection."""
        peer.connection.settimeout(self.delay_seconds)
        try:
            return peer.connection.recv(1) == b""
        except TimeoutError:
            return False
        finally:
            peer.connection.settimeout(None)

    def _create_reply(self, endpoint: Endpoint, port: int) -> bytes:
        if endpoint == "token":
            return reply(b'{"error": "invalid_grant"}', *JSON_HEADERS, status="400 Bad Request")
        if endpoint == "par":
            pushed = {"request_uri": "urn:ietf:params:oauth:request_uri:1", "expires_in": 60}
            return reply(json.dumps(pushed).encode(), *JSON_HEADERS, status="201 Created")
        if endpoint == "jwks":
            return reply(json.dumps({"keys": [_create_public_key()]}).encode(), *JSON_HEADERS)
        return reply(json.dumps(self._create_metadata(port)).encode(), *JSON_HEADERS)

    def _create_metadata(self, port: int) -> dict[str, object]:
        issuer = f"http://127.0.0.1:{port}"
        metadata: dict[str, object] = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/revoke",
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }
        if self.endpoint == "par":
            metadata["pushed_authorization_request_endpoint"] = f"{issuer}/par"
        return metadata


def create_stranger(
    provider: SlowProvider, base_url: str, *, issuer: str, requests: int
) -> Callable[[], PortalResponse]:
    """Return a function that sends a request, without a session, for which the portal calls the endpoint.

    requests: how many will be sent. Calls the portal, while the provider is quick, for what they need.
    """
    if provider.endpoint == "token":
        started = deque(_start_sign_in(base_url) for _ in range(requests))
        return lambda: _send_callback(*started.popleft())
    if provider.endpoint == "jwks":
        token = _create_logout_token(issuer)
        return lambda: Browser(base_url).post(BACKCHANNEL_LOGOUT, logout_token=token)
    return lambda: Browser(base_url).get(SIGN_IN)


def _start_sign_in(base_url: str) -> tuple[Browser, str]:
    """Return a browser with the cookie of a started sign-in, and its state."""
    browser = Browser(base_url)
    (state,) = parse_qs(urlsplit(browser.get(SIGN_IN).location).query)["state"]
    return browser, state


def _send_callback(browser: Browser, state: str) -> PortalResponse:
    query = urlencode({"code": "a code that the provider refuses", "state": state})
    return browser.get(f"{CALLBACK}?{query}")


def _create_logout_token(issuer: str) -> str:
    header = _encode({"alg": "RS256", "typ": "logout+jwt", "kid": "a key that is not published"})
    payload = _encode({"iss": issuer, "aud": "portal"})
    return f"{header}.{payload}.{base64.urlsafe_b64encode(bytes(256)).decode().rstrip('=')}"


def _encode(members: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


def _create_public_key() -> dict[str, str]:
    """Return an RSA key. Its modulus is no product of primes: nothing is verified with it."""
    modulus = (1 << 2047) + 12345
    encoded = base64.urlsafe_b64encode(modulus.to_bytes(256, "big")).decode().rstrip("=")
    return {"kty": "RSA", "kid": "published", "use": "sig", "alg": "RS256", "e": "AQAB", "n": encoded}
