"""A federation for tests: entities with keys, and the statements that they sign."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django_phi_oidc.testing.mock_provider import SigningKey, create_signing_key, sign_jwt
from tests.support.scripted_server import Peer, Server, reply, serving

HANGING = b""
"""Instead of a response: the server sends none."""
OP_METADATA = {
    "subject_types_supported": ["pairwise", "public"],
    "id_token_signing_alg_values_supported": ["ES256"],
    "client_registration_types_supported": ["automatic"],
}


@dataclass
class Entity:
    """An entity, and the claims that differ from those that its statements have otherwise."""

    identifier: str
    superiors: tuple[str, ...] = ()
    key: SigningKey = field(default_factory=lambda: create_signing_key("ES256"))
    metadata: dict[str, Any] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)
    """Claims of the statement about itself."""
    subordinates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Claims of the statements about subordinates, by entity identifier."""

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.public_jwk()]}


class Federation:
    """A provider `op`, an intermediate and a trust anchor, unless the test adds others."""

    def __init__(self, base: str, *, now: datetime, key: SigningKey | None = None) -> None:
        """key: of all entities and for tokens; each has one of its own by default."""
        self.now = now
        self.op, self.middle, self.anchor = f"{base}/op", f"{base}/middle", f"{base}/anchor"
        self.entities = {
            self.op: Entity(self.op, (self.middle,)),
            self.middle: Entity(self.middle, (self.anchor,), subordinates={self.op: {}}),
            self.anchor: Entity(self.anchor, subordinates={self.middle: {}}),
        }
        names = ("authorization_endpoint", "token_endpoint", "revocation_endpoint")
        endpoints = {name: f"{self.op}/{name}" for name in names}
        self.token_key = key or create_signing_key("ES256")
        for entity in self.entities.values():
            entity.key = key or entity.key
        self.entities[self.op].metadata = {
            "openid_provider": {
                "issuer": self.op,
                "jwks": {"keys": [self.token_key.public_jwk()]},
                **endpoints,
                **OP_METADATA,
            }
        }

    def __getitem__(self, identifier: str) -> Entity:
        return self.entities[identifier]

    def sign(self, entity: Entity, claims: Mapping[str, Any], **header: Any) -> str:
        parts = {"alg": entity.key.alg, "kid": entity.key.kid, "typ": "entity-statement+jwt", **header}
        return sign_jwt({name: value for name, value in parts.items() if value is not None}, claims, entity.key)

    def build_configuration(self, identifier: str) -> dict[str, Any]:
        entity = self[identifier]
        fetch = {"federation_fetch_endpoint": f"{identifier}/fetch"} if entity.subordinates else {}
        return {
            **self._build_statement(identifier, identifier),
            "metadata": {"federation_entity": fetch, **entity.metadata},
            **({"authority_hints": list(entity.superiors)} if entity.superiors else {}),
            **entity.configuration,
        }

    def build_subordinate_statement(self, superior: str, subject: str) -> dict[str, Any]:
        return {**self._build_statement(superior, subject), **self[superior].subordinates[subject]}

    def create_configuration(self, identifier: str) -> str:
        return self.sign(self[identifier], self.build_configuration(identifier))

    def create_subordinate_statement(self, superior: str, subject: str) -> str:
        return self.sign(self[superior], self.build_subordinate_statement(superior, subject))

    def _build_statement(self, iss: str, sub: str) -> dict[str, Any]:
        seconds = int(self.now.timestamp())
        lifetime = int(timedelta(hours=12).total_seconds())
        return {"iss": iss, "sub": sub, "iat": seconds, "exp": seconds + lifetime, "jwks": self[sub].jwks}

    def respond(self, target: str, base: str) -> bytes:
        """Return the HTTP response of the entity to a request for that target."""
        parts = urlsplit(target)
        path, sub = base + parts.path, parse_qs(parts.query).get("sub", [""])[0]
        for identifier, entity in self.entities.items():
            if path == f"{identifier}/.well-known/openid-federation":
                return _reply_statement(self.create_configuration(identifier))
            if path == f"{identifier}/fetch" and sub in entity.subordinates:
                return _reply_statement(self.create_subordinate_statement(identifier, sub))
        return reply(json.dumps({"error": "not_found"}).encode(), status="404 Not Found")


def _reply_statement(statement: str) -> bytes:
    return reply(statement.encode(), "Content-Type: application/entity-statement+jwt")


@dataclass
class FederationServer:
    """All entities of a federation, on one socket."""

    federation: Federation
    server: Server
    responses: dict[str, bytes]
    """By target, instead of those of the federation."""

    @property
    def targets(self) -> list[str]:
        return [request.split(b" ")[1].decode() for request in self.server.requests]


@contextmanager
def serving_federation(tls: ssl.SSLContext, *, now: datetime) -> Iterator[FederationServer]:
    """Serve a federation on a real socket for the length of the block."""

    def script(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            target = request.split(b" ")[1].decode()
            response = served.responses.get(target)
            if response == HANGING:
                peer.connection.recv(1)
                return
            peer.send(response or served.federation.respond(target, base))

    with serving(script, tls=tls) as server:
        base = server.url.removesuffix("/")
        served = FederationServer(Federation(base, now=now), server, {})
        yield served
