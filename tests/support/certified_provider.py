"""The npm oidc-provider, or another one, in a separate process, controlled by commands in lines of JSON."""

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.external_tools import INTEROP

SECRET = "s3cret & more:/+%"
AUDITOR = {
    "client_id": "auditor",
    "client_secret": SECRET,
    "grant_types": [],
    "response_types": [],
    "redirect_uris": [],
}
"""A client that only introspects tokens."""


class ProviderProcess:
    """A running provider, with what each provider of the tests can do."""

    introspection_path = "/token/introspection"
    introspecting_client = AUDITOR["client_id"]

    def __init__(self, process: "subprocess.Popen[str]", *, ca_bundle: str) -> None:
        self._process = process
        self._context = ssl.create_default_context(cafile=ca_bundle)
        self.ca_bundle = ca_bundle
        started = self._read_answer()
        self.issuer: str = started["issuer"]
        self.origin = self.issuer
        self.code: str = started["code"]
        """The code of the second factor."""

    def configure(self, *clients: Mapping[str, Any], **options: Any) -> None:
        """Serve these clients. provider.mjs documents the options. Signing keys and issued tokens are kept."""
        self._send("configure", clients=[AUDITOR, *clients], **options)

    def tokens(self) -> list[tuple[str, str]]:
        """Return kind and value of every token issued since `configure`, oldest first."""
        return [(kind, value) for kind, value in self._observed("tokens")]

    def active_kinds(self) -> list[str]:
        """Return the kinds of the issued tokens that are active by introspection, oldest first."""
        return [kind for kind, value in self.tokens() if self.introspect(value)["active"]]

    def introspect(self, token: str) -> dict[str, Any]:
        """Introspect a token over TLS, without code of this package. Spec: RFC 7662."""
        basic = base64.b64encode(f"{self.introspecting_client}:{urlencode({'': SECRET})[1:]}".encode()).decode()
        request = urllib.request.Request(
            f"{self.issuer.rstrip('/')}{self.introspection_path}",
            data=urlencode({"token": token}).encode(),
            headers={"Authorization": f"Basic {basic}"},
        )
        with urllib.request.urlopen(request, context=self._context, timeout=20) as response:
            return dict(json.load(response))

    def _observed(self, name: str) -> list[Any]:
        return list(self._send("observed")[name])

    def _send(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "The provider has ended."}
        assert "error" not in answer, answer["error"]
        return dict(answer)


class CertifiedProvider(ProviderProcess):
    """The npm oidc-provider."""

    def configure(self, *clients: Mapping[str, Any], issuer_path: str = "", **options: Any) -> None:
        super().configure(*clients, issuer_path=issuer_path, **options)
        self.issuer = f"{self.origin}{issuer_path}"

    def rotate(self) -> None:
        """Replace the signing keys."""
        self._send("rotate")

    def forget_client_keys(self) -> None:
        """Fetch the clients' keys again at their next use."""
        self._send("forget_client_keys")

    def age_sessions(self, seconds: int) -> None:
        """Make all sessions older by that time."""
        self._send("age_sessions", seconds=seconds)

    def requests(self, path: str) -> int:
        """Return the number of requests for that path since `configure`, with any method."""
        return [line.partition(" ")[2] for line in self._observed("requests")].count(path)

    def fetched(self, url: str) -> int:
        """Return how often the provider itself fetched that URL since `configure`."""
        return self._observed("fetched").count(url)

    def assertions(self, path: str) -> list[str]:
        """Return the algorithms of the client assertions accepted at that path since `configure`."""
        return [alg for at, alg in self._observed("assertions") if at == path]


@contextmanager
def certified_provider(node: str, *, certificate: Path, ca_bundle: str) -> Iterator[CertifiedProvider]:
    """Run the provider. certificate: a PEM file with the key. ca_bundle: also used for what the provider fetches."""
    with subprocess.Popen(
        [node, str(INTEROP / "provider.mjs"), str(certificate)],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": ca_bundle},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield CertifiedProvider(process, ca_bundle=ca_bundle)
        finally:
            process.kill()
