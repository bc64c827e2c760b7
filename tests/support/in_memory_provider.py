"""A provider in memory, behind the Transport interface, and a clock that a test sets."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from django_phi_oidc.errors import PhiOidcError
from django_phi_oidc.http.transport import TransportRequest, TransportResponse

ISSUER = "https://127.0.0.1"
METADATA = "/.well-known/openid-configuration"
JWKS = "/jwks"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeOP:
    """A Transport that answers from memory, counts requests, and blocks while `gate` is closed."""

    metadata: dict[str, Any] = field(default_factory=dict)
    kids: list[str] = field(default_factory=lambda: ["a"])
    use: str = "sig"
    """Of the keys."""
    cache_control: str = "max-age=3600"
    error: PhiOidcError | None = None
    status: int = 200
    sent: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    received: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.gate.set()

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        path = request.url.removeprefix(ISSUER)
        self.sent.append(path)
        self.timeouts.append(timeout_seconds)
        body = json.dumps(
            self._document() if path == METADATA else {"keys": [{**jwk(kid), "use": self.use} for kid in self.kids]}
        )
        self.received.release()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        headers = {"content-type": "application/json", "cache-control": self.cache_control}
        return TransportResponse(status=self.status, headers=headers, body=body.encode())

    def count(self, path: str) -> int:
        return self.sent.count(path)

    def _document(self) -> dict[str, Any]:
        return {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "revocation_endpoint": f"{ISSUER}/revoke",
            "jwks_uri": ISSUER + JWKS,
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            **self.metadata,
        }


def jwk(kid: str) -> Mapping[str, str]:
    public: dict[str, str] = json.loads(OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key()))
    return {**public, "kid": kid, "alg": "EdDSA", "use": "sig"}
