"""A minimal provider: `python -m tests.benchmarks.sign_in.provider CERTIFICATE` prints its two ports.

The first port is for portals: TLS 1.3, persistent HTTP/1.1 connections, and a configurable round-trip time, applied
once for TCP, once for the TLS handshake and once per request. The second port controls the measurement.

ID Tokens are signed in the authorization request, and encrypted for one client, not in the token request, so that only
the portal is timed. Nothing is checked.
"""

import json
import socket
import ssl
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.benchmarks.sign_in.encryption import ENCRYPTED_CLIENT_ID, encrypt_id_token

PERSON = {"sub": "5b1c9a52-6f9e-4a53-8c0e-2f6b8f0c8b1d", "email": "amina@example.org"}
CLAIMS = {"birthdate": "1984-03-09", "address": {"formatted": "Storgatan 1\n111 22 Stockholm", "country": "SE"}}
Headers = Mapping[bytes, bytes]
"""With names in lower case."""
Response = tuple[int, Mapping[str, str], bytes]


class Provider:
    """The endpoints of the provider, and its counters."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.round_trip = 0.0
        """Seconds."""
        self.connections = 0
        self.requests = 0
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._token_responses: dict[str, bytes] = {}

    def for_portals(self, path: str, query: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        """Return the response to a portal."""
        match path:
            case "/.well-known/openid-configuration":
                return _json(self._metadata())
            case "/jwks":
                jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
                return _json({"keys": [{**jwk, "kid": "bench", "use": "sig", "alg": "RS256"}]})
            case "/token":
                return 200, {}, self._token_responses.pop(dict(parse_qsl(body.decode()))["code"])
            case "/revoke":
                return 200, {}, b""
            case "/userinfo":
                return _json(_person(headers[b"authorization"].split()[1].decode().partition(".")[0]))
        return 404, {}, b""

    def for_measuring(self, path: str, query: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        """Return the response to the measurement."""
        match path:
            case "/authorize":
                code = token_urlsafe(16)
                self._token_responses[code] = self._tokens(query)
                return 302, {"Location": f"{query['redirect_uri']}?{urlencode({'code': code, **_state(query)})}"}, b""
            case "/round-trip":
                self.round_trip = float(query["seconds"])
                return _json(None)
            case "/counts":
                return _json({"connections": self.connections, "requests": self.requests})
        return 404, {}, b""

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": ["ES256"],
        }

    def _tokens(self, query: Mapping[str, str]) -> bytes:
        person = query.get("person", "")
        now, access_token = int(time.time()), f"{person}.{token_urlsafe(32)}"
        claims = {
            "iss": self.issuer,
            "sub": _person(person)["sub"],
            "aud": query["client_id"],
            "iat": now,
            "exp": now + 300,
            **({"nonce": query["nonce"]} if "nonce" in query else {}),
            "sid": token_urlsafe(16),
            # Not declared: dropped, and recorded once.
            "locale": "sv",
            "at_hash": urlsafe_b64encode(sha256(access_token.encode()).digest()[:16]).rstrip(b"=").decode(),
            **CLAIMS,
        }
        id_token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "bench"})
        tokens = {
            "access_token": access_token,
            "token_type": "DPoP" if "dpop_jkt" in query else "Bearer",
            "expires_in": 300,
            "refresh_token": token_urlsafe(32),
            "id_token": encrypt_id_token(id_token) if query["client_id"] == ENCRYPTED_CLIENT_ID else id_token,
        }
        return json.dumps(tokens).encode()


def _person(number: str) -> dict[str, str]:
    """Return the person of that number, which the measurement chooses; of "": the one of most measurements."""
    return {"sub": f"person-{number}", "email": f"person-{number}@example.org"} if number else PERSON


def _state(query: Mapping[str, str]) -> dict[str, str]:
    return {"state": query["state"]}


def _json(value: Any) -> Response:
    return 200, {"Cache-Control": "max-age=3600"}, json.dumps(value).encode()


def listen() -> socket.socket:
    """Return a socket that listens on a free port of the loopback address."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def serve_portals(listener: socket.socket, provider: Provider, context: ssl.SSLContext) -> None:
    """Serve the portals over TLS with the configured round-trip time."""

    def serve(connection: socket.socket) -> None:
        # The loopback interface has no latency, so the round trips of TCP and TLS are simulated here.
        time.sleep(2 * provider.round_trip)
        with context.wrap_socket(connection, server_side=True) as secured:
            _converse(secured, respond)

    def respond(path: str, query: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        provider.requests += 1
        time.sleep(provider.round_trip)
        return provider.for_portals(path, query, headers, body)

    while True:
        connection = listener.accept()[0]
        provider.connections += 1
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve_measuring(listener: socket.socket, provider: Provider) -> None:
    """Serve the measurement."""

    def serve(connection: socket.socket) -> None:
        with connection:
            _converse(connection, provider.for_measuring)

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def _converse(connection: socket.socket, respond: Callable[[str, Mapping[str, str], Headers, bytes], Response]) -> None:
    """Respond to requests until the client closes the connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection.makefile("rb") as stream:
        while line := stream.readline():
            target = urlsplit(line.split()[1].decode())
            headers = _read_headers(stream)
            body = stream.read(int(headers.get(b"content-length", 0)))
            status, added, content = respond(target.path, dict(parse_qsl(target.query)), headers, body)
            head = {"Content-Type": "application/json", "Content-Length": str(len(content)), **added}
            lines = [f"HTTP/1.1 {status} OK", *(f"{name}: {value}" for name, value in head.items()), "", ""]
            connection.sendall("\r\n".join(lines).encode() + content)


def _read_headers(stream: BinaryIO) -> Headers:
    """Read the headers of a request."""
    headers = {}
    while (line := stream.readline()).strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    return headers


def main(provider_class: type[Provider] = Provider) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(sys.argv[1])
    portals, measuring = listen(), listen()
    provider = provider_class(f"https://127.0.0.1:{portals.getsockname()[1]}")
    threading.Thread(target=serve_portals, args=(portals, provider, context), daemon=True).start()
    print(portals.getsockname()[1], measuring.getsockname()[1], flush=True)
    serve_measuring(measuring, provider)


if __name__ == "__main__":
    main()
