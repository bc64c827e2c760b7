"""A server on loopback with the metadata of providers at several paths."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import served_by

WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass
class MetadataServer:
    """documents: path of an issuer → its metadata, in which `{base}` is the address of the server."""

    base: str
    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    requested_paths: list[str] = field(default_factory=list)

    def publish(self, path: str, **members: Any) -> str:
        """Publish the metadata of the issuer with that path, and return the issuer."""
        issuer = f"{self.base}{path}"
        endpoints = {
            "authorization_endpoint": f"{issuer}/protocol/openid-connect/auth",
            "token_endpoint": f"{issuer}/protocol/openid-connect/token",
            "jwks_uri": f"{issuer}/protocol/openid-connect/certs",
            "revocation_endpoint": f"{issuer}/protocol/openid-connect/revoke",
        }
        self.documents[path.rstrip("/")] = {
            "issuer": issuer,
            "subject_types_supported": ["public", "pairwise"],
            **endpoints,
            **members,
        }
        return issuer


@contextmanager
def run_metadata_server() -> Iterator[MetadataServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requested_paths.append(self.path)
            document = server.documents.get(self.path.removesuffix(WELL_KNOWN)) if WELL_KNOWN in self.path else None
            body = json.dumps(document or {}).encode()
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    server = MetadataServer("")
    with served_by(Handler) as base:
        server.base = base
        yield server
